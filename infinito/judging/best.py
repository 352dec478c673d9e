"""The best run of every arm, beside what luck gives the best of as many equally good ones."""

import functools
from typing import Any

import numpy as np
from scipy import stats

from infinito.judging.asked import Asked
from infinito.judging.sample import Sample, Samples, in_common
from infinito.statistics.paired import expected_maximum

LEAST = 3  # runs
expected = functools.cache(expected_maximum)


def best(samples: Samples, asked: Asked) -> list[dict[str, Any]]:
    """Per task, metric and arm of at least three runs that differ (see docs/judge.md)."""
    found = []
    for (task, metric), arms in samples.items():
        sign = asked.sign(metric)
        for arm, sample in arms.items():
            x = sign * sample.known
            n = len(x)
            if n < LEAST or np.ptp(x) == 0:
                continue
            top = int(np.nanargmax(sign * sample.value))
            mean, sd = float(x.mean()), float(x.std(ddof=1))
            z = float((sign * sample.value[top] - mean) / sd)
            chance = float(-np.expm1(n * stats.norm.logcdf(z)))
            found.append(
                {
                    "arm": arm,
                    "task": task,
                    "metric": metric,
                    "run": sample.name(top),
                    "value": float(sample.value[top]),
                    "tried": n,
                    "in_sd": z,
                    "expected_by_luck": sign * (mean + expected(n) * sd),
                    "expected_in_sd": expected(n),
                    "chance_of_as_much": chance,
                    "sentence": "no golden seed: the best of as many equally good runs is as good by luck"
                    if chance > asked.alpha
                    else "better than luck explains: confirm it on fresh seeds, or with fresh data",
                    "elsewhere": _elsewhere(samples, task, metric, arm, top, asked),
                }
            )
    return found


def _elsewhere(samples: Samples, task: str, metric: str, arm: str, top: int, asked: Asked) -> list[dict[str, Any]]:
    """Where the best run of one metric stands by the others, and how far the two go together over all runs."""
    found = []
    mine = samples[task, metric][arm]
    for (other_task, other), arms in samples.items():
        if other_task != task or other == metric or arm not in arms:
            continue
        theirs = arms[arm]
        here, there = _same_runs(mine, theirs)
        place = there[here == top]
        if not len(place) or np.isnan(theirs.value[place[0]]):
            continue
        a, b = mine.value[here], theirs.value[there]
        known = ~np.isnan(a) & ~np.isnan(b)
        a, b = a[known], b[known]
        r = float(np.corrcoef(a, b)[0, 1]) if len(a) > 2 and min(np.ptp(a), np.ptp(b)) > 0 else None
        better = asked.sign(other) * (theirs.known - theirs.value[place[0]]) > 0
        found.append({"metric": other, "rank": int(better.sum()) + 1, "of": len(theirs.known), "correlation": r})
    return found


def _same_runs(one: Sample, other: Sample) -> tuple[Any, Any]:
    """Places in both of the same runs: by seed where each names one, else by what they are called."""
    if one.paired and other.paired:
        return in_common(one, other)
    if len(set(one.run)) < len(one.run) or len(set(other.run)) < len(other.run):
        return np.zeros(0, int), np.zeros(0, int)
    places = {run: place for place, run in enumerate(other.run)}
    both = [(place, places[run]) for place, run in enumerate(one.run) if run in places]
    return np.array([a for a, _ in both], int), np.array([b for _, b in both], int)
