"""Several NumPy arrays in a file. Names such as train_images, images_train or x_test say of which split an array is."""

import zipfile
import zlib
from pathlib import Path

import numpy as np

from infinito.mistakes import one_line
from infinito.tasks.sources.source import Columns, Source, split_of


def columns(path: Path) -> Columns:
    """All arrays.

    Raises:
        ValueError: not readable; pickled objects, which could run any code.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: np.atleast_1d(archive[name]) for name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"prepare.source: {path}: not a readable NPZ file: {one_line(error)}") from error


def read(path: Path) -> Source:
    """All arrays, by their splits where all names say one."""
    found = columns(path)
    splits: dict[str, Columns] = {}
    for name, array in found.items():
        first, _, after = name.partition("_")
        before, _, last = name.rpartition("_")
        if split_of(first) and after:
            splits.setdefault(str(split_of(first)), {})[after] = array
        elif split_of(last) and before:
            splits.setdefault(str(split_of(last)), {})[before] = array
        else:
            return Source(str(path), {"all": found})
    return Source(str(path), splits)
