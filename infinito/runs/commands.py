"""Runs that are made by commands: somebody's script, started once for every run, and what is kept of it.

A run that ended is kept in the study's scratch folder under a key made of everything its figures depend on: the command
line, the seeds, where figures are looked for, the script's files, the kind of processor. A stack here is only what one
worker does without asking for more, so how runs are grouped costs nothing that was done.
"""

import atexit
import functools
import json
import math
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from infinito import params
from infinito.mistakes import one_line
from infinito.runs import integrity, launcher, reported
from infinito.runs.code import code_sha256
from infinito.runs.provenance import device_class, environment, this_device, working_tree
from infinito.runs.table import Run
from infinito.storage import canonical, file_sha256, read_json, read_table, replacing, sha256, write_json, write_table
from infinito.study import PLACEHOLDER, Study
from infinito.tasks import Metric, command

SCHEMA = "infinito/commands/1"  # of the files of a stack
STACKS = 64  # of an arm and design, at most: small enough for many workers, large enough to cost nothing
LOG = 100_000  # bytes of a run's output that are kept with the run table, the last ones
THREADS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
CURVES = pa.schema(
    [("run_id", pa.string()), ("step", pa.int64()), ("split", pa.string()), ("metric", pa.string())]
    + [("value", pa.float64())]
)
Json = dict[str, Any]


@dataclass(frozen=True)
class CommandJob:
    """Runs of one arm that a worker makes one after the other, and all that is needed to do so in another process."""

    study: str
    arm: params.Command
    train: params.Commands
    task: command.Figures
    folder: Path  # of the study, in which commands are run
    data_sha256: str  # of the manifest, with the hashes of the script's files
    code: Mapping[str, str]  # those hashes
    runs: tuple[Run, ...]
    number: int
    protocol: str | None = None  # hash of what was registered before these runs; recorded with them
    device: str = field(default_factory=this_device)
    compiled: bool = False
    unit: str = "runs"

    @property
    def name(self) -> str:
        return f"{self.runs[0].arm}-{self.runs[0].design}-{self.number:02d}"

    @property
    def steps(self) -> int:
        return len(self.runs)

    @property
    def scratch(self) -> Path:
        return self.folder / ".infinito" / "scratch"

    def run_id(self, run: Run) -> str:
        """Hash of everything that makes this run what it is."""
        identity = {"arm": self.arm.identity, "data": self.data_sha256, "train": self.train.recipe, "seeds": run.seeds}
        return sha256(canonical(identity))[:16]

    @property
    def arm_sha256(self) -> str:
        """Hash of the command and its recipe: what makes two runs those of one and the same arm."""
        return sha256(canonical({"arm": self.arm.identity, "train": self.train.recipe}))

    @functools.cached_property
    def stack_id(self) -> str:
        """Names the finished stack in the scratch folder."""
        key = {
            "schema": SCHEMA,
            "study": self.study,
            "runs": [[run.arm, run.design, self.run_id(run)] for run in self.runs],
            "tries": self.tries,
            "device": device_class(self.device),
        }
        return sha256(canonical(key))[:16]

    @property
    def tries(self) -> Json:
        """What a failure depends on beside the run: with a longer timeout it is tried anew, what ended well is not."""
        return {"timeout": self.train.timeout, "retries": self.train.retries}

    def place(self, run: Run) -> Path:
        """Where a run that ended is kept."""
        key = {"schema": SCHEMA, "run": self.run_id(run), "device": device_class(self.device)}
        return self.scratch / "commands" / sha256(canonical(key))[:24]


def plan(
    study: Study, data: command.Reported, wanted: Iterable[Run], *, protocol: str | None = None, first: int = 0
) -> list[CommandJob]:
    """Group runs into stacks, per arm and design, in the given order.

    Raises:
        ValueError: a file of the script is not as it was prepared; a command's program is not there.
    """
    train, settings = study.params.train, study.params.prepare
    assert isinstance(train, params.Commands) and isinstance(settings, params.Script)  # `load_study` has checked
    manifest, now = read_json(study.data / "manifest.json"), command.hashes(settings.files, study.folder)
    for file in {**manifest["files"], **now}:
        if manifest["files"].get(file) != now.get(file):
            raise ValueError(
                f"{study.folder / file}: not as it was prepared; run the stage prepare (dvc repro prepare)"
            )
    check_programs(study, train)
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in wanted:
        groups.setdefault((run.design, run.arm), []).append(run)
    jobs = []
    for (_, arm), runs in groups.items():
        width = -(-len(runs) // STACKS)
        jobs += [
            CommandJob(
                study=study.params.study,
                arm=train.arms[arm],
                train=train,
                task=data.task,
                folder=study.folder.resolve(),
                data_sha256=data.sha256,
                code=now,
                runs=tuple(runs[start : start + width]),
                number=number,
                protocol=protocol,
            )
            for number, start in enumerate(range(0, len(runs), width), first)
        ]
    return sorted(jobs, key=lambda job: job.number)


def check_programs(study: Study, train: params.Commands) -> None:
    """Raises ValueError for a command whose program is not there."""
    for arm, mine in train.arms.items():
        program = shlex.split(mine.command)[0]
        if shutil.which(program) is None and not os.access(study.folder / program, os.X_OK):
            where = f"{study.folder / 'params.yaml'}: train.{'ablations.' if arm in train.ablations else ''}{arm}"
            raise ValueError(f"{where}.command: found the program {program!r}; allowed: one that is there")


def finish(job: CommandJob, progress: Callable[[int], None]) -> Path:
    """Make the runs of a stack, but those that are in the scratch folder, and return the folder that holds it.

    The folder appears whole or not at all. A run that fails is kept, with the reason. `progress` is called with the
    runs made.
    """
    folder = job.scratch / job.stack_id
    if (folder / "stack.json").is_file():
        progress(job.steps)
        return folder
    progress(0)
    ends = []
    for number, run in enumerate(job.runs, 1):
        ends.append(_made(job, run))
        progress(number)
    with replacing(folder, first_wins=True) as temporary:  # another process may be finishing the same stack
        temporary.mkdir()
        _save(job, ends, temporary)
    return folder


def line(template: str, run: Run, out: Path) -> list[str]:
    """The words of a command line, no shell between: every placeholder is filled in after they were split."""
    known = {
        "seed": run.init_seed,
        "init_seed": run.init_seed,
        "data_seed": run.data_seed,
        "noise_seed": run.noise_seed,
        "out": out,
    }
    return [PLACEHOLDER.sub(lambda found: str(known[found[1]]), word) for word in shlex.split(template)]


def check(folders: Sequence[Path]) -> None:
    """Whether finished stacks allow a comparison.

    Raises:
        ChildProcessError: every run of the pairs of an arm failed.
    """
    parts = [read_table(folder / "runs.parquet").to_pandas() for folder in folders]
    if not parts or "failure" not in parts[0]:
        return
    table = pd.concat(parts)
    for arm, mine in table[table["design"] == "pairs"].groupby("arm"):
        if (mine["failure"] != "").all():
            raise ChildProcessError(
                f"train: all {len(mine)} runs of the {arm} failed, so that nothing can be compared: "
                f"{mine['failure'].iloc[0]} (what they printed is kept in .infinito/scratch/commands)"
            )


def failures(table: pd.DataFrame) -> list[Json]:
    """The runs that failed, and why: run_id, arm, design, init_seed, data_seed, failure."""
    failed = table[table["failure"] != ""]
    return integrity.rows(failed[["run_id", "arm", "design", "init_seed", "data_seed", "failure"]])


def in_words(candidate: pd.DataFrame, baseline: pd.DataFrame, metric: Metric) -> str:
    """What a verdict must say of commands that failed; nothing where none did."""
    said = ""
    for arm, mine in (("candidate", candidate), ("baseline", baseline)):
        failed = [reason for reason in mine.get("failure", ()) if reason]
        if failed:
            said += (
                f" {len(failed)} of {len(mine)} runs of the {arm} failed (the first with: {failed[0]}); "
                f"they count with the {metric.name} of guessing, {metric.guess:g}."
            )
    return said


def _made(job: CommandJob, run: Run) -> Json:
    """How a run ended, now or before."""
    place = job.place(run)
    if (place / "end.json").is_file():
        end: Json = read_json(place / "end.json")
        if end["failure"] is None or end["tries"] == job.tries:
            return end | {"log": _last(place / "log.txt")}
    for attempt in range(1, job.train.retries + 2):
        with replacing(place) as temporary:
            end = _attempt(job, run, temporary) | {"attempts": attempt, "tries": job.tries}
            write_json(temporary / "end.json", end)
        if end["failure"] is None:
            break
    return end | {"log": _last(place / "log.txt")}


def _attempt(job: CommandJob, run: Run, place: Path) -> Json:
    """Run a command once, in a folder that may be used for nothing else."""
    out, log = place / "out", place / "log.txt"
    out.mkdir(parents=True)
    more = dict.fromkeys(THREADS, str(job.train.threads)) | reported.environment(job.train.values, out)
    words = line(job.arm.command, run, out)
    answer = _launcher().ask(
        {"command": words, "folder": str(job.folder), "environment": more, "log": str(log)}
        | {"timeout": job.train.timeout}
    )
    if "error" in answer:
        raise ValueError(f"{job.folder / 'params.yaml'}: train: command: {answer['error']}")
    failure, figures = _failure(answer, job.train.timeout, log), {}
    for name, value in job.train.values.items() if failure is None else ():
        try:
            figures[name] = reported.figure(value, out, log, job.folder)
            if not math.isfinite(figures[name]):
                failure = f"{name}: found {figures[name]}; allowed: a finite number"
        except ValueError as error:
            failure = f"{name}: {one_line(error)}".replace(str(out), "{out}")
        if failure:
            break
    return {
        "failure": failure,
        "figures": None if failure else figures,
        "exit_code": answer["exit_code"],
        "seconds": answer["seconds"],
        "command": [word.replace(str(out), "{out}") for word in words],
    }


def _failure(answer: Json, timeout: float, log: Path) -> str | None:
    """Why a command that ended, or was ended, has no figures; with the last line that it printed."""
    code = answer["exit_code"]
    if answer["late"]:
        return f"still running after {timeout:g} s (train.timeout)"
    if code == 0:
        return None
    said = _last(log).strip().splitlines()
    after = f": {said[-1].strip()[:200]}" if said else ""
    if code < 0:
        names = {x.value: x.name for x in signal.Signals}
        return f"killed by {names.get(-code, f'signal {-code}')}{after}"
    return f"exit code {code}{after}"


def _last(log: Path) -> str:
    """The end of what a command printed."""
    with log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - LOG))
        return file.read().decode("utf-8", "replace").replace("\0", "")


class _Launcher:
    """This end of the pipes to the process that starts commands (see `launcher`)."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", launcher.__file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        atexit.register(self._process.kill)

    def ask(self, what: Json) -> Json:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(what).encode() + b"\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            _launcher.cache_clear()
            raise RuntimeError("the process that starts commands is gone")
        found: Json = json.loads(answer)
        return found


@functools.cache
def _launcher() -> _Launcher:
    """One a process."""
    return _Launcher()


def _save(job: CommandJob, ends: Sequence[Json], folder: Path) -> None:
    """Write the run table of a stack, what its commands printed, and how they ended."""
    metric, scores = job.task.metric, job.task.scores
    ids = [job.run_id(run) for run in job.runs]

    def scored(end: Json, name: str, sign: int, guess: float) -> float:
        return sign * (guess if end["failure"] else end["figures"][name])

    rows = [
        {
            "run_id": ids[lane],
            "study": job.study,
            **{key: getattr(run, key) for key in ("arm", "design", "init_seed", "data_seed", "noise_seed", "rep")},
            "stack_id": job.stack_id,
            "lane": lane,
            "steps": 1,
            "val_loss": scored(end, "validation", metric.sign, metric.guess)
            if "validation" in job.train.values
            else math.nan,
            "test_loss": scored(end, "test", metric.sign, metric.guess),
            "last_batch_loss": math.nan,  # only the command knows
            **{name: scored(end, name, 1, score.guess) for name, score in scores.items()},
            "kept_step": 1,
            "diverged": end["failure"] is not None,
            "failure": end["failure"] or "",
            "wall_seconds": end["seconds"],
            "weights_sha256": sha256(canonical(end["figures"])),  # of the figures, which are all that is left
            "data_sha256": job.data_sha256,
            "evaluation_sha256": job.data_sha256,
            "train_examples": 1,
            "device": device_class(job.device),
            "code_sha256": code_sha256(job.code),
            "arm_sha256": job.arm_sha256,
        }
        for lane, (run, end) in enumerate(zip(job.runs, ends, strict=True))
    ]
    table, curves = pd.DataFrame(rows), CURVES.empty_table()
    write_table(folder / "runs.parquet", table)
    write_table(folder / "curves.parquet", curves)
    write_table(folder / "logs.parquet", pd.DataFrame({"run_id": ids, "log": [end["log"] for end in ends]}))
    tree = working_tree(job.folder)
    record = {
        "schema": SCHEMA,
        "protocol_sha256": job.protocol,
        "name": job.name,
        "runs": ids,
        "rows": integrity.rows(table),
        "curves_sha256": integrity.curves_sha256(curves.to_pandas()),
        "files": {name: file_sha256(folder / name) for name in integrity.OF_COMMANDS},
        "arm": job.arm.identity,
        "train": job.train.model_dump(),
        "commands": [
            {key: end[key] for key in ("command", "exit_code", "attempts", "seconds", "failure")} for end in ends
        ],
        "data_sha256": job.data_sha256,
        "compiled": False,
        "wall_seconds": sum(end["seconds"] for end in ends),
        "threads": job.train.threads,
        "code_sha256": code_sha256(job.code),
        "code": dict(job.code),
        "git_revision": tree["revision"],
        "git_diff_sha256": tree["diff_sha256"],
        "git_untracked": tree["untracked"],
        **environment(job.device),
    }
    write_json(folder / "stack.json", record)
