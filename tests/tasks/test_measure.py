"""The words for a metric, and its levels in its own direction."""

import dataclasses
from pathlib import Path

import pytest

from infinito.tasks import measure
from infinito.tasks.tokens import Tokens
from tests.comparisons import NATS, SHARE


def test_a_gain_moves_a_metric_the_way_that_is_better() -> None:
    assert [measure.moved(NATS, gain) for gain in (0.1, 0.0, -0.1)] == ["lower", "lower", "higher"]
    assert [measure.moved(SHARE, gain) for gain in (0.1, 0.0, -0.1)] == ["higher", "higher", "lower"]
    assert [measure.extreme(metric) for metric in (NATS, SHARE)] == ["lowest", "highest"]


def test_levels_are_in_the_direction_of_the_metric_and_inside_its_bounds() -> None:
    loss = {"value": -0.98, "ci_low": -1.03, "ci_high": -0.93, "n": 5}
    assert measure.levels(NATS, loss) == loss
    assert measure.levels(SHARE, loss) == {"value": 0.98, "ci_low": 0.93, "ci_high": 1.0, "n": 5}
    free = dataclasses.replace(SHARE, bounds=None)
    assert measure.levels(free, loss)["ci_high"] == 1.03
    alone = {"value": -0.5, "ci_low": None, "ci_high": None, "n": 1}
    assert measure.levels(SHARE, alone) == {"value": 0.5, "ci_low": None, "ci_high": None, "n": 1}
    assert str(measure.level(SHARE, 0.0)) == "0.0"


def test_a_result_names_its_metric_also_one_of_before_there_was_a_choice() -> None:
    for metric in (NATS, SHARE):
        result = {"metric": f"test {metric.name}, {metric.unit}, at the end", "measure": measure.described(metric)}
        found = measure.metric_of(result)
        assert (found.name, found.unit, found.better) == (metric.name, metric.unit, metric.better)
    found = measure.metric_of({"metric": "test loss, nats per token, at the last step"})
    assert (found.name, found.unit, found.better) == ("loss", "nats per token", "lower")


def test_only_metrics_of_the_task_can_be_compared() -> None:
    task = Tokens(7, 4, causal=False, exact=False)
    measure.check_metrics(Path("params.yaml"), ["test_loss", "accuracy"], task)
    with pytest.raises(
        ValueError, match="^params.yaml: compare.metrics: found 'exact'; allowed: test_loss, accuracy, or"
    ):
        measure.check_metrics(Path("params.yaml"), ["test_loss", "exact"], task)
    assert measure.named(task, "accuracy").better == "higher" and measure.named(task, "test_loss") == task.metric
