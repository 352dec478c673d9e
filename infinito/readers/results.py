"""Other people's results as one tidy table, with what was taken for what and what must be said of it."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd

TEXT = ("arm", "task", "metric", "run", "seed", "status", "source")
COLUMNS = ("arm", "task", "metric", "run", "seed", "step", "value", "status", "source")
FINISHED = ("", "finished", "completed", "complete", "ok", "success", "succeeded", "done")


@dataclass(frozen=True)
class Results:
    """What somebody measured.

    Args:
        table: a figure a row: arm, task, metric, run, seed, status and source as text, empty where there is none; step
            as a number or missing; value as float64, NaN where it is missing.
        read_as: what was taken for what: "arm" -> "column algorithm".
        remarks: sentences that stand beside every verdict on these figures.
        pairing: what makes figures of two arms belong together: the same seeds, the same folds; None: nothing does.
        units: of metrics that are not in the unit of their values, by name: "percentage points".
        errors: standard errors over the items of a test set (arm, task, metric, stderr), where that is all there is.
    """

    table: pd.DataFrame
    read_as: dict[str, str]
    remarks: list[str] = field(default_factory=list)
    pairing: Literal["seed", "fold"] | None = None
    units: dict[str, str] = field(default_factory=dict)
    errors: pd.DataFrame | None = None


@dataclass(frozen=True)
class Options:
    """What the reader is told; None: it finds out, or asks.

    Args:
        arm, seed, metric, task, step, value, status, run: names of columns (metric: of one or of several, or of values
            in a column of metrics).
        pattern: of paths below a folder, or of names: "{arm}/tuned/{seed}/stats.json".
        match: of lines of a log: "val_loss:{value}".
        at: the step of a curve that counts, or the first and the last of those whose mean counts. last: the mean of so
            many last ones instead. best_by: the metric on whose best value the step is chosen.
    """

    arm: str | None = None
    seed: str | None = None
    metric: tuple[str, ...] = ()
    task: str | None = None
    step: str | None = None
    value: str | None = None
    status: str | None = None
    run: str | None = None
    pattern: str | None = None
    match: str | None = None
    at: tuple[float, float] | None = None
    last: int | None = None
    best_by: str | None = None


def finished(status: pd.Series) -> pd.Series:
    """Which runs are done: all whose status says so, or says nothing. status: text -> bool."""
    return status.isin([text for text in status.unique() if text.strip().lower() in FINISHED])


def completed(table: pd.DataFrame, source: str) -> pd.DataFrame:
    """A table with all the columns of a tidy one, each of its type."""
    table = table.reset_index(drop=True).copy()
    for key in COLUMNS:
        if key not in table:
            table[key] = source if key == "source" else np.nan if key in ("step", "value") else ""
    for key in TEXT:
        table[key] = as_text(table[key])
    table["step"] = pd.to_numeric(table["step"], errors="coerce")
    table["value"] = table["value"].astype(float)
    return table[list(COLUMNS)]


def as_text(column: pd.Series) -> pd.Series:
    """Values as text, whole numbers without a fraction, what is missing as ""."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(object)
    if pd.api.types.is_float_dtype(column):
        whole = column.dropna()
        if (whole == whole.round()).all():
            column = column.astype("Int64")
    return column.astype("string").fillna("").str.strip().astype(object)
