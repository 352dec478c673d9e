"""What `dvc exp show --csv` and `--json` print: experiments, and rows of commits and of the working tree."""

import dataclasses
from pathlib import Path
from typing import Any

import pandas as pd

from infinito.readers import delimited, frame, json_files
from infinito.readers.direction import direction
from infinito.readers.results import Options, Results

HEAD = ["Experiment", "rev", "typ"]
OWN = ("run", "typ", "status")
UNREADABLE = "!"  # what DVC prints for a file that it can't read


def read(path: Path, options: Options) -> Results:
    """An experiment a run, its status as State says, none where DVC has none: it is done.

    Rows of commits and of the working tree are named; those that repeat another row or have no figure don't count.

    Raises:
        ValueError: not such a file; no experiments; see `frame.tidy`.
    """
    if path.suffix.lower() == ".json":
        table, metrics = _json(path)
    else:
        table, metrics = _csv(path), ()
    table, remarks = _without_repeats(table, path, metrics)
    if metrics and not options.metric:
        chosen = tuple(name for name in metrics if direction(name)) or metrics
        left = [name for name in metrics if name not in chosen]
        remarks += [f"{', '.join(left)}: not taken for metrics (--metric says otherwise)."] if left else []
        options = dataclasses.replace(options, metric=chosen)
    results = frame.tidy(table.drop(columns="typ"), options, path.name)
    words = {"column run": "name of the experiment", "column status": "State"}
    read_as = {key: words.get(taken, taken) for key, taken in results.read_as.items()}
    return dataclasses.replace(results, read_as=read_as, remarks=[*remarks, *results.remarks])


def is_one(path: Path) -> bool:
    """Whether a file is of this kind, by its header or its first entry."""
    try:
        if path.suffix.lower() == ".json":
            return _is_list(json_files.content(path))
        with path.open(encoding="utf-8-sig") as file:
            return file.readline().split(",")[:3] == HEAD
    except (OSError, ValueError):
        return False


def _is_list(found: Any) -> bool:
    return isinstance(found, list) and bool(found) and all(
        isinstance(one, dict) and {"rev", "data", "experiments"} <= set(one) for one in found
    )  # fmt: skip


def _csv(path: Path) -> pd.DataFrame:
    found = delimited.read_frame(path)
    if list(found.columns[:3]) != HEAD:
        raise ValueError(f"{path}: found the columns {', '.join(found.columns[:3])}; allowed: {', '.join(HEAD)}, ...")
    bad = found.isin([UNREADABLE]).any(axis=1)
    found = found.mask(found.isin([UNREADABLE]))
    # a column that had such a cell is text: numbers again
    found = found.apply(lambda column: column if column.dtype != object else column.infer_objects())
    state = found["State"] if "State" in found else pd.Series(pd.NA, index=found.index)
    state = state.astype("string").fillna("").mask(bad, "failed: DVC could not read it")
    names = found["Experiment"].astype("string").fillna(found["rev"].astype("string")).astype(object)
    own = pd.DataFrame({"run": names, "typ": found["typ"], "status": state.astype(object)})
    rest = found.drop(columns=["Experiment", "rev", "typ", "Created", "parent", "State", "Executor"], errors="ignore")
    return own.join(rest.rename(columns={name: f"params.{name}" for name in rest if name in OWN}))


def _json(path: Path) -> tuple[pd.DataFrame, tuple[str, ...]]:
    found = json_files.content(path)
    if not _is_list(found):
        raise ValueError(f"{path}: found another form; allowed: what dvc exp show --json prints since DVC 3")
    rows: list[tuple[dict[str, Any], dict[str, dict[str, Any]]]] = []
    for state in found:
        rows.append(_row(state, "baseline", ""))
        for experiment in state["experiments"] or []:
            executor = experiment.get("executor") or {}
            rows += [_row(one, "experiment", str(executor.get("state", ""))) for one in experiment["revs"][:1]]
    files = {kind: {place for _, of in rows for place in of[kind]} for kind in ("metrics", "params")}
    every = [place[1] for places in files.values() for place in places]
    names = {
        (kind, *place): f"{place[0]}:{place[1]}" if every.count(place[1]) > 1 or place[1] in OWN else place[1]
        for kind, places in files.items()
        for place in places
    }
    table = pd.DataFrame([
        own | {names[kind, *place]: value for kind in files for place, value in of[kind].items()} for own, of in rows
    ])  # fmt: skip
    metrics = tuple(sorted(names["metrics", *place] for place in files["metrics"]))
    numeric = tuple(name for name in metrics if pd.api.types.is_numeric_dtype(table[name]))
    if not numeric:
        raise ValueError(f"{path}: found no metrics that are numbers; allowed: at least one")
    return table, numeric


def _row(state: dict[str, Any], typ: str, status: str) -> tuple[dict[str, Any], dict[str, dict[Any, Any]]]:
    data = state["data"] or {}
    values: dict[str, dict[tuple[str, str], Any]] = {"metrics": {}, "params": {}}
    for kind, place in values.items():
        for file, content in (data.get(kind) or {}).items():
            if content.get("error"):
                status = "failed: DVC could not read it"
            flat = json_files.flat(content.get("data") or {})
            place |= {(file, key): value for key, value in flat.items() if key}
    if state.get("error"):
        status = "failed: " + str(state["error"].get("msg", ""))[:80]
    name = state.get("name") or str(state["rev"])
    name = name[:7] if len(name) == 40 and not state.get("name") else name
    return {"run": name, "typ": typ, "status": status}, values


def _without_repeats(table: pd.DataFrame, path: Path, metrics: tuple[str, ...]) -> tuple[pd.DataFrame, list[str]]:
    """Without rows of commits and of the working tree that say nothing of their own; the others are named."""
    rest = [column for column in table.columns if column not in OWN]
    above = table["typ"] == "baseline"
    figures = list(metrics) or [name for name in rest if pd.api.types.is_numeric_dtype(table[name])]
    empty = above & (table[figures].isna().all(axis=1) if figures else True)
    order = table.assign(last=above.astype(int) + (table["run"] == "workspace")).sort_values("last", kind="stable")
    again = order.duplicated(rest).reindex(table.index) & above & ~empty
    remarks = []
    for rows, what in (
        (empty, "has no figures; left out"),
        (again, "repeats another row; counted once"),
        (above & ~empty & ~again, "is no experiment, but a commit or the working tree; counted as a run"),
    ):
        remarks += [f"{path.name}: {name} {what}." for name in table.loc[rows, "run"]]
    return table[~(empty | again)].reset_index(drop=True), remarks
