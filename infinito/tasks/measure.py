"""A metric in words, and its levels in its own direction.

Statistics work on losses: less is better, and a gain is the loss of the baseline minus that of the candidate. What
people read is the metric of the task, which is the loss or, where higher is better, the negative of it.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from infinito.tasks.task import Measures, Metric

KEY = "test_loss"  # of the metric in the run table
EITHER = ("lower", "higher")


def described(metric: Metric) -> dict[str, str]:
    """The words for a metric, as a result keeps them."""
    return {"name": metric.name, "unit": metric.unit, "better": metric.better}


def metric_of(result: Mapping[str, Any]) -> Metric:
    """The metric of results/compare.json. One without `measure` is of before there was a choice: lower is better."""
    name, unit, *_ = str(result["metric"]).split(", ")
    words = {"name": name.removeprefix("test "), "unit": unit, "better": "lower"} | result.get("measure", {})
    return Metric(**words, guess=math.nan)


def moved(metric: Metric, gain: float) -> str:
    """Where a gain moves the metric: lower or higher."""
    return metric.better if gain >= 0 else EITHER[metric.better == "lower"]


def extreme(metric: Metric) -> str:
    """What the best of several has: the lowest or the highest."""
    return f"{metric.better.removesuffix('er')}est"


def clipped(metric: Metric, estimate: Mapping[str, Any]) -> dict[str, Any]:
    """An estimate of a metric, inside its bounds."""
    low, high = metric.bounds or (-math.inf, math.inf)
    return {key: x if key == "n" or x is None else float(np.clip(x, low, high)) for key, x in estimate.items()}


def level(metric: Metric, loss: float) -> float:
    """A loss as the metric."""
    return loss if metric.better == "lower" else 0.0 - loss  # no negative zero


def levels(metric: Metric, loss: Mapping[str, Any]) -> dict[str, Any]:
    """An estimate of a mean loss as one of the metric: its limits change places where higher is better."""
    if metric.better == "higher":
        turned = {"value": loss["value"], "ci_low": loss["ci_high"], "ci_high": loss["ci_low"]}
        loss = {**loss, **{key: None if x is None else level(metric, x) for key, x in turned.items()}}
    return clipped(metric, loss)


def named(task: Measures, key: str) -> Metric:
    """The metric behind a column of the run table: the task's own, or one of its further scores."""
    return task.metric if key == KEY else task.scores[key]


def check_metrics(file: Path, keys: Sequence[str], task: Measures) -> None:
    """Whether a task has all the metrics that `file`, a params.yaml, is to compare.

    Raises:
        ValueError: one that it does not have.
    """
    allowed = (KEY, *task.scores)
    for key in keys:
        if key not in allowed:
            raise ValueError(
                f"{file}: compare.metrics: found {key!r}; allowed: {', '.join(allowed)}, or what a task of your own "
                "measures (docs/tasks.md)"
            )
