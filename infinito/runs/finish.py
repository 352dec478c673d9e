"""Training a stack, and what a finished one leaves on disk."""

import functools
import hashlib
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from infinito import params, tasks, training
from infinito.runs import commands, integrity
from infinito.runs.code import code_sha256
from infinito.runs.engine import engine, network_maker, settings
from infinito.runs.provenance import device_class, environment, working_tree
from infinito.runs.stacks import SCHEMA, Job, StackJob, keep_compiled
from infinito.storage import file_sha256, replacing, write_json, write_table, write_weights
from infinito.training import loop, stacked
from infinito.training.diagnosis import place


@functools.lru_cache(maxsize=4)
def _engine(
    arm_json: str, train_json: str, data: Path, data_sha256: str, device: str, compile: bool, initial: Path | None
) -> tuple[Any, tasks.Data]:
    """Compiled once per process, whatever the number of stacks."""
    loaded, train = tasks.load(data), params.Train.model_validate_json(train_json)
    make = network_maker(params.Arm.model_validate_json(arm_json), train.trunk, loaded, initial)
    return engine(train, make, loaded.task, device, compile), loaded


def finish(job: Job, progress: Callable[[int], None]) -> Path:
    """Train a stack, unless it is already in the scratch folder, and return the folder that holds it.

    The folder appears whole or not at all; a training that was interrupted goes on where its last snapshot was taken.
    `progress` is called with the model-steps done: with 0 when the training begins, again after the first step, which
    may wait for a compiler, and now and then.

    Raises:
        ValueError: the network raises something, with its place, the stack and the step.
    """
    if isinstance(job, commands.CommandJob):
        return commands.finish(job, progress)
    folder = job.scratch / job.stack_id
    if (folder / "stack.json").is_file():
        progress(job.steps)
        return folder
    progress(0)
    keep_compiled(job.scratch)
    trainer, data = _engine(
        job.arm.model_dump_json(),
        job.train.model_dump_json(),
        job.data,
        job.data_sha256,
        job.device,
        job.compiled,
        job.initial,
    )
    snapshot = job.scratch / f"{job.stack_id}.snapshot.{'pt' if job.train.engine == 'loop' else 'safetensors'}"
    # a short stack is filled up: the shapes stay the same, so nothing is compiled twice and the bits don't depend on it
    padded = [*job.runs, *[job.runs[-1]] * (job.width - len(job.runs))]
    train: Any = loop.train if job.train.engine == "loop" else stacked.train
    reached = 0

    def report(steps: int) -> None:
        nonlocal reached
        reached = steps
        progress(steps * len(job.runs))

    try:
        trained = train(
            trainer,
            data,
            settings(job.train),
            [run.init_seed for run in padded],
            [run.data_seed for run in padded],
            [run.noise_seed for run in padded],
            progress=report,
            snapshot=snapshot,
        )
    except (Exception, SystemExit) as error:  # a user's network may raise anything, at any step
        where, line = place(traceback.extract_tb(error.__traceback__))
        if not where:
            raise
        reason = " ".join(str(error).split())[:300]
        raise ValueError(
            f"network: {job.arm.network!r}: {where}: `{line[:100]}`: {type(error).__name__}: {reason} "
            f"(stack {job.name}, after {reached} of {job.train.steps} steps)"
        ) from error
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
    task = data.task
    guess = task.metric.sign * task.metric.guess  # what a diverged run scores: as good as guessing

    def scored(found: np.ndarray, lane: int, guess: float = guess) -> float:
        return guess if trained.diverged[lane] else float(found[lane])

    # what the runs of a pair must have in common
    alike = {
        "data_sha256": job.data_sha256,
        "evaluation_sha256": _split_sha256(data.test),
        "train_examples": job.train.steps * job.train.batch,
        "device": device_class(job.device),
        "code_sha256": code_sha256(job.code),
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
            **{name: scored(trained.test.score(name), lane, score.guess) for name, score in task.scores.items()},
            "kept_step": int(trained.kept_step[lane]),
            "diverged": bool(trained.diverged[lane]),
            "wall_seconds": trained.wall_seconds / n,
            "weights_sha256": _weights_sha256(final, lane),
            **alike,
        }
        for lane, run in enumerate(job.runs)
    ]
    table = pd.DataFrame(rows)
    write_table(folder / "runs.parquet", table)
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
    joined = pd.concat(curves, ignore_index=True)
    write_table(folder / "curves.parquet", joined)
    weights, examples = trained.test.weights, len(trained.test.weights)
    items = pd.DataFrame(
        {
            "run_id": pd.Categorical(np.repeat(ids, examples)),
            "item": np.tile(np.arange(examples, dtype=np.int32), n),
            "loss": trained.test.losses[:n].ravel().astype(np.float32),
            "weight": np.tile(weights.astype(np.float32 if weights.dtype.kind == "f" else np.int32), n),
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
        "rows": integrity.rows(table),
        "curves_sha256": integrity.curves_sha256(joined),
        "files": {name: file_sha256(folder / name) for name in integrity.FILES},
        "arm": job.arm.identity,
        "initial_sha256": job.initial_sha256,
        "train": job.train.model_dump(),
        "data_sha256": job.data_sha256,
        "compiled": trained.compiled,
        "wall_seconds": trained.wall_seconds,
        "tensors": trained.tensors,
        "threads": torch.get_num_threads(),
        "predicted_bytes": job.predicted_bytes,
        "peak_bytes": None if job.device == "cpu" else torch.cuda.max_memory_allocated(),
        "code_sha256": alike["code_sha256"],
        "code": dict(job.code),
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
        bits = weights[name][lane].contiguous().reshape(-1).view(torch.uint8)  # numpy knows no bfloat16
        digest.update(name.encode() + b"\0" + bits.numpy().tobytes())
    return digest.hexdigest()
