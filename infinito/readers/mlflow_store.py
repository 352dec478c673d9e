"""What MLflow logged: a folder mlruns, a SQLite store, or a server. Without MLflow where there are files."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from infinito.mistakes import one_line
from infinito.readers.results import Options, Results
from infinito.readers.sqlite_file import selected, tables
from infinito.readers.tracked import FIGURES, Run, counted, logged

STATUS = {1: "RUNNING", 2: "SCHEDULED", 3: "FINISHED", 4: "FAILED", 5: "KILLED"}  # as its files number them
TABLES = ("experiments", "runs", "params", "metrics", "tags")
PARENT = "mlflow.parentRunId"
ALLOWED = "a folder mlruns, sqlite:///FILE, or http://SERVER"

Store = tuple[list[Run], pd.DataFrame]  # the runs, and their figures in the order of logging: id, metric, step, value


def read(source: Path | str, options: Options) -> Results:
    """All runs of all experiments, those that are deleted left out, and said.

    The arm is the parameter, tag or else experiment whose name and values say so, the run its name, the seed a
    parameter; --arm, --seed and so on name others.

    Args:
        source: mlflow:URI, a URI, a folder mlruns, or the file of a SQLite store.
        options: what the user says of it.

    Raises:
        ValueError: nothing there; another kind of file; no figures; a server without MLflow installed.
    """
    name = str(source).removeprefix("mlflow:")
    path = Path(name.removeprefix("sqlite:///").removeprefix("file://"))
    remote = "://" in name and not name.startswith(("sqlite:///", "file://"))
    if remote:
        runs, figures = _server(name)
    elif path.is_dir():
        runs, figures = _folder(path)
    elif path.is_file():
        runs, figures = _database(path)
    else:
        raise ValueError(f"{name}: no such store of MLflow; allowed: {ALLOWED}")
    remarks = []
    deleted = {run["id"] for run in runs if run["deleted"]}
    if deleted:
        remarks.append(f"{name}: {counted(len(deleted))} deleted; left out.")
    above = {run["tags"].get(PARENT) for run in runs} - set(figures["id"])
    above &= {run["id"] for run in runs} - deleted
    if above:
        remarks.append(f"{name}: {counted(len(above))} above others, without figures: no runs of a model; left out.")
    runs = [run for run in runs if run["id"] not in deleted | above]
    return logged(runs, figures[~figures["id"].isin(deleted)], options, name, remarks)


def is_one(path: Path) -> bool:
    """Whether a folder or file is such a store."""
    if path.is_dir():
        return any(path.glob("*/*/meta.yaml"))
    return set(TABLES) <= set(tables(path))


def _folder(root: Path) -> Store:
    """mlruns/EXPERIMENT/RUN/{meta.yaml,params/,metrics/,tags/}; also one experiment of it."""
    runs: list[Run] = []
    figures: list[tuple[Any, ...]] = []
    for meta in sorted([*root.glob("*/meta.yaml"), *root.glob("*/*/meta.yaml"), *root.glob(".trash/*/*/meta.yaml")]):
        head = _meta(meta)
        if "run_id" not in head and "run_uuid" not in head:
            continue  # of an experiment
        folder = meta.parent
        above = folder.parent / "meta.yaml"
        experiment = str(_meta(above).get("name", folder.parent.name)) if above.is_file() else folder.parent.name
        tags = _values(folder / "tags")
        number = str(head.get("run_id") or head["run_uuid"])
        status = head.get("status", "")
        runs.append({
            "id": number,
            "run": str(head.get("run_name") or tags.get("mlflow.runName") or number),
            "status": STATUS.get(status, str(status)),
            "experiment": experiment,
            "params": _values(folder / "params"),
            "tags": tags,
            "start": int(head.get("start_time") or 0),
            "deleted": head.get("lifecycle_stage") == "deleted" or ".trash" in folder.relative_to(root).parts,
        })  # fmt: skip
        for file in _files(folder / "metrics"):
            name = file.relative_to(folder / "metrics").as_posix()
            figures += [(number, name, step, value) for step, value in _curve(file)]
    if not runs:
        raise ValueError(f"{root}: found no runs of MLflow; allowed: folders EXPERIMENT/RUN with meta.yaml")
    runs.sort(key=lambda run: run["start"])
    place = {run["id"]: number for number, run in enumerate(runs)}
    return runs, pd.DataFrame(sorted(figures, key=lambda figure: place[figure[0]]), columns=FIGURES)


def _meta(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: not readable: {one_line(error)}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path}: found {type(found).__name__}; allowed: a mapping, as MLflow writes it")
    return found


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file() and not file.name.startswith("."))


def _values(folder: Path) -> dict[str, str]:
    """A name a file; a slash in it is a folder."""
    return {
        file.relative_to(folder).as_posix(): file.read_text(encoding="utf-8", errors="replace").strip()
        for file in _files(folder)
    }


def _curve(path: Path) -> Iterator[tuple[float, float]]:
    """Lines of time, value, step, of which old stores have no step."""
    lines = [line.split() for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    if not lines:
        raise ValueError(f"{path}: found an empty file; allowed: lines of time, value and step")
    try:
        ordered = sorted(lines, key=lambda line: int(line[0]))
        yield from [(int(line[2]) if len(line) > 2 else 0, float(line[1])) for line in ordered]
    except (ValueError, IndexError) as error:
        raise ValueError(f"{path}: found {' '.join(lines[0])[:60]!r}; allowed: lines of time, value, step") from error


def _database(path: Path) -> Store:
    found = selected(path, TABLES, "MLflow", {
        "runs": "select run_uuid, r.name, status, r.lifecycle_stage, e.name from runs r left join experiments e "
        "using (experiment_id) order by start_time, run_uuid",
        "params": "select run_uuid, key, value from params",
        "tags": "select run_uuid, key, value from tags",
        "metrics": "select run_uuid, key, step, case when is_nan then null else value end from metrics "
        "order by timestamp, rowid",
    })  # fmt: skip
    params: dict[str, dict[str, str]] = {}
    tags: dict[str, dict[str, str]] = {}
    for kind, place in (("params", params), ("tags", tags)):
        for run, key, value in found[kind]:
            place.setdefault(run, {})[key] = value
    runs = [
        {
            "id": number, "run": name or tags.get(number, {}).get("mlflow.runName") or number, "status": status or "",
            "experiment": experiment or "", "params": params.get(number, {}), "tags": tags.get(number, {}),
            "deleted": stage == "deleted",
        }
        for number, name, status, stage, experiment in found["runs"]
    ]  # fmt: skip
    return runs, _with_infinity(pd.DataFrame(found["metrics"], columns=FIGURES))


def _with_infinity(figures: pd.DataFrame) -> pd.DataFrame:
    """SQL has no infinity: MLflow stores the largest number instead."""
    value = figures["value"].astype(float)
    return figures.assign(value=value.mask(value.abs() >= sys.float_info.max, value * 10))


def _server(uri: str) -> Store:
    """All runs by the client of MLflow, which sends nothing elsewhere."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    try:
        from mlflow import MlflowClient
        from mlflow.entities import ViewType
    except ImportError as error:
        raise ValueError(f"{uri}: a server of MLflow needs mlflow-skinny; install mlflow-skinny") from error
    runs, figures = [], []
    try:
        client = MlflowClient(tracking_uri=uri)
        for experiment in _pages(client.search_experiments):
            for run in _pages(
                client.search_runs, experiment_ids=[experiment.experiment_id], run_view_type=ViewType.ALL
            ):
                number = run.info.run_id
                runs.append({
                    "id": number, "run": run.info.run_name or number, "status": run.info.status,
                    "experiment": experiment.name, "params": dict(run.data.params), "tags": dict(run.data.tags),
                    "deleted": run.info.lifecycle_stage == "deleted",
                })  # fmt: skip
                for name in run.data.metrics:
                    # the newest run comes first, and is turned to the end below
                    history = sorted(client.get_metric_history(number, name), key=lambda one: -one.timestamp)
                    figures += [(number, name, one.step, one.value) for one in history]
    except Exception as error:  # whatever may happen on the way to a server
        raise ValueError(f"{uri}: can't be read: {one_line(error)}") from error
    return runs[::-1], _with_infinity(pd.DataFrame(figures[::-1], columns=FIGURES))


def _pages(search: Any, **asked: Any) -> Iterator[Any]:
    token = None
    while True:
        page = search(page_token=token, **asked)
        yield from page
        token = page.token
        if not token:
            return
