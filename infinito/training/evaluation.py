"""Loss and predictions of trained runs; nothing is drawn."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from infinito.operations.fused.cross_entropy import token_nats
from infinito.seeds import DrawFrom, torch_stream
from infinito.tasks import IGNORE, Split
from infinito.training.determinism import choose_products
from infinito.training.program import Program


@dataclass(frozen=True)
class Evaluation:
    """Per example: nats and correct [S, N], scored tokens [N]."""

    nats: np.ndarray
    correct: np.ndarray
    tokens: np.ndarray

    @property
    def loss(self) -> np.ndarray:
        """Mean nats per scored token, [S]."""
        return self.nats.sum(1) / self.tokens.sum()


@torch.no_grad()
def evaluate(program: Program, weights: Tensor, state: dict[str, Tensor], split: Split) -> Evaluation:
    """Loss and correct tokens of every example for weights [S, P].

    Not compiled: it is a small part of the work, and compiling it would cost more than it saves.
    """

    def scores(row: Tensor, state: dict[str, Tensor], inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        with program.rounding():
            logits = functional_call(program.evaluator, program.named(row) | state, (inputs,))
        correct = ((logits.argmax(-1) == targets) & (targets != IGNORE)).sum(-1)
        return token_nats(logits, targets).sum(-1), correct

    choose_products(program.device, program.precision)
    nats, correct = [], []
    for inputs, targets in split.chunks():
        a, b = vmap(scores, in_dims=(0, 0, None, None))(weights, state, inputs, targets)
        nats.append(a.cpu())
        correct.append(b.cpu())
    return Evaluation(
        nats=torch.cat(nats, 1).double().numpy(),
        correct=torch.cat(correct, 1).numpy(),
        tokens=(split.targets != IGNORE).sum(-1).cpu().numpy(),
    )


def predict(make: Callable[[], nn.Module], weights: dict[str, Tensor], split: Split) -> Tensor:
    """Log-probability of every target under every member, 0 where it is not scored.

    Args:
        make: makes one network; its own weights are not used.
        weights: stacked state_dict, [S, ...].
        split: examples to score.

    Returns:
        float32 [S, N, T], nats.

    Raises:
        ValueError: names or shapes of the weights are not those of the network.
    """
    with DrawFrom(torch_stream(0, "unused")):
        network = make().eval()
    wanted = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    found = {name: tuple(value.shape[1:]) for name, value in weights.items()}
    if wanted != found:
        differing = sorted(n for n in wanted | found if wanted.get(n) != found.get(n))
        first = differing[0]
        raise ValueError(
            f"checkpoint does not fit the network: {first} is {found.get(first, 'missing')}, "
            f"the network wants {wanted.get(first, 'no such name')}"
        )

    unique = {name for name, _ in (*network.named_parameters(), *network.named_buffers())}
    weights = {name: value for name, value in weights.items() if name in unique}  # a tied weight once

    def scores(state: dict[str, Any], inputs: Tensor, targets: Tensor) -> Tensor:
        return -token_nats(functional_call(network, state, (inputs,)), targets)

    parts = []
    with torch.no_grad():
        for inputs, targets in split.chunks():
            parts.append(vmap(scores, in_dims=(0, None, None))(weights, inputs, targets))
    return torch.cat(parts, 1)
