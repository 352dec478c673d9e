"""Which engine trains a study: runs together, where its networks can be stacked and are small, else one by one."""

import functools
import logging
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from torch import nn

from infinito import networks, params, tasks, training
from infinito.runs.trial import try_out
from infinito.training import loop, stacked, vectorizable

logger = logging.getLogger(__name__)

Engine = Literal["stacked", "loop"]
# floating point operations of a step, above which one run fills the device and stacking brings little (docs/engine.md)
LARGE = {"cpu": 1e10, "cuda": 1e12}
FEW, MORE, TOGETHER = 3, 13, 4  # steps whose times are compared, and runs of a stack, in the measurement
MEASURED = {"cpu": 3e9, "cuda": 3e11}  # operations of a step up to which that takes seconds, not minutes


def compiles(device: str) -> bool:
    """Whether the engine will compile: always on a GPU, on a CPU where there is a C++ compiler.

    INFINITO_COMPILE=0 turns it off, for short trials in which compiling would take longer than training.
    """
    return os.environ.get("INFINITO_COMPILE") != "0" and (device != "cpu" or training.compiler() is not None)


def network_maker(
    arm: params.Arm, trunk: dict[str, Any], data: tasks.Data, initial: Path | None = None
) -> Callable[[], nn.Module]:
    """What makes the network of an arm for a task, with freshly drawn weights or with those of the file `initial`.

    Raises:
        ValueError: unknown or unimportable network, settings that it doesn't take or may not set, initial weights that
            don't fit; see `try_out`.
    """
    given = dict(data.task.given)
    for name in given.keys() & (arm.settings.keys() | trunk.keys()):
        raise ValueError(
            f"network: {arm.network!r}: settings.{name}: found {(trunk | arm.settings)[name]!r}; the task decides it"
        )
    chosen = trunk | given | arm.settings
    make: Callable[[], nn.Module] = functools.partial(networks.build, arm.network, **chosen)
    shorter = None
    if isinstance(given.get("length"), int):
        shorter = functools.partial(networks.build, arm.network, **(chosen | {"length": given["length"] - 1}))
    if initial is not None:
        make = functools.partial(networks.with_weights, make, initial)
    try_out(arm.network, make, data, shorter)  # the first error is better here than in a worker process
    return make


def choose(train: params.Train, device: str, folder: Path, data: tasks.Data) -> Engine:
    """The engine of all arms of a study: a difference between arms must not be one between engines.

    Says in one line why it is the loop, what to write instead, and what that costs.

    Args:
        train: the section of params.yaml.
        device: cpu or cuda.
        folder: where the prepared data are.
        data: the same, loaded.

    Raises:
        ValueError: see `network_maker`; or the engine is to be `stacked`, and a network can't be stacked.
    """
    for arm in train.arms:
        _maker(train, arm, data)
    if train.engine == "loop":
        return "loop"
    return _choose(train.model_dump_json(), device, folder, data.sha256)


@functools.cache
def _choose(train_json: str, device: str, folder: Path, data_sha256: str) -> Engine:
    """See `choose`; once per process, however often a study plans."""
    train, data = params.Train.model_validate_json(train_json), tasks.load(folder)
    size = {arm: arithmetic(train, arm, data) for arm in train.arms}
    refusals = {arm: refusal for arm in train.arms if (refusal := _refusal(train, arm, data, device))}
    if train.engine == "stacked":
        for refusal in refusals.values():
            raise ValueError(f"{refusal}; or train.engine: auto, or loop, which trains it as it is")
        return "stacked"
    if refusals:
        arm, reason = next(iter(refusals.items()))
    else:
        arm, most = max(((arm, x or 0.0) for arm, x in size.items()), key=lambda found: found[1])
        if most <= LARGE[device]:
            return "stacked"
        name, billions = train.arms[arm].network, most / 1e9
        reason = f"network: {name!r}: a step takes {billions:,.3g} GFLOP, so that one run fills the device"
    speeds = ""
    if all(x is not None and x <= MEASURED[device] for x in size.values()):
        speeds = f" ({_speeds(train, arm, refusals, data, device)})"
    logger.warning("train.engine: auto takes loop, one run after the other: %s%s", reason, speeds)
    return "loop"


def _maker(train: params.Train, arm: str, data: tasks.Data) -> Callable[[], nn.Module]:
    return network_maker(train.arms[arm], train.of(arm).trunk, data)


def _refusal(train: params.Train, arm: str, data: tasks.Data, device: str) -> str | None:
    """Why an arm can't be stacked; None if it can."""
    name, how = train.arms[arm].network, train.of(arm)
    if ":" not in name:  # of those of infinito the tests know
        return None
    try:
        vectorizable.check(
            name,
            _maker(train, arm, data),
            data,
            compiled=compiles(device),
            precision=how.precision,
            smoothing=how.label_smoothing,
        )
    except ValueError as error:
        return str(error)
    return None


def arithmetic(train: params.Train, arm: str, data: tasks.Data) -> float | None:
    """Floating point operations of a step of one run, three times those of the forward pass; None: unknown."""
    with training.drawing(0, "unused"):
        network = _maker(train, arm, data)().eval()
        try:
            return 3.0 * train.of(arm).batch * networks.flops(network, data.validation.inputs[:1].cpu())
        except Exception:  # a user's network may raise anything
            return None


def _speeds(train: params.Train, arm: str, refusals: dict[str, str], data: tasks.Data, device: str) -> str:
    """What the loop does, and what stacking would do, by a few steps of an arm that can be stacked, if there is one."""
    here = model_steps(train, arm, data, "loop", device)
    said = f"{here:,.3g} model-steps/s, uncompiled"
    other = next((name for name in (arm, *train.arms) if name not in refusals), None)
    if other is None:
        return said
    single = here if other == arm else model_steps(train, other, data, "loop", device)
    together = model_steps(train, other, data, "stacked", device)
    how = f"{together / single:.2g} times as fast" if together > single else f"{single / together:.2g} times slower"
    return f"{said}; {TOGETHER} runs of the {other} stacked are {how}"


def model_steps(train: params.Train, arm: str, data: tasks.Data, kind: Engine, device: str) -> float:
    """Model-steps a second, uncompiled: the time of some steps less that of fewer."""
    how, make = train.of(arm).model_copy(update={"engine": kind}), _maker(train, arm, data)
    small: Any = data
    few = replace(small, validation=data.validation.first(1), test=data.test.first(1))
    made = engine(how, make, data.task, device, compile=False)
    trains: Any = stacked.train if kind == "stacked" else loop.train
    runs = list(range(TOGETHER if kind == "stacked" else 1))

    def seconds(steps: int) -> float:
        began = time.perf_counter()
        trains(made, few, settings(how.model_copy(update={"steps": steps, "warmup": 0})), runs, runs, runs)
        return time.perf_counter() - began

    seconds(1)
    return len(runs) * (MORE - FEW) / max(seconds(MORE) - seconds(FEW), 1e-6)


def settings(train: params.Train) -> training.Settings:
    """What an engine needs to know of a recipe."""
    names = {
        "steps",
        "batch",
        "learning_rate",
        "warmup",
        "schedule",
        "weight_decay",
        "clip_norm",
        "curve_every",
        "keep",
    }
    return training.Settings(**train.model_dump(include=names))


def engine(train: params.Train, make: Callable[[], nn.Module], task: tasks.Task, device: str, compile: bool) -> Any:
    """A `Program` or a `Loop` for an arm, as its recipe says."""
    kind: Any = training.Loop if train.engine == "loop" else training.Program
    return kind(
        make,
        task,
        device,
        compile,
        train.precision,
        optimiser=training.optimiser(train.optimiser),
        decayed=train.decayed,
        smoothing=train.label_smoothing,
    )
