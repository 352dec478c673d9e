"""What a run minimises."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from infinito.operations.noise import restart, sites
from infinito.tasks import Task, tokens
from infinito.tasks.task import Measured
from infinito.training.attributes import Kept, forget

WAYS = ("nats_with_penalty", "forward_with_penalty", "forward")  # from a network to its loss


def outputs_of(found: Any) -> Any:
    """What a network gave: a tensor, or the `logits` of an object that has them, as those of transformers do."""
    return found if isinstance(found, Tensor) else getattr(found, "logits", found)


def way(network: type, task: Task, smoothing: float = 0.0) -> str:
    """The way that the most derived class defines: one that overrides `forward` does not mean what it inherits.

    Nats of its own are those of tokens: of another loss, or of smoothed labels, a network knows nothing.
    """
    own_nats = task.losses is tokens.losses and not smoothing
    ways = WAYS if own_nats else WAYS[1:]
    return next(name for cls in network.__mro__ for name in ways if name in vars(cls))


class Objective(nn.Module):
    """A network with its training loss; gives the objective, the plain loss and the state after the forward pass.

    Args:
        network: what is trained.
        state_names: of its buffers and frozen parameters.
        task: whose losses are minimised.
        smoothing: share of a label that is spread over all of them, in the objective only.
    """

    def __init__(self, network: nn.Module, state_names: Sequence[str], task: Task, smoothing: float = 0.0) -> None:
        super().__init__()
        self.network = network
        self.sites = list(sites(network).values())
        self.state_names = state_names
        self.task = task
        self.smoothing = smoothing
        self.way = way(type(network), task, smoothing)
        self.kept: list[Kept] = []  # what a call leaves in attributes, to be forgotten

    def forward(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, tuple[Tensor, dict[str, Tensor]]]:
        """inputs, targets: [B, ...] -> (objective + penalty, (loss, state)); the loss as in `infinito.tasks.Task`."""
        objective, loss = self.losses(inputs, targets)
        state = dict(self.network.named_buffers(remove_duplicate=False)) | dict(self.network.named_parameters())
        forget(self.kept)
        return objective, (loss, {name: state[name] for name in self.state_names})

    def losses(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """inputs, targets: [B, ...] -> (what is minimised, the plain loss), scalars."""
        network: Any = self.network
        restart(self.sites)
        if self.way == "nats_with_penalty":
            nats, penalty = network.nats_with_penalty(inputs, targets)
            loss = _mean((nats, targets != tokens.IGNORE))
            return loss + penalty, loss
        if self.way == "forward_with_penalty":
            outputs, penalty = network.forward_with_penalty(inputs)
        else:
            outputs, penalty = network(inputs), 0.0
        outputs = outputs_of(outputs)
        loss = _mean(self.task.losses(outputs, targets))
        if self.smoothing:
            task: Any = self.task
            return _mean(task.smoothed(outputs, targets, self.smoothing)) + penalty, loss
        return loss + penalty, loss


def _mean(measured: Measured) -> Tensor:
    values, weights = measured
    return values.sum() / weights.sum()
