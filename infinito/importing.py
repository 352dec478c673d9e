"""Where the modules that a params.yaml names are looked for: networks, tasks and sources of the user's own."""

import sys
from pathlib import Path


def repository(folder: Path) -> Path | None:
    """The root of the git repository around a folder; None: there is none."""
    here = folder.resolve()
    return next((place for place in (here, *here.parents) if (place / ".git").exists()), None)


def put_on_path(study: Path) -> None:
    """Let Python import what lies beside a study's params.yaml, and, after all else, in the root of its repository.

    Stages run in the study's folder, other commands anywhere: so all of them find the same.
    """
    folder = study.resolve()
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))  # as `python -m` has it for the stages
    root = repository(folder)
    if root and str(root) not in sys.path:
        sys.path.append(str(root))
