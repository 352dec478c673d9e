"""A task of the user's own: `package.module:Task`, a class that has the examples and says what is learned from them.

It offers examples(), given, metric, output and losses as `infinito.tasks.Task` says, and what it likes of scores with
measure, averaged, and smoothed.
"""

import importlib
import inspect
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from infinito import params
from infinito.mistakes import one_line
from infinito.storage import file_sha256
from infinito.tasks import overlap
from infinito.tasks.pool import Pool
from infinito.tasks.rows import read_arrays, write_arrays
from infinito.tasks.split import Split, identity, write_manifest
from infinito.tasks.task import Measured, Metric

SPLITS = ("train", "validation", "test")
NEEDED = ("examples", "given", "metric", "output", "losses")


class Own:
    """A user's task with what it left out: no further scores, nothing that an ensemble could average."""

    def __init__(self, task: Any) -> None:
        self.given: Mapping[str, Any] = dict(task.given)
        self.output: tuple[int, ...] = tuple(task.output)
        self.metric: Metric = task.metric
        self.losses = task.losses
        self.scores: Mapping[str, Metric] = dict(getattr(task, "scores", {}))
        self.measure = getattr(task, "measure", _nothing)
        self.averaged: Literal["probabilities", "outputs"] | None = getattr(task, "averaged", None)
        if hasattr(task, "smoothed"):
            self.smoothed = task.smoothed


def _nothing(outputs: Tensor, targets: Tensor) -> dict[str, Measured]:
    return {}


def make(settings: params.Own) -> Any:
    """The user's object, freshly made.

    Raises:
        ValueError: module or class that can't be imported; a class that refuses its settings or lacks what it needs.
    """
    where = f"prepare.task: {settings.task!r}"
    module, _, name = settings.task.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as error:  # importing runs foreign code, which may raise anything, here and below
        raise ValueError(f"{where} can't be imported: {type(error).__name__}: {one_line(error)}") from error
    if not inspect.isclass(found):
        raise ValueError(f"{where} is a {type(found).__name__}; it must be a class")
    task: Any
    try:
        task = found(**settings.settings)
        missing = [part for part in NEEDED if not hasattr(task, part)]
    except Exception as error:
        raise ValueError(f"{where} refuses its settings: {type(error).__name__}: {one_line(error)}") from error
    if missing:
        raise ValueError(f"{where}: found no {missing[0]}; needed: {', '.join(NEEDED)}")
    if not isinstance(task.metric, Metric):
        raise ValueError(f"{where}: metric: found {type(task.metric).__name__}; needed: infinito.tasks.Metric")
    averaged = getattr(task, "averaged", None)
    if averaged not in (None, "probabilities", "outputs"):
        raise ValueError(f"{where}: averaged: found {averaged!r}; allowed: probabilities, outputs, or None")
    try:
        Own(task)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: found {one_line(error)}; needed: given, a mapping, and output, a tuple") from error
    return task


def prepare(settings: params.Own, folder: Path) -> None:
    """Write the examples that the task has, and a manifest with its name, settings and the hash of its source.

    Raises:
        ValueError: see `make`; examples that lack a split, differ in number or shape, or are no finite numbers; losses
            or scores that fail on them or are of another form.
    """
    where = f"prepare.task: {settings.task!r}"
    task = make(settings)
    try:
        examples = task.examples()
    except Exception as error:
        raise ValueError(f"{where}: examples raises {type(error).__name__}: {one_line(error)}") from error
    found = examples if isinstance(examples, Mapping) else {}
    if set(found) != set(SPLITS):
        raise ValueError(
            f"{where}: examples: found {', '.join(map(str, found)) or type(examples).__name__}; needed: "
            f"a mapping of {', '.join(SPLITS)}, each to (inputs, targets)"
        )
    arrays = {split: _pair(f"{where}: examples, {split}", found[split]) for split in SPLITS}
    for split in SPLITS[1:]:
        for key, values in arrays[split].items():
            first = arrays["train"][key]
            if values.shape[1:] != first.shape[1:] or values.dtype != first.dtype:
                raise ValueError(
                    f"{where}: examples: found {key} of shape {first.shape[1:]} and type {first.dtype} in train, "
                    f"{values.shape[1:]} and {values.dtype} in {split}; allowed: the same in every split"
                )
    _check_measures(where, Own(task), {key: values[:2] for key, values in arrays["train"].items()})
    for split in SPLITS:
        write_arrays(folder / f"{split}.parquet", arrays[split])
    shared = overlap.of_examples({split: arrays[split]["inputs"] for split in SPLITS})
    overlap.check(shared, "examples", settings.overlap_allowed)
    write_manifest(
        folder,
        settings,
        {split: {"examples": len(arrays[split]["inputs"])} for split in SPLITS},
        shared,
        shapes={key: list(values.shape[1:]) for key, values in arrays["train"].items()},
        source_sha256=_source(settings, task),
    )


def load(folder: Path, manifest: dict[str, Any]) -> Pool:
    """Read what `prepare` wrote, and make the task again.

    Raises:
        ValueError: see `make`; its source is not the one that the examples were prepared with.
    """
    settings = params.Own.model_validate(manifest["settings"])
    made = make(settings)
    if _source(settings, made) != manifest["source_sha256"]:
        raise ValueError(
            f"{folder / 'manifest.json'}: the source of {settings.task!r} has changed; run the stage prepare again"
        )
    task = Own(made)

    def read(split: str) -> tuple[Tensor, Tensor]:
        found = read_arrays(folder / f"{split}.parquet", manifest["shapes"])
        return torch.from_numpy(found["inputs"]), torch.from_numpy(found["targets"])

    def fixed(split: str) -> Split:
        return Split(*read(split), outputs=math.prod(task.output))

    inputs, targets = read("train")
    return Pool(task, identity(manifest), inputs, targets, validation=fixed("validation"), test=fixed("test"))


def _source(settings: params.Own, task: Any) -> str:
    """The hash of the file that the class stands in."""
    try:
        return file_sha256(Path(inspect.getfile(type(task))))
    except (TypeError, OSError) as error:
        raise ValueError(
            f"prepare.task: {settings.task!r}: found no source file; needed: a module in a file"
        ) from error


def _pair(where: str, pair: Any) -> dict[str, np.ndarray]:
    """Inputs and targets [N, ...]: whole numbers and truth values as int64, all else as float32."""
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise ValueError(f"{where}: found {type(pair).__name__}; needed: a pair (inputs, targets)")
    found = {}
    for key, given in zip(("inputs", "targets"), pair, strict=True):
        values = np.asarray(given)
        if values.dtype.kind not in "biuf" or not values.ndim:
            raise ValueError(
                f"{where}: {key}: found {values.dtype} of shape {values.shape}; allowed: arrays of numbers"
            )
        values = values.astype(np.float32 if values.dtype.kind == "f" else np.int64)
        bad = np.argwhere(~np.isfinite(values))
        if len(bad):
            raise ValueError(
                f"{where}: {key}, example {bad[0, 0]}: found {values[tuple(bad[0])]}; allowed: finite numbers"
            )
        found[key] = values
    lengths = {key: len(values) for key, values in found.items()}
    if len(set(lengths.values())) > 1 or not lengths["inputs"]:
        raise ValueError(
            f"{where}: found {lengths['inputs']} inputs, {lengths['targets']} targets; "
            "allowed: as many of both, at least one"
        )
    return found


def _check_measures(where: str, task: Own, few: dict[str, np.ndarray]) -> None:
    """Losses and scores of two examples, were all outputs 0."""
    targets = torch.from_numpy(few["targets"])
    try:
        outputs = torch.zeros(len(targets), *task.output)
        measured = {"losses": task.losses(outputs, targets)}
        further = task.measure(outputs, targets)
    except Exception as error:
        raise ValueError(f"{where}: fails on its examples: {type(error).__name__}: {one_line(error)}") from error
    if set(further) != set(task.scores):
        raise ValueError(
            f"{where}: measure: found {', '.join(further) or 'nothing'}; "
            f"needed: {', '.join(task.scores) or 'nothing'}, as scores says"
        )
    for name, score in task.scores.items():
        if not isinstance(score, Metric):
            raise ValueError(f"{where}: scores: {name}: found {type(score).__name__}; needed: infinito.tasks.Metric")
    for name, pair in (measured | further).items():
        if not isinstance(pair, tuple) or len(pair) != 2 or not all(isinstance(part, Tensor) for part in pair):
            raise ValueError(
                f"{where}: {name}: found {type(pair).__name__}; needed: a pair of tensors, values and weights"
            )
        values, weights = pair
        if values.shape != weights.shape or values.shape[:1] != targets.shape[:1]:
            raise ValueError(
                f"{where}: {name}: found values of shape {tuple(values.shape)}, weights of {tuple(weights.shape)}; "
                f"allowed: the same for both, ({len(targets)}, ...) for {len(targets)} examples"
            )
    _check_averaged(where, task, outputs, targets)


def _check_averaged(where: str, task: Own, outputs: Tensor, targets: Tensor) -> None:
    """Whether an ensemble of such members has the loss that the task says it has."""
    if task.averaged is None:
        return
    losses, weights = task.losses(outputs, targets)
    if not ((weights == 0) | (weights == 1)).all():
        raise ValueError(f"{where}: averaged: found weights other than 0 and 1; allowed: those, or averaged left out")
    if task.averaged == "outputs":
        draws = torch.Generator().manual_seed(0)
        outputs = torch.randn(outputs.shape, generator=draws)
        losses = task.losses(outputs, targets)[0]
        squares = (outputs - targets).square() if outputs.shape == targets.shape else None
        if (
            squares is None
            or losses.shape != squares.shape
            or not torch.allclose(losses, squares, rtol=1e-4, atol=1e-5)
        ):
            raise ValueError(
                f"{where}: averaged: found 'outputs' with another loss than the squared error of each output; allowed: "
                "that loss, or averaged left out"
            )
