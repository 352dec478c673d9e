"""The runs of studies as records, and how a stage logs them: by the stages themselves, into stores on disk."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from infinito.lineage.runs import run_tables
from infinito.stages import STAGES
from infinito.storage import read_table
from infinito.study import load_study
from infinito.tracking.store import Folder
from infinito.tracking.study import records
from tests.commands import content, write
from tests.conftest import ROOT, Infinito, in_process


def stage(folder: Path, name: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"INFINITO_WORKERS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "infinito.flows.stage", name]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def tracking(folder: Path, **wanted: str) -> None:
    file = folder / "params.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | {"tracking": wanted}, sort_keys=False))


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_every_run_of_every_table_is_a_record(finished_study: Path, infinito: Infinito) -> None:
    tables = [read_table(table / "runs.parquet").to_pandas() for table in run_tables(finished_study, "models")]
    runs = pd.concat(tables, ignore_index=True)
    done = infinito("log", "--study", str(finished_study), "--to", str(finished_study / "store"))
    assert done.returncode == 0 and f"{len(runs)} runs logged, 0 were there" in done.stdout, done
    found = list(Folder(finished_study / "store").records())
    assert len({record.id for record in found}) == len(found) == len(runs)
    by_key = {(r.tags["run_id"], r.design, r.tags["weights_sha256"]): r for r in found}
    for row in runs.to_dict("records"):
        record = by_key[row["run_id"], row["design"], row["weights_sha256"]]
        assert (record.name, record.arm, record.status) == ("tiny", row["arm"], "FINISHED")
        assert record.seeds == {name: row[name] for name in ("init_seed", "data_seed", "noise_seed", "rep")}
        assert record.metrics["test_loss"] == row["test_loss"] and "wall_seconds" not in record.metrics
        assert record.params["steps"] == row["steps"] and record.params["learning_rate"] == 0.01
        assert record.params["network"] == {"candidate": "infinito_v52"}.get(record.arm, "transformer")
    (kept,) = (finished_study / "models" / "runs").glob("curves.parquet")
    curves = read_table(kept).to_pandas()
    for (run, split, metric), points in curves.groupby(["run_id", "split", "metric"]):
        (record,) = [one for one in found if one.tags["run_id"] == run and "models/runs" in one.tags["artefacts"]]
        assert record.curves[f"{split}_{metric}"] == list(zip(points["step"], points["value"], strict=True))
    again = infinito("log", "--study", str(finished_study), "--to", str(finished_study / "store"))
    assert f"0 runs logged, {len(runs)} were there" in again.stdout
    assert list(Folder(finished_study / "store").records()) == found


def test_no_tracking_and_no_target_is_one_line(finished_study: Path, refused: Callable[..., str]) -> None:
    assert "no section tracking; allowed: one, or --to TARGET" in refused("log", "--study", str(finished_study))
    assert "found 's3://x'; allowed: " in refused("log", "--study", str(finished_study), "--to", "s3://x")


@pytest.fixture
def commands(tmp_path: Path) -> Path:
    """A study of commands that is prepared and logs to its folder `store`."""
    sections: dict[str, Any] = content(pairs=2) | {"tracking": {"store": "store"}}
    folder = write(tmp_path / "commands", sections)
    STAGES["prepare"](load_study(folder), in_process)
    return folder


def test_a_stage_that_trained_logs_its_runs(commands: Path) -> None:
    done = stage(commands, "train")
    assert done.returncode == 0, done.stderr
    found = list(Folder(commands / "store").records())
    wanted = {record.id: record.to_json() for record in records(commands)}  # in JSON, where nan equals nan
    assert {record.id: record.to_json() for record in found} == wanted and len(found) == 4
    runs = read_table(commands / "models/runs/runs.parquet").to_pandas().set_index("run_id")
    for record in found:
        row = runs.loc[record.tags["run_id"]]
        assert (record.arm, record.metrics["test_loss"]) == (row["arm"], row["test_loss"])
    assert all("train.py" in str(record.params["command"]) for record in found)


def test_no_tracker_fails_a_stage(commands: Path) -> None:
    (commands / "file").write_text("no folder")
    down = f"http://127.0.0.1:{closed_port()}"
    tracking(commands, mlflow=down, store="file")
    done = stage(commands, "train")
    assert done.returncode == 0 and len(list(records(commands))) == 4
    lines = [line for line in done.stderr.splitlines() if "not logged" in line]
    assert len(lines) == 2 and lines[0].startswith(down) and "later: infinito log" in lines[0], done.stderr
    assert "Traceback" not in done.stderr


def test_what_nobody_foresaw_fails_no_stage(
    commands: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from infinito.tracking import study, targets

    STAGES["train"](load_study(commands), in_process)
    monkeypatch.setattr(targets, "send", lambda *arguments, **named: {}["nothing"])
    study.log(load_study(commands))
    assert [line.message.count("\n") for line in caplog.records] == [0] and "not logged" in caplog.text
