"""The stages take their words and directions from the task."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from infinito import runs, tasks, training
from infinito.questions import ensemble as ensembles
from infinito.stages import STAGES
from infinito.storage import read_json
from infinito.study import load_study
from infinito.tasks import Metric
from infinito.tasks.tokens import Tokens
from tests.comparisons import negated
from tests.conftest import in_process
from tests.stages.test_stages import change
from tests.users import User


class Higher(Tokens):
    """Tokens whose metric is taken for one that is better when higher."""

    @property
    def metric(self) -> Metric:
        return Metric("points", "points per token", "higher", guess=-2.0)


def other_task(monkeypatch: pytest.MonkeyPatch, kind: type[Tokens], **changes: Any) -> None:
    """Has all data loaded with a changed task."""
    load = tasks.load

    def loaded(folder: Path) -> Any:
        data: Any = load(folder)
        return dataclasses.replace(data, task=kind(**(dataclasses.asdict(data.task) | changes)))

    monkeypatch.setattr(tasks, "load", loaded)


def test_a_metric_that_the_task_does_not_have_is_one_line(finished_study: Path) -> None:
    study = change(finished_study, compare={"metrics": ["test_loss", "f1"]})
    with pytest.raises(
        ValueError, match="params.yaml: compare.metrics: found 'f1'; allowed: test_loss, accuracy, exact"
    ):
        STAGES["compare"](study, in_process)


def test_further_metrics_go_in_their_own_direction(finished_study: Path) -> None:
    study = change(finished_study, compare={"metrics": ["test_loss", "exact", "accuracy"]})
    STAGES["compare"](study, in_process)
    result = read_json(study.results / "compare.json")
    candidate, baseline = runs.RunTable.load(study.runs).pairs()
    gains = {row["metric"]: row["difference"]["value"] for row in result["family"]}
    assert gains["test_loss"] == pytest.approx((baseline["test_loss"] - candidate["test_loss"]).mean())
    for name in ("exact", "accuracy"):
        assert gains[name] == pytest.approx((candidate[name] - baseline[name]).mean())
        assert result["scores"]["candidate"][name]["value"] == pytest.approx(candidate[name].mean())
    assert result["titles"] == {"accuracy": "Accuracy on scored tokens", "exact": "Examples wholly right"}


def test_a_metric_that_is_better_when_higher(finished_study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {name: read_json(finished_study / f"results/{name}.json") for name in ("compare", "golden", "ensemble")}
    other_task(monkeypatch, Higher)
    study = load_study(finished_study)
    for name in ("compare", "golden", "ensemble", "report"):
        STAGES[name](study, in_process)
    after = {name: read_json(finished_study / f"results/{name}.json") for name in before}
    compare = after["compare"]
    assert compare["metric"] == "test points, points per token, at the last step"
    assert compare["measure"] == {"name": "points", "unit": "points per token", "better": "higher"}
    for key in ("difference", "wins", "p_value", "verdict", "family", "report_protocol"):
        assert compare[key] == before["compare"][key]
    for arm in ("candidate", "baseline"):
        assert compare[arm] == negated(before["compare"][arm])
    assert "nats" not in str(after) and " loss" not in str(after)
    assert after["golden"]["differences"] == before["golden"]["differences"]
    card = (finished_study / "models/golden/README.md").read_text()
    kept = after["golden"]["checkpoint"]
    assert f"| test points of these weights | {-kept['test_loss']:.6f} points per token |" in card
    assert f"| accuracy on scored tokens | {kept['accuracy']:.4f} |\n| examples wholly right | " in card
    assert "nats" not in card and " loss" not in card
    shown = (finished_study / "results/report.md").read_text().partition("All settings")[0]
    assert "nats" not in shown and "Test points, points per token" in shown


def test_a_task_that_averages_nothing_has_no_ensemble(finished_study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other_task(monkeypatch, Tokens, averaged=None)
    with pytest.raises(ValueError, match="params.yaml: ensemble: found a task that averages nothing") as error:
        STAGES["ensemble"](load_study(finished_study), in_process)
    assert "\n" not in str(error.value)


def test_members_whose_outputs_are_averaged(finished_study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other_task(monkeypatch, Tokens, averaged="outputs")
    draws, residuals = torch.Generator().manual_seed(0), []

    def says(make: object, task: object, weights: dict[str, torch.Tensor], split: tasks.Split, **how: bool) -> Any:
        members = len(next(iter(weights.values())))
        residuals.append(torch.randn(members, len(split.targets), 2, generator=draws))
        scored = torch.arange(len(split.targets))[:, None].expand(-1, 2) > 3
        return residuals[-1], scored

    monkeypatch.setattr(training, "predict", says)
    study = change(finished_study, ensemble={"compute": None})
    STAGES["ensemble"](study, in_process)
    result = read_json(study.results / "ensemble.json")
    assert result["averaged"] == "outputs" and "equal_compute" not in result
    for arm, residual in zip(runs.ARMS, residuals, strict=True):
        mine = residual[:, 4:].flatten(1).numpy()
        losses = [(mine[group].mean(0) ** 2).mean() for group in (slice(0, 4), slice(4, 8))]
        assert result[arm]["curve"][2]["loss"]["value"] == pytest.approx(np.mean(losses), rel=1e-5)
        assert result[arm]["error_correlation"] == pytest.approx(ensembles.error_correlation(mine))


class Fixed(User):
    """A network whose width is no setting."""

    def __init__(self, vocabulary: int, length: int, causal: bool, rate: float = 0.0) -> None:
        super().__init__(vocabulary, 8, 1, 1, length, causal, rate)
        self.drop = nn.Dropout(rate)

    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        return self.drop(x)


def test_networks_without_a_width_are_compared_with_longer_training_only(write_study: Callable[..., Path]) -> None:
    fixed = "tests.stages.test_stages_metric:Fixed"
    changes = {
        "train.trunk": {},
        "train.candidate": {"network": fixed, "settings": {"rate": 0.1}},
        "train.baseline": {"network": fixed, "settings": {}},
        "train.grid": None,
        "attribute": None,
        "golden": None,
        "ensemble.sizes": [1, 2],
    }
    folder = write_study(changes)
    content = (folder / "params.yaml").read_text().replace("  steps: 6\n", "  grid: null\n  steps: 6\n")
    (folder / "params.yaml").write_text(content)
    study = load_study(folder)
    for stage in study.params.stages:
        STAGES[stage](study, in_process)
    equal = read_json(folder / "results/ensemble.json")["equal_compute"]
    assert list(equal) == ["size", "longer"] and equal["longer"]["steps"] == 12
    shown = (folder / "results/report.md").read_text()
    assert "Trained longer" in shown and "Wider" not in shown
