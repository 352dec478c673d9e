"""Trains runs one after the other, as anybody would: an ordinary module, autograd, torch.optim.

So it takes whatever PyTorch trains: any operation, any control flow, any randomness of torch, numpy and random. The
global generators are seeded anew before every step, from the run's own noise, so a step depends on nothing but its
number and the weights before it. Where one run fills the device anyway, as a language model does a GPU, this is the
fast way too: compiled where torch.compile takes the network as one graph, with fused attention and a recorded step.
"""

import contextlib
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from infinito.operations.noise import keyed
from infinito.seeds import noise_keys
from infinito.tasks import Data, Task
from infinito.training import optimisers
from infinito.training.compiling import apart, compiler
from infinito.training.determinism import fixed_order, fused_attention
from infinito.training.gradient import agrees, places_of, row_gradient
from infinito.training.objective import Objective
from infinito.training.program import kinds, lazy
from infinito.training.randomness import borrowed, drawing, seed_step
from infinito.training.row import RowOptimiser, flat, row_of, update
from infinito.training.run import Run, copied, keep, restored, state_of, take_over
from infinito.training.schedule import Settings, learning_rate
from infinito.training.snapshot import PATIENCE, SECONDS
from infinito.training.stacked import BEAT, PROBE
from infinito.training.step import Step, digest_of
from infinito.training.trace import digests
from infinito.training.trained import Trained, together

logger = logging.getLogger(__name__)

TRIALS = 10  # passes, by which it shows whether every one is compiled anew: torch gives up after 8


class Loop:
    """One kind of network, ready to train any number of runs of it; compiled once. Arguments as of `Program`."""

    def __init__(
        self,
        make: Callable[[], nn.Module],
        task: Task,
        device: str = "cpu",
        compile: bool = True,
        precision: str = "float32",
        *,
        optimiser: optimisers.Optimiser | None = None,
        decayed: str = "all",
        smoothing: float = 0.0,
    ) -> None:
        self.make, self.task, self.device, self.precision = make, task, torch.device(device), precision
        self.optimiser, self.decayed, self.smoothing = optimiser or optimisers.AdamW(), decayed, smoothing
        self.compiled = compile and (self.device.type != "cpu" or compiler() is not None)
        self.recorded = False  # whether a step may be, on a GPU
        self.whole = False  # whether loss and gradient are one program (see `infinito.training.gradient`)
        self.settled = not self.compiled
        self.fast = apart(_losses, fullgraph=True)
        self.fast_gradient = apart(row_gradient, fullgraph=True)
        self.fast_update, self.fastdigest_of = apart(update), apart(digest_of)

    def draw(self, init_seed: int, data: Data) -> nn.Module:
        """A freshly drawn network, with the weights that the stacked engine would draw."""
        with drawing(init_seed, "init"):
            network = self.make()
            if lazy(network):
                with torch.no_grad():  # what has no shape yet gets it, and its weights, from the first examples
                    network.eval()(data.validation.inputs[:2].cpu())
        if self.whole:  # such a pass is taken once, so that it can draw by keys, which is faster than torch's generator
            keyed(network)
        return network.to(self.device).train()

    def losses(self, objective: Objective, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """(what is minimised, the plain loss)."""
        with self.rounding():
            return self.fast(objective, inputs, targets) if self.compiled else objective.losses(inputs, targets)

    def settle(self, data: Data, settings: Settings) -> None:
        """Find out, once, by passes of a network that is thrown away, whether to compile, and whether to record.

        Not compiled is what torch.compile does not take as one graph, or compiles anew at every pass, as a network that
        counts them. Not recorded is what assigns to a buffer or an attribute: a recording would not repeat it.
        """
        if self.settled:
            return
        self.settled = True
        batch = data.batch(data.order(0, 1, settings.batch)[0].to(self.device))
        try:
            self.whole = True
            self.trial(data, settings, batch)
            return
        except Exception:  # what a network may do in autograd and not in torch.func: write into a buffer, and more
            self.whole = False
        try:
            self.trial(data, settings, batch)
        except (torch._dynamo.exc.TorchDynamoException, torch._dynamo.exc.FailOnRecompileLimitHit) as error:
            reason = " ".join(str(error).split("\n")[0].split())[:150]
            logger.warning("network %s is trained uncompiled: %s", type(self.make()).__name__, reason)
            self.compiled = self.recorded = False

    def trial(self, data: Data, settings: Settings, batch: Sequence[Tensor]) -> None:
        """Some passes, compiled as it is now to be; raises what torch raises where that can't be."""
        network = self.draw(0, data)
        objective, optimiser = Objective(network, [], self.task, self.smoothing), self.optimiser_of(network, settings)
        with fixed_order(self.device, self.precision, strict=False), _quiet():  # or it would be compiled twice
            # in single precision, since in half precision even two ways to the same gradient differ
            if self.whole and not (isinstance(optimiser, RowOptimiser) and agrees(objective, optimiser, *batch)):
                raise ValueError("no row, or another gradient")
            for _ in range(TRIALS):
                before = _held(network)
                if isinstance(optimiser, RowOptimiser) and self.whole:
                    self.gradient(objective, optimiser, *batch)
                else:
                    self.losses(objective, *batch)[0].backward()
                self.recorded = _held(network) == before

    def gradient(self, objective: Objective, optimiser: RowOptimiser, inputs: Tensor, targets: Tensor) -> Any:
        """(the plain loss, the gradient [1, P]), as one program."""
        with self.rounding():
            return self.fast_gradient(objective, places_of(objective, optimiser), optimiser.row, inputs, targets)

    def rounding(self) -> torch.autocast:
        """The context in which the network runs at its precision."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16")

    def optimiser_of(self, network: nn.Module, settings: Settings) -> torch.optim.Optimizer:
        """Of torch.optim, what does as `infinito.training.optimisers` does; these themselves where they are faster.

        That is on a GPU; and torch's own Muon knows no other tensors than matrices.
        """
        named = {name: p for name, p in network.named_parameters() if p.requires_grad}
        kind = dict(zip(named, kinds(network, list(named), self.task.output), strict=True))
        chosen = self.optimiser
        real = all(p.is_floating_point() for p in named.values())
        alike = real and len({p.dtype for p in named.values()}) == 1
        alike = alike and next(iter(named.values())).dtype in (torch.float32, torch.float64)
        gpu = self.device.type == "cuda"
        rate: Any = settings.learning_rate
        if gpu:  # where a recording reads it
            rate = torch.tensor(float(rate), device=self.device)

        def groups(names: Sequence[str]) -> list[dict[str, Any]]:
            shrunk = [n for n in names if self.decayed == "all" or kind[n] in ("matrix", "head")]
            kept = [n for n in names if n not in set(shrunk)]
            pairs = ((shrunk, settings.weight_decay), (kept, 0.0))
            return [{"params": [named[n] for n in some], "weight_decay": decay} for some, decay in pairs if some]

        if alike and (gpu or isinstance(chosen, optimisers.Muon)):
            fast = self.fast_update if self.compiled else update
            clip, known = float(settings.clip_norm), list(named.values())  # type: ignore[arg-type]
            return RowOptimiser(chosen, groups(list(named)), rate, clip, known, list(kind.values()), fast)
        if isinstance(chosen, optimisers.SGD):
            return torch.optim.SGD(groups(list(named)), lr=rate, momentum=chosen.momentum, nesterov=chosen.nesterov)
        if isinstance(chosen, optimisers.AdamW):
            how: Any = {"fused": True} if real else {"foreach": False}
            if gpu:
                how["capturable"] = True
            return torch.optim.AdamW(groups(list(named)), lr=rate, betas=chosen.betas, eps=chosen.epsilon, **how)
        found = ", ".join(sorted({str(p.dtype).removeprefix("torch.") for p in named.values()}))
        raise ValueError(f"train.optimiser: found muon with parameters of {found}; allowed: with real ones of one type")


def _held(network: nn.Module) -> list[tuple[str, int]]:
    """Which objects the modules of a network hold in their buffers and attributes, but for gradients."""
    held = []
    for name, module in network.named_modules():
        held += [(f"{name}.{key}", id(value)) for key, value in module._buffers.items()]
        held += [(f"{name}.{key}", id(value)) for key, value in vars(module).items()]
    return held


def _losses(objective: Objective, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    return objective.losses(inputs, targets)


def train(
    loop: Loop,
    data: Data,
    settings: Settings,
    init_seeds: Sequence[int],
    data_seeds: Sequence[int],
    noise_seeds: Sequence[int],
    *,
    progress: Callable[[int], None] = lambda steps: None,
    snapshot: Path | None = None,
) -> Trained:
    """Train S runs one after the other and evaluate them; arguments and result as of `stacked.train`.

    `progress` is called with the steps done of all runs, divided by S. A snapshot holds the run that is at work, so it
    is of use for S = 1.
    """
    started = time.perf_counter()
    data = data.to(loop.device)
    found: list[Trained] = []
    for number, seeds in enumerate(zip(init_seeds, data_seeds, noise_seeds, strict=True)):
        file = snapshot if len(init_seeds) == 1 else None
        before = number * settings.steps

        def report(steps: int, before: int = before) -> None:
            progress((before + steps) // len(init_seeds))

        with borrowed(), fused_attention():
            found.append(_train_one(loop, data, settings, *seeds, report, file, started))
        started = time.perf_counter()
    return together(found)


def _train_one(
    loop: Loop,
    data: Data,
    settings: Settings,
    init_seed: int,
    data_seed: int,
    noise_seed: int,
    progress: Callable[[int], None],
    snapshot: Path | None,
    started: float,
) -> Trained:
    loop.settle(data, settings)
    run = Run(loop, data, settings, init_seed)
    steps, best = settings.steps, settings.keep == "best"
    if snapshot is not None and snapshot.is_file() and not restored(run, snapshot):
        run = Run(loop, data, settings, init_seed)  # nothing of a snapshot that did not fit
    before = run.seconds
    order = data.order(data_seed, steps, settings.batch).to(loop.device)
    keys = noise_keys(noise_seed, steps)
    keys_there = keys.to(loop.device)
    probe = data.validation if best else data.validation.first(PROBE)
    points = [*range(settings.curve_every, steps, settings.curve_every), steps]
    step, due = Step(run), time.monotonic() + SECONDS
    sizes = [p.numel() for p in (flat(p) for p in run.trained.values())]
    first = run.done
    for t in range(first, steps):
        if t % BEAT == 0 or t == first:  # the batches of some steps lie ready
            ready = data.batch(order[t : t // BEAT * BEAT + BEAT])
            began = t
        inputs, targets = (values[t - began] for values in ready)
        seed_step(keys[t])
        rate = float(settings.learning_rate) * learning_rate(t, steps, settings.warmup, settings.schedule)  # type: ignore[arg-type]
        with fixed_order(loop.device, loop.precision, strict=False), _quiet():
            step.take(t, inputs, targets, rate, keys_there[t])
        run.done = t + 1
        if t == first:
            progress(t + 1)
        if t + 1 in points:
            loss = float(run.evaluate(probe, noise_seed).loss[0])
            run.curve.append(loss)
            run.tensor_trace.append(digests(row_of(list(run.trained.values())), sizes)[0].cpu())
            if best and loss < run.kept_loss:
                run.kept_loss, run.kept_step, run.kept = loss, t + 1, copied(run.network)
        if (t + 1) % BEAT == 0 or t + 1 == steps:
            done = step.finished(t + 1)
            run.seconds = before + time.perf_counter() - started
            if snapshot is not None and time.monotonic() >= due and t + 1 < steps:
                written = time.monotonic()
                keep(run, snapshot)
                now = time.monotonic()
                due = now + max(SECONDS, PATIENCE * (now - written))
            progress(done if t + 1 < steps else step.finished(steps))

    if isinstance(run.kept, nn.Module):
        take_over(run.network, run.kept)
    elif best:
        run.network.load_state_dict(run.kept, strict=False)
    validation, test = run.evaluate(data.validation, noise_seed), run.evaluate(data.test, noise_seed)
    losses = run.losses.cpu().numpy().astype(np.float64)[None]
    starts = [0, *points[:-1]]
    finite = np.isfinite(losses).all(1) & np.isfinite(validation.loss) & np.isfinite(test.loss)
    finite &= not best or np.isfinite(run.kept_loss)  # with no loss on validation at any point, none was the best
    return Trained(
        initial={name: value[None] for name, value in run.initial.items()},
        final={name: value[None] for name, value in state_of(run.network).items()},
        kept_step=np.array([run.kept_step]),
        curve_steps=np.array(points),
        train_curve=np.stack([losses[:, a:b].mean(1) for a, b in zip(starts, points, strict=True)], 1),
        validation_curve=np.array(run.curve)[None],
        last_batch_loss=losses[:, -1],
        validation=validation,
        test=test,
        diverged=~finite,
        trace=run.trace[None].cpu(),
        tensor_trace=torch.stack(run.tensor_trace)[None],
        tensors=list(run.trained),
        wall_seconds=before + time.perf_counter() - started,
        compiled=loop.compiled,
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """That an operation has no fixed order of additions is no error here: the record says which device it was."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have a deterministic implementation.*")
        yield


__all__ = ["Loop", "train"]
