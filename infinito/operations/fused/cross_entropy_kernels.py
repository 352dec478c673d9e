"""Cross-entropy on a GPU: Triton kernels behind `cross_entropy.py`. Nothing is added by atomics.

Forward, a program goes through the logits of ROWS tokens, COLUMNS words at a time, and keeps maximum and sum as it
goes (Milakov & Gimelshein 2018, "Online normalizer calculation for softmax"). Backward, a program has ROWS tokens and
COLUMNS words; it also sums its columns, of which the gradient of the bias is then made.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from infinito.tasks.split import IGNORE

NONE: tl.constexpr = tl.constexpr(IGNORE)
# tokens and words of a program: the fastest on an H100 (benchmarks/results/cross_entropy_h100.json)
FORWARD, BACKWARD = (2, 1024), (32, 128)


@triton.jit
def _forward(products, bias, targets, nats, lse, per_run, V, W, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    run = tl.program_id(1)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    there = row < per_run
    row = run * per_run + row
    x = products + row.to(tl.int64) * W
    b = bias + run.to(tl.int64) * V
    column = tl.arange(0, COLUMNS)
    top = tl.full([ROWS], -1e38, tl.float32)
    total = tl.zeros([ROWS, COLUMNS], tl.float32)
    for first in range(0, V, COLUMNS):  # every lane adds up for itself
        inside = first + column < V
        value = tl.load(x[:, None] + first + column[None, :], there[:, None] & inside[None, :], 0.0).to(tl.float32)
        value += tl.load(b + first + column, inside, 0.0)[None, :]
        value = tl.where(inside[None, :], value, float("-inf"))
        higher = tl.maximum(top, tl.max(value, 1))
        total = total * tl.exp(top - higher)[:, None] + tl.exp(value - higher[:, None])
        top = higher
    result = top + tl.log(tl.sum(total, 1))
    target = tl.load(targets + row, there, NONE)
    counts = target != NONE
    picked = tl.load(x + target, counts, 0.0).to(tl.float32) + tl.load(b + target, counts, 0.0)
    tl.store(lse + row, result, there)
    tl.store(nats + row, tl.where(counts, result - picked, 0.0), there)


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
    rows, (runs, words), (row, columns) = targets.numel() // len(bias), bias.shape, FORWARD
    _forward[(triton.cdiv(rows, row), runs)](
        products, bias, targets, nats, lse, rows, words, products.shape[-1], ROWS=row, COLUMNS=columns, num_warps=4
    )
    return nats, lse


def backward(gradient: Tensor, products: Tensor, bias: Tensor, targets: Tensor, lse: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of products and bias."""
    result = torch.empty_like(products)
    rows, (runs, words), width = targets.numel() // len(bias), bias.shape, products.shape[-1]
    row, columns = BACKWARD
    chunks = triton.cdiv(rows, row)
    sums = bias.new_empty(runs, chunks, words)
    _backward[(triton.cdiv(width, columns), chunks, runs)](
        gradient, products, bias, targets, lse, result, sums, rows, words, width,
        ROWS=row, COLUMNS=columns, num_warps=2,
    )  # fmt: skip
    return result, sums.sum(1)
