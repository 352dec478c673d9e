"""The git repository around a study."""

import functools
from pathlib import Path

from infinito.machine import git


@functools.cache
def repository_root(folder: Path) -> Path | None:
    """Where the git repository around a folder begins; None: there is none."""
    found = git(folder, "rev-parse", "--show-toplevel")
    return Path(found.rstrip("\n")) if found else None


def name_in_repository(folder: Path, path: str) -> str:
    """A path as people know it: from the root of the repository."""
    place, root = (folder / path).resolve(), repository_root(folder)
    return place.relative_to(root).as_posix() if root and place.is_relative_to(root) else path
