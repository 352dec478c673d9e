"""Cross-entropy of every token in nats (`infinito.tasks.tokens`) by kernels, for a large vocabulary.

With a large vocabulary the logits x are the largest tensor of a step by far. Plain code goes through them six times;
the kernels (`cross_entropy_kernels.py`) read them once forward, and read them and write their gradient once backward,
with the bias of the vocabulary and its gradient on the way.
"""

from typing import Any

import torch
from torch import Tensor

from infinito.operations.fused import operator


def fused_token_nats(products: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    """As `token_nats` of products + bias, on a GPU with Triton.

    Args:
        products: [B, T, W]; what is beyond the vocabulary is not read, and its gradient is 0.
        bias: float32 [V], V <= W.
        targets: int64 [B, T].

    Returns:
        float32 [B, T].
    """
    nats, _ = cross_entropy(products, bias[None], targets)
    return nats


def _forward_shapes(products: Tensor, bias: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
    return (
        products.new_empty(targets.shape, dtype=torch.float32),
        products.new_empty(targets.shape, dtype=torch.float32),
    )


def _backward_shapes(gradient: Tensor, products: Tensor, bias: Tensor, *others: Any) -> tuple[Tensor, ...]:
    return products.new_empty(products.shape), bias.new_empty(bias.shape)


KERNELS = "infinito.operations.fused.cross_entropy_kernels"
# N examples, the runs one after the other: products [N, T, W], bias [runs, V], targets [N, T] -> nats [N, T],
# logarithms of the softmax's sums [N, T]
cross_entropy = operator.define(
    "cross_entropy",
    operator.Kernel(
        "(Tensor products, Tensor bias, Tensor targets) -> (Tensor, Tensor)",
        operator.late(KERNELS, "forward"),
        _forward_shapes,
    ),
    operator.Kernel(
        "(Tensor gradient, Tensor products, Tensor bias, Tensor targets, Tensor lse) -> (Tensor, Tensor)",
        operator.late(KERNELS, "backward"),
        _backward_shapes,
    ),
    saved=lambda arguments, results: ((*arguments, results[1]), ()),
    differentiable=(0,),
)
