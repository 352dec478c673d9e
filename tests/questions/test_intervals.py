"""Both ends of every interval, and of every interval in a sentence, by formulas of their own."""

import math
from typing import Any

import numpy as np
import pytest
from scipy import special, stats

from infinito.judging.published import judge
from infinito.questions.attribute import attribute
from infinito.questions.compare import Family, compare, family
from infinito.questions.ensemble import all_subsets_loss, ensemble_curve, ensemble_loss, equal_compute
from infinito.questions.ensemble import paired_document_bootstrap as document_bootstrap
from infinito.questions.golden import Candidate, checkpoint_loss, confirm
from tests.comparisons import BASELINE, CANDIDATE, NATS

D = np.subtract(BASELINE, CANDIDATE)
SAYS = np.log(np.random.default_rng(0).uniform(0.05, 1, (12, 40))).astype(np.float32)  # [members, parts]


def t_interval(x: Any, confidence: float = 0.95) -> tuple[float, float, float]:
    """Mean and Student's interval."""
    found = stats.ttest_1samp(x, 0).confidence_interval(confidence)
    return float(np.mean(x)), float(found.low), float(found.high)


def assert_is(found: dict[str, Any], expected: tuple[float, float, float], rel: float = 1e-6) -> None:
    value, low, high = expected
    assert low < value < high  # an interval that has two sides
    assert (found["value"], found["ci_low"], found["ci_high"]) == pytest.approx(expected, rel=rel)


def assert_says(sentence: str, expected: tuple[float, float, float]) -> None:
    value, low, high = (f"{x:.3g}" for x in expected)
    assert f"{value} [{low}, {high}]" in sentence or (f" {low} and {high}" in sentence and f" {value} " in sentence)


def test_compare() -> None:
    result = compare(CANDIDATE, BASELINE, smallest_effect=0.001, metric=NATS)
    assert_is(result["difference"], t_interval(D))
    assert_is(result["candidate"], t_interval(CANDIDATE))
    assert_is(result["baseline"], t_interval(BASELINE))
    assert_is(result["relative_difference"], t_interval(np.log(np.divide(BASELINE, CANDIDATE))))
    _, low, high = t_interval(D, 0.90)
    assert (result["equivalence"]["ci_low"], result["equivalence"]["ci_high"]) == pytest.approx((low, high))
    several = compare(CANDIDATE, BASELINE, smallest_effect=0.001, metric=NATS, family=Family(4, 0.02, 1.0))
    assert_is(several["difference_simultaneous"], t_interval(D, 1 - 0.05 / 4))
    # the effect size: the noncentralities at which the observed t is the 97.5 % and the 2.5 % point
    t, n = float(stats.ttest_1samp(D, 0).statistic), len(D)
    unbias = special.gamma((n - 1) / 2) / (math.sqrt((n - 1) / 2) * special.gamma((n - 2) / 2))
    size = result["effect_size"]
    assert size["value"] == pytest.approx(unbias * t / math.sqrt(n))
    for end, chance in (("ci_low", 0.975), ("ci_high", 0.025)):
        limits = [size[end] * math.sqrt(n), size[end] * math.sqrt(n) / unbias]  # of dz, or of g
        assert any(stats.nct.cdf(t, n - 1, limit) == pytest.approx(chance, abs=1e-4) for limit in limits)
    chance = result["probability_of_improvement"]
    assert 0 < chance["ci_low"] < chance["value"] < chance["ci_high"] < 1


def test_a_family_of_comparisons() -> None:
    d = {"a": {"loss": D}, "b": {"loss": D[::-1] - 0.01}}
    for member in family(d, smallest_effect=0.001, alpha=0.1):
        assert_is(member["difference"], t_interval(d[member["arm"]]["loss"], 0.9))


def test_skewed_differences() -> None:
    baseline = np.exp(2 * np.random.default_rng(1).standard_normal(20))
    interval = compare(np.zeros(20), baseline, smallest_effect=0.01, metric=NATS)["secondary"]["bootstrap_t"]
    assert interval["ci_low"] < baseline.mean() == pytest.approx(interval["value"])
    assert interval["ci_high"] - interval["value"] > 1.5 * (interval["value"] - interval["ci_low"]) > 0


def test_golden() -> None:
    rng = np.random.default_rng(3)
    control, golden = 3 + 0.1 * rng.standard_normal((12, 3)), 2.9 + 0.1 * rng.standard_normal(12)
    seeds: dict[str, Any] = {
        "data_seeds": range(100, 112),
        "control_inits": np.arange(1000, 1036).reshape(12, 3).tolist(),
        "selection_inits": range(10),
        "selection_data_seeds": range(5),
    }
    candidates = [Candidate("selected", 7, golden), Candidate("best of ten", 8, golden + 0.05)]
    for forwarded in (candidates[:1], candidates):
        results = confirm(forwarded, control, metric=NATS, registered=True, margin_useful=0.01, **seeds)
        for candidate, result in zip(forwarded, results, strict=True):
            # both are one-sided bounds of 97.5 % together
            expected = t_interval(control.mean(1) - candidate.loss, 1 - 2 * 0.025 / len(forwarded))
            assert_is(result["difference"], expected)
            assert_says(result["sentence"], expected)


def test_the_loss_of_a_checkpoint() -> None:
    losses, weights = np.array([2.0, 1.0, 4.0, 3.0]), np.array([1.0, 1.0, 2.0, 2.0])
    residual = losses - losses.sum() / weights.sum() * weights
    reach = stats.t.ppf(0.975, 3) * 2 * residual.std(ddof=1) / weights.sum()
    value = losses.sum() / weights.sum()
    assert_is(checkpoint_loss(losses, weights), (value, value - reach, value + reach))


def test_ensembles_of_equal_compute() -> None:
    rng = np.random.default_rng(2)
    ensembles, single = 2.0 + 0.1 * rng.standard_normal(5), 2.3 + 0.3 * rng.standard_normal(8)
    result = equal_compute(ensembles, single, metric=NATS, size=4, compute="training", alpha=0.1)
    found = stats.ttest_ind(single, ensembles, equal_var=False).confidence_interval(0.9)
    expected = float(single.mean() - ensembles.mean()), float(found.low), float(found.high)
    assert_is(result, expected)
    assert_says(result["sentence"], expected)
    assert_is(result["ensemble_loss"], t_interval(ensembles, 0.9))
    assert_is(result["single_loss"], t_interval(single, 0.9))


def test_the_curve_of_ensembles() -> None:
    validation = np.arange(12.0)
    alone = -SAYS.mean(1, dtype=float)
    for entry in ensemble_curve(SAYS, validation, [2, 3], averaged="probabilities", alpha=0.1)["curve"]:
        groups = np.arange(12).reshape(-1, entry["size"])
        loss = [ensemble_loss(SAYS[group], averaged="probabilities").mean(dtype=float) for group in groups]
        assert_is(entry["loss"], t_interval(loss, 0.9))
        assert_is(entry["gain_over_average_member"], t_interval(alone[groups].mean(1) - loss, 0.9))
        assert_is(entry["gain_over_best_member"], t_interval(alone[groups[:, 0]] - loss, 0.9))


def test_all_subsets_of_the_members() -> None:
    x = SAYS[:5]
    pairs = [(i, j) for i in range(5) for j in range(i)]
    loss = {pair: float(ensemble_loss(x[list(pair)], averaged="probabilities").mean(dtype=float)) for pair in pairs}
    without = np.array([np.mean([loss[pair] for pair in pairs if k not in pair]) for k in range(5)])
    value = float(np.mean(list(loss.values())))
    reach = stats.t.ppf(0.975, 4) * math.sqrt(4 / 5 * ((without - without.mean()) ** 2).sum())
    assert_is(all_subsets_loss(x, 2, averaged="probabilities"), (value, value - reach, value + reach))


def test_documents() -> None:
    rng = np.random.default_rng(4)
    d = 0.2 + rng.standard_normal(400)
    found = document_bootstrap(10 + d, np.full(400, 10.0), np.ones(400), rng=rng)
    assert_is(found, t_interval(d), rel=0.1)


def test_the_mean_of_a_grid() -> None:
    y = 1.0 + np.random.default_rng(5).standard_normal((6, 6))
    found = attribute(y)["crossed"]
    reach = stats.t.ppf(0.975, found["df"]) * found["se"]
    assert_is(found, (y.mean(), y.mean() - reach, y.mean() + reach))
    parts = attribute(y + 3 * np.arange(6)[:, None])["components"]
    assert all(part["ci_low"] <= part["value"] <= part["ci_high"] for part in parts.values())
    assert 0 < parts["init"]["ci_low"] < parts["init"]["value"] < parts["init"]["ci_high"]


def test_published_figures() -> None:
    result = judge(3.44, 19.55, 10, wins=7)
    reach = stats.t.ppf(0.975, 9) * 19.55 / math.sqrt(10)
    assert_is(result["difference"], (3.44, 3.44 - reach, 3.44 + reach))
    # Wilson's interval: the shares from which 7 of 10 is 1.96 standard errors away
    rate = result["win_rate"]
    for end in ("ci_low", "ci_high"):
        assert abs(0.7 - rate[end]) == pytest.approx(1.959964 * math.sqrt(rate[end] * (1 - rate[end]) / 10), rel=1e-5)
    assert rate["ci_low"] < 0.7 < rate["ci_high"]
