"""The trace of a training: a digest of all weights after every step, and one of every tensor now and then.

Two trainings with equal traces had equal bits at every step, and where they part the trace says at which step and in
which tensor. A digest is the sum of all weights, read as integers, times odd numbers that differ from place to place,
modulo 2^32: integers add up to the same in any order, so it costs no ordering on a GPU. Different weights have equal
digests about once in 2^32 times.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def _terms(weights: Tensor) -> Tensor:
    """[.., P] of 32 or 64 bits -> int32 [.., P], whose sum is the digest."""
    bits = weights.view(torch.int32) if weights.element_size() == 4 else _folded(weights.view(torch.int64))
    place = torch.arange(bits.shape[-1], dtype=torch.int32, device=bits.device)
    # xor, for the compiler takes plain multiples of a place for an address, and then too large
    return (bits ^ ((bits >> 16) & 0xFFFF)) * (((place ^ 0x2545F491) * 0x3504F333) | 1)


def _folded(bits: Tensor) -> Tensor:
    return (bits ^ (bits >> 32)).to(torch.int32)


def digest(weights: Tensor) -> Tensor:
    """Weights [S, P] -> int32 [S]."""
    return _terms(weights).sum(-1, dtype=torch.int32)


def digests(weights: Tensor, sizes: Sequence[int]) -> Tensor:
    """Weights [S, P], which are tensors of these sizes one after the other -> int32 [S, tensors]."""
    return torch.stack([part.sum(-1, dtype=torch.int32) for part in _terms(weights).split(list(sizes), -1)], -1)
