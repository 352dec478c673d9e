"""infinito's own code, as DVC sees it: by a link named `library` in the study, whose rooms are dependencies of stages.

DVC hashes what lies behind the link, so a stage is out of date when the code that it uses is another one, and only
then, wherever infinito is installed. In a clone of infinito the link is relative and belongs to the study; elsewhere
git ignores it, as every machine has a place of its own for packages, and `infinito link` makes it.
"""

import os
from pathlib import Path

from infinito import __version__
from infinito.importing import repository

HERE = Path(__file__).resolve().parent


def in_clone(folder: Path) -> bool:
    """Whether a folder belongs to the repository of the infinito that runs here."""
    root = repository(folder)
    return root is not None and (root / "infinito").resolve() == HERE


def link(study: Path, place: Path | None = None) -> bool:
    """Let `study`/library lead to this infinito; False: it does already.

    Args:
        study: its folder.
        place: where that folder will be, if it is made elsewhere first.

    Raises:
        ValueError: something else has that name.
    """
    path, place = study / "library", (place or study).resolve()
    target = os.path.relpath(HERE, place) if in_clone(place.parent) else str(HERE)
    if path.is_symlink():
        if os.readlink(path) == target:
            return False
        path.unlink()
    elif path.exists():
        raise ValueError(f"{path}: found what is no link; allowed: nothing, or a link to the code of infinito")
    path.symlink_to(target)
    return True


def check_link(study: Path) -> None:
    """A study whose stages read `library` has the code there that runs here, or DVC would record another one.

    Raises:
        ValueError: it is missing, or another one.
    """
    path, pipeline = study / "library", study / "dvc.yaml"
    if not pipeline.is_file() or "- library/" not in pipeline.read_text(encoding="utf-8") or _is_this(path):
        return
    found = "no such folder"
    if path.is_symlink() or path.exists():
        found = f"leads to {path.resolve()}" if path.is_symlink() else "other code"
    raise ValueError(
        f"{path}: {found}; allowed: a link to {HERE}, infinito {__version__}, which runs here: "
        f"infinito link --study {study}"
    )


def _is_this(path: Path) -> bool:
    """Whether the code there is this one: by the link, or a copy, as `dvc exp run --temp` makes them."""
    if path.resolve() == HERE:
        return True
    files = [(file, path / file.relative_to(HERE)) for file in HERE.rglob("*.py")]
    return all(copy.is_file() and copy.read_bytes() == file.read_bytes() for file, copy in files)
