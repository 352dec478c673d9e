"""A data set on the Hugging Face hub; its features say which columns are images and which the class."""

import numpy as np

from infinito.tasks import hub
from infinito.tasks.sources import tables
from infinito.tasks.sources.source import Source, split_of


def read(name: str, config: str | None) -> Source:
    """All splits whose names are those of a split.

    Raises:
        ValueError: see `hub.load`; the data set has no such split.
    """
    loaded = hub.load(name, config)
    import datasets

    splits = {str(split_of(str(split))): part for split, part in loaded.items() if split_of(str(split))}
    if "train" not in splits:
        found = ", ".join(map(str, loaded))
        raise ValueError(f"prepare.source: {name}: found the splits {found}; needed: train")
    features = splits["train"].features
    images = [column for column, feature in features.items() if isinstance(feature, datasets.Image)]
    classes = {column: feature for column, feature in features.items() if isinstance(feature, datasets.ClassLabel)}
    columns = {
        split: tables.columns(part.with_format("arrow")[:], f"{name}, {split}") for split, part in splits.items()
    }
    for column, feature in classes.items():
        for split in columns.values():
            split[column] = _names(split[column], feature.names)
    return Source(name, columns, images or None, list(classes) if len(classes) == 1 else None)


def _names(numbers: np.ndarray, names: list[str]) -> np.ndarray:
    """The class of every example by name; None where it is withheld, which the hub says by -1."""
    table = np.array([*names, None], dtype=object)
    known = np.isfinite(numbers) & (numbers >= 0)
    return table[np.where(known, numbers, -1).astype(int)]
