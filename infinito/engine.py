"""Trains a stack of runs at once: axis 0 of every tensor, S, is the run. The only file that says vmap.

Every run keeps its own weights, batches, noise, clipping and hyperparameters, so a run's weights do not depend on its
lane or its neighbours, and a run that diverges leaves the others untouched. All parameters of a run lie in one flat
row [P]: the optimiser is then a single elementwise pass, whatever the network.

Equal seeds give equal bits on the same class of device, with the same versions and the same S: every sum is taken in
an order that does not depend on timing, on a GPU too.

Shapes: S runs, P parameters of one run, B batch, T length, V vocabulary, N evaluation examples.
"""

import contextlib
import copy
import ctypes
import functools
import inspect
import logging
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap
from torch.nn import functional as F

from infinito.diagnosis import diagnosis
from infinito.embedding import compared
from infinito.noise import KeyedDropout, KeyedGaussianNoise, keyed
from infinito.replay import Replay
from infinito.seeds import DrawFrom, noise_keys, torch_stream
from infinito.snapshot import Snapshot
from infinito.tasks import IGNORE, Data, Split
from infinito.trace import digest, digests

logger = logging.getLogger(__name__)

PROBE = 256  # validation examples behind a point of a learning curve
BETAS, EPSILON = (0.9, 0.999), 1e-8  # of AdamW, torch's defaults
NARROW = 32  # runs, up to which a step on a GPU waits for its launches more than for its arithmetic
ALIGNED = 16  # numbers: every tensor in a row begins at a multiple of 64 bytes, which fast matrix products ask for


@dataclass(frozen=True)
class Settings:
    """How a run is trained; the four rates may be a number for all runs or one number per run.

    dropout: None keeps the rates that the network was built with.
    """

    steps: int
    batch: int
    learning_rate: float | Sequence[float]
    warmup: int
    schedule: str
    weight_decay: float | Sequence[float]
    clip_norm: float | Sequence[float]
    curve_every: int
    dropout: Sequence[float] | None = None


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


@dataclass(frozen=True)
class Trained:
    """A finished stack. Curves have C points; `train_curve` is the mean loss of the batches since the last point."""

    initial: dict[str, Tensor]  # [S, ...], names of the module's state_dict
    final: dict[str, Tensor]
    curve_steps: np.ndarray  # [C]
    train_curve: np.ndarray  # [S, C]
    validation_curve: np.ndarray  # [S, C], on the first PROBE examples
    last_batch_loss: np.ndarray  # [S]
    validation: Evaluation
    test: Evaluation
    diverged: np.ndarray  # bool [S]
    trace: Tensor  # int32 [S, steps], digests of all weights after every step (see `infinito.trace`)
    tensor_trace: Tensor  # int32 [S, C, tensors], of every trained tensor at the points of the curves
    tensors: list[str]  # their names
    wall_seconds: float
    compiled: bool


def token_nats(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of every token in nats, 0 where the target is IGNORE; [..., V] and [...] -> [...].

    The target's logit is picked by comparison, not by index: the gradient then has no scatter, whose order of additions
    is not fixed on a GPU.
    """
    # half precision is too coarse for a loss
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    hit = targets[..., None] == torch.arange(logits.shape[-1], device=logits.device)
    # a difference of two sums and not log_softmax, whose gradient reads the logits once more
    picked = torch.where(hit, logits, 0.0).sum(-1)
    return torch.where(targets == IGNORE, 0.0, torch.logsumexp(logits, -1) - picked)


def learning_rate(step: int, steps: int, warmup: int, schedule: str) -> float:
    """The factor on the learning rate at a step, counted from 0: linear warm-up, then constant or cosine to 0."""
    if step < warmup:
        return (step + 1) / warmup
    if schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def compiler() -> str | None:
    """Where torch.compile finds its C++ compiler, or None."""
    return shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++")


@functools.cache
def keep_freed_memory() -> None:
    """Tell the C library to keep freed memory instead of returning it to the system (Linux with glibc only).

    Every step allocates the same buffers again; getting them fresh from the kernel, page by page, cost 5 to 15 % of a
    step on a CPU.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for option, value in ((-1, 2**31 - 1), (-2, 2**26), (-3, 2**30)):  # trim threshold, top pad, mmap threshold
            mallopt(option, value)


@functools.cache
def attention_by_products() -> None:
    """Let torch's attention layers, in this process, be made of matrix products and softmax, which can be stacked.

    Its fused kernels can't: they would run for one run after the other.
    """
    for fused in ("flash", "mem_efficient", "cudnn"):
        getattr(torch.backends.cuda, f"enable_{fused}_sdp")(False)  # on a CPU too
    torch.backends.mha.set_fastpath_enabled(False)


@contextlib.contextmanager
def fixed_order(device: torch.device, precision: str) -> Iterator[None]:
    """Within this context torch takes algorithms that add in a fixed order, and compiles such ones.

    Compiled code for CPUs adds with atomics, too, and then depends on the threads. One thread at a time.
    """
    if device.type == "cuda":  # cuBLAS reads it when it is first used
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    memory: Any = torch.utils.deterministic
    before = torch.are_deterministic_algorithms_enabled(), memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    memory.fill_uninitialized_memory = False  # it only finds bugs, and takes kernels to do so
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        memory.fill_uninitialized_memory = before[1]


class Objective(nn.Module):
    """A network with its training loss; gives the objective, the plain loss and the state after the forward pass."""

    def __init__(self, network: nn.Module, state_names: Sequence[str]) -> None:
        super().__init__()
        self.network = network
        self.state_names = state_names

    def forward(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, tuple[Tensor, dict[str, Tensor]]]:
        """inputs, targets: [B, T] -> (loss + penalty, (loss in mean nats per scored token, state))."""
        with_penalty = getattr(self.network, "forward_with_penalty", None)
        logits, penalty = (self.network(inputs), 0.0) if with_penalty is None else with_penalty(inputs)
        loss = token_nats(logits, targets).sum() / (targets != IGNORE).sum()
        state = dict(self.network.named_buffers()) | dict(self.network.named_parameters())
        return loss + penalty, (loss, {name: state[name] for name in self.state_names})


class Program:
    """One network, ready to train any number of copies; compiled once, whatever the number of stacks.

    Args:
        make: makes the network; its weights are drawn in the constructor, by any random function of torch.
        device: where to train.
        precision: of matrix products: float32; tf32 (on a GPU, factors of 10 bits); bfloat16 (factors and products of
            7 bits). Weights, moments, norms, softmax and loss are always float32.
        compile: torch.compile the step; ignored where the CPU has no C++ compiler.
    """

    def __init__(
        self, make: Callable[[], nn.Module], device: str = "cpu", compile: bool = True, precision: str = "float32"
    ) -> None:
        self.make, self.device, self.precision = make, torch.device(device), precision
        if self.device.type == "cpu":
            keep_freed_memory()
        attention_by_products()
        with DrawFrom(torch_stream(0, "unused")):
            self.network = compared(keyed(make())).to(self.device).train()
        parameters = {name: p for name, p in self.network.named_parameters() if p.requires_grad}
        self.names = list(parameters)
        self.shapes = [p.shape for p in parameters.values()]
        self.sizes = [-(-p.numel() // ALIGNED) * ALIGNED for p in parameters.values()]  # in a row, with padding
        sites = {n: m for n, m in self.network.named_modules() if isinstance(m, KeyedDropout | KeyedGaussianNoise)}
        self.keys = [f"network.{name}.key" for name in sites]
        self.rates = [f"network.{name}.rate" for name, m in sites.items() if isinstance(m, KeyedDropout)]
        drawn = {name.removeprefix("network.") for name in self.keys + self.rates}
        frozen = [name for name, p in self.network.named_parameters() if not p.requires_grad]
        self.state_names = frozen + [name for name, _ in self.network.named_buffers() if name not in drawn]
        # a tied weight has several names in a state_dict, but only the first of them is a parameter
        first = {id(p): name for name, p in self.network.named_parameters()}
        saved = self.network.state_dict(keep_vars=True)
        self.saved = {name: first.get(id(value), name) for name, value in saved.items()}
        self.objective = Objective(self.network, self.state_names)
        self.evaluator = copy.deepcopy(self.network).eval()
        self.compiled = compile and (self.device.type != "cpu" or compiler() is not None)
        if compile and not self.compiled:
            logger.warning("no C++ compiler found (g++ or clang++): training runs uncompiled, about half as fast")
        self.step: Callable[..., Any] = self._step
        if self.compiled:
            options: dict[str, Any] = {}
            if self.device.type == "cpu":
                # one C++ file for the whole step: a third of the compile time of a file per kernel, and no helpers
                os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
                options["cpp_wrapper"] = True
            how: dict[str, Any] = {"fullgraph": True, "dynamic": False}
            if "isolate_recompiles" in inspect.signature(torch.compile).parameters:  # from torch 2.13 on
                how["isolate_recompiles"] = True  # else all programs of a process share a limit of 8
            wide = torch.compile(self._step, options=options, **how)
            narrow = wide
            if self.device.type != "cpu":
                # small kernels that don't depend on each other are launched as one: a sixth faster for 10 small
                # networks, half as fast for 1000 (benchmarks/results/gpu.json)
                narrow = torch.compile(self._step, options=options | {"combo_kernels": True}, **how)

            def step(weights: Tensor, *others: Any) -> Any:
                try:
                    return (narrow if len(weights) <= NARROW else wide)(weights, *others)
                except torch._dynamo.exc.TorchDynamoException as error:
                    raise ValueError(diagnosis(type(self.network).__name__, error)) from error

            self.step = step

    def draw(self, init_seeds: Sequence[int]) -> tuple[Tensor, dict[str, Tensor]]:
        """Freshly drawn copies: weights [S, P] and the buffers [S, ...]; a seed gives what the constructor would."""
        rows, buffers = [], []
        for seed in init_seeds:
            with DrawFrom(torch_stream(seed, "init")):
                network = self.make()
            drawn = [p.detach().reshape(-1) for p in network.parameters() if p.requires_grad]
            rows.append(torch.cat([F.pad(p, (0, size - len(p))) for p, size in zip(drawn, self.sizes, strict=True)]))
            buffers.append({n: v.detach() for n, v in (*network.named_buffers(), *network.named_parameters())})
        state = {name: torch.stack([b[name] for b in buffers]).to(self.device) for name in self.state_names}
        return torch.stack(rows).to(self.device), state

    def state_dict(self, weights: Tensor, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """A copy of weights [S, P] and persistent buffers, [S, ...], on the CPU, named as the module's state_dict."""
        named = self._named(weights) | state
        return {name: named[source].detach().clone().cpu() for name, source in self.saved.items()}

    def _named(self, row: Tensor, prefix: str = "") -> dict[str, Tensor]:
        """The parameters in a flat row [..., P], by name."""
        parts = row.split(self.sizes, dim=-1)
        return {
            prefix + name: part[..., : shape.numel()].reshape(row.shape[:-1] + shape)
            for name, part, shape in zip(self.names, parts, self.shapes, strict=True)
        }

    def _loss(
        self, row: Tensor, state: dict[str, Tensor], key: Tensor, rate: Tensor | None, inputs: Tensor, targets: Tensor
    ) -> tuple[Tensor, tuple[Tensor, dict[str, Tensor]]]:
        """One run: row [P], key int32 [2], rate [] or None, inputs and targets [B, T]; gives what `Objective` gives."""
        values = self._named(row, "network.") | {f"network.{n}": v for n, v in state.items()}
        values |= dict.fromkeys(self.keys, key)
        if rate is not None:
            values |= dict.fromkeys(self.rates, rate)
        with self.rounding():
            return functional_call(self.objective, values, (inputs, targets))

    def rounding(self) -> torch.autocast:
        """The context in which the network runs at its precision."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16")

    def _step(
        self,
        weights: Tensor,
        first: Tensor,
        second: Tensor,
        state: dict[str, Tensor],
        keys: Tensor,
        rates: Tensor | None,
        inputs: Tensor,
        targets: Tensor,
        learning_rate: Tensor,
        weight_decay: Tensor,
        clip_norm: Tensor,
        corrections: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, dict[str, Tensor]]:
        """One step of all runs: AdamW (Loshchilov & Hutter 2019) with clipping per run.

        weights, first, second: [S, P]; keys: int32 [S, 2]; rates: [S] or None; inputs, targets: [S, B, T];
        learning_rate, weight_decay, clip_norm: [S]; corrections: [2], 1 - beta^t. Returns losses [S], the digests of
        the new weights, int32 [S], and the new weights, moments and state: on a GPU the given tensors, changed.
        """
        per_run = (0, 0, 0, None if rates is None else 0, 0, 0)
        gradient, (_, (losses, after)) = vmap(grad_and_value(self._loss, has_aux=True), in_dims=per_run)(
            weights, state, keys, rates, inputs, targets
        )
        norm = gradient.square().sum(1).sqrt()
        gradient = gradient * (clip_norm / (norm + 1e-6)).clamp(max=1.0)[:, None]
        mean = first.lerp(gradient, 1 - BETAS[0])
        square = second * BETAS[1] + gradient.square() * (1 - BETAS[1])
        scale = square.sqrt() / corrections[1].sqrt() + EPSILON
        decayed = weights * (1 - learning_rate * weight_decay)[:, None]
        new = decayed - (learning_rate / corrections[0])[:, None] * (mean / scale)
        check = digest(new)
        if self.device.type == "cpu":  # for which changes in place don't compile
            return losses, check, new, mean, square, after
        state = {name: state[name].copy_(after[name]) for name in self.state_names}
        return losses, check, weights.copy_(new), first.copy_(mean), second.copy_(square), state

    @torch.no_grad()
    def evaluate(self, weights: Tensor, state: dict[str, Tensor], split: Split) -> Evaluation:
        """Loss and correct tokens of every example for weights [S, P]; draws nothing.

        Not compiled: it is a small part of the work, and compiling it would cost more than it saves.
        """

        def scores(row: Tensor, state: dict[str, Tensor], inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
            with self.rounding():
                logits = functional_call(self.evaluator, self._named(row) | state, (inputs,))
            correct = ((logits.argmax(-1) == targets) & (targets != IGNORE)).sum(-1)
            return token_nats(logits, targets).sum(-1), correct

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
        progress: called with the number of steps done, now and then.
        snapshot: where to keep all that is needed to go on after an interruption; if the file is there, go on from it.
            The result is the same to the bit. It is for the caller to remove.

    Raises:
        ValueError: a per-run setting has another length than S; dropout rates for a network without dropout.
    """
    started = time.perf_counter()
    device, runs, steps = program.device, len(init_seeds), settings.steps
    data = data.to(device)
    weights, state = program.draw(init_seeds)
    initial = program.state_dict(weights, state)
    first_moment, second_moment = torch.zeros_like(weights), torch.zeros_like(weights)

    def per_run(name: str) -> Tensor:
        value = torch.as_tensor(getattr(settings, name), dtype=torch.float32)
        if value.ndim and len(value) != runs:
            raise ValueError(f"{name}: {len(value)} values for {runs} runs")
        return value.expand(runs).contiguous().to(device)

    rate, decay, clip = per_run("learning_rate"), per_run("weight_decay"), per_run("clip_norm")
    dropout = None if settings.dropout is None else per_run("dropout")
    if dropout is not None and not program.rates:
        raise ValueError("dropout: the network has no dropout of its own; build it with a rate above 0")
    # the step comes first: what one step gets then has the same strides whatever the number of steps, and the compiled
    # program fits every study
    order = torch.stack([data.order(seed, steps, settings.batch) for seed in data_seeds], 1).to(device)  # [steps, S, B]
    keys = torch.stack([noise_keys(seed, steps) for seed in noise_seeds], 1).to(device)  # [steps, S, 2]
    factor = torch.tensor([learning_rate(t, steps, settings.warmup, settings.schedule) for t in range(steps)])
    factor = factor.to(device)
    powers = torch.arange(1, steps + 1, dtype=torch.float64)
    corrections = torch.stack([1 - beta**powers for beta in BETAS], -1).float().to(device)  # [steps, 2]
    losses = torch.zeros(steps, runs, dtype=weights.dtype, device=device)
    trace = torch.zeros(steps, runs, dtype=torch.int32, device=device)
    clock = torch.zeros(1, dtype=torch.int64, device=device)  # a recorded step can't be told which one it is

    def advance() -> None:
        nonlocal weights, first_moment, second_moment, state

        def now(schedule: Tensor) -> Tensor:
            return schedule.index_select(0, clock)[0]

        inputs, targets = data.batch(now(order))
        with fixed_order(device, program.precision):
            loss, check, weights, first_moment, second_moment, state = program.step(
                weights,
                first_moment,
                second_moment,
                state,
                now(keys),
                dropout,
                inputs,
                targets,
                rate * now(factor),
                decay,
                clip,
                now(corrections),
            )
        losses.index_copy_(0, clock, loss[None])
        trace.index_copy_(0, clock, check[None])
        clock.add_(1)

    step = Replay(advance) if device.type == "cuda" else advance
    probe = data.validation.first(PROBE)
    points = [*range(settings.curve_every, steps, settings.curve_every), steps]
    validation_curve = torch.zeros(len(points), runs, dtype=torch.float64)
    tensor_trace = torch.zeros(len(points), runs, len(program.names), dtype=torch.int32)
    seconds = torch.zeros(1, dtype=torch.float64)  # before an interruption

    def current() -> dict[str, Tensor]:
        return {
            "clock": clock,
            "weights": weights,
            "first_moment": first_moment,
            "second_moment": second_moment,
            "losses": losses,
            "trace": trace,
            "validation_curve": validation_curve,
            "tensor_trace": tensor_trace,
            "seconds": seconds + (time.perf_counter() - started),
        } | {f"state.{name}": value for name, value in state.items()}

    keeper = Snapshot(snapshot)
    keeper.restore(current() | {"seconds": seconds})
    for t in range(int(clock), steps):
        step()
        if t + 1 in points:
            place = points.index(t + 1)
            validation_curve[place] = torch.from_numpy(program.evaluate(weights, state, probe).loss)
            tensor_trace[place] = digests(weights, program.sizes).cpu()
        if (t + 1) % 10 == 0 or t + 1 == steps:
            if device.type == "cuda":
                torch.cuda.synchronize(device)  # else it would count what was only launched
            keeper.keep(current)
            progress(t + 1)

    validation = program.evaluate(weights, state, data.validation)
    test = program.evaluate(weights, state, data.test)
    batch_loss = losses.T.cpu().numpy().astype(np.float64)
    starts = [0, *points[:-1]]
    finite = np.isfinite(batch_loss).all(1) & np.isfinite(validation.loss) & np.isfinite(test.loss)
    return Trained(
        initial=initial,
        final=program.state_dict(weights, state),
        curve_steps=np.array(points),
        train_curve=np.stack([batch_loss[:, a:b].mean(1) for a, b in zip(starts, points, strict=True)], 1),
        validation_curve=validation_curve.T.numpy(),
        last_batch_loss=batch_loss[:, -1],
        validation=validation,
        test=test,
        diverged=~finite,
        trace=trace.T.contiguous().cpu(),
        tensor_trace=tensor_trace.transpose(0, 1).contiguous(),
        tensors=program.names,
        wall_seconds=float(seconds) + time.perf_counter() - started,
        compiled=program.compiled,
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
