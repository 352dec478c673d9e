"""Examples that are arrays of numbers: images, tables, signals.

They are written as they are, and standardised on the way into memory by constants of the training split, which stand
in the manifest.
"""

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from infinito import params
from infinito.tasks import overlap, sources
from infinito.tasks.features import by_name, images_first, numbers, targets
from infinito.tasks.pool import Pool
from infinito.tasks.rows import read_arrays, write_arrays
from infinito.tasks.shares import digests, divided
from infinito.tasks.split import Split, identity, write_manifest
from infinito.tasks.supervised import Classes, Labels, Values

SPLITS = ("train", "validation", "test")
Arrays = dict[str, np.ndarray]  # by split


def prepare(settings: params.Arrays, folder: Path, study: Path) -> None:
    """Write the three splits and the manifest.

    Splits that the source has are taken as they are; one that it lacks is taken from its training split, or from all
    there is, by its share, every example by the hash of its inputs.

    Args:
        settings: see `params.Arrays`, and docs/tasks.md for the sources.
        folder: where to write.
        study: where a relative source is.

    Raises:
        ValueError: a source that is missing or corrupt, a value that is no finite number, a class, label or value that
            can't be learned from the training split, a split that stays empty.
    """
    source = sources.read(settings, study)
    names = _targets(settings, source)
    columns = _inputs(settings, source, names)
    places = {split: source.where if len(source.splits) == 1 else f"{source.where}, {split}" for split in source.splits}
    x = {s: images_first(numbers("inputs", part, columns, places[s])) for s, part in source.splits.items()}
    y = {s: targets(settings.kind, part, names, places[s]) for s, part in source.splits.items()}
    for split in x:
        if len(x[split]) != len(y[split]):
            raise ValueError(f"prepare.source: {places[split]}: found {len(x[split])} inputs, {len(y[split])} targets")
    x, y = _split(settings, source.where, x, y)
    _check_shapes(source.where, x, y)
    facts: dict[str, Any] = {"kind": settings.kind, "shape": list(x["train"].shape[1:])}
    facts["example"] = "image" if x["train"].ndim == 4 else "example"
    facts["inputs"] = columns if x["train"].ndim == 2 and len(columns) == x["train"].shape[1] else None
    facts["input_constants"] = _input_constants(x["train"]) if settings.standardise else None
    if settings.kind == "classes":
        y, facts["classes"] = by_name(y)
        _check_classes(source.where, y["train"], facts["classes"])
    else:
        wide = y["train"].shape[1]
        facts[settings.kind] = names if len(names) == wide else [f"{names[0]}[{i}]" for i in range(wide)]
        _check_varied(source.where, y["train"], facts[settings.kind])
    if settings.kind == "values":
        facts["target_constants"] = _target_constants(y["train"])
    counts: dict[str, dict[str, Any]] = {}
    found = overlap.of_examples({split: x[split] for split in SPLITS})
    overlap.check(found, f"{facts['example']}s", settings.overlap_allowed)
    for split in SPLITS:
        write_arrays(folder / f"{split}.parquet", {"inputs": x[split], "targets": y[split]})
        counts[split] = {"examples": len(x[split]), "different_examples": len(set(digests(x[split])))}
        if settings.kind == "classes":
            of_class = Counter(y[split].tolist())
            counts[split]["of_class"] = {str(name): of_class[i] for i, name in enumerate(facts["classes"])}
    write_manifest(folder, settings, counts, found, **facts)


def load(folder: Path, manifest: dict[str, Any]) -> Pool:
    """Read what `prepare` wrote; inputs are float32."""
    kind, shape = manifest["kind"], tuple(manifest["shape"])
    wide = () if kind == "classes" else (len(manifest[kind]),)
    task = _task(manifest, shape)

    def read(split: str) -> tuple[Tensor, Tensor]:
        found = read_arrays(folder / f"{split}.parquet", {"inputs": shape, "targets": wide})
        x = _standardised(_scaled(found["inputs"]), manifest["input_constants"])
        y = found["targets"]
        if kind == "values":
            y = _standardised(y, manifest["target_constants"] if manifest["settings"]["standardise"] else None)
        return torch.from_numpy(x), torch.from_numpy(y.astype(np.int64 if kind == "classes" else np.float32))

    def fixed(split: str) -> Split:
        inputs, targets = read(split)
        return Split(inputs, targets, math.prod(task.output))

    inputs, targets = read("train")
    return Pool(task, identity(manifest), inputs, targets, validation=fixed("validation"), test=fixed("test"))


def _task(manifest: dict[str, Any], shape: tuple[int, ...]) -> Classes | Labels | Values:
    kind, example = manifest["kind"], manifest["example"]
    if kind == "classes":
        return Classes(shape, len(manifest["classes"]), example)
    if kind == "labels":
        return Labels(shape, len(manifest["labels"]), example)
    constants, standardised = manifest["target_constants"], manifest["settings"]["standardise"]
    sd, deviation = np.array(constants["sd"]), np.array(constants["mean_deviation"])
    own = sd if standardised else np.ones_like(sd)  # of a loaded target, in its own unit
    one = len(sd) == 1
    return Values(
        shape,
        outputs=len(sd),
        standardised=standardised,
        variance=float((sd**2).mean()),
        scale=tuple((own if one else own / sd).tolist()),
        deviation=float((deviation if one else deviation / sd).mean()),
    )


def _targets(settings: params.Arrays, source: sources.Source) -> list[str]:
    names = settings.targets or source.targets
    if not names:
        found = ", ".join(next(iter(source.splits.values())))
        raise ValueError(
            f"prepare.targets: {source.where}: found null; allowed: one or more of the columns, which are {found}"
        )
    return names


def _inputs(settings: params.Arrays, source: sources.Source, targets: list[str]) -> list[str]:
    """The columns that are inputs: as said in params.yaml, or by the source, or all others."""
    names = settings.inputs or source.inputs
    names = names or [name for name in next(iter(source.splits.values())) if name not in targets]
    both = [name for name in names if name in targets]
    if both:
        raise ValueError(f"prepare.inputs: found {both[0]}, which is a target; allowed: columns that are no targets")
    return names


def _split(settings: params.Arrays, where: str, x: Arrays, y: Arrays) -> tuple[Arrays, Arrays]:
    """The three splits of what may be fewer."""
    whole = "all" if "all" in x else "train"
    if whole not in x:
        raise ValueError(f"prepare.source: {where}: found the splits {', '.join(x)}; needed: train")
    shares = {"validation": settings.validation, "test": settings.test}
    rows = divided(x[whole], {split: share for split, share in shares.items() if split not in x}, settings.seed)
    empty = [split for split, mine in rows.items() if not len(mine)]
    if empty:
        raise ValueError(
            f"prepare.source: {where}: found {len(x[whole])} examples, so that the {empty[0]} split is empty; allowed: "
            "more examples, or other shares (prepare.validation, prepare.test)"
        )
    cut = [{split: part[whole][mine] for split, mine in rows.items()} for part in (x, y)]
    return (x | cut[0], y | cut[1])


def _check_shapes(where: str, x: Arrays, y: Arrays) -> None:
    for key, part in (("inputs", x), ("targets", y)):
        for split in SPLITS[1:]:
            if part[split].shape[1:] != part["train"].shape[1:]:
                raise ValueError(
                    f"prepare.{key}: {where}: found examples of shape {part['train'].shape[1:]} in train, "
                    f"{part[split].shape[1:]} in {split}; allowed: one shape"
                )
            if key == "targets" and (part[split].dtype == object) != (part["train"].dtype == object):
                raise ValueError(f"prepare.targets: {where}: found text in one split, numbers in another")


def _check_classes(where: str, y: np.ndarray, names: list[Any]) -> None:
    if len(names) < 2:
        raise ValueError(f"prepare.targets: {where}: found one class, {names[0]}; allowed: two or more")
    missing = [str(name) for i, name in enumerate(names) if not (y == i).any()]
    if missing:
        raise ValueError(
            f"prepare.targets: {where}: found no example of {', '.join(missing[:5])} in the training split; "
            "allowed: at least one of every class"
        )


def _check_varied(where: str, y: np.ndarray, names: list[str]) -> None:
    for name, values in zip(names, y.T, strict=True):
        if (values == values[0]).all():
            raise ValueError(
                f"prepare.targets: {where}: column {name}: found {values[0]} in every training example; "
                "allowed: a target that differs between examples"
            )


def _scaled(x: np.ndarray) -> np.ndarray:
    """Images of bytes as 0 to 1; all else as it is."""
    return x.astype(np.float32) / 255 if x.dtype == np.uint8 and x.ndim == 4 else x


def _input_constants(x: np.ndarray) -> dict[str, Any]:
    """Mean and standard deviation of every feature [F], or of every channel [C]; a constant one keeps its scale."""
    axes = (0, *range(2, x.ndim))
    scaled = _scaled(x)
    mean, sd = scaled.mean(axes, dtype=np.float64), scaled.std(axes, dtype=np.float64)
    constant = scaled.max(axes) == scaled.min(axes)  # rounding gives it a standard deviation that is not quite 0
    return {"mean": mean.tolist(), "sd": np.where(constant, 1.0, sd).tolist()}


def _target_constants(y: np.ndarray) -> dict[str, Any]:
    mean = y.mean(0)
    return {
        "mean": mean.tolist(),
        "sd": y.std(0).tolist(),
        "mean_deviation": np.abs(y - mean).mean(0).tolist(),
    }


def _standardised(values: np.ndarray, constants: dict[str, Any] | None) -> np.ndarray:
    """[N, C, ...] as float32; large numbers lose nothing, as their mean is taken away before."""
    if constants is not None:
        fine = np.float32 if values.dtype == np.float32 else np.float64
        mean, sd = (np.array(constants[key], fine).reshape(-1, *[1] * (values.ndim - 2)) for key in ("mean", "sd"))
        values = (values - mean) / sd
    return values.astype(np.float32)
