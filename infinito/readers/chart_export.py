"""A chart as Weights & Biases exports it: a column a run, named "run - metric", with two more for its band."""

import re

import pandas as pd

from infinito.readers.numbers import numbers
from infinito.readers.pattern import parts_of
from infinito.readers.results import Options, Results, completed

COLUMN = re.compile(r"(?P<run>.+) - (?P<metric>.+?)(?P<band>__M(IN|AX))?")


def is_one(frame: pd.DataFrame) -> bool:
    return (
        len(frame.columns) > 1
        and sum(bool(COLUMN.fullmatch(str(column))) for column in frame.columns) >= len(frame.columns) - 1
    )


def _same_as_line(frame: pd.DataFrame, column: str, match: re.Match[str], source: str) -> None:
    """Raises ValueError where a band is apart from its line, which then is the mean of several runs."""
    line = f"{match['run']} - {match['metric']}"
    band, figures = numbers(frame[column]), numbers(frame[line]) if line in frame else None
    if band is not None and figures is not None:
        both = pd.concat([band.values, figures.values], axis=1).dropna().to_numpy()
        if len(both) and (abs(both[:, 0] - both[:, 1]) > 1e-9 * abs(both[:, 1])).any():
            raise ValueError(
                f"{source}: found the line {line!r} with a band apart from it: a mean of several runs; allowed: every "
                "run, as an export of the ungrouped chart has them"
            )


def tidy(frame: pd.DataFrame, options: Options, source: str, remarks: list[str]) -> Results:
    """Its curves; the arm of a run is its name up to the last dash, underscore or blank (or by --pattern)."""
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
            _same_as_line(frame, str(column), match, source)
            continue
        found = numbers(frame[column])
        if found is None:
            continue
        if options.pattern is None and not re.search(r"[-_ ]", match["run"]):
            raise ValueError(
                f"{source}: found the run {match['run']!r}, whose name does not say which arm it is of; say what names "
                "mean: --pattern '{arm}-{run}', or '{arm}' where a line is an arm"
            )
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
