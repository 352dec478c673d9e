"""Cross-entropy on a GPU: Triton kernels behind `cross_entropy.py`. Nothing is added by atomics.

Forward, a program goes through the logits of one token and keeps maximum and sum as it goes (Milakov & Gimelshein 2018,
"Online normalizer calculation for softmax"). Backward, a program has ROWS tokens and COLUMNS words; it also sums its
columns, of which the gradient of the bias is then made.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from infinito.tasks.split import IGNORE

NONE: tl.constexpr = tl.constexpr(IGNORE)
BLOCK, ROWS, COLUMNS = 4096, 32, 256


@triton.jit
def _forward(products, bias, targets, nats, lse, per_run, V, W, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    x = products + row.to(tl.int64) * W
    b = bias + (row // per_run).to(tl.int64) * V
    column = tl.arange(0, BLOCK)
    top = tl.full([BLOCK], -1e38, tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    for first in range(0, V, BLOCK):  # every lane for itself
        inside = first + column < V
        value = tl.load(x + first + column, inside, 0.0).to(tl.float32) + tl.load(b + first + column, inside, 0.0)
        value = tl.where(inside, value, float("-inf"))
        higher = tl.maximum(top, value)
        total = total * tl.exp(top - higher) + tl.exp(value - higher)
        top = higher
    highest = tl.max(top, 0)
    result = highest + tl.log(tl.sum(total * tl.exp(top - highest), 0))
    target = tl.load(targets + row)
    counts = target != NONE
    picked = tl.load(x + target, counts, 0.0).to(tl.float32) + tl.load(b + target, counts, 0.0)
    tl.store(lse + row, result)
    tl.store(nats + row, tl.where(counts, result - picked, 0.0))


@triton.jit
def _backward(
    gradient, products, bias, targets, lse, result, sums, per_run, V, W, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    run, chunk = tl.program_id(2), tl.program_id(1)
    row = chunk * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    there = row < per_run
    row = run * per_run + row
    target = tl.load(targets + row, there, NONE)
    g = tl.where(target != NONE, tl.load(gradient + row, there, 0.0), 0.0)
    place = row[:, None].to(tl.int64) * W + column[None, :]
    value = tl.load(products + place, there[:, None] & (column[None, :] < V), 0.0).to(tl.float32)
    value += tl.load(bias + run.to(tl.int64) * V + column, column < V, 0.0)[None, :]
    share = tl.exp(value - tl.load(lse + row, there, 0.0)[:, None])
    share = tl.where(target[:, None] == column[None, :], share - 1.0, share) * g[:, None]
    share = tl.where(there[:, None] & (column[None, :] < V), share, 0.0)
    tl.store(result + place, share.to(result.dtype.element_ty), there[:, None] & (column[None, :] < W))
    part = sums + (run * tl.num_programs(1) + chunk).to(tl.int64) * V + column
    tl.store(part, tl.sum(share, 0), column < V)


def forward(products: Tensor, bias: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """products [N, T, W], bias [runs, V], targets [N, T] -> nats and logarithms of the sums, float32 [N, T]."""
    nats = torch.empty_like(targets, dtype=torch.float32)
    lse = torch.empty_like(nats)
    rows, words = targets.numel(), bias.shape[1]
    _forward[(rows,)](
        products, bias, targets, nats, lse, rows // len(bias), words, products.shape[-1], BLOCK=BLOCK, num_warps=8
    )
    return nats, lse


def backward(gradient: Tensor, products: Tensor, bias: Tensor, targets: Tensor, lse: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of products and bias."""
    result = torch.empty_like(products)
    rows, (runs, words), width = targets.numel() // len(bias), bias.shape, products.shape[-1]
    chunks = triton.cdiv(rows, ROWS)
    sums = bias.new_empty(runs, chunks, words)
    _backward[(triton.cdiv(width, COLUMNS), chunks, runs)](
        gradient, products, bias, targets, lse, result, sums, rows, words, width,
        ROWS=ROWS, COLUMNS=COLUMNS, num_warps=4,
    )  # fmt: skip
    return result, sums.sum(1)
