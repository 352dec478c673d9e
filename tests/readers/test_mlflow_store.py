"""Stores of MLflow, files and SQLite, as it writes them."""

import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from infinito.readers import mlflow_store
from infinito.readers.results import Options

Runs = dict[str, dict[str, Any]]  # by id: status, params, tags, curves {metric: [(time, value, step)]}, deleted
NUMBER = {name: number for number, name in mlflow_store.STATUS.items()}
SCHEMA = """
create table experiments (experiment_id integer, name text, lifecycle_stage text);
create table runs (
    run_uuid text, name text, status text, start_time integer, lifecycle_stage text, experiment_id integer
);
create table params (key text, value text, run_uuid text);
create table tags (key text, value text, run_uuid text);
create table metrics (key text, value float, timestamp integer, run_uuid text, step integer, is_nan boolean);
"""


def files(folder: Path, runs: Runs) -> Path:
    store = folder / "mlruns"
    (store / "7").mkdir(parents=True)
    (store / "7" / "meta.yaml").write_text("experiment_id: '7'\nname: covtype\nlifecycle_stage: active\n")
    for start, (name, run) in enumerate(runs.items()):
        place = store / "7" / name
        stage = "deleted" if run.get("deleted") else "active"
        values = {f"params/{key}": value for key, value in run.get("params", {}).items()}
        values |= {f"tags/{key}": value for key, value in run.get("tags", {}).items()}
        for key, curve in run.get("curves", {}).items():
            values[f"metrics/{key}"] = "\n".join(f"{time} {value} {step}" for time, value, step in curve) + "\n"
        values["meta.yaml"] = (
            f"run_id: {name}\nrun_name: {run.get('name', name)}\nstatus: {NUMBER[run['status']]}\n"
            f"lifecycle_stage: {stage}\nstart_time: {start}\n"
        )
        for key, text in values.items():
            (place / key).parent.mkdir(parents=True, exist_ok=True)
            (place / key).write_text(str(text))
    return store


def database(folder: Path, runs: Runs) -> Path:
    path = folder / "mlflow.db"
    with closing(sqlite3.connect(path)) as store, store:
        store.executescript(SCHEMA)
        store.execute("insert into experiments values (7, 'covtype', 'active')")
        for start, (name, run) in enumerate(runs.items()):
            stage = "deleted" if run.get("deleted") else "active"
            head = (name, run.get("name", name), run["status"], start, stage)
            store.execute("insert into runs values (?, ?, ?, ?, ?, 7)", head)
            for table in ("params", "tags"):
                for key, value in run.get(table, {}).items():
                    store.execute(f"insert into {table} values (?, ?, ?)", (key, value, name))
            for key, curve in run.get("curves", {}).items():
                for time, value, step in curve:
                    kept = 0.0 if value != value else min(value, 1.7976931348623157e308)
                    row = (key, kept, time, name, step, value != value)
                    store.execute("insert into metrics values (?, ?, ?, ?, ?, ?)", row)
    return path


Make = Callable[[Path, Runs], Path]
BOTH = pytest.mark.parametrize("make", [files, database])
NAN, INF = float("nan"), float("inf")


def run(arm: str, seed: int, status: str = "FINISHED", **curves: list[tuple[int, float, int]]) -> dict[str, Any]:
    return {"status": status, "params": {"algorithm": arm, "seed": str(seed), "lr": "0.1"}, "curves": curves}


@BOTH
def test_what_was_logged_is_what_is_read(make: Make, tmp_path: Path) -> None:
    curve = [(1, 0.5, 0), (2, 0.1 + 0.2, 1)]
    path = make(tmp_path, {
        "m0": run("mlp", 0, accuracy=curve, test_loss=[(3, 0.25, 1)]),
        "f0": run("ft", 0, accuracy=[(1, 0.6, 0), (2, NAN, 1)], test_loss=[(3, INF, 1)]),
    })  # fmt: skip
    assert mlflow_store.is_one(path)
    found = mlflow_store.read(path, Options())
    rows = found.table[["arm", "seed", "run", "metric", "step", "value"]].fillna(-1).values.tolist()
    assert sorted(rows) == [
        ["ft", "0", "f0", "accuracy", 0, 0.6], ["ft", "0", "f0", "accuracy", 1, -1],
        ["ft", "0", "f0", "test_loss", -1, INF], ["mlp", "0", "m0", "accuracy", 0, 0.5],
        ["mlp", "0", "m0", "accuracy", 1, 0.1 + 0.2], ["mlp", "0", "m0", "test_loss", -1, 0.25],
    ]  # fmt: skip
    assert found.read_as["arm"] == "parameter algorithm" and found.read_as["seed"] == "parameter seed"
    assert found.pairing == "seed"


@BOTH
def test_runs_that_are_not_finished_keep_their_status_even_without_a_figure(make: Make, tmp_path: Path) -> None:
    one = [(1, 0.5, 0)]
    path = make(tmp_path, {
        "m0": run("mlp", 0, accuracy=one), "m1": run("mlp", 1, "FAILED", accuracy=one), "m2": run("mlp", 2, "KILLED"),
        "f0": run("ft", 0, accuracy=one), "f1": run("ft", 1, "RUNNING", accuracy=one),
    })  # fmt: skip
    table = mlflow_store.read(path, Options()).table.set_index("run")
    assert dict(table["status"]) == {
        "m0": "FINISHED", "m1": "FAILED", "m2": "KILLED", "f0": "FINISHED", "f1": "RUNNING"
    }  # fmt: skip
    assert table["value"].isna().sum() == 1


@BOTH
def test_what_is_left_out_is_said(make: Make, tmp_path: Path) -> None:
    path = make(tmp_path, {
        "sweep": {"status": "FINISHED"},
        "m0": run("mlp", 0, accuracy=[(1, 0.5, 0)], grad=[(1, 3.0, 0)]) | {"tags": {"mlflow.parentRunId": "sweep"}},
        "m1": run("mlp", 1, accuracy=[(9, 0.6, 0), (5, 0.4, 0)]),
        "m2": run("mlp", 2, accuracy=[(1, 0.7, 0)]) | {"deleted": True},
    })  # fmt: skip
    found = mlflow_store.read(path, Options())
    assert dict(zip(found.table["run"], found.table["value"], strict=True)) == {"m0": 0.5, "m1": 0.6}
    deleted, above, other, again = found.remarks
    assert "1 run deleted" in deleted and "1 run above others, without figures" in above
    assert other.startswith("grad: not taken") and "accuracy: logged 1 times again for a step" in again
    assert list(mlflow_store.read(path, Options(metric=("grad",))).table["value"].dropna()) == [3.0]


@BOTH
def test_equal_names_are_no_identity_but_may_be_the_arm(make: Make, tmp_path: Path) -> None:
    runs = {
        f"{arm}{seed}": {"status": "FINISHED", "name": arm, "curves": {"val/loss": [(1, seed / 10, 0)]}}
        for arm in ("mlp", "ft")
        for seed in range(3)
    }
    found = mlflow_store.read(make(tmp_path, runs), Options())
    assert list(found.table["arm"]) == ["mlp"] * 3 + ["ft"] * 3 and found.table["run"].nunique() == 6
    assert set(found.table["metric"]) == {"val/loss"} and found.read_as["arm"] == "run's name"


def test_faults_of_files_are_named_in_a_line(tmp_path: Path) -> None:
    store = files(tmp_path, {"m0": run("mlp", 0, accuracy=[(1, 0.5, 0)])})
    curve = store / "7" / "m0" / "metrics" / "accuracy"
    for content, message in (("", "accuracy: found an empty file"), ("x y z", "accuracy: found 'x y z'; allowed")):
        curve.write_text(content)
        with pytest.raises(ValueError, match=message):
            mlflow_store.read(store, Options())
    curve.unlink()
    with pytest.raises(ValueError, match="found 1 run without a metric"):
        mlflow_store.read(store, Options())
    (store / "7" / "m0" / "meta.yaml").write_text("a: [")
    with pytest.raises(ValueError, match="meta.yaml: not readable") as caught:
        mlflow_store.read(store, Options())
    assert "\n" not in str(caught.value)
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match="found no runs of MLflow"):
        mlflow_store.read(tmp_path / "none", Options())


@pytest.mark.parametrize("content", [b"", b"no database at all" * 99])
def test_other_files_are_refused_in_a_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.db").write_bytes(content)
    assert not mlflow_store.is_one(tmp_path / "m.db")
    with pytest.raises(ValueError, match=r"m.db: (found an empty file|not a readable SQLite store)"):
        mlflow_store.read(f"mlflow:sqlite:///{tmp_path / 'm.db'}", Options())
    with pytest.raises(ValueError, match="no such store of MLflow; allowed: a folder mlruns"):
        mlflow_store.read("mlflow:nowhere", Options())


class Page(list[Any]):
    token: str | None = None


class Client:
    """A server with two runs, a page for each, the newer one first."""

    def __init__(self, tracking_uri: str) -> None:
        assert tracking_uri == "http://server"

    def search_experiments(self, page_token: str | None) -> Page:
        return Page([SimpleNamespace(experiment_id="7", name="covtype")])

    def search_runs(self, experiment_ids: list[str], run_view_type: str, page_token: str | None) -> Page:
        arm, status = ("mlp", "FINISHED") if page_token else ("ft", "KILLED")
        info = SimpleNamespace(run_id=arm[0], run_name=f"{arm}-0", status=status, lifecycle_stage="active")
        data = SimpleNamespace(params={"algorithm": arm, "seed": "0"}, tags={}, metrics={"loss": 1.0})
        page = Page([SimpleNamespace(info=info, data=data)])
        page.token = None if page_token else "next"
        return page

    def get_metric_history(self, run: str, name: str) -> list[Any]:
        largest = 1.7976931348623157e308  # as a SQL store keeps infinity
        return [SimpleNamespace(step=1, value=largest, timestamp=2), SimpleNamespace(step=0, value=0.5, timestamp=1)]


def test_all_pages_of_a_server_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    entities = SimpleNamespace(ViewType=SimpleNamespace(ALL="all"))
    monkeypatch.setitem(sys.modules, "mlflow", SimpleNamespace(MlflowClient=Client, entities=entities))
    monkeypatch.setitem(sys.modules, "mlflow.entities", entities)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    table = mlflow_store.read("mlflow:http://server", Options()).table
    assert table[["arm", "run", "step", "value", "status"]].values.tolist() == [
        ["mlp", "mlp-0", 0, 0.5, "FINISHED"], ["mlp", "mlp-0", 1, INF, "FINISHED"], ["ft", "ft-0", 0, 0.5, "KILLED"],
        ["ft", "ft-0", 1, INF, "KILLED"],
    ]  # fmt: skip
    monkeypatch.setattr(Client, "search_experiments", lambda *_, **__: 1 / 0)
    with pytest.raises(ValueError, match="http://server: can't be read: division by zero"):
        mlflow_store.read("mlflow:http://server", Options())


@pytest.mark.skipif(find_spec("mlflow") is not None, reason="MLflow is installed")
def test_a_server_needs_the_client() -> None:
    with pytest.raises(ValueError, match="http://localhost:1: a server of MLflow needs mlflow-skinny"):
        mlflow_store.read("mlflow:http://localhost:1", Options())
