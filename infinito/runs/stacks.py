"""Stacks: runs that are trained together, by whom, and what a finished one leaves on disk.

A finished stack is kept in the study's scratch folder under a key made of everything its numbers depend on: the runs,
the width of the stack, the code, torch's version and the device class. So whatever was interrupted goes on where it
was, and nothing else is ever reused.
"""

import functools
import hashlib
import logging
import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from infinito import networks, params, seeds, tasks, training
from infinito.runs.provenance import code_sha256, device_class, environment, this_device, working_tree
from infinito.runs.table import Run
from infinito.storage import canonical, file_sha256, replacing, sha256, write_json, write_table, write_weights
from infinito.training import memory, vectorizable

logger = logging.getLogger(__name__)

SCHEMA = "infinito/stack/2"  # of the files of a stack


@dataclass(frozen=True)
class StackJob:
    """Runs of one arm that are trained together, and all that is needed to do so in another process."""

    study: str
    arm: params.Arm
    train: params.Train
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
    def steps(self) -> int:
        """Model-steps of the stack."""
        return self.train.steps * len(self.runs)

    def run_id(self, run: Run) -> str:
        """Hash of everything that makes this run what it is; the other runs of the stack are no part of it."""
        identity = {
            "arm": self.arm.model_dump(),
            "data": self.data_sha256,
            "train": self.train.recipe,
            "seeds": run.seeds,
            "initial": self.initial_sha256,
        }
        return sha256(canonical(identity))[:16]

    @property
    def compiled(self) -> bool:
        return self.compile and compiles(self.device)

    @functools.cached_property
    def initial_sha256(self) -> str | None:
        return None if self.initial is None else file_sha256(self.initial)

    @property
    def arm_sha256(self) -> str:
        """Hash of the network and its settings: what makes two runs those of one and the same arm."""
        return sha256(canonical({"arm": self.arm.model_dump(), "trunk": self.train.trunk.model_dump()}))

    @functools.cached_property
    def stack_id(self) -> str:
        """Names the finished stack in the scratch folder: identity of its runs plus all that may change their bits."""
        key = {
            "schema": SCHEMA,
            "study": self.study,
            "runs": [[run.arm, run.design, self.run_id(run)] for run in self.runs],
            "width": self.width,
            "curve_every": self.train.curve_every,
            "code": code_sha256(self.arm.network),
            "torch": torch.__version__,
            "device": device_class(self.device),
            "compiled": self.compiled,
        }
        return sha256(canonical(key))[:16]


FanOut = Callable[[Sequence[StackJob]], list[Path]]  # trains stacks somewhere, and gives the folder of each


def compiles(device: str) -> bool:
    """Whether the engine will compile: always on a GPU, on a CPU where there is a C++ compiler.

    INFINITO_COMPILE=0 turns it off, for short trials in which compiling would take longer than training.
    """
    return os.environ.get("INFINITO_COMPILE") != "0" and (device != "cpu" or training.compiler() is not None)


def _keep_compiled(scratch: Path) -> None:
    """Have torch keep what it compiles in the study's scratch folder."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(scratch.parent / "compiled"))


def network_maker(
    arm: params.Arm, trunk: params.Trunk, data: tasks.Data, initial: Path | None = None
) -> Callable[[], nn.Module]:
    """What makes the network of an arm for a task, with freshly drawn weights or with those of the file `initial`.

    Raises:
        ValueError: unknown or unimportable network, settings that it doesn't take or may not set, a failing forward
            pass, logits of another shape than [batch, length, vocabulary], or initial weights that don't fit.
    """
    given: dict[str, Any] = {"vocabulary": data.vocabulary, "length": data.length, "causal": data.causal}
    for name in given.keys() & arm.settings.keys():
        raise ValueError(
            f"network: {arm.network!r}: settings.{name}: found {arm.settings[name]!r}; the task decides it"
        )
    make: Callable[[], nn.Module] = functools.partial(
        networks.build, arm.network, **(trunk.model_dump() | given | arm.settings)
    )
    if initial is not None:
        make = functools.partial(networks.with_weights, make, initial)
    # the first error is better here than in a worker process
    with seeds.DrawFrom(seeds.torch_stream(0, "unused")), torch.no_grad():
        try:
            logits = make().eval()(data.validation.inputs[:2].cpu())
        except ValueError:
            raise
        except Exception as error:  # a user's network may raise anything
            reason = " ".join(str(error).split())[:300]
            raise ValueError(f"network: {arm.network!r} fails on the task: {type(error).__name__}: {reason}") from error
    expected = (*data.validation.inputs[:2].shape, data.vocabulary)
    if getattr(logits, "shape", None) != expected:
        raise ValueError(f"network: {arm.network!r} gives {getattr(logits, 'shape', type(logits))}, not {expected}")
    return make


def plan(
    study: params.Study,
    data: tasks.Data,
    wanted: Iterable[Run],
    *,
    protocol: str | None = None,
    train: params.Train | None = None,
    initial: Path | None = None,
    first: int = 0,
) -> list[StackJob]:
    """Group runs into stacks, per arm and design, in the given order; arms take turns.

    Args:
        study: whose params say how to train.
        data: the prepared task.
        wanted: the runs.
        protocol: hash of the protocol that was registered for these runs, to be recorded with those trained now.
        train: how to train, where it is not as the study's params say.
        initial: file of initial weights for all of these runs.
        first: number of the first stack of a design, where earlier ones were planned before.

    Raises:
        ValueError: see `network_maker` and `vectorizable.check`.
    """
    if not torch.cuda.is_available() and training.compiler() is None:
        logger.warning("no C++ compiler found (g++ or clang++): training runs uncompiled, about half as fast")
    train = train or study.params.train
    _keep_compiled(study.scratch.resolve())  # before torch chooses a folder, which processes started here would inherit
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in wanted:
        groups.setdefault((run.design, run.arm), []).append(run)
    compiled = compiles("cuda" if torch.cuda.is_available() else "cpu")
    jobs = []
    for (_, arm), runs in groups.items():
        network_maker(train.arms[arm], train.trunk, data, initial)
        if ":" in train.arms[arm].network:  # of those of infinito the tests know that they can be stacked
            settings = train.arms[arm].model_dump_json(), train.trunk.model_dump_json()
            _check(*settings, study.data.resolve(), data.sha256, train.precision, compiled)
        predicted = _bytes_per_run(train, arm, data, this_device())
        width = train.stack
        if width == "auto":  # one for all designs of an arm: every width is compiled
            longest = max(len(some) for (_, other), some in groups.items() if other == arm)
            if predicted is None:
                raise ValueError(
                    f"train.stack: found auto, but network {train.arms[arm].network!r} does not say what memory it "
                    "takes; allowed: a number"
                )
            width = memory.width(longest, predicted, this_device())
        for number, start in enumerate(range(0, len(runs), width), first):
            jobs.append(
                StackJob(
                    study=study.params.study,
                    arm=train.arms[arm],
                    train=train.model_copy(update={"stack": width}),
                    data=study.data.resolve(),
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


@functools.cache
def _check(arm_json: str, trunk_json: str, data: Path, data_sha256: str, precision: str, compiled: bool) -> None:
    """See `vectorizable.check`; once per process, however often a study plans."""
    loaded = tasks.load(data)
    arm = params.Arm.model_validate_json(arm_json)
    make = network_maker(arm, params.Trunk.model_validate_json(trunk_json), loaded)
    vectorizable.check(arm.network, make, loaded.validation, compiled=compiled, precision=precision)


def _bytes_per_run(train: params.Train, arm: str, data: tasks.Data, device: str) -> int | None:
    """See `memory.bytes_per_run`; None for a network that can't run on tensors without contents."""
    make = network_maker(train.arms[arm], train.trunk, data)
    try:
        return memory.bytes_per_run(make, train.steps, train.batch, data.length, train.precision, device)
    except Exception as error:  # a user's network may raise anything
        reason = " ".join(str(error).split())[:200]
        logger.warning("network %r: memory not predicted: %s", train.arms[arm].network, reason)
        return None


@functools.lru_cache(maxsize=4)
def _program(
    arm_json: str,
    trunk_json: str,
    data: Path,
    data_sha256: str,
    device: str,
    compile: bool,
    precision: str,
    initial: Path | None,
) -> tuple[Any, tasks.Data]:
    """Compiled once per process, whatever the number of stacks."""
    loaded = tasks.load(data)
    arm = params.Arm.model_validate_json(arm_json)
    trunk = params.Trunk.model_validate_json(trunk_json)
    return training.Program(network_maker(arm, trunk, loaded, initial), device, compile, precision), loaded


def finish(job: StackJob, progress: Callable[[int], None]) -> Path:
    """Train a stack, unless it is already in the scratch folder, and return the folder that holds it.

    The folder appears whole or not at all; a training that was interrupted goes on where its last snapshot was taken.
    `progress` is called with the model-steps done.
    """
    folder = job.scratch / job.stack_id
    if (folder / "stack.json").is_file():
        progress(job.steps)
        return folder
    _keep_compiled(job.scratch)
    program, data = _program(
        job.arm.model_dump_json(),
        job.train.trunk.model_dump_json(),
        job.data,
        job.data_sha256,
        job.device,
        job.compiled,
        job.train.precision,
        job.initial,
    )
    snapshot = job.scratch / f"{job.stack_id}.snapshot.safetensors"
    # a short stack is filled up: the shapes stay the same, so nothing is compiled twice and the bits don't depend on it
    padded = [*job.runs, *[job.runs[-1]] * (job.width - len(job.runs))]
    settings = training.Settings(
        **job.train.model_dump(
            include={
                "steps",
                "batch",
                "learning_rate",
                "warmup",
                "schedule",
                "weight_decay",
                "clip_norm",
                "curve_every",
            }
        )
    )
    trained = training.train(
        program,
        data,
        settings,
        [run.init_seed for run in padded],
        [run.data_seed for run in padded],
        [run.noise_seed for run in padded],
        progress=lambda steps: progress(steps * len(job.runs)),
        snapshot=snapshot,
    )
    with replacing(folder, first_wins=True) as temporary:  # another process may be finishing the same stack
        temporary.mkdir()
        _save(job, trained, data, temporary)
    snapshot.unlink(missing_ok=True)
    return folder


def _save(job: StackJob, trained: training.Trained, data: tasks.Data, folder: Path) -> None:
    """Write the tables and weights of a stack, without its padding."""
    n = len(job.runs)
    ids = [job.run_id(run) for run in job.runs]
    final = {name: tensor[:n] for name, tensor in trained.final.items()}
    cap = math.log(data.vocabulary)  # what a diverged run scores: as good as guessing

    def scored(loss: np.ndarray, lane: int) -> float:
        return cap if trained.diverged[lane] else float(loss[lane])

    # what the runs of a pair must have in common
    alike = {
        "data_sha256": job.data_sha256,
        "evaluation_sha256": _split_sha256(data.test),
        "train_tokens": job.train.steps * job.train.batch * data.length,
        "device": device_class(job.device),
        "code_sha256": code_sha256(job.arm.network),
        "arm_sha256": job.arm_sha256,
    }
    rows = [
        {
            "run_id": ids[lane],
            "study": job.study,
            **{key: getattr(run, key) for key in ("arm", "design", "init_seed", "data_seed", "noise_seed", "rep")},
            "stack_id": job.stack_id,
            "lane": lane,
            "steps": job.train.steps,
            "val_loss": scored(trained.validation.loss, lane),
            "test_loss": scored(trained.test.loss, lane),
            "last_batch_loss": scored(trained.last_batch_loss, lane),
            "accuracy": 0.0
            if trained.diverged[lane]
            else float(trained.test.correct[lane].sum() / trained.test.tokens.sum()),
            "exact": 0.0
            if trained.diverged[lane]
            else float((trained.test.correct[lane] == trained.test.tokens).mean()),
            "diverged": bool(trained.diverged[lane]),
            "wall_seconds": trained.wall_seconds / n,
            "weights_sha256": _weights_sha256(final, lane),
            **alike,
        }
        for lane, run in enumerate(job.runs)
    ]
    write_table(folder / "runs.parquet", pd.DataFrame(rows))
    points = len(trained.curve_steps)
    curves = [
        pd.DataFrame(
            {
                "run_id": np.repeat(ids, points),
                "step": np.tile(trained.curve_steps, n),
                "split": split,
                "metric": "loss",
                "value": curve[:n].ravel(),
            }
        )
        for split, curve in (("train", trained.train_curve), ("validation", trained.validation_curve))
    ]
    write_table(folder / "curves.parquet", pd.concat(curves, ignore_index=True))
    examples = len(trained.test.tokens)
    items = pd.DataFrame(
        {
            "run_id": pd.Categorical(np.repeat(ids, examples)),
            "item": np.tile(np.arange(examples, dtype=np.int32), n),
            "nats": trained.test.nats[:n].ravel().astype(np.float32),
            "tokens": np.tile(trained.test.tokens.astype(np.int32), n),
        }
    )
    write_table(folder / "items.parquet", items)
    write_weights(folder / "initial.safetensors", {name: tensor[:n] for name, tensor in trained.initial.items()})
    write_weights(folder / "final.safetensors", final)
    write_weights(folder / "trace.safetensors", {"all": trained.trace[:n], "tensors": trained.tensor_trace[:n]})
    tree = working_tree(job.scratch.parent.parent)  # the study
    record = {
        "schema": SCHEMA,
        "protocol_sha256": job.protocol,
        "name": job.name,
        "runs": ids,
        "arm": job.arm.model_dump(),
        "initial_sha256": job.initial_sha256,
        "train": job.train.model_dump(),
        "data_sha256": job.data_sha256,
        "compiled": trained.compiled,
        "wall_seconds": trained.wall_seconds,
        "tensors": trained.tensors,
        "threads": torch.get_num_threads(),
        "predicted_bytes": job.predicted_bytes,
        "peak_bytes": None if job.device == "cpu" else torch.cuda.max_memory_allocated(),
        "code_sha256": code_sha256(job.arm.network),
        "git_revision": tree["revision"],
        "git_diff_sha256": tree["diff_sha256"],
        "git_untracked": tree["untracked"],
        **environment(job.device),
    }
    if job.device == "cpu" and trained.compiled:
        record["versions"]["c++"] = training.compiler_version()
    write_json(folder / "stack.json", record)


def _split_sha256(split: tasks.Split) -> str:
    digest = hashlib.sha256()
    for tensor in (split.inputs, split.targets):
        digest.update(str(tuple(tensor.shape)).encode() + tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _weights_sha256(weights: dict[str, Tensor], lane: int) -> str:
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode() + b"\0" + weights[name][lane].contiguous().numpy().tobytes())
    return digest.hexdigest()
