"""What a run minimises."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from infinito.operations.fused.cross_entropy import token_nats
from infinito.tasks import IGNORE

WAYS = ("nats_with_penalty", "forward_with_penalty", "forward")  # from a network to its loss


def way(network: type) -> str:
    """The way that the most derived class defines: one that overrides `forward` does not mean what it inherits."""
    return next(name for cls in network.__mro__ for name in WAYS if name in vars(cls))


class Objective(nn.Module):
    """A network with its training loss; gives the objective, the plain loss and the state after the forward pass."""

    def __init__(self, network: nn.Module, state_names: Sequence[str]) -> None:
        super().__init__()
        self.network = network
        self.state_names = state_names
        self.way = way(type(network))

    def forward(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, tuple[Tensor, dict[str, Tensor]]]:
        """inputs, targets: [B, T] -> (loss + penalty, (loss in mean nats per scored token, state))."""
        nats, penalty = self.nats_with_penalty(inputs, targets)
        loss = nats.sum() / (targets != IGNORE).sum()
        state = dict(self.network.named_buffers(remove_duplicate=False)) | dict(self.network.named_parameters())
        return loss + penalty, (loss, {name: state[name] for name in self.state_names})

    def nats_with_penalty(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor | float]:
        """What the network offers: nats of its own, or logits, with a penalty or without; nats are [B, T]."""
        network: Any = self.network
        if self.way == "nats_with_penalty":
            nats, penalty = network.nats_with_penalty(inputs, targets)
            return nats, penalty
        if self.way == "forward_with_penalty":
            logits, penalty = network.forward_with_penalty(inputs)
            return token_nats(logits, targets), penalty
        return token_nats(network(inputs), targets), 0.0
