"""Tasks on arrays: one class an example, several labels an example, or numbers.

Shapes: B examples; C classes, L labels, K values.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from infinito.tasks.task import Measured, Metric
from infinito.tasks.tokens import smoothed_nats, token_nats


def _each(values: Tensor) -> Measured:
    """All parts of all examples count the same."""
    return values, torch.ones_like(values, dtype=torch.float32)


def label_nats(logits: Tensor, targets: Tensor) -> Tensor:
    """-ln of the probability of every right value, 0 or 1, where sigmoid(logit) is that of 1; [B, L] -> [B, L]."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return F.softplus(torch.where(targets > 0.5, -logits, logits))


@dataclass(frozen=True)
class Classes:
    """One class an example: logits [B, C], targets int64 [B]; see `infinito.tasks.Task`."""

    shape: tuple[int, ...]
    classes: int
    example: str  # what an example is called: image, example
    averaged: Literal["probabilities"] = "probabilities"

    @property
    def given(self) -> Mapping[str, Any]:
        return {"shape": self.shape, "classes": self.classes}

    @property
    def output(self) -> tuple[int, ...]:
        return (self.classes,)

    @property
    def metric(self) -> Metric:
        return Metric("loss", f"nats per {self.example}", "lower", guess=math.log(self.classes))

    @property
    def scores(self) -> Mapping[str, Metric]:
        return {"accuracy": Metric("accuracy", f"share of {self.example}s", "higher", 0.0, (0, 1), "Accuracy")}

    def losses(self, logits: Tensor, targets: Tensor) -> Measured:
        return _each(token_nats(logits, targets))

    def smoothed(self, logits: Tensor, targets: Tensor, smoothing: float) -> Measured:
        return _each(smoothed_nats(logits, targets, smoothing))

    def measure(self, logits: Tensor, targets: Tensor) -> dict[str, Measured]:
        return {"accuracy": _each(logits.argmax(-1) == targets)}


@dataclass(frozen=True)
class Labels:
    """Several labels an example, each 0 or 1: logits and targets [B, L]; see `infinito.tasks.Task`."""

    shape: tuple[int, ...]
    labels: int
    example: str
    averaged: Literal["probabilities"] = "probabilities"

    @property
    def given(self) -> Mapping[str, Any]:
        return {"shape": self.shape, "labels": self.labels}

    @property
    def output(self) -> tuple[int, ...]:
        return (self.labels,)

    @property
    def metric(self) -> Metric:
        return Metric("loss", "nats per label", "lower", guess=math.log(2))

    @property
    def scores(self) -> Mapping[str, Metric]:
        return {
            "accuracy": Metric("accuracy", "share of labels", "higher", 0.0, (0, 1), "Accuracy on labels"),
            "exact": Metric("exact", f"share of {self.example}s", "higher", 0.0, (0, 1), "All labels right"),
        }

    def losses(self, logits: Tensor, targets: Tensor) -> Measured:
        return _each(label_nats(logits, targets))

    def smoothed(self, logits: Tensor, targets: Tensor, smoothing: float) -> Measured:
        right, wrong = label_nats(logits, targets), label_nats(logits, 1 - targets)
        return _each((1 - smoothing / 2) * right + smoothing / 2 * wrong)

    def measure(self, logits: Tensor, targets: Tensor) -> dict[str, Measured]:
        right = (logits > 0) == (targets > 0.5)
        return {"accuracy": _each(right), "exact": _each(right.all(-1))}


@dataclass(frozen=True)
class Values:
    """Numbers to be predicted: outputs and targets [B, K]; see `infinito.tasks.Task`.

    Args:
        shape: of one example.
        outputs: K.
        standardised: whether the targets have mean 0 and variance 1 on the training split.
        variance: of the targets there, mean over outputs, if not standardised; the loss of always saying the mean.
        scale: by which an error of every output [K] is multiplied to be stated: in the target's own unit where there is
            one, else in standard deviations of each.
        deviation: mean absolute deviation from the mean there, so stated, mean over outputs.
    """

    shape: tuple[int, ...]
    outputs: int
    standardised: bool
    variance: float
    scale: tuple[float, ...]
    deviation: float
    averaged: Literal["outputs"] = "outputs"

    @property
    def given(self) -> Mapping[str, Any]:
        return {"shape": self.shape, "outputs": self.outputs}

    @property
    def output(self) -> tuple[int, ...]:
        return (self.outputs,)

    @property
    def metric(self) -> Metric:
        if self.standardised:
            return Metric("squared error", "variances of the target", "lower", guess=1.0)
        return Metric("squared error", "squared units of the target", "lower", guess=self.variance)

    @property
    def scores(self) -> Mapping[str, Metric]:
        unit = "units of the target" if self.outputs == 1 else "standard deviations of the targets"
        return {"absolute_error": Metric("absolute_error", unit, "lower", self.deviation, None, "Mean absolute error")}

    def losses(self, outputs: Tensor, targets: Tensor) -> Measured:
        return _each((outputs.to(torch.promote_types(outputs.dtype, torch.float32)) - targets).square())

    def measure(self, outputs: Tensor, targets: Tensor) -> dict[str, Measured]:
        scale = torch.tensor(self.scale, device=outputs.device)
        return {"absolute_error": _each((outputs - targets).abs() * scale)}
