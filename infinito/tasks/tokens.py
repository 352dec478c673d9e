"""Predicting tokens: integer inputs and targets [B, T], logits [B, T, V], and the cross-entropy of every token."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from infinito.tasks.split import IGNORE
from infinito.tasks.task import Measured, Metric


def token_nats(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of every token in nats, log sum_v exp(x_v) - x_target.

    0 where the target is IGNORE; [..., V] and [...] -> [...]. The target's logit is picked by comparison, not by index:
    the gradient then has no scatter, whose order of additions is not fixed on a GPU.
    """
    # half precision is too coarse for a loss
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    hit = targets[..., None] == torch.arange(logits.shape[-1], device=logits.device)
    # a difference of two sums and not log_softmax, whose gradient reads the logits once more
    picked = torch.where(hit, logits, 0.0).sum(-1)
    return torch.where(targets == IGNORE, 0.0, torch.logsumexp(logits, -1) - picked)


def smoothed_nats(logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    """As `token_nats` with targets of which a share `smoothing` is spread over all words (Szegedy et al. 2016)."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    spread = torch.where(targets == IGNORE, 0.0, torch.logsumexp(logits, -1) - logits.mean(-1))
    return (1 - smoothing) * token_nats(logits, targets) + smoothing * spread


def losses(logits: Tensor, targets: Tensor) -> Measured:
    """Nats of every token, and whether it is scored; [B, T, V], [B, T] -> [B, T] each."""
    return token_nats(logits, targets), targets != IGNORE


@dataclass(frozen=True)
class Tokens:
    """The task of a vocabulary and a length; see `infinito.tasks.Task`.

    Args:
        vocabulary, length: V, T.
        causal: whether a position may only see itself and earlier ones.
        exact: whether examples have an end, so that all of one can be right.
    """

    vocabulary: int
    length: int
    causal: bool
    exact: bool
    averaged: Literal["probabilities"] = "probabilities"
    losses = staticmethod(losses)

    @property
    def given(self) -> Mapping[str, Any]:
        return {"vocabulary": self.vocabulary, "length": self.length, "causal": self.causal}

    @property
    def output(self) -> tuple[int, ...]:
        return (self.length, self.vocabulary)

    @property
    def metric(self) -> Metric:
        return Metric("loss", "nats per token", "lower", guess=math.log(self.vocabulary))

    @property
    def scores(self) -> Mapping[str, Metric]:
        found = {"accuracy": Metric("accuracy", "share of tokens", "higher", 0.0, (0, 1), "Accuracy on scored tokens")}
        if self.exact:
            found["exact"] = Metric("exact", "share of examples", "higher", 0.0, (0, 1), "Examples wholly right")
        return found

    def smoothed(self, logits: Tensor, targets: Tensor, smoothing: float) -> Measured:
        return smoothed_nats(logits, targets, smoothing), targets != IGNORE

    def measure(self, logits: Tensor, targets: Tensor) -> dict[str, Measured]:
        scored = targets != IGNORE
        correct = (logits.argmax(-1) == targets) & scored
        found = {"accuracy": (correct, scored)}
        if self.exact:
            right = correct.sum(-1) == scored.sum(-1)
            found["exact"] = (right, torch.ones_like(right))
        return found
