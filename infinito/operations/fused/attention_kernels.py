"""Attention on a GPU in one pass: Triton kernels behind `attention.py`, where the equations stand.

A program of a small kernel holds one head of one example whole; the large ones go through it in tiles and never write
the weights (Dao et al. 2022, "FlashAttention", algorithm 1; Dao 2023, "FlashAttention-2", section 3.1, for the
gradient). Nothing is added by atomics, so equal inputs give equal bits.

`coin` [R, 3] and `scale` [R] are those of `noise.KeyedDropout` for R runs of B examples each.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from infinito.operations import noise
from infinito.operations.fused.attention import LONGEST_KEPT as TILE  # positions of a tile of the large kernels

FIRST: tl.constexpr = tl.constexpr(noise.FIRST)
SECOND: tl.constexpr = tl.constexpr(noise.SECOND)


@triton.jit
def _dropped(values, coin, scale, run, element):
    """values, 0 where the coin of the element falls so, else times scale: `KeyedDropout.forward`."""
    x = (element + tl.load(coin + run * 3)) * FIRST
    x = (x ^ ((x >> 15) & 0x1FFFF) ^ tl.load(coin + run * 3 + 1)) * SECOND
    return tl.where(x >= tl.load(coin + run * 3 + 2), values * tl.load(scale + run), 0.0)


@triton.jit
def _scores(q, k, rows, columns, T, factor, CAUSAL: tl.constexpr, PRECISION: tl.constexpr):
    """Scaled scores of a tile, -inf where nothing may be seen."""
    scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * factor
    seen = columns[None, :] < T
    if CAUSAL:
        seen = seen & (columns[None, :] <= rows[:, None])
    return tl.where(seen, scores, float("-inf"))


@triton.jit
def _small_forward(
    qkv, coin, scale, mixed, lse, weights, B, T, factor,
    H: tl.constexpr, D: tl.constexpr, BLOCK: tl.constexpr, WIDE: tl.constexpr, CAUSAL: tl.constexpr,
    DROPOUT: tl.constexpr, KEEP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    n, h = tl.program_id(0) // H, tl.program_id(0) % H
    t, d = tl.arange(0, BLOCK), tl.arange(0, WIDE)
    inside = (t[:, None] < T) & (d[None, :] < D)
    at = qkv + n.to(tl.int64) * T * 3 * H * D + t[:, None] * (3 * H * D) + h * D + d[None, :]
    q = tl.load(at, inside, 0.0)
    k = tl.load(at + H * D, inside, 0.0)
    v = tl.load(at + 2 * H * D, inside, 0.0)
    scores = _scores(q, k, t, t, T, factor, CAUSAL, PRECISION)
    top = tl.max(scores, 1)
    p = tl.exp(scores - top[:, None])
    total = tl.sum(p, 1)
    p = p / total[:, None]
    square = (t[:, None] < T) & (t[None, :] < T)
    if KEEP:
        place = weights + tl.program_id(0).to(tl.int64) * T * T
        tl.store(place + t[:, None] * T + t[None, :], p, square)
    if DROPOUT:
        p = _dropped(p, coin, scale, n // B, ((n % B * H + h) * T + t[:, None]) * T + t[None, :])
    out = tl.dot(p.to(v.dtype), v, input_precision=PRECISION)
    place = mixed + n.to(tl.int64) * T * H * D + t[:, None] * (H * D) + h * D + d[None, :]
    tl.store(place, out.to(mixed.dtype.element_ty), inside)
    tl.store(lse + tl.program_id(0) * T + t, top + tl.log(total), t < T)


@triton.jit
def _small_backward(
    gradient, weights_gradient, qkv, coin, scale, lse, result, B, T, factor,
    H: tl.constexpr, D: tl.constexpr, BLOCK: tl.constexpr, WIDE: tl.constexpr, CAUSAL: tl.constexpr,
    DROPOUT: tl.constexpr, KEEP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    n, h = tl.program_id(0) // H, tl.program_id(0) % H
    t, d = tl.arange(0, BLOCK), tl.arange(0, WIDE)
    inside = (t[:, None] < T) & (d[None, :] < D)
    offset = n.to(tl.int64) * T * 3 * H * D + t[:, None] * (3 * H * D) + h * D + d[None, :]
    q = tl.load(qkv + offset, inside, 0.0)
    k = tl.load(qkv + offset + H * D, inside, 0.0)
    v = tl.load(qkv + offset + 2 * H * D, inside, 0.0)
    place = gradient + n.to(tl.int64) * T * H * D + t[:, None] * (H * D) + h * D + d[None, :]
    g = tl.load(place, inside, 0.0)
    top = tl.load(lse + tl.program_id(0) * T + t, t < T, float("inf"))  # rows that are not there get weights of 0
    p = tl.exp(_scores(q, k, t, t, T, factor, CAUSAL, PRECISION) - top[:, None])
    into = tl.dot(g, tl.trans(v), input_precision=PRECISION)
    used = p
    if DROPOUT:
        element = ((n % B * H + h) * T + t[:, None]) * T + t[None, :]
        used = _dropped(p, coin, scale, n // B, element)
        into = _dropped(into, coin, scale, n // B, element)
    if KEEP:
        square = (t[:, None] < T) & (t[None, :] < T)
        place = weights_gradient + tl.program_id(0).to(tl.int64) * T * T
        into += tl.load(place + t[:, None] * T + t[None, :], square, 0.0)
    dv = tl.dot(tl.trans(used.to(g.dtype)), g, input_precision=PRECISION)
    ds = (p * (into - tl.sum(p * into, 1)[:, None]) * factor).to(q.dtype)
    dq = tl.dot(ds, k, input_precision=PRECISION)
    dk = tl.dot(tl.trans(ds), q, input_precision=PRECISION)
    kind = result.dtype.element_ty
    tl.store(result + offset, dq.to(kind), inside)
    tl.store(result + offset + H * D, dk.to(kind), inside)
    tl.store(result + offset + 2 * H * D, dv.to(kind), inside)


@triton.jit
def _large_forward(
    qkv, coin, scale, mixed, lse, B, T, factor,
    H: tl.constexpr, D: tl.constexpr, BLOCK: tl.constexpr, WIDE: tl.constexpr, CAUSAL: tl.constexpr,
    DROPOUT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    n, h = tl.program_id(0) // H, tl.program_id(0) % H
    start = tl.program_id(1) * BLOCK
    rows, d = start + tl.arange(0, BLOCK), tl.arange(0, WIDE)
    base = qkv + n.to(tl.int64) * T * 3 * H * D + h * D + d[None, :]
    inside = (rows[:, None] < T) & (d[None, :] < D)
    q = tl.load(base + rows[:, None] * (3 * H * D), inside, 0.0)
    top = tl.full([BLOCK], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    out = tl.zeros([BLOCK, WIDE], tl.float32)
    end = tl.minimum(start + BLOCK, T) if CAUSAL else T
    for first in range(0, end, BLOCK):
        columns = first + tl.arange(0, BLOCK)
        there = (columns[:, None] < T) & (d[None, :] < D)
        k = tl.load(base + H * D + columns[:, None] * (3 * H * D), there, 0.0)
        v = tl.load(base + 2 * H * D + columns[:, None] * (3 * H * D), there, 0.0)
        scores = _scores(q, k, rows, columns, T, factor, CAUSAL, PRECISION)
        higher = tl.maximum(top, tl.max(scores, 1))
        p = tl.exp(scores - higher[:, None])
        shrink = tl.exp(top - higher)
        total = total * shrink + tl.sum(p, 1)
        if DROPOUT:
            p = _dropped(p, coin, scale, n // B, ((n % B * H + h) * T + rows[:, None]) * T + columns[None, :])
        out = out * shrink[:, None] + tl.dot(p.to(v.dtype), v, input_precision=PRECISION)
        top = higher
    place = mixed + n.to(tl.int64) * T * H * D + rows[:, None] * (H * D) + h * D + d[None, :]
    tl.store(place, (out / total[:, None]).to(mixed.dtype.element_ty), inside)
    tl.store(lse + tl.program_id(0) * T + rows, top + tl.log(total), rows < T)


@triton.jit
def _large_backward_q(
    gradient, qkv, mixed, coin, scale, lse, delta, result, B, T, factor,
    H: tl.constexpr, D: tl.constexpr, BLOCK: tl.constexpr, WIDE: tl.constexpr, CAUSAL: tl.constexpr,
    DROPOUT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The gradient of the queries; leaves sum(gradient * mixed) of every row in delta for the other kernel."""
    n, h = tl.program_id(0) // H, tl.program_id(0) % H
    start = tl.program_id(1) * BLOCK
    rows, d = start + tl.arange(0, BLOCK), tl.arange(0, WIDE)
    offset = n.to(tl.int64) * T * 3 * H * D + h * D + d[None, :]
    inside = (rows[:, None] < T) & (d[None, :] < D)
    q = tl.load(qkv + offset + rows[:, None] * (3 * H * D), inside, 0.0)
    place = n.to(tl.int64) * T * H * D + rows[:, None] * (H * D) + h * D + d[None, :]
    g = tl.load(gradient + place, inside, 0.0)
    row = tl.sum(g.to(tl.float32) * tl.load(mixed + place, inside, 0.0).to(tl.float32), 1)
    tl.store(delta + tl.program_id(0) * T + rows, row, rows < T)
    top = tl.load(lse + tl.program_id(0) * T + rows, rows < T, float("inf"))
    dq = tl.zeros([BLOCK, WIDE], tl.float32)
    end = tl.minimum(start + BLOCK, T) if CAUSAL else T
    for first in range(0, end, BLOCK):
        columns = first + tl.arange(0, BLOCK)
        there = (columns[:, None] < T) & (d[None, :] < D)
        k = tl.load(qkv + offset + H * D + columns[:, None] * (3 * H * D), there, 0.0)
        v = tl.load(qkv + offset + 2 * H * D + columns[:, None] * (3 * H * D), there, 0.0)
        p = tl.exp(_scores(q, k, rows, columns, T, factor, CAUSAL, PRECISION) - top[:, None])
        into = tl.dot(g, tl.trans(v), input_precision=PRECISION)
        if DROPOUT:
            into = _dropped(into, coin, scale, n // B, ((n % B * H + h) * T + rows[:, None]) * T + columns[None, :])
        ds = p * (into - row[:, None]) * factor
        dq += tl.dot(ds.to(k.dtype), k, input_precision=PRECISION)
    tl.store(result + offset + rows[:, None] * (3 * H * D), dq.to(result.dtype.element_ty), inside)


@triton.jit
def _large_backward_kv(
    gradient, qkv, coin, scale, lse, delta, result, B, T, factor,
    H: tl.constexpr, D: tl.constexpr, BLOCK: tl.constexpr, WIDE: tl.constexpr, CAUSAL: tl.constexpr,
    DROPOUT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    n, h = tl.program_id(0) // H, tl.program_id(0) % H
    start = tl.program_id(1) * BLOCK
    columns, d = start + tl.arange(0, BLOCK), tl.arange(0, WIDE)
    offset = n.to(tl.int64) * T * 3 * H * D + h * D + d[None, :]
    there = (columns[:, None] < T) & (d[None, :] < D)
    k = tl.load(qkv + offset + H * D + columns[:, None] * (3 * H * D), there, 0.0)
    v = tl.load(qkv + offset + 2 * H * D + columns[:, None] * (3 * H * D), there, 0.0)
    dk = tl.zeros([BLOCK, WIDE], tl.float32)
    dv = tl.zeros([BLOCK, WIDE], tl.float32)
    begin = start if CAUSAL else 0
    for first in range(begin, T, BLOCK):
        rows = first + tl.arange(0, BLOCK)
        inside = (rows[:, None] < T) & (d[None, :] < D)
        q = tl.load(qkv + offset + rows[:, None] * (3 * H * D), inside, 0.0)
        place = n.to(tl.int64) * T * H * D + rows[:, None] * (H * D) + h * D + d[None, :]
        g = tl.load(gradient + place, inside, 0.0)
        top = tl.load(lse + tl.program_id(0) * T + rows, rows < T, float("inf"))
        row = tl.load(delta + tl.program_id(0) * T + rows, rows < T, 0.0)
        p = tl.exp(_scores(q, k, rows, columns, T, factor, CAUSAL, PRECISION) - top[:, None])
        into = tl.dot(g, tl.trans(v), input_precision=PRECISION)
        used = p
        if DROPOUT:
            element = ((n % B * H + h) * T + rows[:, None]) * T + columns[None, :]
            used = _dropped(p, coin, scale, n // B, element)
            into = _dropped(into, coin, scale, n // B, element)
        dv += tl.dot(tl.trans(used.to(g.dtype)), g, input_precision=PRECISION)
        ds = p * (into - row[:, None]) * factor
        dk += tl.dot(tl.trans(ds.to(q.dtype)), q, input_precision=PRECISION)
    place = result + offset + columns[:, None] * (3 * H * D)
    tl.store(place + H * D, dk.to(result.dtype.element_ty), there)
    tl.store(place + 2 * H * D, dv.to(result.dtype.element_ty), there)


def _shape(qkv: Tensor, coin: Tensor | None, heads: int, causal: bool) -> dict[str, object]:
    """What all kernels have to know."""
    n, length, three = qkv.shape
    wide = three // 3 // heads
    exact = qkv.dtype == torch.float32 and not torch.backends.cuda.matmul.allow_tf32
    return {
        "B": 1 if coin is None else n // coin.shape[0],
        "T": length,
        "factor": wide**-0.5,
        "H": heads,
        "D": wide,
        "WIDE": max(16, triton.next_power_of_2(wide)),
        "CAUSAL": causal,
        "DROPOUT": coin is not None,
        "PRECISION": "ieee" if exact else "tf32",
    }


def forward(
    qkv: Tensor, coin: Tensor | None, scale: Tensor | None, heads: int, causal: bool, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """qkv [N, T, 3D] -> mixed [N, T, D], logarithms of the sums of exponentials [N, H, T], weights [N, H, T, T] or [N].

    All contiguous.
    """
    n, length, three = qkv.shape
    mixed = qkv.new_empty(n, length, three // 3)
    lse = qkv.new_empty(n, heads, length, dtype=torch.float32)
    weights = qkv.new_empty((n, heads, length, length) if keep else (n,), dtype=torch.float32)
    shape = _shape(qkv, coin, heads, causal)
    if length <= TILE:
        block = max(16, triton.next_power_of_2(length))
        _small_forward[(n * heads,)](
            qkv, coin, scale, mixed, lse, weights, BLOCK=block, KEEP=keep, num_warps=max(1, block // 32), **shape
        )
    elif keep:
        raise ValueError(f"attention: the weights of {length} positions; allowed: {TILE} at most")
    else:
        grid = (n * heads, triton.cdiv(length, TILE))  # the second one may be 65,535 at most
        _large_forward[grid](qkv, coin, scale, mixed, lse, BLOCK=TILE, num_warps=4, **shape)
    return mixed, lse, weights


def backward(
    gradient: Tensor | None,
    weights_gradient: Tensor | None,
    qkv: Tensor,
    coin: Tensor | None,
    scale: Tensor | None,
    mixed: Tensor,
    lse: Tensor,
    heads: int,
    causal: bool,
) -> Tensor:
    """The gradient of qkv, [N, T, 3D]."""
    n, length, _ = qkv.shape
    gradient = torch.zeros_like(mixed) if gradient is None else gradient
    result = torch.empty_like(qkv)
    shape = _shape(qkv, coin, heads, causal)
    if length <= TILE:
        block = max(16, triton.next_power_of_2(length))
        _small_backward[(n * heads,)](
            gradient, weights_gradient, qkv, coin, scale, lse, result,
            BLOCK=block, KEEP=weights_gradient is not None, num_warps=max(1, block // 32), **shape,
        )  # fmt: skip
    else:
        grid = (n * heads, triton.cdiv(length, TILE))  # the second one may be 65,535 at most
        delta = torch.empty_like(lse)
        how = {"BLOCK": TILE, "num_warps": 4} | shape
        _large_backward_q[grid](gradient, qkv, mixed, coin, scale, lse, delta, result, **how)
        _large_backward_kv[grid](gradient, qkv, coin, scale, lse, delta, result, **how)
    return result
