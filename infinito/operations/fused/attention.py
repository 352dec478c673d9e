"""Scaled dot-product attention with dropout on the weights (Vaswani et al. 2017, equation 1).

For a head with queries, keys and values q, k, v [T, d], weights = softmax(q k' / sqrt(d)) and mixed = dropout(weights)
v. On a CPU that is what runs. Small heads are limited by memory on a GPU, where the four products, the softmax and the
dropout of a step, forward and backward, read and write the [T, T] weights a dozen times; there two kernels do all of it
in registers, with the same coins (`attention_kernels.py`).
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from infinito.operations.fused import operator
from infinito.operations.noise import KeyedDropout, NoDropout

LONGEST_KEPT = 64  # positions up to which the kernels can also give the weights
WIDEST = 128  # numbers of a head that fit in registers


def attend(
    qkv: Tensor, heads: int, causal: bool, dropout: nn.Module, keep_weights: bool
) -> tuple[Tensor, Tensor | None]:
    """Mix the values of every head.

    Args:
        qkv: queries, keys and values of all heads in a row, [B, T, 3D].
        heads: H, a divisor of D.
        causal: whether a position sees only itself and earlier ones.
        dropout: applied to the weights [B, H, T, T]; none, `nn.Dropout`, or `KeyedDropout`.
        keep_weights: whether the weights are wanted.

    Returns:
        mixed [B, T, D]; the weights before dropout, float32 [B, H, T, T], or None.
    """
    B, T, width = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
    fits = width // heads <= WIDEST and (T <= LONGEST_KEPT or not keep_weights) and qkv.dtype != torch.float64
    if qkv.is_cuda and operator.HAS_KERNELS and fits and _known(dropout):
        coin = scale = None
        if isinstance(dropout, KeyedDropout) and dropout.training:
            coin, scale = dropout.coin()[None], dropout.scale()[None]
        elif type(dropout) is nn.Dropout and dropout.p > 0 and dropout.training:
            coin, scale = coin_of_torch(dropout.p, qkv.device)
        mixed, _, kept = attention(qkv, coin, scale, heads, causal, keep_weights)
        return mixed, kept if keep_weights else None

    q, k, v = qkv.view(B, T, 3, heads, -1).permute(2, 0, 3, 1, 4)
    scores = (q / math.sqrt(width // heads)) @ k.transpose(-2, -1)
    if causal:
        position = torch.arange(T, device=qkv.device)
        scores = scores.masked_fill(position[None, :] > position[:, None], -torch.inf)
    weights = torch.softmax(scores, dim=-1)
    mixed = (dropout(weights) @ v).transpose(1, 2).reshape(B, T, width)
    return mixed, weights if keep_weights else None


def _known(dropout: nn.Module) -> bool:
    """Whether the kernel can toss its coins."""
    if isinstance(dropout, KeyedDropout | NoDropout | nn.Identity) or not dropout.training:
        return True
    return type(dropout) is nn.Dropout and dropout.p < 1


def coin_of_torch(rate: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """A coin whose key is drawn from torch's own generator, int32 [1, 3], and the scale that goes with it, [1]."""
    key = torch.randint(2**31 - 1, (2,), dtype=torch.int32, device=device)
    lowest_kept = torch.full((1,), int(rate * 2.0**32 - 2.0**31), dtype=torch.int32, device=device)
    return torch.cat([key, lowest_kept])[None], torch.full((1,), 1 / (1 - rate), device=device)


def _forward_shapes(qkv: Tensor, coin: Any, scale: Any, heads: int, causal: bool, keep: bool) -> tuple[Tensor, ...]:
    n, length, three = qkv.shape
    return (
        qkv.new_empty(n, length, three // 3),
        qkv.new_empty(n, heads, length, dtype=torch.float32),
        qkv.new_empty((n, heads, length, length) if keep else (n,), dtype=torch.float32),
    )


def _backward_shapes(gradient: Any, weights_gradient: Any, qkv: Tensor, *others: Any) -> Tensor:
    return qkv.new_empty(qkv.shape)


KERNELS = "infinito.operations.fused.attention_kernels"
# N examples, the runs one after the other: qkv [N, T, 3D], coin [runs, 3], scale [runs] -> mixed [N, T, D], logarithms
# of the softmax's sums [N, H, T], weights [N, H, T, T] or, if they are not kept, [N]
attention = operator.define(
    "attention",
    operator.Kernel(
        "(Tensor qkv, Tensor? coin, Tensor? scale, int heads, bool causal, bool keep) -> (Tensor, Tensor, Tensor)",
        operator.late(KERNELS, "forward"),
        _forward_shapes,
    ),
    operator.Kernel(
        "(Tensor? gradient, Tensor? weights_gradient, Tensor qkv, Tensor? coin, Tensor? scale, Tensor mixed, "
        "Tensor lse, int heads, bool causal) -> Tensor",
        operator.late(KERNELS, "backward"),
        _backward_shapes,
    ),
    saved=lambda arguments, results: ((*arguments[:3], *results[:2]), arguments[3:5]),
    differentiable=(0, 2),
)
