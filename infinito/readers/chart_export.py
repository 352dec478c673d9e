"""A chart as Weights & Biases exports it: a column a run, named "run - metric", with two more for its band."""

import re

import pandas as pd

from infinito.readers.numbers import numbers
from infinito.readers.results import Options, Results

COLUMN = re.compile(r"(?P<run>.+) - (?P<metric>.+?)(?P<band>__M(IN|AX))?")


def is_one(frame: pd.DataFrame) -> bool:
    return (
        len(frame.columns) > 1
        and sum(bool(COLUMN.fullmatch(str(column))) for column in frame.columns) >= len(frame.columns) - 1
    )


def tidy(frame: pd.DataFrame, options: Options, source: str, remarks: list[str]) -> Results:
    """Its curves; the arm of a run is its name up to the last dash, underscore or blank (or by --pattern)."""
    from infinito.readers.frame import completed
    from infinito.readers.pattern import parts_of

    step = next(column for column in frame.columns if not COLUMN.fullmatch(str(column)))
    steps = numbers(frame[step])
    if steps is None:
        raise ValueError(f"{source}: {step}: found {frame[step].iloc[0]!r}; allowed: steps, which are numbers")
    pieces, bands = [], 0
    for column in frame.columns:
        match = COLUMN.fullmatch(str(column))
        if match is None:
            continue
        if match["band"]:
            bands += 1
            continue
        found = numbers(frame[column])
        if found is None:
            continue
        known = parts_of(match["run"], options.pattern or "{arm}-{run}", "run's name")
        piece = pd.DataFrame(
            {"step": steps.values, "value": found.values, "metric": match["metric"], "run": match["run"]}
        )
        pieces.append(
            piece.assign(**{key: value for key, value in known.items() if key != "run"}).dropna(subset=["value"])
        )
    if bands:
        remarks.append(f"{source}: {bands} columns __MIN and __MAX are bands of the chart, no runs; left out.")
    if not pieces:
        raise ValueError(f"{source}: found no numbers in the columns of its runs")
    table = pd.concat(pieces, ignore_index=True)
    if options.metric:
        table = table[table["metric"].isin(options.metric)]
    read_as = {"arm": "run's name", "run": "run's name", "metric": "columns", "step": f"column {step}"}
    return Results(completed(table, source), read_as, remarks, "seed" if "seed" in table else None)
