"""Which pictures a judgement has: its runs, a forest of its comparisons, and over tasks ranks and profiles."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from infinito.report.draw import Figure, draw
from infinito.report.judgement import charts
from infinito.report.words import plain, plural

PANELS = 8  # pictures of runs: of so many tasks and metrics
LINES = 60  # of a forest, and arms of a picture
ALIKE = 5.0  # times the spread of a task that another one's may be, for their differences to share an axis


def draw_all(result: Mapping[str, Any], runs: pd.DataFrame) -> dict[str, Figure]:
    """By name: runs-0 and so on per task and metric, forest-0 per metric, ranks-0 and profiles-0 per entry over tasks.

    Args:
        result: of `infinito.judging.runs.judged`.
        runs: a run a row: arm, task, metric, value.
    """
    found = [*_runs(runs), *_forests(result["comparisons"], result["arms"]), *_over_tasks(result["across_tasks"])]
    return {figure.name: figure for figure in found}


def _runs(runs: pd.DataFrame) -> list[Figure]:
    found = []
    known = runs.dropna(subset=["value"])
    for number, ((task, metric), here) in enumerate(known.groupby(["task", "metric"], sort=False)):
        if number == PANELS:
            break
        arms = {str(arm): rows["value"].to_numpy() for arm, rows in here.groupby("arm", sort=False)}
        arms = dict(list(arms.items())[:LINES])
        counts = ", ".join(f"{arm or 'all'}: {len(x)} from {x.min():.4g} to {x.max():.4g}" for arm, x in arms.items())
        axis = f"{metric} on {task}" if task else str(metric)
        alt = f"Every run by {axis}. {counts}."
        found.append(draw(f"runs-{number}", alt, partial(charts.runs, arms, axis)))
    return found


def shown(comparisons: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Comparisons that have an interval, by metric; the first lines of each."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for one in comparisons:
        if one["difference"] and one["difference"]["ci_low"] is not None:
            found.setdefault(one["metric"], []).append(one)
    return {metric: rows[:LINES] for metric, rows in found.items()}


def _forests(comparisons: Sequence[Mapping[str, Any]], arms: Sequence[Mapping[str, Any]]) -> list[Figure]:
    found = []
    for number, (metric, rows) in enumerate(shown(comparisons).items()):
        tasks = {one["task"] for one in rows}
        spreads = [one["sd"] for one in arms if one["metric"] == metric and one["task"] in tasks and one["sd"]]
        own_unit = len(tasks) < 2 or not spreads or max(spreads) <= ALIKE * np.median(spreads)
        sized = [one for one in rows if own_unit or (one["effect_size"] and one["effect_size"]["value"] is not None)]
        if not sized:
            continue
        candidates = {(one["candidate"], one["baseline"]) for one in sized}
        names = [_line(one, len(tasks) > 1, len(candidates) > 1) for one in sized]
        values = [one["difference" if own_unit else "effect_size"] for one in sized]
        unit = sized[0]["unit"]
        axis = f"gain in {metric}" + (f", {plural(unit) if unit == 'second' else unit}" if unit != metric else "")
        if unit == "percentage points":
            values = [{key: None if x is None else 100 * x for key, x in one.items()} for one in values]
        if not own_unit:
            axis = f"gain in {metric}, standard deviations of the runs (Hedges' g)"
        colours = [charts.VERDICTS[one["verdict"]] for one in sized]
        alt = f"{axis}, with intervals: " + "; ".join(
            f"{name} {plain(one['value'])}" for name, one in list(zip(names, values, strict=True))[:12]
        )
        found.append(
            draw(
                f"forest-{number}",
                alt + ".",
                partial(charts.estimates, names, values, colours, axis, True),
            )
        )
    return found


def _line(one: Mapping[str, Any], tasks: bool, pairs: bool) -> str:
    """What tells a comparison from the others of a picture."""
    arms = f"{one['candidate']} − {one['baseline']}"
    return f"{one['task']}: {arms}" if tasks and pairs else one["task"] if tasks else arms


def _over_tasks(entries: Sequence[Mapping[str, Any]]) -> list[Figure]:
    found = []
    for number, entry in enumerate(entries):
        ranks = sorted(entry["ranks"], key=lambda one: one["mean"]["value"])[:LINES]
        if ranks:
            names, means = [one["arm"] for one in ranks], [one["mean"] for one in ranks]
            alt = "Mean ranks: " + ", ".join(f"{n} {m['value']:.2f}" for n, m in zip(names, means, strict=True)) + "."
            colours = charts.COLOURS[-1:] * len(names)
            axis = f"mean rank over {means[0]['n']} tasks, 1 is best"
            found.append(
                draw(
                    f"ranks-{number}",
                    alt,
                    partial(charts.estimates, names, means, colours, axis, False),
                )
            )
        profiles = entry["profiles"][: len(charts.COLOURS)]
        if profiles:
            axis = f"score, {entry['unit']}"
            alt = "Performance profiles of " + ", ".join(one["arm"] for one in profiles) + "."
            found.append(draw(f"profiles-{number}", alt, partial(charts.profiles, profiles, axis)))
    return found
