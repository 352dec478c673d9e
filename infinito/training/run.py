"""One run of the loop in training: its module, what it remembers, and the snapshots from which it goes on."""

import copy
import io
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from infinito.storage import replacing
from infinito.tasks import Data, Split
from infinito.tasks.task import Measured
from infinito.training.evaluation import Evaluation, joined, measured
from infinito.training.objective import outputs_of
from infinito.training.randomness import seed_all_from
from infinito.training.schedule import Settings

if TYPE_CHECKING:
    from infinito.training.loop import Loop

logger = logging.getLogger(__name__)

OF_A_MODULE = {name for name in vars(nn.Module()) if "hook" in name} | {"_modules"}


class Run:
    """One run in training: its module, what it remembers, and what is known of it so far."""

    def __init__(self, loop: "Loop", data: Data, settings: Settings, init_seed: int) -> None:
        self.loop, self.settings = loop, settings
        self.network = loop.draw(init_seed, data)
        self.initial = state_of(self.network)
        self.losses = torch.zeros(settings.steps, dtype=torch.float64, device=loop.device)
        self.trace = torch.zeros(settings.steps, dtype=torch.int32, device=loop.device)
        self.curve: list[float] = []
        self.tensor_trace: list[Tensor] = []
        self.kept_loss, self.kept_step = float("inf"), settings.steps
        self.kept: nn.Module | dict[str, Tensor] = self.initial
        self.done, self.seconds = 0, 0.0
        self.optimiser = loop.optimiser_of(self.network, settings)

    def saved(self) -> dict[str, Any]:
        """All that goes on from here needs; the whole module, since what it remembers need not be a buffer."""
        mine = {name: value for name, value in vars(self).items() if name not in ("loop", "settings", "optimiser")}
        return mine | {"optimiser_state": self.optimiser.state_dict()}

    def restore(self, saved: dict[str, Any]) -> None:
        state = saved.pop("optimiser_state")
        vars(self).update(saved)
        self.optimiser = self.loop.optimiser_of(self.network, self.settings)
        self.optimiser.load_state_dict(state)

    @property
    def trained(self) -> dict[str, Tensor]:
        return {name: p for name, p in self.network.named_parameters() if p.requires_grad}

    def evaluate(self, split: Split, seed: int) -> Evaluation:
        """Loss and scores of every example, as runs [1, N]; a network that draws draws from a stream of its own.

        It leaves the run as it was, also a network that writes into its weights when it is called, as
        nn.Embedding(max_norm=...) does: how often somebody looks must not change what comes out.
        """
        seed_all_from(seed, "eval")
        tensors = [*self.network.parameters(), *self.network.buffers()]
        before = [tensor.detach().clone() for tensor in tensors]
        self.network.eval()

        def chunks() -> Iterator[dict[str, Measured]]:
            for inputs, targets in split.chunks():
                with self.loop.rounding():
                    outputs = outputs_of(self.network(inputs))
                found = measured(self.loop.task, outputs, targets)
                yield {name: (a[None], b[None]) for name, (a, b) in found.items()}

        with torch.no_grad():
            found = joined(chunks())
            for tensor, value in zip(tensors, before, strict=True):
                tensor.copy_(value)
        self.network.train()
        return found


def copied(network: nn.Module) -> nn.Module | dict[str, Tensor]:
    """A copy of a network with all that it holds; where that can't be, of its state_dict."""
    try:
        return copy.deepcopy(network)
    except RuntimeError:  # an attribute that is part of the graph of a gradient
        return state_of(network)


def take_over(network: nn.Module, other: nn.Module) -> None:
    """Let every module hold what that of a copy holds, in its own lists and mappings, which hooks may know.

    Its hooks stay too: they know the module that they were made for.
    """
    for module, held in zip(network.modules(), other.modules(), strict=True):
        for name, value in vars(held).items():
            if name not in OF_A_MODULE:
                vars(module)[name] = _refilled(vars(module).get(name), value)


def _refilled(mine: Any, value: Any) -> Any:
    """`value`; in the container that is mine, where both are containers of one kind."""
    if isinstance(mine, dict) and isinstance(value, dict):
        held: Any = {key: _refilled(mine.get(key), part) for key, part in value.items()}
        mine.clear()
        mine.update(held)
        return mine
    if isinstance(mine, list) and isinstance(value, list):
        mine[:] = [_refilled(mine[i] if i < len(mine) else None, part) for i, part in enumerate(value)]
        return mine
    return value


def state_of(network: nn.Module) -> dict[str, Tensor]:
    """A copy of the state_dict on the CPU."""
    saved = network.state_dict()
    return {name: value.detach().clone().cpu() for name, value in saved.items() if isinstance(value, Tensor)}


def keep(run: Run, file: Path) -> None:
    """Write a snapshot; a module that can't be pickled begins anew after an interruption."""
    content = io.BytesIO()
    try:
        torch.save(run.saved(), content)
    except Exception as error:  # of any module: lambdas, open files, locks
        logger.warning("no snapshot of %s: %s", type(run.network).__name__, " ".join(str(error).split())[:150])
        return
    with replacing(file) as temporary:
        temporary.write_bytes(content.getvalue())


def restored(run: Run, file: Path) -> bool:
    """Whether the run goes on from a snapshot; if not, it is of no use any more."""
    try:
        run.restore(torch.load(file, map_location=run.loop.device, weights_only=False))  # written by this program
    except Exception as error:  # half a file, other code
        logger.warning("%s: %s; the training begins anew", file, " ".join(str(error).split())[:150])
        return False
    return True
