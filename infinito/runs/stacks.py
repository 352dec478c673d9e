"""Stacks: runs that are trained together, by whom, and what a finished one leaves on disk.

A finished stack is kept in the study's scratch folder under a key made of everything its numbers depend on: the runs,
the width of the stack, the code, torch's version and the device class. So whatever was interrupted goes on where it
was, and nothing else is ever reused.
"""

import functools
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from infinito import params, tasks, training
from infinito.runs import commands
from infinito.runs.code import code_of, code_sha256, task_name
from infinito.runs.engine import choose, compiles, network_maker
from infinito.runs.provenance import device_class, this_device
from infinito.runs.table import Run
from infinito.storage import canonical, file_sha256, sha256
from infinito.study import Study
from infinito.tasks.command import Reported
from infinito.training import memory

logger = logging.getLogger(__name__)

SCHEMA = "infinito/stack/4"  # of the files of a stack


@dataclass(frozen=True)
class StackJob:
    """Runs of one arm that are trained together, and all that is needed to do so in another process."""

    study: str
    arm: params.Arm
    train: params.Train  # as this arm is trained, by which engine, and how many runs at once
    data: Path
    data_sha256: str
    runs: tuple[Run, ...]
    number: int
    scratch: Path
    protocol: str | None = None  # hash of what was registered before these runs; recorded with them
    initial: Path | None = None  # file of initial weights, which then come from no init seed
    predicted_bytes: int | None = None  # of memory (see `infinito.training.memory`)
    device: str = field(default_factory=this_device)
    compile: bool = True  # where that is possible

    @property
    def width(self) -> int:
        """Runs that are trained together, a short stack being filled up."""
        assert self.train.stack != "auto"  # `plan` has chosen
        return self.train.stack

    @property
    def name(self) -> str:
        return f"{self.runs[0].arm}-{self.runs[0].design}-{self.number:02d}"

    @property
    def unit(self) -> str:
        return "model-steps"

    @property
    def steps(self) -> int:
        """Model-steps of the stack."""
        return self.train.steps * len(self.runs)

    def run_id(self, run: Run) -> str:
        """Hash of everything that makes this run what it is; the other runs of the stack are no part of it."""
        identity = {
            "arm": self.arm.identity,
            "data": self.data_sha256,
            "train": self.train.recipe,
            "seeds": run.seeds,
            "initial": self.initial_sha256,
        }
        if self.train.engine == "loop":  # other bits, and other noise
            identity["engine"] = "loop"
        return sha256(canonical(identity))[:16]

    @property
    def compiled(self) -> bool:
        return self.compile and compiles(self.device)

    @functools.cached_property
    def initial_sha256(self) -> str | None:
        return None if self.initial is None else file_sha256(self.initial)

    @functools.cached_property
    def code(self) -> Mapping[str, str]:
        """Hashes of the files that its numbers depend on, see `code_of`."""
        return code_of(self.arm.network, task_name(self.data))

    @property
    def arm_sha256(self) -> str:
        """Hash of the network, its settings and its recipe: what makes two runs those of one and the same arm."""
        return sha256(canonical({"arm": self.arm.identity, "train": self.train.recipe}))

    @functools.cached_property
    def stack_id(self) -> str:
        """Names the finished stack in the scratch folder: identity of its runs plus all that may change their bits."""
        key = {
            "schema": SCHEMA,
            "study": self.study,
            "runs": [[run.arm, run.design, self.run_id(run)] for run in self.runs],
            "width": self.width,
            "curve_every": self.train.curve_every,
            "code": code_sha256(self.code),
            "torch": torch.__version__,
            "device": device_class(self.device),
            "compiled": self.compiled,
        }
        return sha256(canonical(key))[:16]


Job = StackJob | commands.CommandJob
FanOut = Callable[[Sequence[Job]], list[Path]]  # trains stacks somewhere, and gives the folder of each


def keep_compiled(scratch: Path) -> None:
    """Have torch keep what it compiles in the study's scratch folder."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(scratch.parent / "compiled"))


def plan(
    study: Study,
    data: tasks.Data | Reported,
    wanted: Iterable[Run],
    *,
    protocol: str | None = None,
    train: params.Train | None = None,
    initial: Path | None = None,
    first: int = 0,
) -> list[Job]:
    """Group runs into stacks, per arm and design, in the given order; arms take turns.

    Args:
        study: whose params say how to train.
        data: the prepared task.
        wanted: the runs.
        protocol: hash of the protocol that was registered for these runs, to be recorded with those trained now.
        train: how to train all of them, where it is not as the study's params say; an arm's own recipe is part of it.
        initial: file of initial weights for all of these runs.
        first: number of the first stack of a design, where earlier ones were planned before.

    Raises:
        ValueError: see `choose`, or `commands.plan`.
    """
    if isinstance(data, Reported):
        return [*commands.plan(study, data, wanted, protocol=protocol, first=first)]
    shared = study.params.networks
    device = this_device()
    if device == "cpu" and training.compiler() is None:
        logger.warning("no C++ compiler found (g++ or clang++): training runs uncompiled, about half as fast")
    check_train(shared, data)
    keep_compiled(study.scratch.resolve())  # before torch chooses a folder, which processes started here would inherit
    folder = study.data.resolve()
    engine = choose(shared, device, folder, data)
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in wanted:
        groups.setdefault((run.design, run.arm), []).append(run)
    jobs: list[Job] = []
    for (_, arm), runs in groups.items():
        how = (train or shared.of(arm)).model_copy(update={"engine": engine})
        make = network_maker(how.arms[arm], how.trunk, data, initial)
        predicted = bytes_per_run(how, arm, make, data, device)
        longest = max(len(some) for (_, other), some in groups.items() if other == arm)
        width = stack_width(how, arm, engine, longest, predicted, device)
        for number, start in enumerate(range(0, len(runs), width), first):
            jobs.append(
                StackJob(
                    study=study.params.study,
                    arm=how.arms[arm],
                    train=how.model_copy(update={"stack": width}),
                    data=folder,
                    data_sha256=data.sha256,
                    runs=tuple(runs[start : start + width]),
                    number=number,
                    scratch=study.scratch.resolve(),
                    protocol=protocol,
                    initial=initial.resolve() if initial else None,
                    predicted_bytes=None if predicted is None else predicted * width,
                )
            )
    return sorted(jobs, key=lambda job: job.number)  # neighbours differ in arm: two workers compile side by side


def check_train(train: params.Train, data: tasks.Data) -> None:
    """Whether the recipes suit the task.

    Raises:
        ValueError: labels are to be smoothed, and the task has none.
    """
    for arm in train.arms:
        if train.of(arm).label_smoothing and not tasks.label_smoothing(data.task):
            raise ValueError(
                f"train.label_smoothing: found {train.of(arm).label_smoothing:g} for the {arm}; allowed: 0, as the "
                "task has no labels to be smoothed"
            )


def stack_width(train: params.Train, arm: str, engine: str, runs: int, per_run: int | None, device: str) -> int:
    """How many runs of an arm are trained together, the same for all of its designs: every width is compiled."""
    if engine == "loop":
        return 1
    if train.stack != "auto":
        return train.stack
    if per_run is None:
        raise ValueError(
            f"train.stack: found auto, but network {train.arms[arm].network!r} does not say what memory it takes; "
            "allowed: a number"
        )
    return memory.width(runs, per_run, device)


def bytes_per_run(
    train: params.Train, arm: str, make: Callable[[], nn.Module], data: tasks.Data, device: str
) -> int | None:
    """See `memory.bytes_per_run`; None for a network that can't run on tensors without contents."""
    try:
        smoothing, best = train.label_smoothing, train.keep == "best"
        how = train.steps, train.batch, train.precision, device
        return memory.bytes_per_run(make, data, *how, smoothing=smoothing, best=best)
    except Exception as error:  # a user's network may raise anything
        if train.engine != "loop":
            reason = " ".join(str(error).split())[:200]
            logger.warning("network %r: memory not predicted: %s", train.arms[arm].network, reason)
        return None
