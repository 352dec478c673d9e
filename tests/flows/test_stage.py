"""A stage as a process of its own: killed, run twice at once, and given bad input."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from infinito.flows import fanout, lock
from infinito.flows import stage as stages
from infinito.runs.table import RunTable
from infinito.stages import STAGES
from infinito.storage import read_table
from infinito.study import load_study
from tests.conftest import ROOT, in_process

IN_A_PROCESS = "train, in a process of its own"  # of all bad input the one that is found last


def stage(folder: Path, name: str) -> subprocess.Popen[str]:
    environment = os.environ | {"INFINITO_WORKERS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-m", "infinito.flows.stage", name],
        cwd=folder,
        env=environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )


@pytest.mark.slow
def test_a_killed_training_goes_on_where_it_was(write_study: Callable[..., Path]) -> None:
    changes = {"train.steps": 60, "train.stack": 4}
    killed, whole = write_study(changes, "killed"), write_study(changes, "whole")
    for folder in (killed, whole):
        STAGES["prepare"](load_study(folder), in_process)
    process, scratch = stage(killed, "train"), killed / ".infinito" / "scratch"
    deadline = time.monotonic() + 60
    while len(list(scratch.glob("*/stack.json"))) < 2:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (killed / "models/runs").exists()
    saved = {file: file.stat().st_mtime_ns for file in scratch.glob("*/stack.json")}
    assert 2 <= len(saved) < 12
    again = stage(killed, "train")
    assert again.wait(timeout=120) == 0, again.stderr
    assert all(file.stat().st_mtime_ns == modified for file, modified in saved.items())
    STAGES["train"](load_study(whole), in_process)
    tables = [
        read_table(folder / "models/runs/runs.parquet").to_pandas().drop(columns="wall_seconds")
        for folder in (killed, whole)
    ]
    pd.testing.assert_frame_equal(*tables)
    parts = [read_table(folder / "models/runs/curves.parquet").to_pandas() for folder in (killed, whole)]
    pd.testing.assert_frame_equal(*parts)
    items = [RunTable.load(folder / "models/runs").items(list(tables[0]["run_id"])) for folder in (killed, whole)]
    assert all((one == other).all() for one, other in zip(*items, strict=True))


@pytest.mark.parametrize(
    "changes, damage, name, message",
    [
        ({"train.pairs": 1, "ensemble.sizes": [1]}, None, "train", "params.yaml: train.pairs: found 1"),
        ({"train.nonsense": 1}, None, "train", "params.yaml: train.nonsense: unknown key"),
        ({"train.baseline": {"network": "lstm", "settings": {}}}, None, "train", "network: 'lstm' is unknown"),
        (
            {"train.baseline": {"network": "nowhere:Net", "settings": {}}},
            None,
            "train",
            "network: 'nowhere:Net' can't be imported",
        ),
        ({}, "data/prepared/train.parquet", "train", "train.parquet: its contents are not those"),
        ({}, None, "compare", "runs.parquet: no such file; run the stage that writes it"),
        ({}, None, "tune", "stage: found 'tune'; allowed: prepare, train"),
        (
            {"train.candidate": {"network": "tests.users:FunctionalDropout", "settings": {}}},
            None,
            IN_A_PROCESS,
            "`return F.dropout(x, self.rate, self.training)`: draws random numbers that all runs would share",
        ),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    write_study: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, object],
    damage: str | None,
    name: str,
    message: str,
) -> None:
    folder = write_study()
    STAGES["prepare"](load_study(folder), in_process)
    write_study(changes)
    if damage:
        (folder / damage).write_bytes(b"rubbish")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(folder.parent / "compiled"))  # all else would be of the stage
    before = sorted(folder.rglob("*"))
    if name == IN_A_PROCESS:
        process = stage(folder, "train")
        _, errors = process.communicate(timeout=60)
        code = process.returncode
    else:
        monkeypatch.setattr(fanout, "die_with_parent", lambda: None)  # this process is no stage
        monkeypatch.setattr(lock, "die_with_dvc", lambda: None)
        monkeypatch.chdir(folder)
        capsys.readouterr()
        code, errors = stages.main([name]), capsys.readouterr().err
    assert code == 2, errors
    assert errors.startswith("infinito: ") and errors.count("\n") == 1 and message in errors
    assert sorted(folder.rglob("*")) == before


@pytest.mark.slow
def test_two_processes_may_finish_the_same_stack(write_study: Callable[..., Path]) -> None:
    folder = write_study()
    STAGES["prepare"](load_study(folder), in_process)
    program = "from tests.conftest import *; from infinito import stages, study\n"
    program += "stages.STAGES['train'](study.load_study(Path('.')), in_process)"  # without the lock of a study
    command = [sys.executable, "-c", program]
    processes = [subprocess.Popen(command, cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)}) for _ in range(2)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    assert len(RunTable.load(folder / "models/runs").table) == 38
    assert not [path for path in (folder / ".infinito/scratch").iterdir() if path.name.startswith(".")]
