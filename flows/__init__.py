"""Orchestration: the only code that knows Prefect or DVC. DVC decides whether a stage runs, Prefect shows how."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# Prefect reads these when it is imported, and prefect.toml only in the current folder.
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")


@contextmanager
def needing(extra: str) -> Iterator[None]:
    """For the imports of a program: where a package is missing, it ends with one line that says what to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package == "infinito":
            raise
        print(f"infinito: needs the package {package}: pip install 'infinito[{extra}]'", file=sys.stderr)
        sys.exit(2)
