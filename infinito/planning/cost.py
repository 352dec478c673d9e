"""What the training of a study takes, told before it begins: runs, steps, memory, time. What can't fit is refused."""

import functools
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from infinito import networks, params, tasks, training
from infinito.runs import engine
from infinito.runs.provenance import this_device
from infinito.runs.stacks import bytes_per_run, check_train, stack_width
from infinito.seeds import POOL_SIZE
from infinito.study import Study
from infinito.training.memory import MARGIN, ROWS

LONGEST = 10.0  # years
HOURS = 365.25 * 24


@dataclass(frozen=True)
class ArmCost:
    """What the runs of an arm take.

    Args:
        runs, model_steps: of all designs; an ensemble's longer and wider models count by their arithmetic.
        parameters: numbers that are trained.
        bytes: of memory that one worker takes; None: can't be told.
        width: runs that are trained together.
        per_second: model-steps a second of one worker, uncompiled, as a few of them took; None: not measured.
    """

    runs: int
    model_steps: int
    parameters: int
    bytes: int | None
    width: int
    per_second: float | None


@dataclass(frozen=True)
class Cost:
    arms: dict[str, ArmCost]
    engine: str
    workers: int

    @property
    def hours(self) -> float | None:
        """Of training alone; None where the speed of an arm was not measured."""
        if any(arm.per_second is None for arm in self.arms.values()):
            return None
        return sum(arm.model_steps / (arm.per_second or 1) for arm in self.arms.values()) / self.workers / 3600


def runs(settings: params.Params) -> dict[str, Counter[str]]:
    """Numbers of runs by arm and design, where nothing stops early.

    Raises:
        ValueError: more seeds than a pool has.
    """
    train, golden, ensemble = settings.train, settings.golden, settings.ensemble
    found = {arm: Counter(pairs=train.pairs, pilot=train.pilot) for arm in train.arms}
    if grid := train.grid:
        cells = grid.inits * grid.datas * grid.noises
        _check_pool(
            f"train.grid: found {grid.inits} init x {grid.datas} data x {grid.noises} noise seeds", cells, "cells"
        )
        for arm in ("candidate", "baseline"):
            found[arm]["grid"] = cells * grid.reps
    if golden:
        controls = golden.data_seeds * golden.controls
        _check_pool(f"golden: found {golden.data_seeds} data_seeds x {golden.controls} controls", controls, "seeds")
        found["candidate"]["golden"] = golden.data_seeds * len(golden.forward) + controls
    if ensemble and ensemble.compute:
        _check_pool(f"ensemble.compute.runs: found {ensemble.compute.runs}", 2 * ensemble.compute.runs, "seeds")
        found["candidate"]["ensemble"] = 2 * ensemble.compute.runs
    return found


def check_examples(prepare: params.Prepare) -> None:
    """Raises ValueError where examples that are made take more memory than this machine has."""
    if isinstance(prepare, params.Dyck):
        largest = max(prepare.pool, prepare.validation, prepare.test)
        needed = 2 * largest * (prepare.max_depth + prepare.noise) * 8  # twice as many are drawn, as 64-bit numbers
        if needed > memory_of("cpu"):
            raise ValueError(
                f"prepare: found {largest:,} examples, which take {gib(needed)}; allowed: {gib(memory_of('cpu'))}, "
                "which this machine has"
            )


def _check_pool(found: str, n: int, what: str) -> None:
    if n > POOL_SIZE:
        raise ValueError(f"{found}, {n:,} {what}; allowed: {POOL_SIZE:,}, as many as a pool has seeds")


def training_cost(study: Study, folder: Path, workers: int) -> Cost:
    """What training takes on this machine. Networks are imported and built, and a few steps of each are trained.

    Args:
        study: as its params.yaml is.
        folder: its prepared data.
        workers: processes that train at the same time.

    Raises:
        ValueError: more seeds than a pool has, a network that can't be built or trained, more memory than the machine
            has, or more than ten years.
    """
    counted, train, data = runs(study.params), study.params.networks, tasks.load(folder)
    device = this_device()
    check_train(train, data)
    predicted = {arm: _bytes(train, arm, data, device, workers) for arm in train.arms}  # before anything is built
    kind = engine.choose(train, device, folder, data)
    arms = {}
    for arm, designs in counted.items():
        how = train.of(arm).model_copy(update={"engine": kind})
        longer = study.params.ensemble.compute if study.params.ensemble else None
        weight = designs.total() + ((longer.size - 1) * designs["ensemble"] if longer else 0)
        wide = stack_width(how, arm, kind, max(designs.values()), predicted[arm], device)
        arms[arm] = ArmCost(
            runs=designs.total(),
            model_steps=weight * how.steps,
            parameters=_parameters(how, arm, data),
            bytes=_fitting(arm, predicted[arm], wide, device, workers),
            width=wide,
            per_second=_speed(how, arm, data, kind, device),
        )
    cost = Cost(arms, kind, workers)
    if cost.hours is not None and cost.hours > LONGEST * HOURS:
        raise ValueError(
            f"train: {sum(arm.model_steps for arm in arms.values()):,} model-steps take about "
            f"{cost.hours / HOURS:,.3g} years with {workers} workers on this machine; allowed: less than {LONGEST:g}: "
            "fewer steps, pairs or seeds"
        )
    return cost


def _bytes(train: params.Train, arm: str, data: tasks.Data, device: str, workers: int) -> int | None:
    """Bytes that a run takes, told without building anything of size; even one must fit."""
    how = train.of(arm)
    settings = how.trunk | dict(data.task.given) | how.arms[arm].settings
    make = functools.partial(networks.build, how.arms[arm].network, **settings)
    _fitting(arm, _rows(make), 1, device, 1)  # or there would be no memory to build it in
    predicted = bytes_per_run(how.model_copy(update={"engine": "loop"}), arm, make, data, device)
    _fitting(arm, predicted, 1, device, 1)
    return predicted


def _rows(make: Callable[[], nn.Module]) -> int | None:
    """Bytes of the weights of a run, their moments and gradient; None where the constructor looks at what it draws."""
    try:
        with FakeTensorMode():
            return ROWS * sum(p.numel() * p.element_size() for p in make().parameters())
    except Exception:  # a user's constructor may raise anything
        return None


def _fitting(arm: str, per_run: int | None, together: int, device: str, workers: int) -> int | None:
    """Bytes of a worker that trains so many runs together.

    Raises:
        ValueError: all workers together take more than there is.
    """
    if per_run is None:
        return None
    there, mine = memory_of(device), int(MARGIN * per_run * together)
    needed = mine if device == "cuda" else mine * workers  # every GPU has a worker of its own
    if needed > there:
        several = f"{workers} workers of {gib(mine)} each" if needed > mine else gib(mine)
        raise ValueError(
            f"train: the {arm} takes {several}, {together} runs at once; allowed: {gib(there)}, which this machine "
            "has: a smaller network, batch or stack"
            + (", or fewer workers (INFINITO_WORKERS)" if needed > mine else "")
        )
    return mine


def memory_of(device: str) -> int:
    """Bytes of memory that a worker's device, or all of this machine, may use."""
    if device == "cuda":
        return int(torch.cuda.get_device_properties(0).total_memory)
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = Path("/sys/fs/cgroup/memory.max")  # of a container
    said = limit.read_text().strip() if limit.is_file() else "max"
    return min(there, int(said)) if said.isdecimal() else there


def gib(size: int) -> str:
    return f"{size / 2**30:,.3g} GiB" if size >= 2**28 else f"{size / 2**20:,.3g} MiB"


def _parameters(train: params.Train, arm: str, data: tasks.Data) -> int:
    with training.drawing(0, "unused"):
        network = engine.network_maker(train.arms[arm], train.trunk, data)()
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


def _speed(train: params.Train, arm: str, data: tasks.Data, kind: engine.Engine, device: str) -> float | None:
    size = engine.arithmetic(train, arm, data)
    if size is None or size > engine.MEASURED[device]:
        return None
    return engine.model_steps(train, arm, data, kind, device)
