"""A network as a program that trains S copies of it by one step."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap
from torch.nn import functional as F

from infinito.operations.embedding import compared
from infinito.operations.noise import KeyedDropout, keyed, sites
from infinito.tasks import Split, Task
from infinito.training.attributes import kept_by
from infinito.training.compiling import compiled, compiler, keep_freed_memory
from infinito.training.determinism import attention_by_products, choose_products
from infinito.training.diagnosis import diagnosis
from infinito.training.objective import Objective
from infinito.training.optimisers import AdamW, Layout, Optimiser, Rates
from infinito.training.randomness import drawing
from infinito.training.schedule import Block
from infinito.training.trace import digest

logger = logging.getLogger(__name__)

ALIGNED = 16  # numbers: every tensor in a row begins at a multiple of 64 bytes, which fast matrix products ask for


def kinds(network: nn.Module, names: Sequence[str], output: Sequence[int]) -> list[str]:
    """What kind each parameter of a network is, see `Layout`.

    An embedding is known by its module or its name; the head is a matrix with as many rows as there are outputs.
    """
    embeddings = {id(m.weight) for m in network.modules() if isinstance(m, nn.Embedding)}
    parameters = dict(network.named_parameters())

    def kind(name: str) -> str:
        p = parameters[name]
        if id(p) in embeddings or "embed" in name:
            return "embedding"
        if p.ndim < 2:
            return "other"
        return "head" if p.ndim == 2 and output and p.shape[0] == output[-1] else "matrix"

    return [kind(name) for name in names]


def lazy(network: nn.Module) -> bool:
    """Whether something gets its shape, and its weights, at the first call only."""
    return any(nn.parameter.is_lazy(tensor) for tensor in (*network.parameters(), *network.buffers()))


def slots(network: nn.Module) -> dict[str, str]:
    """Every place of a module that holds a parameter or buffer, by name, and the first name of what it holds."""
    first = {id(tensor): name for name, tensor in (*network.named_parameters(), *network.named_buffers())}
    return {
        f"{prefix}{'.' if prefix else ''}{name}": first[id(tensor)]
        for prefix, module in network.named_modules()
        for part in (module._parameters, module._buffers)
        for name, tensor in part.items()
        if tensor is not None
    }


def called(network: nn.Module, places: dict[str, str], tensors: dict[str, Tensor], *arguments: Any) -> Any:
    """What a network gives with other tensors in its places (see `slots`); a name that is missing stays as it is.

    Left to itself functional_call fills a module under two names twice, and afterwards puts back the first filling.
    """
    filled = {place: tensors[name] for place, name in places.items() if name in tensors}
    return functional_call(network, filled, arguments, tie_weights=False)


def unstackable(network: nn.Module) -> str | None:
    """Why the parameters of a network can't lie in a row; None if they can."""
    for name, module in network.named_modules():
        if lazy(module) and not list(module.children()):
            return (
                f"{type(module).__name__} (self.{name}) gets its weights at the first call, not in the constructor; "
                "instead: the module that is not lazy, as nn.Linear(in_features, ...)"
            )
        kept = [key for key, value in vars(module).items() if isinstance(value, Tensor) and not value.is_leaf]
        if kept:
            return (
                f"{type(module).__name__} (self.{name}) keeps its {kept[0]}, which has a gradient, in an attribute, as "
                "torch.nn.utils.weight_norm does; instead: torch.nn.utils.parametrizations.weight_norm"
            )
    types = [(name, p.dtype) for name, p in network.named_parameters() if p.requires_grad]
    usual = torch.float64 if types and all(dtype == torch.float64 for _, dtype in types) else torch.float32
    for name, dtype in types:
        if dtype != usual:
            found = str(dtype).removeprefix("torch.")
            instead = "pairs of float32, and torch.view_as_complex" if dtype.is_complex else "float32, and the cast"
            return (
                f"parameter {name!r} is {found}, and all of a run lie in one row of float32; instead: {instead} where "
                "it is used"
            )
    return None


class Program:
    """One network, ready to train any number of copies; compiled once, whatever the number of stacks.

    `step` is `_step` on a CPU and `_recorded_step` on a GPU, compiled.

    Args:
        make: makes the network; its weights are drawn in the constructor, by any random function of torch.
        task: what is learned.
        device: where to train.
        precision: of matrix products: float32; tf32 (on a GPU, factors of 10 bits); bfloat16 (factors and products of
            7 bits). Weights, moments, norms, softmax and loss are always float32.
        optimiser: makes the step of a gradient; AdamW if none is named.
        decayed: which tensors weight decay shrinks: all, or matrices, which leaves out biases, norms and embeddings.
        smoothing: of the labels, in training.
        compile: torch.compile the step; ignored where the CPU has no C++ compiler.
    """

    def __init__(
        self,
        make: Callable[[], nn.Module],
        task: Task,
        device: str = "cpu",
        compile: bool = True,
        precision: str = "float32",
        *,
        optimiser: Optimiser | None = None,
        decayed: str = "all",
        smoothing: float = 0.0,
    ) -> None:
        self.make, self.task, self.device, self.precision = make, task, torch.device(device), precision
        if self.device.type == "cpu":
            keep_freed_memory()
        choose_products(self.device, precision)
        attention_by_products()
        with drawing(0, "unused"):
            network, evaluator = make(), make()  # no copy, whose hooks would belong to the first one
        reason = unstackable(network)
        if reason:
            raise ValueError(f"network: {type(network).__name__!r}: {reason}")
        self.network = compared(keyed(network)).to(self.device).train()
        parameters = {name: p for name, p in self.network.named_parameters() if p.requires_grad}
        self.names = list(parameters)
        self.shapes = [p.shape for p in parameters.values()]
        self.sizes = [-(-p.numel() // ALIGNED) * ALIGNED for p in parameters.values()]  # in a row, with padding
        self.optimiser: Optimiser = AdamW() if optimiser is None else optimiser
        self.layout = Layout(self.shapes, self.sizes, kinds(self.network, self.names, task.output))
        self.decayed = None if decayed == "all" else self.layout.where(self.device, "matrix", "head")
        places = sites(self.network)
        self.keys = [f"network.{name}.key" for name in places]
        self.rates = [f"network.{name}.rate" for name, m in places.items() if isinstance(m, KeyedDropout)]
        drawn = {name.removeprefix("network.") for name in self.keys + self.rates}
        frozen = [name for name, p in self.network.named_parameters() if not p.requires_grad]
        self.state_names = frozen + [name for name, _ in self.network.named_buffers() if name not in drawn]
        # a tied weight has several names in a state_dict, but only the first of them is a parameter
        first = {id(p): name for name, p in self.network.named_parameters()}
        saved = self.network.state_dict(keep_vars=True)
        self.saved = {name: first.get(id(value), name) for name, value in saved.items()}
        self.objective = Objective(self.network, self.state_names, task, smoothing)
        self.filled, self.evaluated = slots(self.objective), slots(self.network)
        self.evaluator = compared(keyed(evaluator)).to(self.device).eval()
        self.compiled = compile and (self.device.type != "cpu" or compiler() is not None)
        if compile and not self.compiled:
            logger.warning("no C++ compiler found (g++ or clang++): training runs uncompiled, about half as fast")
        step = self._step if self.device.type == "cpu" else self._recorded_step
        if not self.compiled:
            self.step: Callable[..., Any] = step
            return
        fast = compiled(step, self.device)

        def diagnosed(*arguments: Any) -> Any:
            try:
                return fast(*arguments)
            except torch._dynamo.exc.TorchDynamoException as error:
                raise ValueError(diagnosis(type(self.network).__name__, error)) from error

        self.step = diagnosed

    def watch(self, few: Split) -> None:
        """See by a forward pass of a few examples what the network keeps in attributes: a step will forget it."""
        few = few.to(self.device)
        with drawing(0, "unused"), torch.no_grad(), self.rounding():
            self.objective.kept = kept_by(self.network, lambda: self.objective.losses(few.inputs, few.targets))

    def draw(self, init_seeds: Sequence[int]) -> tuple[Tensor, dict[str, Tensor]]:
        """Freshly drawn copies: weights [S, P] and the buffers [S, ...]; a seed gives what the constructor would."""
        rows, buffers = [], []
        for seed in init_seeds:
            with drawing(seed, "init"):
                network = self.make()
            drawn = [p.detach().reshape(-1) for p in network.parameters() if p.requires_grad]
            rows.append(torch.cat([F.pad(p, (0, size - len(p))) for p, size in zip(drawn, self.sizes, strict=True)]))
            buffers.append({n: v.detach() for n, v in (*network.named_buffers(), *network.named_parameters())})
        state = {name: torch.stack([b[name] for b in buffers]).to(self.device) for name in self.state_names}
        return torch.stack(rows).to(self.device), state

    def state_dict(self, weights: Tensor, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """A copy of weights [S, P] and persistent buffers, [S, ...], on the CPU, named as the module's state_dict."""
        named = self.named(weights) | state
        return {name: named[source].detach().clone().cpu() for name, source in self.saved.items()}

    def named(self, row: Tensor, prefix: str = "") -> dict[str, Tensor]:
        """The parameters in a flat row [..., P], by name."""
        parts = row.split(self.sizes, dim=-1)
        return {
            prefix + name: part[..., : shape.numel()].reshape(row.shape[:-1] + shape)
            for name, part, shape in zip(self.names, parts, self.shapes, strict=True)
        }

    def _loss(
        self, row: Tensor, state: dict[str, Tensor], key: Tensor, rate: Tensor | None, inputs: Tensor, targets: Tensor
    ) -> tuple[Tensor, tuple[Tensor, dict[str, Tensor]]]:
        """One run: row [P], key int32 [2], rate [] or None, inputs, targets [B, ...]; gives what `Objective` gives."""
        values = self.named(row, "network.") | {f"network.{n}": v for n, v in state.items()}
        values |= dict.fromkeys(self.keys, key)
        if rate is not None:
            values |= dict.fromkeys(self.rates, rate)
        with self.rounding():
            found: tuple[Tensor, tuple[Tensor, dict[str, Tensor]]] = called(
                self.objective, self.filled, values, inputs, targets
            )
        return found

    def rounding(self) -> torch.autocast:
        """The context in which the network runs at its precision."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16")

    def _step(
        self, weights: Tensor, first: Tensor, second: Tensor, state: dict[str, Tensor], block: Block, rates: Rates
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, dict[str, Tensor]]:
        """One step of all runs: the gradient, clipped per run, and the optimiser's step.

        weights, first, second: [S, P]; of the block only the first step counts. Returns losses [S], the digests of the
        new weights, int32 [S], and the new weights, moments and state.
        """
        inputs, targets, keys, factor, corrections = (value[0] for value in block)
        learning_rate = (rates.learning_rate * factor)[:, None]
        decay = rates.weight_decay[:, None]
        if self.decayed is not None:
            decay = decay * self.decayed
        per_run = (0, 0, 0, None if rates.dropout is None else 0, 0, 0)
        gradient, (_, (losses, after)) = vmap(grad_and_value(self._loss, has_aux=True), in_dims=per_run)(
            weights, state, keys, rates.dropout, inputs, targets
        )
        norm = gradient.square().sum(1).sqrt()
        gradient = gradient * (rates.clip_norm / (norm + 1e-6)).clamp(max=1.0)[:, None]
        new, first, second = self.optimiser.update(
            weights, gradient, first, second, learning_rate, decay, corrections, self.layout
        )
        return losses, digest(new), new, first, second, after

    def _recorded_step(
        self,
        weights: Tensor,
        first: Tensor,
        second: Tensor,
        state: dict[str, Tensor],
        block: Block,
        rates: Rates,
        clock: Tensor,
        losses: Tensor,
        checks: Tensor,
    ) -> None:
        """As `_step`, but in place, and for a recording, which can't be told which step it is.

        clock, int64 [1], says which step of the block comes, and is moved on. Losses and digests go to [K, S].
        """
        now = Block(*(value.index_select(0, clock) for value in block))
        loss, check, *new, after = self._step(weights, first, second, state, now, rates)
        here = (torch.arange(len(losses), device=clock.device) == clock)[:, None]
        losses.copy_(torch.where(here, loss, losses))
        checks.copy_(torch.where(here, check, checks))
        for old, value in zip((weights, first, second), new, strict=True):
            old.copy_(value)
        kept = {name: value.clone() for name, value in after.items()}  # a network may hand one buffer on to another
        for name, value in kept.items():
            state[name].copy_(value)
        clock.add_(1)
