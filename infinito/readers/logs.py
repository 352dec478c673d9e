"""Logs and transcripts of consoles: figures by their names in lines, `val_loss:3.28` or `val loss = 3.28`."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd

from infinito.readers.direction import direction
from infinito.readers.numbers import UNITS
from infinito.readers.results import Options, Results, completed
from infinito.readers.roles import STEP

SURE = (".log", ".out", ".err")
NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|nan|[+-]?inf"
FIGURE = re.compile(rf"([A-Za-z][\w./-]*)\s*[:=]\s*({NUMBER})(%|[a-z]+)?(?:/\d+)?(?![\w.])")


def _figures(lines: Iterable[str], options: Options) -> Iterator[tuple[float, dict[str, float], dict[str, str]]]:
    """Per line that has figures: the step (or the number of the line), the figures and their units."""
    match = _match(options.match)
    for number, line in enumerate(lines):
        found = {name: (value, unit) for name, value, unit in FIGURE.findall(line)}
        if match is not None:
            wanted = match.search(line)
            if wanted is None:
                continue
            known = wanted.groupdict()
            name = known.get("metric") or _name(options.match or "")
            chosen = {name: (known["value"], "")}
        else:
            chosen = {name: pair for name, pair in found.items() if name.lower() not in STEP}
        step = next((float(value) for name, (value, _) in found.items() if name.lower() in STEP), float(number))
        figures: dict[str, float] = {}
        units: dict[str, str] = {}
        for name, (value, unit) in chosen.items():
            scale, called = UNITS.get(unit, (1.0, ""))
            figures[name] = float(value) * (0.01 if unit == "%" else scale)
            if called or unit == "%":
                units[name] = called or "percentage points"
        if figures:
            yield step, figures, units


def read_run(lines: Iterable[str], options: Options) -> tuple[pd.DataFrame, dict[str, str], list[str]]:
    """The curves of one run (metric, step, value), the units, and names of figures that are no metrics."""
    rows: list[tuple[str, float, float]] = []
    units: dict[str, str] = {}
    for step, figures, known in _figures(lines, options):
        units |= known
        rows += [(name, step, value) for name, value in figures.items()]
    table = pd.DataFrame(rows, columns=["metric", "step", "value"])
    if options.metric:
        return table[table["metric"].isin(options.metric)], units, []
    names = list(table["metric"].unique())
    chosen = names if options.match else [name for name in names if direction(name)]
    return table[table["metric"].isin(chosen)], units, [name for name in names if name not in chosen]


def read(path: Path, options: Options) -> Results:
    """A single log: one run."""
    with path.open(encoding="utf-8", errors="replace") as file:
        table, units, _ = read_run(file, options)
    if table.empty:
        raise ValueError(f"{path}: found no figures; allowed: lines as val_loss:3.28, or --match 'val_loss:{{value}}'")
    return Results(completed(table.assign(run=path.stem), path.name), {"metric": "names in lines"}, [], None, units)


def _match(match: str | None) -> re.Pattern[str] | None:
    if match is None:
        return None
    if "{value}" not in match:
        raise ValueError(f"--match: found {match!r}; allowed: a piece of a line with {{value}} in it")
    text = (
        re.escape(match).replace(r"\{value\}", rf"(?P<value>{NUMBER})").replace(r"\{metric\}", r"(?P<metric>[\w./-]+)")
    )
    return re.compile(text.replace(r"\ ", r"\s+"))


def _name(match: str) -> str:
    """What stands before {value}: the metric's name."""
    words = re.findall(r"[A-Za-z][\w./-]*", match.partition("{value}")[0])
    return words[-1] if words else "value"
