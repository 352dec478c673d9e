"""Prepares arrays of any source, in a fresh folder."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infinito import params, tasks

SETTINGS = params.Arrays(
    task="arrays",
    source="data.parquet",
    config=None,
    kind="classes",
    inputs=None,
    targets=["y"],
    standardise=True,
    seed=0,
    validation=0.2,
    test=0.2,
)


@pytest.fixture
def prepare(tmp_path: Path) -> Callable[..., Path]:
    """Prepares with some settings changed; relative sources are in tmp_path."""

    def run(**changes: Any) -> Path:
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        tasks.prepare(SETTINGS.model_copy(update=changes), folder, tmp_path)
        return folder

    return run
