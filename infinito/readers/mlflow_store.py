"""What MLflow logged: a folder mlruns, a SQLite store, or a server. Without MLflow where there are files."""

import dataclasses
import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
import yaml

from infinito.readers import frame
from infinito.readers.direction import direction
from infinito.readers.results import Options, Results
from infinito.readers.roles import FOLD, SEED, TASK, arm_of, named, told
from infinito.tasks.hub import one_line

STATUS = {1: "RUNNING", 2: "SCHEDULED", 3: "FINISHED", 4: "FAILED", 5: "KILLED"}  # as its files number them
OWN = ("metric", "value", "step", "run", "status", "experiment", "name")  # columns that are not parameters
TABLES = ("experiments", "runs", "params", "metrics", "tags")
PARENT = "mlflow.parentRunId"
ALLOWED = "a folder mlruns, sqlite:///FILE, or http://SERVER"
FIGURES = ["id", "metric", "step", "value"]

Run = dict[str, Any]  # id, run, status, experiment, params, tags, deleted
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
        remarks.append(f"{name}: {_runs(len(deleted))} deleted; left out.")
    above = {run["tags"].get(PARENT) for run in runs} - set(figures["id"])
    above &= {run["id"] for run in runs} - deleted
    if above:
        remarks.append(f"{name}: {_runs(len(above))} above others, without figures: no runs of a model; left out.")
    runs = [run for run in runs if run["id"] not in deleted | above]
    return logged(runs, figures[~figures["id"].isin(deleted)], options, name, remarks)


def is_one(path: Path) -> bool:
    """Whether a folder or file is such a store."""
    if path.is_dir():
        return any(path.glob("*/*/meta.yaml"))
    return set(TABLES) <= set(tables(path))


def logged(runs: list[Run], figures: pd.DataFrame, options: Options, source: str, remarks: list[str]) -> Results:
    """Runs with parameters and metrics as one tidy table.

    A metric that no run has more than once is no curve, and has no step; where one has a step twice, the last one
    logged counts. A run without a figure of a metric that others of its experiment have is there with a missing one.

    Args:
        runs: id, run (its name), status, experiment, params and tags by name.
        figures: id, metric, step, value, in the order of logging.
        options: what the user says of it.
        source: for messages.
        remarks: what is to be said already.

    Raises:
        ValueError: no runs; no figures; a metric or column that is not there.
    """
    if not runs:
        raise ValueError(f"{source}: found no runs; allowed: at least one with a metric")
    if figures.empty:
        raise ValueError(f"{source}: found {_runs(len(runs))} without a metric; allowed: at least one with a metric")
    figures, said = _chosen(figures, options)
    figures, repeated = _once(figures)
    table, kinds = _columns(runs)
    table = table.set_index("id")
    figures = _with_missing(figures, table["experiment"])
    wide = figures.join(table, on="id").drop(columns="id")
    results = frame.tidy(wide, dataclasses.replace(options, metric=(), arm=_arm(table, options)), source)
    words = {f"column {column}": kind for column, kind in kinds.items()}
    read_as = {key: words.get(taken, taken) for key, taken in results.read_as.items() if key != "value"}
    return dataclasses.replace(
        results, read_as=read_as | {"metric": "metrics"}, remarks=[*remarks, *said, *repeated, *results.remarks]
    )


def _runs(number: int) -> str:
    return "1 run" if number == 1 else f"{number} runs"


def _chosen(figures: pd.DataFrame, options: Options) -> tuple[pd.DataFrame, list[str]]:
    """The metrics that are asked for, or those whose names say which way they are better, if any does."""
    known = list(dict.fromkeys(figures["metric"]))
    absent = [name for name in options.metric if name not in known]
    if absent:
        raise ValueError(f"--metric: found {absent[0]!r}; allowed: {', '.join(known)}")
    if options.metric:
        return figures[figures["metric"].isin([*options.metric, options.best_by])], []
    sure = [name for name in known if direction(name) and not name.startswith("system/")] or known
    left = [name for name in known if name not in sure]
    said = f"{', '.join(left[:6])}{', ...' if len(left) > 6 else ''}: not taken for metrics (--metric says otherwise)."
    return figures[figures["metric"].isin([*sure, options.best_by])], [said] if left else []


def _once(figures: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    keys = ["id", "metric", "step"]
    again = figures.duplicated(keys, keep="last")
    remarks = []
    if again.any():
        names = ", ".join(list(dict.fromkeys(figures.loc[again, "metric"]))[:4])
        remarks.append(f"{names}: logged {int(again.sum())} times again for a step; the last figure counts.")
    figures = figures[~again]
    single = ~figures["metric"].isin(figures.loc[figures.duplicated(["id", "metric"]), "metric"])
    return figures.assign(step=figures["step"].astype(float).mask(single)), remarks


def _columns(runs: list[Run]) -> tuple[pd.DataFrame, dict[str, str]]:
    """A run a row, a parameter or tag a column; and what each of them is."""
    names = [run["run"] for run in runs]
    twice = len(set(names)) < len(names)
    kinds: dict[str, str] = {"experiment": "experiment", "run": "run's name", "status": "status", "name": "run's name"}
    rows = []
    for run in runs:
        # equal names are no identity; they may name the arm
        label = f"{run['run']} {run['id'][:8]}" if names.count(run["run"]) > 1 else run["run"]
        row = {"id": run["id"], "run": label, "status": run["status"], "experiment": run["experiment"]}
        row |= {"name": run["run"]} if twice else {}
        for kind, prefix in (("parameter", "params"), ("tag", "tags")):
            for key, value in run[prefix].items():
                if key.startswith("mlflow."):
                    continue
                taken = key in OWN or (kind == "tag" and any(key in other["params"] for other in runs))
                column = f"{prefix}.{key}" if taken else key
                row[column] = value
                kinds[column] = f"{kind} {key}"
        rows.append(row)
    return pd.DataFrame(rows), kinds


def _with_missing(figures: pd.DataFrame, experiment: pd.Series) -> pd.DataFrame:
    """With a row for each run that lacks a metric, where others of its experiment have it, or it has none at all."""
    ours = figures.assign(experiment=figures["id"].map(experiment))
    there = set(zip(ours["id"], ours["metric"], strict=True))
    usual = ours.groupby("experiment")["metric"].unique()
    every = figures["metric"].unique()
    lost = [
        {"id": run, "metric": metric}
        for run, name in experiment.items()
        for metric in (usual[name] if name in usual.index else every)
        if (run, metric) not in there
    ]
    return pd.concat([figures, pd.DataFrame(lost, columns=FIGURES[:2])], ignore_index=True) if lost else figures


def _arm(table: pd.DataFrame, options: Options) -> str:
    """The column of arms, told by runs and not by their figures."""
    columns = list(table.columns)
    wanted = told("arm", options.arm, columns)
    if wanted:
        return wanted
    taken = ["run", "status", options.seed, options.task, *named(columns, (*SEED, *FOLD)), *named(columns, TASK)[:1]]
    return arm_of(table, taken, options) or "experiment"


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


def tables(path: Path) -> list[str]:
    """The tables of a SQLite file; none if it is another one."""
    try:
        with closing(connected(path)) as store:
            return [name for (name,) in store.execute("select name from sqlite_master where type = 'table'")]
    except sqlite3.Error:
        return []


def connected(path: Path) -> sqlite3.Connection:
    """A SQLite file, only to be read."""
    return sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True)


def selected(path: Path, needed: tuple[str, ...], of: str, queries: dict[str, str]) -> dict[str, list[tuple[Any, ...]]]:
    """What queries find in a SQLite file.

    Raises:
        ValueError: it is no such file; one without the needed tables, or of another version.
    """
    try:
        with closing(connected(path)) as store:
            known = {name for (name,) in store.execute("select name from sqlite_master where type = 'table'")}
            lacking = [name for name in needed if name not in known]
            if lacking:
                found = f"no table {lacking[0]}" if known else "an empty file"
                raise ValueError(f"{path}: found {found}; allowed: a SQLite store of {of}")
            return {name: store.execute(query).fetchall() for name, query in queries.items()}
    except sqlite3.Error as error:
        raise ValueError(f"{path}: not a readable SQLite store of {of}: {one_line(error)}") from error


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
