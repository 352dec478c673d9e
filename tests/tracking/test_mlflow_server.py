"""A real tracking server with SQLite: what is logged comes back equal, by us and by the reader of anybody's stores."""

import math
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from urllib.request import urlopen

import pytest

from infinito.readers import mlflow_store
from infinito.readers.results import Options
from infinito.tracking import mlflow, targets
from infinito.tracking.record import FAILED, FINISHED, RUNNING, Record
from infinito.tracking.store import Folder
from tests.conftest import Infinito

PROGRAM = os.environ.get("INFINITO_MLFLOW") or shutil.which("mlflow")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        PROGRAM is None,
        reason="no MLflow server: pip install mlflow, here or elsewhere and then INFINITO_MLFLOW=/elsewhere/bin/mlflow",
    ),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The address of a server, and the file of its database."""
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(PROGRAM), "server", "--backend-store-uri", f"sqlite:///{folder}/runs.db", "--workers", "1"]
    command += ["--artifacts-destination", str(folder / "files"), "--host", "127.0.0.1", "--port", str(port)]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)
        try:
            deadline = time.monotonic() + 180
            while True:
                assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()[-2000:]
                try:
                    urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                    break
                except OSError:
                    time.sleep(0.5)
            yield f"http://127.0.0.1:{port}", folder / "runs.db"
        finally:
            os.killpg(process.pid, 15)
            process.wait(30)


def runs() -> list[Record]:
    """Three runs of two arms, one of which failed, with a figure that is not finite and one that has a curve too."""
    made = []
    for seed, arm in enumerate(("mlp", "mlp", "ft")):
        curve = [(1.0, 0.9), (2.0, 0.5 + seed / 3), (3.0, 0.7)]
        made.append(
            Record(
                id=f"{seed:012x}",
                name="tiny",
                status=FAILED if seed == 2 else FINISHED,
                began=f"2026-01-01T00:00:0{seed}+00:00",
                ended=f"2026-01-01T00:01:0{seed}+00:00",
                arm=arm,
                design="confirm",
                params={"lr": 0.1, "text": "ä" * 300, "flag": True} | {f"p{i}": i for i in range(120)},
                seeds={"init_seed": seed, "data_seed": 7},
                metrics={"test_loss": 1 / 3 + seed, "at_best": math.nan, "best": 0.5, "last": 0.7},
                curves={"val_loss": curve, "best": curve, "last": curve},
                tags={"device": "cpu", "user": "ann"},
                dirty=False,
                code="abc",
                facts={"command": ["python", "train.py"], "log": "logs/x.log"},
            )
        )
    return made


def test_what_is_logged_comes_back(server: tuple[str, Path], tmp_path: Path) -> None:
    uri, database = server
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/x.log").write_text("trained")
    sent = targets.send(runs(), uri, source=tmp_path)
    assert (sent.new, sent.known) == (3, 0)
    back = {record.id: record for record in mlflow.records(uri)}
    for record in runs():
        found = back[record.id]
        for name in ("name", "status", "began", "ended", "arm", "design", "params", "seeds", "dirty", "code"):
            assert getattr(found, name) == getattr(record, name), name
        assert math.isnan(found.metrics.pop("at_best"))
        wanted = record.metrics | {"val_loss": 0.7}  # of a curve that has no final figure the server keeps the last
        assert found.metrics == {name: value for name, value in wanted.items() if name != "at_best"}
        assert found.tags.items() >= record.tags.items()
    again = targets.send(runs(), uri)
    assert (again.new, again.known) == (0, 3) and len(list(mlflow.records(uri))) == 3
    table = mlflow_store.read(database, Options()).table
    curve = table[(table["metric"] == "val_loss") & (table["arm"] == "mlp")]
    assert sorted(curve["value"]) == sorted(value for run in runs()[:2] for _, value in run.curves["val_loss"])
    assert len([file for file in (database.parent / "files").rglob("*") if file.name in ("record.json", "x.log")]) == 6


def test_a_run_is_below_that_of_its_study(server: tuple[str, Path]) -> None:
    uri, _ = server
    targets.send([replace(record, name="nested") for record in runs()], uri)
    with closing(mlflow.Server(uri)) as there:
        found = list(there.runs([there.experiments()["nested"]]))
    (parent,) = [run for run in found if "mlflow.parentRunId" not in tags(run)]
    assert len(found) == 4 and parent["info"]["status"] == "FINISHED"
    assert {tags(run).get("mlflow.parentRunId") for run in found} == {None, parent["info"]["run_id"]}


def tags(run: mlflow.Json) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in run["data"]["tags"]}


def test_a_run_that_was_broken_off_is_completed(server: tuple[str, Path]) -> None:
    uri, _ = server
    whole = replace(runs()[0], name="broken", metrics={"test_loss": 1.0}, curves={})
    targets.send([replace(whole, status=RUNNING, metrics={})], uri)
    assert [(record.status, record.metrics) for record in of("broken", uri)] == [(RUNNING, {})]
    targets.send([whole], uri)
    assert [(record.status, record.metrics) for record in of("broken", uri)] == [(FINISHED, {"test_loss": 1.0})]


def of(name: str, uri: str) -> list[Record]:
    return [record for record in mlflow.records(uri) if record.name == name]


def test_a_store_is_copied_and_shown_by_the_server(
    server: tuple[str, Path], tmp_path: Path, infinito: Infinito
) -> None:
    uri, _ = server
    for record in runs():
        Folder(tmp_path / "store").put(replace(record, name="copied"))
    done = infinito("log", "--store", str(tmp_path / "store"), "--to", uri)
    assert done.returncode == 0 and f"{uri}: 3 runs logged, 0 were there" in done.stdout, done
    shown = infinito("runs", "--store", uri, "--where", "name=copied arm=mlp", "--metric", "test_loss", "--csv")
    assert shown.returncode == 0 and "2" in shown.stdout and f"{1 / 3 + 0.5}" in shown.stdout, shown
