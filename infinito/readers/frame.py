"""A table with a header, long or wide, to the tidy one: cleaned, its columns told apart, every figure in a row."""

import re
from typing import Any, Literal

import numpy as np
import pandas as pd

from infinito.readers import chart_export
from infinito.readers.numbers import numbers
from infinito.readers.pattern import compiled
from infinito.readers.results import Options, Results, completed
from infinito.readers.roles import (
    ARM,
    FOLD,
    METRIC,
    RUN,
    SEED,
    STATUS,
    STEP,
    SUMMARY,
    TASK,
    VALUE,
    WIDE,
    arm_of,
    metrics_of,
    named,
    plain,
    told,
)  # fmt: skip

SEEDS = r"(?i)(seed|run|fold|s)?[ _=-]?\d+(\.0+)?"


def tidy(frame: pd.DataFrame, options: Options, source: str) -> Results:
    """What stands in a table.

    Args:
        frame: its columns as text or numbers, the header as their names.
        options: what the user says of it.
        source: its file, for messages.

    Raises:
        ValueError: no figures; a column that is not there; what could be read in two ways; in one line.
    """
    frame, remarks = _cleaned(frame, source)
    if chart_export.is_one(frame):
        return chart_export.tidy(frame, options, source, remarks)
    if options.pattern:
        frame = _by_column(frame, options.pattern, source)
    columns = list(frame.columns)
    wide = {column: int(match[2]) for column in columns if (match := WIDE.fullmatch(str(column).strip()))}
    if len(wide) > 1 and not options.seed and not options.metric:
        frame = _unpivoted(frame, wide)
        columns = list(frame.columns)
    role: dict[str, str | None] = {
        "status": told("status", options.status, columns) or _one(named(columns, STATUS)),
        "task": told("task", options.task, columns) or _one(named(columns, TASK)),
        "step": told("step", options.step, columns) or _one(named(columns, STEP)),
    }
    role["seed"], pairing = _seed(frame, options, columns, [c for c in role.values() if c])
    if role["seed"]:
        frame, more = _without_labels(frame, role["seed"], source)
        remarks += more
    role["metric"], role["value"] = _long(frame, options, columns)
    taken = [column for column in role.values() if column]
    role["arm"] = told("arm", options.arm, columns) or arm_of(frame, taken, options)
    role["run"] = told("run", options.run, columns) or _one(
        [column for column in named(columns, RUN) if column not in (*taken, role["arm"])]
    )
    taken = [column for column in role.values() if column]
    units: dict[str, str] = {}
    ids: dict[str, Any] = {
        key: frame[column] for key, column in role.items() if column and key not in ("metric", "value")
    }
    failed = _failures(frame, columns, taken)
    if role["value"]:
        value = numbers(frame[role["value"]])
        if value is None:
            raise ValueError(f"{source}: {role['value']}: found {_odd(frame[role['value']])!r}; allowed: numbers")
        parts = [ids | {"metric": frame[role["metric"]] if role["metric"] else role["value"], "value": value.values}]
        if value.unit:
            kinds = frame[role["metric"]].astype(str).unique() if role["metric"] else [role["value"]]
            units |= dict.fromkeys(map(str, kinds), value.unit)
        left: list[str] = []
    else:
        found = {column: n for column in columns if column not in taken and (n := numbers(frame[column]))}
        for name in options.metric:
            column = str(told("metric", name, columns))
            if column not in found:
                raise ValueError(f"{source}: {column}: found {_odd(frame[column])!r}; allowed: numbers")
        chosen, left = metrics_of(frame, list(found), options)
        parts = [ids | {"metric": column, "value": found[column].values} for column in chosen]
        units |= {column: unit for column in chosen if (unit := found[column].unit)}
    table = pd.concat([pd.DataFrame(part, index=frame.index) for part in parts], ignore_index=True)
    folds = [column for column in named(columns, FOLD) if pairing == "seed" and column not in role.values()]
    if folds:
        table, more = _over_folds(table, np.tile(frame[folds[0]].astype(str).to_numpy(), len(parts)), folds[0])
        remarks += more
    if failed is not None:
        status = np.tile(failed.to_numpy(), len(parts))
        missing = table["value"].isna() & (status != "")
        if missing.any():
            table["status"] = np.where(missing, status, table.get("status", pd.Series("", index=table.index)))
    if options.metric and role["value"]:
        known = list(map(str, table["metric"].unique()))
        absent = [name for name in options.metric if name not in known]
        if absent:
            raise ValueError(f"--metric: found {absent[0]!r}; allowed: {', '.join(known)}")
        table = table[table["metric"].astype(str).isin(options.metric)]
    read_as = {key: f"column {column}" for key, column in role.items() if column}
    if len(wide) > 1 and role["seed"] == "seed":
        read_as["seed"] = f"columns {next(iter(wide))} to {list(wide)[-1]}"
    if left:
        remarks.append(
            f"{', '.join(left[:6])}: numbers whose name says neither that they are a metric nor which way they are "
            "better; not judged (--metric says otherwise)."
        )
    return Results(completed(table, source), read_as, remarks, pairing, units)


def _over_folds(table: pd.DataFrame, fold: np.ndarray, name: str) -> tuple[pd.DataFrame, list[str]]:
    """Where every seed has several folds, their mean: folds share training examples, and are no runs of their own."""
    keys = [key for key in ("arm", "task", "metric", "seed", "step", "status") if key in table]
    if not table.duplicated(keys).any() or table.assign(fold=fold).duplicated([*keys, "fold"]).any():
        return table, []
    rest = {key: (key, "first") for key in table.columns if key not in (*keys, "value", "run")}
    groups = table.groupby(keys, sort=False, dropna=False, as_index=False)
    means = groups.agg(value=("value", "mean"), folds=("value", "count"), **rest)
    whole = means.pop("folds") == len(np.unique(fold))
    said = [f"Of every seed the mean over its {name}s: folds share examples, and are no runs of their own."]
    if not whole.all():
        said.append(
            f"{int((~whole).sum())} seeds lack a {name}: no figure, as the mean of the others is one of another test."
        )
    return means.assign(value=means["value"].where(whole)), said


def _cleaned(frame: pd.DataFrame, source: str) -> tuple[pd.DataFrame, list[str]]:
    """Without empty lines and columns, repeated headers and summaries; the latter are said."""
    remarks = []
    frame = frame.rename(columns=lambda name: str(name).strip().lstrip("\ufeff"))
    if frame.columns.duplicated().any():
        twice = frame.columns[frame.columns.duplicated()][0]
        raise ValueError(f"{source}: found two columns {twice!r}; allowed: a name once")
    text = [column for column in frame.columns if frame[column].dtype == object or str(frame[column].dtype) == "str"]
    if text:
        stripped = frame[text].apply(lambda column: column.astype("string").str.strip())
        frame = frame.assign(**{column: stripped[column].astype(object) for column in text})
        frame = frame.mask(frame[text].isin([""]).reindex(columns=frame.columns, fill_value=False))
    frame = frame.dropna(how="all").dropna(axis=1, how="all")
    if text:
        columns = [column for column in text if column in frame]
        repeated = (
            pd.concat([frame[column] == column for column in columns], axis=1).all(axis=1)
            if columns
            else pd.Series(False, index=frame.index)
        )
        if repeated.any():
            remarks.append(f"{source}: the header is repeated {_times(int(repeated.sum()))}.")
            frame = frame[~repeated]
        summary = pd.Series(False, index=frame.index)
        for column in columns[:4]:
            counts = frame[column].value_counts()
            of_arms = column in named(columns, ARM)
            names = [
                str(name) for name, n in counts.items() if SUMMARY.fullmatch(str(name)) and (n == 1 or not of_arms)
            ]
            if names:
                summary |= frame[column].isin(names)
        seeds = named(frame.columns, (*SEED, *FOLD))
        if seeds:  # an arm may be called mean, as a kind of pooling; its runs have seeds
            summary &= ~frame[seeds[0]].astype("string").str.fullmatch(SEEDS).fillna(False).astype(bool)
        if summary.any() and not summary.all() and not named(columns, METRIC):
            names = [
                next(str(x) for x in frame.loc[i, columns[:4]] if SUMMARY.fullmatch(str(x)))
                for i in frame.index[summary]
            ]
            names = list(dict.fromkeys(names))
            remarks.append(f"{source}: {', '.join(names[:6])}: summaries, no runs; left out.")
            frame = frame[~summary]
    if frame.empty:
        raise ValueError(f"{source}: found no rows; allowed: a header and a run a row")
    return frame.reset_index(drop=True), remarks


def _without_labels(frame: pd.DataFrame, seed: str, source: str) -> tuple[pd.DataFrame, list[str]]:
    """Without rows whose seed is no number, where those of most others are one: they sum up, and are no runs."""
    text = frame[seed].astype("string").str.strip()
    number = text.str.fullmatch(SEEDS)
    labels = frame[text.notna() & ~number.fillna(False)]
    if labels.empty or len(labels) >= len(frame) / 2:
        return frame, []
    names = ", ".join(list(dict.fromkeys(text[labels.index]))[:6])
    return frame.drop(index=labels.index).reset_index(drop=True), [
        f"{source}: rows whose {seed} is {names}: summaries, no runs; left out."
    ]


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"


def _one(columns: list[str]) -> str | None:
    return columns[0] if columns else None


def _by_column(frame: pd.DataFrame, pattern: str, source: str) -> pd.DataFrame:
    """A column an arm, by --pattern of their names, to a row an arm."""
    fits = compiled(pattern)
    found = {
        str(column): match.groupdict()
        for column in frame.columns
        if (match := fits.fullmatch(str(column))) and plain(str(column)) not in (*SEED, *STEP, *FOLD, *RUN)
        and numbers(frame[column])
    }  # fmt: skip
    if not found:
        raise ValueError(
            f"--pattern: {pattern!r} fits no column of numbers of {source}, which has "
            f"{', '.join(map(str, frame.columns))}"
        )
    frame = frame.melt(
        id_vars=[c for c in frame.columns if str(c) not in found],
        value_vars=list(found),
        var_name="",
        value_name="value",
    )
    names = frame.pop("")
    return frame.assign(**{key: names.map({c: m[key] for c, m in found.items()}) for key in fits.groupindex})


def _unpivoted(frame: pd.DataFrame, wide: dict[str, int]) -> pd.DataFrame:
    """A column a seed to a row a seed."""
    rest = [column for column in frame.columns if column not in wide]
    frame = frame.melt(id_vars=rest, value_vars=list(wide), var_name="seed", value_name="value")
    return frame.assign(seed=frame["seed"].map(wide))


def _seed(
    frame: pd.DataFrame, options: Options, columns: list[str], taken: list[str]
) -> tuple[str | None, Literal["seed", "fold"] | None]:
    """The column that says which runs of two arms belong together: seeds, or folds where no two arms share a seed."""
    if options.seed:
        column = told("seed", options.seed, columns)
        return column, "fold" if plain(str(column)) in FOLD else "seed"
    seeds, folds = named(columns, SEED), named(columns, FOLD)
    if folds and seeds:
        arm = told("arm", options.arm, columns) or arm_of(frame, [*taken, *seeds, *folds], options)
        if arm is None or (frame.groupby(seeds[0])[arm].nunique() > 1).mean() < 0.5:
            return folds[0], "fold"
    if seeds:
        return seeds[0], "seed"
    return (folds[0], "fold") if folds else (None, None)


def _long(frame: pd.DataFrame, options: Options, columns: list[str]) -> tuple[str | None, str | None]:
    """The columns of the metrics' names and of their values, where every row has one figure."""
    metric, value = _one(named(columns, METRIC)), told("value", options.value, columns)
    if metric and not value:
        found = [column for column in named(columns, VALUE) if column != metric]
        found = found or [
            c for c in columns if c != metric and plain(c) not in (*SEED, *STEP, *FOLD, *RUN) and numbers(frame[c])
        ]
        value = _one(found)
    if value is None and "value" in columns and not options.metric:
        value = "value"
    return (metric if value else None), value


def _failures(frame: pd.DataFrame, columns: list[str], taken: list[str]) -> pd.Series | None:
    """What a table says of rows without a figure (info, error), as their status."""
    for column in named(
        [column for column in columns if column not in taken], ("info", "error", "exception", "failure")
    ):
        if numbers(frame[column]) is None and frame[column].notna().any():
            text = frame[column].astype("string").fillna("")
            return text.where(text == "", "failed: " + text.str.slice(0, 80)).astype(object)
    return None


def _odd(column: pd.Series) -> Any:
    """The first value that is no number."""
    for value in column.dropna():
        if numbers(pd.Series([value])) is None and not re.fullmatch(r"\s*-?\s*", str(value)):
            return value
    return "nothing"
