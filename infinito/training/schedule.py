"""How runs are trained, and what every step gets: batches, keys of the noise, learning rate."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from infinito.seeds import noise_keys
from infinito.tasks import Data
from infinito.training.optimisers import Rates


@dataclass(frozen=True)
class Settings:
    """How a run is trained; the four rates may be a number for all runs or one number per run.

    dropout: None keeps the rates that the network was built with.
    keep: which weights count in the end: the last ones, or the best ones on validation at the points of the curve.
    """

    steps: int
    batch: int
    learning_rate: float | Sequence[float]
    warmup: int
    schedule: str
    weight_decay: float | Sequence[float]
    clip_norm: float | Sequence[float]
    curve_every: int
    dropout: Sequence[float] | None = None
    keep: str = "last"


def learning_rate(step: int, steps: int, warmup: int, schedule: str) -> float:
    """The factor on the learning rate at a step, counted from 0: linear warm-up, then constant or cosine to 0."""
    if step < warmup:
        return (step + 1) / warmup
    if schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def rates(settings: Settings, runs: int, device: torch.device) -> Rates:
    """The rates of S runs.

    Raises:
        ValueError: a per-run setting has another length than S.
    """

    def per_run(name: str) -> Tensor:
        value = torch.as_tensor(getattr(settings, name), dtype=torch.float32)
        if value.ndim and len(value) != runs:
            raise ValueError(f"{name}: {len(value)} values for {runs} runs")
        return value.expand(runs).contiguous().to(device)

    dropout = None if settings.dropout is None else per_run("dropout")
    return Rates(per_run("learning_rate"), per_run("weight_decay"), per_run("clip_norm"), dropout)


class Block(NamedTuple):
    """What K steps get; axis 0 is the step.

    inputs, targets: [K, S, B, ...]; keys: int32 [K, S, 2]; factor: [K], on the learning rates; corrections: [K, 2],
    1 - beta^t.
    """

    inputs: Tensor
    targets: Tensor
    keys: Tensor
    factor: Tensor
    corrections: Tensor


class Schedule:
    """What all steps get; data and noise seeds are S each, the data is on the device."""

    def __init__(
        self,
        data: Data,
        settings: Settings,
        data_seeds: Sequence[int],
        noise_seeds: Sequence[int],
        device: torch.device,
        betas: tuple[float, float],
    ) -> None:
        steps = settings.steps
        self.data = data
        order = [data.order(seed, steps, settings.batch) for seed in data_seeds]
        self.order = torch.stack(order, 1).to(device)  # [steps, S, B]
        self.keys = torch.stack([noise_keys(seed, steps) for seed in noise_seeds], 1).to(device)
        factor = [learning_rate(t, steps, settings.warmup, settings.schedule) for t in range(steps)]
        self.factor = torch.tensor(factor).to(device)
        powers = torch.arange(1, steps + 1, dtype=torch.float64)
        self.corrections = torch.stack([1 - beta**powers for beta in betas], -1).float().to(device)

    def block(self, first: int, steps: int) -> Block:
        """From step `first` on; behind the last step the last one stands again."""
        here = torch.arange(first, first + steps, device=self.order.device).clamp_(max=len(self.order) - 1)
        inputs, targets = self.data.batch(self.order[here])
        return Block(inputs, targets, self.keys[here], self.factor[here], self.corrections[here])
