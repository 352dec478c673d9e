"""Figures of published runs, judged as by hand; and laws of every judgement."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from infinito.judging import folds, unpaired
from infinito.judging.asked import Asked
from infinito.judging.judge import judge

# val_loss at the end of modded-nanogpt's runs (KellerJordan/modded-nanogpt, records/track_1_short/
# 2026-05-07_XSAGatedLayers, commit f411b3d), without seeds
GATED = [3.2779, 3.2769, 3.2775, 3.2785, 3.2798, 3.2790, 3.2805, 3.2798, 3.2803, 3.2793, 3.2784]
MASTER = [3.2794, 3.2803, 3.2794, 3.2797, 3.2797, 3.2798, 3.2808]


def runs(metric: str = "accuracy", seeds: bool = True, **arms: list[float]) -> pd.DataFrame:
    rows = [
        {"arm": arm, "task": "", "metric": metric, "run": f"{arm}{i}", "seed": str(i) if seeds else "", "value": value,
         "status": ""}
        for arm, values in arms.items()
        for i, value in enumerate(values)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def asked(**changes: object) -> Asked:
    return Asked(**({"baseline": "b", "higher": {"accuracy": True}, "units": {}, "pairing": None} | changes))  # type: ignore[arg-type]


def draws(seed: int, n: int, mean: float = 0.0) -> list[float]:
    return list(np.random.default_rng(seed).normal(mean, 1, n))


def test_unpaired_runs_are_those_of_scipy() -> None:
    a, b = draws(1, 12, 0.5), draws(2, 15)
    found = judge(runs(seeds=False, a=a, b=b), asked())["comparisons"][0]
    test = stats.ttest_ind(a, b, equal_var=False)
    interval = test.confidence_interval(0.95)
    assert found["p_value"] == pytest.approx(test.pvalue, rel=1e-10) and found["paired"] is None
    assert (found["difference"]["ci_low"], found["difference"]["ci_high"]) == pytest.approx(interval, rel=1e-10)
    assert found["mann_whitney_p"] == pytest.approx(stats.mannwhitneyu(a, b).pvalue)


def test_paired_runs_are_those_of_scipy() -> None:
    a, b = draws(1, 12, 0.5), draws(2, 12)
    found = judge(runs(a=a, b=b), asked(pairing="seed"))["comparisons"][0]
    assert found["p_value"] == pytest.approx(stats.ttest_rel(a, b).pvalue, rel=1e-10)
    assert found["n_pairs"] == 12 and found["paired"] == "seed"


def test_the_direction_of_a_metric_turns_the_sign_only() -> None:
    table = runs(a=draws(1, 12, 0.9), b=draws(2, 12))
    up, down = (judge(table, asked(higher={"accuracy": way}))["comparisons"][0] for way in (True, False))
    assert up["difference"]["value"] == -down["difference"]["value"] and up["p_value"] == down["p_value"]
    assert {up["verdict"], down["verdict"]} == {"BETTER", "WORSE"}


def test_the_order_of_rows_does_not_matter() -> None:
    table = runs(a=draws(1, 12, 0.5), b=draws(2, 12), c=draws(3, 12))
    one, other = (judge(t, asked(pairing="seed")) for t in (table, table.sample(frac=1, random_state=0)))
    key = {found["candidate"]: found for found in other["comparisons"]}
    for found in one["comparisons"]:
        assert found["p_adjusted"] == pytest.approx(key[found["candidate"]]["p_adjusted"], rel=1e-9)
        assert found["difference"]["value"] == pytest.approx(key[found["candidate"]]["difference"]["value"])


def test_holm_pays_for_all_that_was_compared() -> None:
    table = runs(a=draws(1, 12, 1.0), b=draws(2, 12), c=draws(3, 12))
    found = judge(table, asked())
    p = sorted(one["p_value"] for one in found["comparisons"])
    assert sorted(one["p_adjusted"] for one in found["comparisons"]) == pytest.approx([2 * p[0], max(2 * p[0], p[1])])
    assert judge(table, asked(baseline=None))["hypotheses"] == 3


def test_below_ten_runs_there_is_no_verdict_but_all_figures() -> None:
    found = judge(runs("val_loss", seeds=False, a=GATED, b=MASTER), asked(higher={"val_loss": False}))["comparisons"][0]
    assert found["verdict"] == "INCONCLUSIVE" and "7 runs in an arm are too few" in found["remarks"][-1]
    assert found["p_value"] is not None and found["more_runs_for_80_percent_power"] is not None


def test_one_run_has_no_spread() -> None:
    found = judge(runs(a=draws(1, 12), b=[0.5]), asked())
    one = found["comparisons"][0]
    assert one["p_value"] is None and one["difference"]["ci_low"] is None
    assert "b has one run" in one["sentence"] and found["hypotheses"] == 0
    assert next(arm for arm in found["arms"] if arm["arm"] == "b")["sd"] is None


def test_a_metric_that_is_anothers_negative_is_one_hypothesis() -> None:
    a, b = draws(1, 12), draws(2, 12)
    table = pd.concat([runs("rmse", a=a, b=b), runs("score", a=[-x for x in a], b=[-x for x in b])])
    found = judge(table, asked(higher={"rmse": False, "score": True}))
    assert found["hypotheses"] == 1 and "score is the negative of rmse" in found["remarks"][0]


def test_seeds_of_one_arm_only_are_named_and_left_out() -> None:
    found = judge(runs(a=draws(1, 12), b=draws(2, 13)), asked(pairing="seed"))["comparisons"][0]
    assert found["n_pairs"] == 12 and any("seed 12 only in b" in remark for remark in found["remarks"])


def test_a_collapsed_run_is_said_beside_its_mean() -> None:
    found = judge(runs(a=[*draws(1, 11), 1e9], b=draws(2, 12)), asked())["comparisons"][0]
    assert any("1 of 12 runs lie far from all others (1e+09" in remark for remark in found["remarks"])


def test_a_seed_that_decides_nothing_is_said() -> None:
    found = judge(runs(a=[0.5] * 12, b=draws(2, 12)), asked(pairing="seed"))["comparisons"][0]
    assert any("a: all 12 runs have the same figure" in remark for remark in found["remarks"])


def test_the_best_run_stands_beside_what_luck_gives() -> None:
    a = draws(1, 50)
    best = next(one for one in judge(runs(a=a, b=a[::-1]), asked())["best"] if one["arm"] == "a")
    assert best["tried"] == 50 and best["value"] == max(a) and best["in_sd"] < best["expected_in_sd"] + 1
    assert best["chance_of_as_much"] > 0.05 and "no golden seed" in best["sentence"]


def test_equivalence_needs_a_margin() -> None:
    table = runs(a=draws(1, 40), b=draws(2, 40))
    assert judge(table, asked())["comparisons"][0]["verdict"] == "INCONCLUSIVE"
    assert judge(table, asked(smallest_effect=5.0))["comparisons"][0]["verdict"] == "EQUIVALENT"


def test_null_is_null() -> None:
    """Of many comparisons of equal arms, whose variances differ, a twentieth has p < 0.05."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 1, (2, 2000, 10))
    scale = np.array([1.0, 3.0])[:, None]
    share = np.mean([unpaired.welch(scale[0] * x, scale[1] * y).p < 0.05 for x, y in zip(a, b, strict=True)])
    assert 0.035 < share < 0.065


def test_folds_are_corrected() -> None:
    d = np.random.default_rng(0).normal(0.5, 1, 9)
    plain, corrected = stats.ttest_1samp(d, 0), folds.corrected_t(d, 10)
    assert corrected.t == pytest.approx(plain.statistic / np.sqrt(1 + 9 / 9))
    with pytest.raises(ValueError, match="found 9 differences over 8 folds"):
        folds.corrected_t(d, 8)


@pytest.mark.parametrize("shift, p", [(0.0, 1.0), (1.0, 0.0)])
def test_arms_without_any_spread(shift: float, p: float) -> None:
    test = unpaired.welch([0.5 + shift] * 4, [0.5] * 4)
    assert test.p == p and test.mean == shift


def test_complete_separation_is_not_certainty() -> None:
    found = unpaired.probability_of_improvement([5.0, 6, 7, 8], [1.0, 2, 3])
    assert found["value"] == 1.0 and found["ci_low"] < 0.5 and found["ci_high"] == 1.0


def test_as_many_runs_as_are_needed_have_the_power() -> None:
    from statsmodels.stats.power import TTestIndPower

    for effect in (0.3, 0.8, 1.5):
        n = unpaired.runs_needed(effect)
        assert TTestIndPower().power(effect, n, 0.05) >= 0.8 > TTestIndPower().power(effect, n - 1, 0.05)
