"""Training a stack from its seeds to its results."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from infinito.tasks import Data
from infinito.training.determinism import fixed_order
from infinito.training.evaluation import evaluate
from infinito.training.program import Program
from infinito.training.replay import Replay
from infinito.training.schedule import Block, Rates, Schedule, Settings, rates
from infinito.training.snapshot import Snapshot
from infinito.training.trace import digests
from infinito.training.trained import Trained

PROBE = 256  # validation examples behind a point of a learning curve
BEAT = 10  # steps between two reports of progress, and steps whose batches lie ready


@dataclass
class State:
    """A stack in training: weights and moments [S, P], buffers [S, ...], losses and digests [steps, S]."""

    weights: Tensor
    first: Tensor
    second: Tensor
    buffers: dict[str, Tensor]
    losses: Tensor
    trace: Tensor


class Kept:
    """The best weights of every run so far, by the loss on validation; of equal ones the earliest."""

    def __init__(self, state: State, steps: int) -> None:
        runs = len(state.weights)
        self.loss = torch.full((runs,), torch.inf, dtype=torch.float64)
        self.step = torch.full((runs,), steps)
        self.weights = state.weights.clone()
        self.buffers = {name: value.clone() for name, value in state.buffers.items()}

    def look(self, loss: Tensor, state: State, step: int) -> None:
        """loss: float64 [S], after so many steps; one that is not a number is not better."""
        better = loss < self.loss
        self.loss, self.step = torch.where(better, loss, self.loss), torch.where(better, step, self.step)
        for lane in better.nonzero().flatten().tolist():
            self.weights[lane] = state.weights[lane]
            for name, value in state.buffers.items():
                self.buffers[name][lane] = value[lane]

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All of it, for a snapshot."""
        named = {"kept.loss": self.loss, "kept.step": self.step, "kept.weights": self.weights}
        return named | {f"kept.state.{name}": value for name, value in self.buffers.items()}


class Plain:
    """Takes a step after the other: on a CPU."""

    def __init__(self, program: Program, state: State, schedule: Schedule, fixed: Rates) -> None:
        self.program, self.state, self.schedule, self.fixed = program, state, schedule, fixed

    def take(self, t: int) -> None:
        """Step t, counted from 0; the first one that is taken is a multiple of BEAT."""
        program, state, place = self.program, self.state, t % BEAT
        if place == 0:
            self.block = self.schedule.block(t, BEAT)
        block = Block(*(value[place : place + 1] for value in self.block))
        with fixed_order(program.device, program.precision):
            found = program.step(state.weights, state.first, state.second, state.buffers, block, self.fixed)
        state.losses[t], state.trace[t], state.weights, state.first, state.second, state.buffers = found

    def finished(self, t: int) -> int:
        """How many of t steps are done."""
        return t


class Recorded:
    """Takes steps by a recording, with the batches of the next BEAT steps at fixed addresses: on a GPU."""

    def __init__(self, program: Program, state: State, schedule: Schedule, fixed: Rates) -> None:
        self.state, self.schedule = state, schedule
        device, runs = program.device, len(state.weights)
        block = Block(*(torch.empty_like(value) for value in schedule.block(0, BEAT)))
        self.block, self.clock = block, torch.zeros(1, dtype=torch.int64, device=device)
        self.losses = torch.zeros(BEAT, runs, dtype=state.losses.dtype, device=device)
        self.checks = torch.zeros(BEAT, runs, dtype=state.trace.dtype, device=device)

        def step() -> None:
            with fixed_order(device, program.precision):
                program.step(
                    state.weights, state.first, state.second, state.buffers,
                    self.block, fixed, self.clock, self.losses, self.checks,
                )  # fmt: skip

        self.replay = Replay(step)
        self.launched: tuple[torch.cuda.Event, int] | None = None

    def take(self, t: int) -> None:
        """Launch step t, counted from 0; the first one that is taken is a multiple of BEAT."""
        if self.launched is None:
            self.launched = (torch.cuda.current_stream().record_event(), t)
        place = t % BEAT
        if place == 0:
            for here, value in zip(self.block, self.schedule.block(t, BEAT), strict=True):
                here.copy_(value)
            self.clock.zero_()
        self.replay()
        if place == BEAT - 1 or t + 1 == len(self.state.losses):
            self.state.losses[t - place : t + 1] = self.losses[: place + 1]
            self.state.trace[t - place : t + 1] = self.checks[: place + 1]

    def finished(self, t: int) -> int:
        """How many of t launched steps are done: all but those since the last call, so that the GPU need not wait."""
        before, self.launched = self.launched, (torch.cuda.current_stream().record_event(), t)
        event, done = before or self.launched
        event.synchronize()
        return done


def train(
    program: Program,
    data: Data,
    settings: Settings,
    init_seeds: Sequence[int],
    data_seeds: Sequence[int],
    noise_seeds: Sequence[int],
    *,
    progress: Callable[[int], None] = lambda steps: None,
    snapshot: Path | None = None,
) -> Trained:
    """Train S runs together and evaluate them.

    Args:
        program: the network to train.
        data: a prepared task.
        settings: how to train.
        init_seeds, data_seeds, noise_seeds: S seeds each.
        progress: called with the number of steps done: after the first one, which is compiled, and now and then.
        snapshot: where to keep all that is needed to go on after an interruption; if the file is there, go on from it.
            The result is the same to the bit. It is for the caller to remove.

    Raises:
        ValueError: a per-run setting has another length than S; dropout rates for a network without dropout.
    """
    started = time.perf_counter()
    device, runs, steps = program.device, len(init_seeds), settings.steps
    best = settings.keep == "best"
    data = data.to(device)
    fixed = rates(settings, runs, device)
    if fixed.dropout is not None and not program.rates:
        raise ValueError("dropout: the network has no dropout of its own; build it with a rate above 0")
    schedule = Schedule(data, settings, data_seeds, noise_seeds, device, program.optimiser.betas)
    weights, buffers = program.draw(init_seeds)
    initial = program.state_dict(weights, buffers)
    state = State(
        weights=weights,
        first=torch.zeros_like(weights),
        second=torch.zeros_like(weights),
        buffers=buffers,
        losses=torch.zeros(steps, runs, dtype=weights.dtype, device=device),
        trace=torch.zeros(steps, runs, dtype=torch.int32, device=device),
    )
    clock = torch.zeros(1, dtype=torch.int64)
    # the best point is chosen on all of the validation set, never on the test set
    probe = data.validation if best else data.validation.first(PROBE)
    points = [*range(settings.curve_every, steps, settings.curve_every), steps]
    validation_curve = torch.zeros(len(points), runs, dtype=torch.float64)
    tensor_trace = torch.zeros(len(points), runs, len(program.names), dtype=torch.int32)
    kept = Kept(state, steps) if best else None
    seconds = torch.zeros(1, dtype=torch.float64)  # before an interruption

    def current() -> dict[str, Tensor]:
        return (
            {
                "clock": clock,
                "weights": state.weights,
                "first_moment": state.first,
                "second_moment": state.second,
                "losses": state.losses,
                "trace": state.trace,
                "validation_curve": validation_curve,
                "tensor_trace": tensor_trace,
                "seconds": seconds + (time.perf_counter() - started),
            }
            | {f"state.{name}": value for name, value in state.buffers.items()}
            | (kept.tensors if kept else {})
        )

    program.watch(data.validation.first(2))
    keeper = Snapshot(snapshot)
    keeper.restore(current() | {"seconds": seconds})
    stepper = (Recorded if device.type == "cuda" else Plain)(program, state, schedule, fixed)
    done = begun = int(clock)
    for t in range(begun, steps):
        stepper.take(t)
        if t == begun:
            progress(t + 1)
        if t + 1 in points:
            place = points.index(t + 1)
            found = torch.from_numpy(evaluate(program, state.weights, state.buffers, probe).loss)
            validation_curve[place] = found
            if kept:
                kept.look(found, state, t + 1)
            tensor_trace[place] = digests(state.weights, program.sizes).cpu()
        if (t + 1) % BEAT == 0 or t + 1 == steps:
            clock.fill_(t + 1)
            keeper.keep(current)
            done = stepper.finished(t + 1)
            progress(done)
    if done < steps:
        progress(stepper.finished(steps))

    weights, buffers = (kept.weights, kept.buffers) if kept else (state.weights, state.buffers)
    validation = evaluate(program, weights, buffers, data.validation)
    test = evaluate(program, weights, buffers, data.test)
    batch_loss = state.losses.T.cpu().numpy().astype(np.float64)
    starts = [0, *points[:-1]]
    finite = np.isfinite(batch_loss).all(1) & np.isfinite(validation.loss) & np.isfinite(test.loss)
    if kept:  # with no loss on validation at any point, none was the best
        finite &= np.isfinite(kept.loss.numpy())
    return Trained(
        initial=initial,
        final=program.state_dict(weights, buffers),
        kept_step=kept.step.numpy() if kept else np.full(runs, steps),
        curve_steps=np.array(points),
        train_curve=np.stack([batch_loss[:, a:b].mean(1) for a, b in zip(starts, points, strict=True)], 1),
        validation_curve=validation_curve.T.numpy(),
        last_batch_loss=batch_loss[:, -1],
        validation=validation,
        test=test,
        diverged=~finite,
        trace=state.trace.T.contiguous().cpu(),
        tensor_trace=tensor_trace.transpose(0, 1).contiguous(),
        tensors=program.names,
        wall_seconds=float(seconds) + time.perf_counter() - started,
        compiled=program.compiled,
    )
