"""What a task says of itself, and what a prepared one offers in memory.

Shapes: B examples of a batch, N of a split; `...` is whatever the task's inputs, targets and outputs look like.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from infinito.tasks.split import Split

Measured = tuple[Tensor, Tensor]  # values and their weights, the same shape [B, ...] each


@dataclass(frozen=True)
class Metric:
    """A figure of a run: the mean over examples of what a task measures, and the words for it.

    Args:
        name: "loss", "accuracy".
        unit: "nats per token", "share of images".
        better: lower or higher. The metric of a task is its loss; where higher is better, it is the negative of it.
        guess: what a model has that has learned nothing; a diverged run counts with it.
        bounds: between which the figure lies in any case.
        title: for a table; None: the name.
    """

    name: str
    unit: str
    better: Literal["lower", "higher"]
    guess: float
    bounds: tuple[float, float] | None = None
    title: str | None = None

    @property
    def sign(self) -> int:
        """By which a figure is multiplied so that lower is better."""
        return 1 if self.better == "lower" else -1

    def __str__(self) -> str:
        return f"{self.name}, {self.unit}"


class Measures(Protocol):
    """The words for what is measured."""

    @property
    def metric(self) -> Metric:
        """What decides."""

    @property
    def scores(self) -> Mapping[str, Metric]:
        """What is measured besides, by name."""


class Task(Measures, Protocol):
    """What is learned. A user's own task is a class like this, named `package.module:Task` (docs/tasks.md)."""

    @property
    def given(self) -> Mapping[str, Any]:
        """What the network's constructor is given."""

    @property
    def output(self) -> tuple[int, ...]:
        """Shape of what the network gives for one example; the last axis counts the outputs."""

    @property
    def metric(self) -> Metric:
        """What the mean of `losses` is called."""

    @property
    def scores(self) -> Mapping[str, Metric]:
        """What is measured besides, by name."""

    @property
    def averaged(self) -> Literal["probabilities", "outputs"] | None:
        """What the members of an ensemble average."""

    def losses(self, outputs: Tensor, targets: Tensor) -> Measured:
        """What is learned from: the loss of every part of every example [B, ...], and the weight of each.

        The loss of a batch, and of a whole split, is the sum of the losses by that of the weights. A loss whose weight
        is 0 is 0. Where an ensemble averages probabilities, losses are -ln of the target's probability.
        """
        ...

    def measure(self, outputs: Tensor, targets: Tensor) -> dict[str, Measured]:
        """The further scores of every example, by name, as `losses` gives the loss."""
        ...


class Data(Protocol):
    """A prepared task in memory: its examples, and in which order a data seed gives them."""

    @property
    def task(self) -> Task:
        """What is learned."""

    @property
    def sha256(self) -> str:
        """Of the manifest, which holds the hashes of all files."""

    @property
    def validation(self) -> Split:
        """What a run is looked at while it trains."""

    @property
    def test(self) -> Split:
        """What a run is judged by."""

    def order(self, data_seed: int, steps: int, batch: int) -> Tensor:
        """Which training examples come when: int64 [steps, batch]."""
        ...

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The examples named by `order`: int64 [...] -> inputs [..., *shape], targets [..., *shape]."""
        ...

    def to(self, device: torch.device) -> "Data":
        """The same data on a device."""
        ...


def label_smoothing(task: Task) -> bool:
    """Whether a task has labels that can be smoothed: then it has a method `smoothed(outputs, targets, smoothing)`."""
    return callable(getattr(task, "smoothed", None))
