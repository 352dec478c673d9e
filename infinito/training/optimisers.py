"""The optimisers, for any number of runs at once: every row of a tensor is a run, with rates of its own.

Each is the one of torch.optim of that name, step by step; `tests/training/test_optimisers.py` holds them against it.

Shapes: S runs, P numbers of a run's row, in which its tensors lie one after the other (`Layout`).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from infinito import params


class Rates(NamedTuple):
    """What stays the same from step to step, one number per run, [S] each; dropout may be None."""

    learning_rate: Tensor
    weight_decay: Tensor
    clip_norm: Tensor
    dropout: Tensor | None


@dataclass(frozen=True)
class Layout:
    """Which tensors lie in a row, in this order, and what kind each of them is.

    Args:
        shapes: of the tensors.
        sizes: numbers in the row, with what fills a tensor up.
        kinds: "matrix" (of a hidden layer), "embedding", "head" (gives the outputs) or "other" (biases, norms).
    """

    shapes: Sequence[torch.Size]
    sizes: Sequence[int]
    kinds: Sequence[str]

    def parts(self, row: Tensor) -> Iterator[tuple[int, torch.Size, Tensor]]:
        """Every tensor of rows [S, P], flat and with its filling [S, size]: its number, its shape, itself."""
        for number, (shape, part) in enumerate(zip(self.shapes, row.split(list(self.sizes), dim=-1), strict=True)):
            yield number, shape, part

    def where(self, device: torch.device, *kinds: str) -> Tensor:
        """bool [P]: whether a number is of a tensor of these kinds."""
        pairs = zip(self.sizes, self.kinds, strict=True)
        return torch.cat([torch.full((size,), kind in kinds, device=device) for size, kind in pairs])


Updated = tuple[Tensor, Tensor, Tensor]  # new weights and the two moments, [S, P] each


class Optimiser(Protocol):
    """One step of all runs; what it remembers fits into two rows, which begin as zeros."""

    @property
    def betas(self) -> tuple[float, float]:
        """Of the corrections."""

    def update(
        self,
        weights: Tensor,
        gradient: Tensor,
        first: Tensor,
        second: Tensor,
        learning_rate: Tensor,
        decay: Tensor,
        corrections: Tensor,
        layout: Layout,
    ) -> Updated:
        """All but the rates [S, P]; learning_rate [S, 1]; decay [S, 1] or [S, P]; corrections [2], 1 - beta^t."""
        ...


@dataclass(frozen=True)
class AdamW:
    """Loshchilov & Hutter 2019."""

    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8

    def update(
        self,
        weights: Tensor,
        gradient: Tensor,
        first: Tensor,
        second: Tensor,
        learning_rate: Tensor,
        decay: Tensor,
        corrections: Tensor,
        layout: Layout,
    ) -> Updated:
        mean = first.lerp(gradient, 1 - self.betas[0])
        square = second * self.betas[1] + gradient.square() * (1 - self.betas[1])
        scale = square.sqrt() / corrections[1].sqrt() + self.epsilon
        decayed = weights * (1 - learning_rate * decay)
        return decayed - learning_rate / corrections[0] * (mean / scale), mean, square


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent with momentum (Polyak 1964) or Nesterov's, decay in the gradient, as torch has it."""

    momentum: float
    nesterov: bool
    betas: tuple[float, float] = (0.0, 0.0)  # nothing is corrected

    def update(
        self,
        weights: Tensor,
        gradient: Tensor,
        first: Tensor,
        second: Tensor,
        learning_rate: Tensor,
        decay: Tensor,
        corrections: Tensor,
        layout: Layout,
    ) -> Updated:
        gradient = gradient + decay * weights
        speed = self.momentum * first + gradient
        step = gradient + self.momentum * speed if self.nesterov else speed
        return weights - learning_rate * step, speed, second


COEFFICIENTS, ITERATIONS, SMALLEST = (3.4445, -4.7750, 2.0315), 5, 1e-7  # of Newton and Schulz, as Jordan chose them


@dataclass(frozen=True)
class Muon:
    """Jordan et al. 2024: the momentum of every hidden matrix made orthogonal; all else by AdamW.

    Embeddings, the head and everything that is no matrix are AdamW's. A matrix's rate is multiplied by
    0.2 sqrt(larger side), so that a rate that was tuned for AdamW suits (Liu et al. 2025, "Muon is scalable").
    """

    momentum: float
    nesterov: bool
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8

    def update(
        self,
        weights: Tensor,
        gradient: Tensor,
        first: Tensor,
        second: Tensor,
        learning_rate: Tensor,
        decay: Tensor,
        corrections: Tensor,
        layout: Layout,
    ) -> Updated:
        rest = AdamW(self.betas, self.epsilon)
        by_adamw, mean, square = rest.update(
            weights, gradient, first, second, learning_rate, decay, corrections, layout
        )
        speed = first.lerp(gradient, 1 - self.momentum)
        ahead = gradient.lerp(speed, self.momentum) if self.nesterov else speed
        steps = []
        for number, shape, part in layout.parts(ahead):
            if layout.kinds[number] != "matrix":
                steps.append(torch.zeros_like(part))
                continue
            matrix = part[:, : shape.numel()].reshape(-1, shape[0], math.prod(shape[1:]))
            factor = 0.2 * math.sqrt(max(matrix.shape[1:]))
            flat = (factor * orthogonal(matrix).float()).flatten(1)
            steps.append(torch.nn.functional.pad(flat, (0, part.shape[1] - shape.numel())))
        matrices = layout.where(weights.device, "matrix")
        by_muon = weights * (1 - learning_rate * decay) - learning_rate * torch.cat(steps, 1)
        return (
            torch.where(matrices, by_muon, by_adamw),
            torch.where(matrices, speed, mean),
            torch.where(matrices, second, square),
        )


def orthogonal(matrix: Tensor) -> Tensor:
    """Nearly the orthogonal factor of each matrix, by five steps of Newton and Schulz: [S, m, n] -> bfloat16 [S, m, n].

    Its singular values come out between about 0.5 and 1.5, which does for a step (Jordan et al. 2024).
    """
    a, b, c = COEFFICIENTS
    wide = matrix.shape[1] <= matrix.shape[2]
    x = (matrix if wide else matrix.mT).bfloat16()
    x = x / x.flatten(1).norm(dim=1).clamp(min=SMALLEST)[:, None, None]
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x if wide else x.mT


def optimiser(settings: params.AdamW | params.SGD | params.Muon) -> Optimiser:
    """The optimiser that params.yaml describes."""
    if isinstance(settings, params.SGD):
        return SGD(settings.momentum, settings.nesterov)
    betas = settings.betas[0], settings.betas[1]
    if isinstance(settings, params.Muon):
        return Muon(settings.momentum, settings.nesterov, betas, settings.epsilon)
    return AdamW(betas, settings.epsilon)
