"""Runs that a tracker kept, with parameters, tags and metrics, to the tidy table."""

import dataclasses
from typing import Any

import pandas as pd

from infinito.readers import frame
from infinito.readers.direction import direction
from infinito.readers.results import Options, Results
from infinito.readers.roles import FOLD, SEED, TASK, arm_of, named, told

OWN = ("metric", "value", "step", "run", "status", "experiment", "name")  # columns that are not parameters
FIGURES = ["id", "metric", "step", "value"]

Run = dict[str, Any]  # id, run, status, experiment, params, tags


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
        raise ValueError(f"{source}: found {counted(len(runs))} without a metric; allowed: at least one with a metric")
    figures, said = _chosen(figures, options)
    figures, repeated = _once(figures)
    table, kinds = _columns(runs)
    table = table.set_index("id")
    figures = _with_missing(figures, table["experiment"])
    wide = figures.join(table, on="id").drop(columns="id")
    options = dataclasses.replace(options, metric=(), arm=_arm(table, options), pattern=None)
    results = frame.tidy(wide, options, source)
    words = {f"column {column}": kind for column, kind in kinds.items()}
    read_as = {key: words.get(taken, taken) for key, taken in results.read_as.items() if key != "value"}
    return dataclasses.replace(
        results, read_as=read_as | {"metric": "metrics"}, remarks=[*remarks, *said, *repeated, *results.remarks]
    )


def counted(number: int) -> str:
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
