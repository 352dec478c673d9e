"""What the disk refuses is one line with its file, and nothing is left half-written."""

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from infinito.disk import no_room
from infinito.stages import STAGES
from infinito.storage import write_json, write_table, write_weights
from infinito.study import load_study
from tests.conftest import ROOT, in_process


@pytest.mark.parametrize("stage", ["prepare", "train"])
def test_no_room_is_one_line_and_exit_code_1(stage: str, write_study: Callable[..., Path]) -> None:
    """No file may be longer than so many bytes: a limit of the system that stands for the size of a disk."""
    study = write_study({"train.stack": 40})
    if stage == "train":
        STAGES["prepare"](load_study(study), in_process)
    before = sorted(study.rglob("*"))
    done = subprocess.run(
        [sys.executable, "-m", "infinito.flows.stage", stage],
        cwd=study,
        env=os.environ | {"INFINITO_WORKERS": "1", "PYTHONPATH": str(ROOT)},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, 2_000)),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    said = done.stderr.splitlines()[-1]
    assert said.startswith("infinito: ") and "File too large" in said and f"{study.name}/" in said
    assert [file for file in sorted(study.rglob("*")) if file not in before and file.is_file()] == []


def test_every_kind_of_file_says_its_name(tmp_path: Path) -> None:
    """The libraries that write tables and weights have words of their own for it."""
    torch_weights = {"a": torch.zeros(100_000)}
    writers = {
        "a.json": lambda file: write_json(file, {"a": "b" * 100_000}),
        "a.parquet": lambda file: write_table(file, pd.DataFrame({"a": range(100_000)})),
        "a.safetensors": lambda file: write_weights(file, torch_weights),
    }
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for name, write in writers.items():
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
        try:
            with pytest.raises(OSError, match=name) as error:
                write(tmp_path / name)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert error.value.errno == errno.EFBIG and error.value.filename == str(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_other_errors_are_left_as_they_are() -> None:
    assert no_room(ValueError("anything"), "file") is None
    assert no_room(OSError(errno.EACCES, "Permission denied"), "file") is None
