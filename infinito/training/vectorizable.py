"""Whether a network can be trained in stacks, found out by one step of two runs, before any worker starts.

A network that draws its own random numbers, or remembers something between steps other than in buffers, would often
not fail: its runs would share draws, or depend on which runs were trained before them. So the step is taken twice, and
once for a run alone, and all must agree.
"""

import contextlib
import logging
import random
import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from infinito.seeds import noise_keys
from infinito.tasks import Data
from infinito.training import Evaluation, Program
from infinito.training.compiling import apart
from infinito.training.diagnosis import OWN_NOISE, PAGE, SHARED_NOISE, diagnosis
from infinito.training.evaluation import evaluate
from infinito.training.program import unstackable
from infinito.training.randomness import drawing
from infinito.training.schedule import Block, Rates

logger = logging.getLogger(__name__)

EXAMPLES = 2  # in the batch of each of the two runs
ROUNDING = 1e-3  # relative difference of the losses that adding in another order may make


def check(
    name: str,
    make: Callable[[], nn.Module],
    data: Data,
    *,
    compiled: bool = True,
    precision: str = "float32",
    smoothing: float = 0.0,
) -> None:
    """Train two runs for a step on the CPU, and evaluate them; nothing is kept.

    Warns where an operation is done for one run after the other.

    Args:
        name: of the network, for the messages.
        make: makes the network.
        data: the task, of whose examples the first ones are used.
        compiled: also see whether torch.compile sees through the step, which takes one to five seconds.
        precision, smoothing: see `Program`.

    Raises:
        ValueError: in one line, which line of the network can't be stacked or compiled, and what to write instead.
    """
    with drawing(0, "unused"):
        reason = unstackable(make())
    if reason:
        raise ValueError(f"network: {name!r}: {reason}")
    try:
        program = Program(make, data.task, compile=False, precision=precision, smoothing=smoothing)
        weights, state = program.draw([0, 1])
    except ValueError:
        raise
    except Exception as error:  # a user's network may raise anything, here and below
        raise ValueError(diagnosis(name, error)) from error
    few = data.validation.first(EXAMPLES).to(torch.device("cpu"))
    keys = torch.cat([noise_keys(seed, 1) for seed in (0, 1)])

    def step(runs: int, function: Callable[..., Any]) -> tuple[Tensor, Tensor]:
        """Losses [runs] and new weights [runs, P]; a network may change its state in place, so it gets a copy."""
        rate = torch.full((runs,), 1e-3)
        inputs, targets = (x.expand(1, runs, *x.shape).contiguous() for x in (few.inputs, few.targets))
        block = Block(inputs, targets, keys[None, :runs], torch.ones(1), torch.tensor([[0.1, 1e-3]]))
        zeros, copy = torch.zeros_like(weights[:runs]), {n: v[:runs].clone() for n, v in state.items()}
        result = function(weights[:runs], zeros, zeros, copy, block, Rates(rate, rate, rate, None))
        return result[0], result[2]

    def whole() -> tuple[tuple[Tensor, Tensor], Evaluation]:
        return step(2, program.step), evaluate(program, weights, {n: v.clone() for n, v in state.items()}, few)

    with _generators() as touched, _slow(name):
        try:
            first, scored = whole()
            again, scored_again = whole()
            alone = step(1, program.step)
        except Exception as error:
            raise ValueError(diagnosis(name, error)) from error
        if touched():
            raise ValueError(
                f"network: {name!r}: forward {SHARED_NOISE} (of random, numpy or torch); instead: {OWN_NOISE}"
            )
    same = all(_equal(a, b) for a, b in zip(first, again, strict=True))
    if not same or not np.array_equal(scored.losses, scored_again.losses, equal_nan=True):
        raise ValueError(
            f"network: {name!r}: the same step, taken twice, gives two results: forward draws random numbers by a "
            "generator of its own, or keeps what is no buffer; draw by torch.nn.Dropout and "
            "infinito.operations.GaussianNoise, keep in self.register_buffer"
        )
    if not torch.allclose(alone[0], first[0][:1], rtol=ROUNDING, atol=1e-5, equal_nan=True):
        raise ValueError(
            f"network: {name!r}: a run alone has a loss of {float(alone[0]):.6g}, beside another one of "
            f"{float(first[0][0]):.6g}: forward mixes up the runs; operations of torch on its own tensors only ({PAGE})"
        )
    if compiled:
        # what was kept since the first call must not help
        fresh = Program(make, data.task, compile=False, precision=precision)
        fresh.watch(few)
        traced = apart(fresh.step, backend="aot_eager", fullgraph=True)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the error says it too
                step(2, traced)
        except Exception as error:
            raise ValueError(diagnosis(name, error)) from error


def _equal(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)


@contextlib.contextmanager
def _generators() -> Iterator[Callable[[], bool]]:
    """Gives a function that says whether a global generator was used; they are left as they were."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()

    def touched() -> bool:
        same_numpy = all(np.array_equal(a, b) for a, b in zip(np.random.get_state(), before[1], strict=True))
        return random.getstate() != before[0] or not same_numpy or not torch.equal(torch.get_rng_state(), before[2])

    try:
        yield touched
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


@contextlib.contextmanager
def _slow(name: str) -> Iterator[None]:
    """Turns what torch says about operations that it does for one run after the other into one warning."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    found = [re.search(r"batching rule for (aten::\w+)", str(warning.message)) for warning in caught]
    operations = sorted({match[1].removesuffix("_backward") for match in found if match})
    if operations:
        logger.warning(
            "network %r: %s: done for one run after the other; other operations may be faster (%s)",
            name,
            ", ".join(operations),
            PAGE,
        )
