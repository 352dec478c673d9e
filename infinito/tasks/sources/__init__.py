"""Where arrays come from, one format a file. `read` gives their columns, still as they are; see `Source`."""

import re
from pathlib import Path

from infinito import params
from infinito.tasks.hub import local
from infinito.tasks.sources import function, hubset, idx, images, npz, tables
from infinito.tasks.sources.source import NAMES, Columns, Source

FUNCTION = re.compile(r"[\w.]+:\w+")
SUFFIXES = (*tables.READERS, ".npz", *idx.SUFFIXES)
FILE = f"a file {', '.join(SUFFIXES)}"


def read(settings: params.Arrays, study: Path) -> Source:
    """What the settings name.

    Args:
        settings: the source is a file, or a folder with one such file a split, or with the four files of MNIST, or with
            images in a folder a class; `package.module:function`; or a name on the hub.
        study: where a relative source is; what exists there goes before the hub.

    Raises:
        ValueError: it is missing, corrupt, out of reach, or of another form.
    """
    name = settings.source
    if FUNCTION.fullmatch(name) and not (study / name).exists():
        return function.read(name)
    path = local("source", name, study, SUFFIXES)
    if path is None:
        return hubset.read(name, settings.config)
    if path.is_dir():
        return _folder(path / settings.config if settings.config and (path / settings.config).is_dir() else path)
    return _file(path)


def _file(path: Path) -> Source:
    if path.name.endswith(".npz"):
        return npz.read(path)
    if path.name.endswith(idx.SUFFIXES):
        return idx.pair(path)
    if path.name.endswith(tuple(tables.READERS)):
        return Source(str(path), {"all": tables.read([path])})
    raise ValueError(f"prepare.source: {path}: found a file of another kind; allowed: {FILE}, or a folder")


def _folder(path: Path) -> Source:
    if any(idx.train_and_test(path)):
        return idx.folder(path)
    found: dict[str, Columns] = {}
    for split, names in NAMES.items():
        for suffix in (*tables.READERS, ".npz"):
            whole, parts = ([f"{name}{part}{suffix}" for name in names] for part in ("", "-*-of-*"))
            files = sorted(file for pattern in (*whole, *parts) for file in path.glob(pattern))
            if files and split not in found:
                found[split] = npz.columns(files[0]) if suffix == ".npz" else tables.read(files)
    if found:
        return Source(str(path), found)
    return images.read(path, f"{FILE}, each named after a split (train.csv), or a folder of images for every class")


__all__ = ["Columns", "Source", "read"]
