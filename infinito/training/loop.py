"""Trains runs one after the other, as anybody would: an ordinary module, autograd, torch.optim.

So it takes whatever PyTorch trains: any operation, any control flow, any randomness of torch, numpy and random. The
global generators are seeded anew before every step, from the run's own noise, so a step depends on nothing but its
number and the weights before it. Where one run fills the device anyway, as a language model does a GPU, this is the
fast way too: compiled where torch.compile takes the network as one graph, with fused attention and a recorded step.
"""

import contextlib
import copy
import io
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from infinito.operations.noise import keyed, sites
from infinito.seeds import noise_keys
from infinito.storage import replacing
from infinito.tasks import Data, Split, Task
from infinito.tasks.task import Measured
from infinito.training import optimisers
from infinito.training.compiling import apart, compiler
from infinito.training.determinism import fixed_order, fused_attention
from infinito.training.evaluation import Evaluation, joined, measured
from infinito.training.gradient import agrees, places_of, row_gradient
from infinito.training.objective import Objective, outputs_of
from infinito.training.program import kinds, lazy
from infinito.training.randomness import borrowed, drawing, seed_all_from, seed_step
from infinito.training.replay import Replay
from infinito.training.row import RowOptimiser, flat, row_of, update
from infinito.training.schedule import Settings, learning_rate
from infinito.training.snapshot import PATIENCE, SECONDS
from infinito.training.stacked import BEAT, PROBE, Trained
from infinito.training.trace import digest, digests

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
        self.fast_update, self.fast_digest = apart(update), apart(_digest)

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


class _Run:
    """One run in training: its module, what it remembers, and what is known of it so far."""

    def __init__(self, loop: Loop, data: Data, settings: Settings, init_seed: int) -> None:
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
        """Loss and scores of every example, as runs [1, N]; a network that draws draws from a stream of its own."""
        seed_all_from(seed, "eval")
        self.network.eval()

        def chunks() -> Iterator[dict[str, Measured]]:
            for inputs, targets in split.chunks():
                with self.loop.rounding():
                    outputs = outputs_of(self.network(inputs))
                found = measured(self.loop.task, outputs, targets)
                yield {name: (a[None], b[None]) for name, (a, b) in found.items()}

        with torch.no_grad():
            found = joined(chunks())
        self.network.train()
        return found


def _copied(network: nn.Module) -> nn.Module | dict[str, Tensor]:
    """A copy of a network with all that it holds; where that can't be, of its state_dict."""
    try:
        return copy.deepcopy(network)
    except RuntimeError:  # an attribute that is part of the graph of a gradient
        return state_of(network)


def state_of(network: nn.Module) -> dict[str, Tensor]:
    """A copy of the state_dict on the CPU."""
    saved = network.state_dict()
    return {name: value.detach().clone().cpu() for name, value in saved.items() if isinstance(value, Tensor)}


class _Step:
    """Takes the steps of a run: eagerly or compiled, on a GPU recorded where all of it can be."""

    def __init__(self, run: _Run) -> None:
        loop = run.loop
        self.run, self.loop = run, loop
        self.objective = Objective(run.network, [], loop.task, loop.smoothing)
        self.parameters = list(run.trained.values())
        self.key = torch.zeros(2, dtype=torch.int32, device=loop.device)
        for place in sites(run.network).values():
            place.key = self.key
        self.digest: Callable[[list[Tensor]], Tensor] = _digest
        self.batch: tuple[Tensor, Tensor] | None = None
        self.launched: tuple[torch.cuda.Event, int] | None = None
        self.replay: Replay | None = None
        self.loss = torch.zeros((), device=loop.device)
        self.check = torch.zeros((), dtype=torch.int32, device=loop.device)

    def take(self, t: int, inputs: Tensor, targets: Tensor, rate: float, key: Tensor) -> None:
        """Step t, counted from 0; key: int32 [2], of its noise."""
        self.key.copy_(key)
        groups = self.run.optimiser.param_groups
        for shared in {id(group["lr"]): group["lr"] for group in groups if isinstance(group["lr"], Tensor)}.values():
            shared.fill_(rate)
        for group in groups:
            if not isinstance(group["lr"], Tensor):
                group["lr"] = rate
        if self.loop.device.type == "cpu":
            self.loss, self.check = self.plain(inputs, targets)
        else:
            self.on_gpu(inputs, targets)
        self.run.losses[t], self.run.trace[t] = self.loss, self.check

    def plain(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Forward, backward, clipping, and the optimisers' step."""
        optimiser = self.run.optimiser
        if isinstance(optimiser, RowOptimiser) and self.loop.whole:
            loss, gradient = self.loop.gradient(self.objective, optimiser, inputs, targets)
            return loss, optimiser.step(gradient)
        for p in self.parameters:
            p.grad = None
        objective, loss = self.loop.losses(self.objective, inputs, targets)
        objective.backward()
        for p in self.parameters:
            if p.grad is None:  # a parameter that nothing uses still decays
                p.grad = torch.zeros_like(p)
            elif p.grad.is_sparse:
                p.grad = p.grad.to_dense()
        if isinstance(optimiser, RowOptimiser):
            return loss.detach(), optimiser.step()
        nn.utils.clip_grad_norm_(self.parameters, float(self.run.settings.clip_norm))  # type: ignore[arg-type]
        optimiser.step()
        return loss.detach(), self.digest(self.parameters)

    def on_gpu(self, inputs: Tensor, targets: Tensor) -> None:
        """As `plain`; recorded after the first step, where that can be."""
        if self.batch is None:
            self.batch = inputs.clone(), targets.clone()
            self.digest = self.loop.fast_digest
        for here, value in zip(self.batch, (inputs, targets), strict=True):
            here.copy_(value)

        def step() -> None:
            assert self.batch is not None
            loss, check = self.plain(*self.batch)
            self.loss.copy_(loss)
            self.check.copy_(check)

        if self.replay is None:
            step()
            self.replay = Replay(step) if self.loop.recorded else None
        else:
            self.replay()

    def finished(self, t: int) -> int:
        """How many of t steps are done; on a GPU all but those since the last call, so that it need not wait."""
        if self.loop.device.type == "cpu":
            return t
        before, self.launched = self.launched, (torch.cuda.current_stream().record_event(), t)
        event, done = before or self.launched
        event.synchronize()
        return done


def _digest(parameters: list[Tensor]) -> Tensor:
    return digest(row_of(parameters))[0]


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
    return _together(found)


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
    run = _Run(loop, data, settings, init_seed)
    steps, best = settings.steps, settings.keep == "best"
    if snapshot is not None and snapshot.is_file() and not _restored(run, snapshot):
        run = _Run(loop, data, settings, init_seed)  # nothing of a snapshot that did not fit
    before = run.seconds
    order = data.order(data_seed, steps, settings.batch).to(loop.device)
    keys = noise_keys(noise_seed, steps)
    keys_there = keys.to(loop.device)
    probe = data.validation if best else data.validation.first(PROBE)
    points = [*range(settings.curve_every, steps, settings.curve_every), steps]
    step, due = _Step(run), time.monotonic() + SECONDS
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
                run.kept_loss, run.kept_step, run.kept = loss, t + 1, _copied(run.network)
        if (t + 1) % BEAT == 0 or t + 1 == steps:
            done = step.finished(t + 1)
            run.seconds = before + time.perf_counter() - started
            if snapshot is not None and time.monotonic() >= due and t + 1 < steps:
                written = time.monotonic()
                _keep(run, snapshot)
                now = time.monotonic()
                due = now + max(SECONDS, PATIENCE * (now - written))
            progress(done if t + 1 < steps else step.finished(steps))

    if isinstance(run.kept, nn.Module):
        run.network = run.kept
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


def _keep(run: _Run, file: Path) -> None:
    """Write a snapshot; a module that can't be pickled begins anew after an interruption."""
    content = io.BytesIO()
    try:
        torch.save(run.saved(), content)
    except Exception as error:  # of any module: lambdas, open files, locks
        logger.warning("no snapshot of %s: %s", type(run.network).__name__, " ".join(str(error).split())[:150])
        return
    with replacing(file) as temporary:
        temporary.write_bytes(content.getvalue())


def _restored(run: _Run, file: Path) -> bool:
    """Whether the run goes on from a snapshot; if not, it is of no use any more."""
    try:
        run.restore(torch.load(file, map_location=run.loop.device, weights_only=False))  # written by this program
    except Exception as error:  # half a file, other code
        logger.warning("%s: %s; the training begins anew", file, " ".join(str(error).split())[:150])
        return False
    return True


def _together(runs: Sequence[Trained]) -> Trained:
    """Runs side by side, as a stack."""
    if len(runs) == 1:
        return runs[0]
    first = runs[0]

    def evaluations(which: str) -> Evaluation:
        parts = [getattr(run, which) for run in runs]
        scores = {
            name: (np.concatenate([part.scores[name][0] for part in parts]), weights)
            for name, (_, weights) in parts[0].scores.items()
        }
        return Evaluation(np.concatenate([part.losses for part in parts]), parts[0].weights, scores)

    def states(which: str) -> dict[str, Tensor]:
        return {name: torch.cat([getattr(run, which)[name] for run in runs]) for name in getattr(first, which)}

    def arrays(which: str) -> np.ndarray:
        return np.concatenate([getattr(run, which) for run in runs])

    return Trained(
        initial=states("initial"),
        final=states("final"),
        kept_step=arrays("kept_step"),
        curve_steps=first.curve_steps,
        train_curve=arrays("train_curve"),
        validation_curve=arrays("validation_curve"),
        last_batch_loss=arrays("last_batch_loss"),
        validation=evaluations("validation"),
        test=evaluations("test"),
        diverged=arrays("diverged"),
        trace=torch.cat([run.trace for run in runs]),
        tensor_trace=torch.cat([run.tensor_trace for run in runs]),
        tensors=first.tensors,
        wall_seconds=sum(run.wall_seconds for run in runs),
        compiled=all(run.compiled for run in runs),
    )


__all__ = ["Loop", "train"]
