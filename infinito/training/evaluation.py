"""Loss and scores of trained runs, and what their members say of every example; nothing is drawn."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import vmap

from infinito.tasks import Split, Task
from infinito.tasks.task import Measured
from infinito.training.determinism import choose_products
from infinito.training.objective import outputs_of
from infinito.training.program import Program, called, slots
from infinito.training.randomness import drawing


@dataclass(frozen=True)
class Evaluation:
    """Per example: the loss, summed, of S runs [S, N] and its weight [N]; the same of every further score by name."""

    losses: np.ndarray
    weights: np.ndarray
    scores: dict[str, tuple[np.ndarray, np.ndarray]]

    @property
    def loss(self) -> np.ndarray:
        """Mean loss, [S]."""
        return self.losses.sum(1) / self.weights.sum()

    def score(self, name: str) -> np.ndarray:
        """Mean of a further score, [S]."""
        values, weights = self.scores[name]
        return values.sum(1) / weights.sum()


def measured(task: Task, outputs: Tensor, targets: Tensor) -> dict[str, Measured]:
    """Loss and scores of every example, each with its weight, [B]."""
    found = {"loss": task.losses(outputs, targets)} | task.measure(outputs, targets)
    return {name: (_summed(values), _summed(weights)) for name, (values, weights) in found.items()}


def _summed(values: Tensor) -> Tensor:
    """Over all parts of an example: [B, ...] -> [B]."""
    if not values.is_floating_point():
        values = values.long()
    return values.flatten(1).sum(1) if values.ndim > 1 else values


def joined(chunks: Iterable[dict[str, Measured]]) -> Evaluation:
    """What was measured of some examples after the other; values [S, B], weights [S, B] that are equal for all runs."""
    parts = [{name: (a.cpu(), b[0].cpu()) for name, (a, b) in chunk.items()} for chunk in chunks]
    whole = {
        name: (torch.cat([part[name][0] for part in parts], 1), torch.cat([part[name][1] for part in parts]))
        for name in parts[0]
    }
    arrays = {
        name: (values.double().numpy() if values.is_floating_point() else values.numpy(), weights.numpy())
        for name, (values, weights) in whole.items()
    }
    losses, weights = arrays.pop("loss")
    return Evaluation(losses, weights, arrays)


@torch.no_grad()
def evaluate(program: Program, weights: Tensor, state: dict[str, Tensor], split: Split) -> Evaluation:
    """Loss and scores of every example for weights [S, P].

    Not compiled: it is a small part of the work, and compiling it would cost more than it saves.
    """

    def scores(row: Tensor, state: dict[str, Tensor], inputs: Tensor, targets: Tensor) -> dict[str, Measured]:
        with program.rounding():
            outputs = outputs_of(called(program.evaluator, program.evaluated, program.named(row) | state, inputs))
        return measured(program.task, outputs, targets)

    choose_products(program.device, program.precision)
    return joined(
        vmap(scores, in_dims=(0, 0, None, None))(weights, state, inputs, targets) for inputs, targets in split.chunks()
    )


def predict(
    make: Callable[[], nn.Module], task: Task, weights: dict[str, Tensor], split: Split, *, together: bool = True
) -> tuple[Tensor, Tensor]:
    """What every member of an ensemble says of every part of every example, as `infinito.questions.ensemble` takes it.

    Args:
        make: makes one network; its own weights are not used.
        task: says what the members of an ensemble average.
        weights: stacked state_dict, [S, ...].
        split: examples.
        together: all members at once; else one after the other, which any network allows.

    Returns:
        float32 [S, N, ...] and bool [N, ...], which of them are scored. Where probabilities are averaged: the
        log-probability of the target, in nats. Where outputs are averaged: output - target.

    Raises:
        ValueError: names or shapes of the weights are not those of the network; a task that averages nothing.
    """
    if task.averaged is None:
        raise ValueError("ensemble: the task does not say what the members average (its attribute `averaged`)")
    with drawing(0, "unused"), torch.no_grad():
        network = make().eval()
        if not together:
            network(split.inputs[:2])  # what has no shape yet gets it
    wanted = {name: tuple(value.shape) for name, value in network.state_dict().items() if isinstance(value, Tensor)}
    found = {name: tuple(value.shape[1:]) for name, value in weights.items()}
    if wanted != found:
        differing = sorted(n for n in wanted | found if wanted.get(n) != found.get(n))
        first = differing[0]
        raise ValueError(
            f"checkpoint does not fit the network: {first} is {found.get(first, 'missing')}, "
            f"the network wants {wanted.get(first, 'no such name')}"
        )

    places = slots(network)
    unique = set(places.values())
    weights = {name: value for name, value in weights.items() if name in unique}  # a tied weight once

    def says(state: dict[str, Any], inputs: Tensor, targets: Tensor) -> Tensor:
        outputs = outputs_of(called(network, places, state, inputs))
        return -task.losses(outputs, targets)[0] if task.averaged == "probabilities" else outputs - targets

    parts, scored = [], []
    with torch.no_grad():
        for inputs, targets in split.chunks():
            if together:
                parts.append(vmap(says, in_dims=(0, None, None))(weights, inputs, targets))
            else:
                runs = range(len(next(iter(weights.values()))))
                each = ({name: value[run] for name, value in weights.items()} for run in runs)
                with drawing(0, "eval"):
                    parts.append(torch.stack([says(state, inputs, targets) for state in each]))
            outputs = torch.zeros(len(inputs), *task.output)
            scored.append(task.losses(outputs, targets)[1].expand(parts[-1].shape[1:]) > 0)
    return torch.cat(parts, 1), torch.cat(scored)
