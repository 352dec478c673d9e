"""The gradient of an ordinary module whose parameters lie in a row (see `infinito.training.row`), as one program.

A compiled backward pass writes every gradient to a place of its own, from where it would be copied into the row: a
fortieth of the step of a language model of 71.6M parameters (benchmarks/results/loop_h100.json).
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import grad_and_value

from infinito.training.objective import Objective
from infinito.training.program import called, slots
from infinito.training.randomness import seed_all
from infinito.training.row import RowOptimiser, row_of

ROUNDING = 1e-2  # relative, which other kernels may make, also where a network rounds to half precision by itself


class Places(NamedTuple):
    """Where the parameters of an objective lie in a row, in its order, and the places of its modules (see `slots`)."""

    names: tuple[str, ...]
    shapes: tuple[torch.Size, ...]
    sizes: tuple[int, ...]
    slots: dict[str, str]


def places_of(objective: nn.Module, optimiser: RowOptimiser) -> Places:
    """Of an objective whose parameters that optimiser has laid into its row."""
    name_of = {id(p): name for name, p in objective.named_parameters()}
    parameters = optimiser.parameters
    names = tuple(name_of[id(p)] for p in parameters)
    return Places(names, tuple(p.shape for p in parameters), tuple(optimiser.sizes), slots(objective))


def row_gradient(
    objective: Objective, places: Places, row: Tensor, inputs: Tensor, targets: Tensor
) -> tuple[Tensor, Tensor]:
    """(plain loss [], gradient of the objective [1, P]) at the row [1, P]; inputs, targets as the objective's."""

    def value(row: Tensor) -> tuple[Tensor, Tensor]:
        parts = zip(places.names, row.view(-1).split(places.sizes), places.shapes, strict=True)
        tensors = {name: part[: shape.numel()].view(shape) for name, part, shape in parts}
        found, (loss, _) = called(objective, places.slots, tensors, inputs, targets)
        return found, loss

    gradient, (_, loss) = grad_and_value(value, has_aux=True)(row)
    return loss, gradient


def agrees(objective: Objective, optimiser: RowOptimiser, inputs: Tensor, targets: Tensor) -> bool:
    """Whether it gives, uncompiled and with the same random numbers, what autograd gives.

    Not of a network whose pass changes a buffer, which a function of the weights alone might not hand back.
    """
    before = {name: value.clone() for name, value in objective.named_buffers()}

    def by_autograd() -> Tensor:
        objective.losses(inputs, targets)[0].backward()
        found = [torch.zeros_like(p) if p.grad is None else p.grad for p in optimiser.parameters]
        for p in optimiser.parameters:
            p.grad = None
        return row_of(found)

    def as_a_row() -> Tensor:
        return row_gradient(objective, places_of(objective, optimiser), optimiser.row, inputs, targets)[1]

    def seeded(gradient: Callable[[], Tensor]) -> Tensor:
        seed_all(0)
        return gradient()

    expected = seeded(by_autograd)
    if any(not torch.equal(value, before[name]) for name, value in objective.named_buffers()):
        return False
    found = seeded(as_a_row)
    return bool((found - expected).norm() <= ROUNDING * expected.norm())
