"""The Dyck task of the original report: close brackets in reverse order, after some noise.

An example is 4 to 12 (say) opening brackets, then noise letters; the target, aligned with the input from position 0,
is the closing brackets in reverse and an end mark. Tokens: 0 padding, 1 end, then opening, closing, noise.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from infinito import params
from infinito.seeds import stream
from infinito.storage import read_table, write_table
from infinito.tasks import overlap
from infinito.tasks.pool import Pool
from infinito.tasks.split import IGNORE, Split, identity, write_manifest
from infinito.tasks.tokens import Tokens

PAD, END, FIRST = 0, 1, 2
# An example's own hash says which split it belongs to, so no example is in two of them, however many are drawn.
SHARES = {"train": (0, 80), "validation": (80, 90), "test": (90, 100)}


def _draw(settings: params.Dyck, draws: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """n examples, any split: inputs and targets, int16 [n, T]."""
    kinds, deepest, noise = settings.kinds, settings.max_depth, settings.noise
    length = _length(settings)
    depth = draws.integers(settings.min_depth, deepest + 1, size=(n, 1))
    bracket = draws.integers(kinds, size=(n, deepest))
    letter = draws.integers(settings.noise_kinds, size=(n, length))
    place = np.arange(length)
    opened = np.pad(bracket, ((0, 0), (0, length - deepest)))
    inputs = np.where(
        place < depth,
        FIRST + opened,
        np.where(place < depth + noise, FIRST + 2 * kinds + letter, PAD),
    )
    closing = np.take_along_axis(opened, np.clip(depth - 1 - place, 0, length - 1), axis=1)
    targets = np.where(place < depth, FIRST + kinds + closing, np.where(place == depth, END, IGNORE))
    return inputs.astype(np.int16), targets.astype(np.int16)


def _length(settings: params.Dyck) -> int:
    return settings.max_depth + max(settings.noise, 1)  # at least one place more than brackets, for the end mark


def _share(inputs: np.ndarray) -> np.ndarray:
    """A number 0..99 that depends on nothing but the example; inputs: [n, T] -> [n]."""
    weights = stream(0, "dyck", "share").integers(2**63, size=inputs.shape[1], dtype=np.uint64) | np.uint64(1)
    mixed = (inputs.astype(np.uint64) * weights).sum(1)
    mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    return (mixed >> np.uint64(32)) % np.uint64(100)


def prepare(settings: params.Dyck, folder: Path) -> None:
    """Write the three splits and the manifest.

    Raises:
        ValueError: so few different examples exist that a split would stay empty.
    """
    sizes = {"train": settings.pool, "validation": settings.validation, "test": settings.test}
    counts: dict[str, dict[str, Any]] = {}
    examples: dict[str, np.ndarray] = {}
    for name, size in sizes.items():
        draws, (low, high) = stream(settings.seed, "examples", name), SHARES[name]
        kept: list[tuple[np.ndarray, np.ndarray]] = []
        while sum(len(inputs) for inputs, _ in kept) < size:
            inputs, targets = _draw(settings, draws, max(2 * size, 10_000))
            share = _share(inputs)
            mine = (share >= low) & (share < high)
            if not mine.any():
                raise ValueError(
                    f"prepare: too few different examples exist for a {name} split; allowed: more kinds, depth or noise"
                )
            kept.append((inputs[mine], targets[mine]))
        inputs, targets = (np.concatenate(part)[:size] for part in zip(*kept, strict=True))
        columns = {
            key: pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
            for key, values in (("inputs", inputs), ("targets", targets))
        }
        write_table(folder / f"{name}.parquet", pa.table(columns))
        examples[name] = inputs
        counts[name] = {
            "examples": size,
            "different_examples": len(np.unique(inputs, axis=0)),
            "scored_tokens": int((targets != IGNORE).sum()),
        }
    found = overlap.of_examples(examples)
    overlap.check(found, "examples", settings.overlap_allowed)
    write_manifest(
        folder,
        settings,
        counts,
        found,
        vocabulary=FIRST + 2 * settings.kinds + settings.noise_kinds,
        length=_length(settings),
    )


def load(folder: Path, manifest: dict[str, Any]) -> Pool:
    """Read what `prepare` wrote."""
    length, vocabulary = manifest["length"], manifest["vocabulary"]

    def read(name: str) -> tuple[Tensor, Tensor]:
        table = read_table(folder / f"{name}.parquet")
        inputs, targets = (
            torch.from_numpy(table.column(key).combine_chunks().flatten().to_numpy().reshape(-1, length).copy())
            for key in ("inputs", "targets")
        )
        return inputs, targets

    def fixed(name: str) -> Split:
        inputs, targets = read(name)
        return Split(inputs.long(), targets.long(), length * vocabulary)

    inputs, targets = read("train")  # int16, as small as they are
    return Pool(
        task=Tokens(vocabulary, length, causal=False, exact=True),
        sha256=identity(manifest),
        inputs=inputs,
        targets=targets,
        validation=fixed("validation"),
        test=fixed("test"),
    )
