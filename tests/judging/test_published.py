import json
import math
import re

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import TTestPower

from infinito.judging.published import judge, standard_sample
from infinito.statistics.paired import effect_size, paired_t, power, sign_test


def test_the_report_that_the_project_began_with() -> None:
    """Every figure of the worked example in the statistical specification."""
    result = judge(3.44, 19.55, 10, wins=7, best=29.14, p=0.554)
    assert result["verdict"] == "INCONCLUSIVE"
    assert (result["t"], result["p_value"]) == pytest.approx((0.556, 0.591), abs=5e-4)
    assert (result["difference"]["ci_low"], result["difference"]["ci_high"]) == pytest.approx((-10.5, 17.4), abs=0.05)
    rate = result["win_rate"]
    assert (rate["value"], rate["ci_low"], rate["ci_high"]) == pytest.approx((0.7, 0.40, 0.89), abs=5e-3)
    assert rate["sign_test_p"] == pytest.approx(0.344, abs=5e-4)
    assert result["effect_size"]["value"] == pytest.approx(0.176, abs=5e-4)
    assert result["power"] == pytest.approx(0.079, abs=5e-4)
    assert result["pairs_for_80_percent_power"] == 256
    assert result["best"]["expected_by_luck"] == pytest.approx(33.52261589, rel=1e-9)
    assert result["best"]["above_luck"] is False
    assert result["printed"] == {"p_value": 0.554, "agrees": False}
    text = " ".join(result["sentences"])
    for figure in ("0.591", "-10.5", "17.4", "0.344", "0.40", "0.89", "7.9%", "256", "33.5", "not above", "0.554"):
        assert figure in text
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_a_summary_says_as_much_as_the_differences_themselves() -> None:
    d = np.random.default_rng(1).normal(0.4, 1.0, 17)
    result = judge(float(d.mean()), float(d.std(ddof=1)), 17, wins=int((d > 0).sum()), best=float(d.max()))
    test, (dz, _) = paired_t(d), effect_size(d)
    assert (result["t"], result["p_value"]) == pytest.approx((float(test.t), float(test.p)))
    assert result["difference"]["ci_low"] == pytest.approx(float(test.ci_low))
    for key in ("value", "ci_low", "ci_high"):
        assert result["effect_size"][key] == pytest.approx(dz[key])
    assert result["win_rate"]["sign_test_p"] == sign_test(d)
    assert result["power"] == power(result["effect_size"]["value"], 17)
    assert result["best"]["value"] < result["best"]["largest_possible"]


def test_verdicts_mirror_and_never_say_equivalent() -> None:
    assert judge(1.0, 1.0, 10)["verdict"] == "BETTER"
    assert judge(-1.0, 1.0, 10)["verdict"] == "WORSE"
    assert judge(1.0, 1.0, 9)["verdict"] == "INCONCLUSIVE"  # p = .017, but below 10 seeds there is no verdict
    assert "too few" in " ".join(judge(1.0, 1.0, 9)["sentences"])
    for mean in (0.0, 1e-9):
        nothing = judge(mean, 1.0, 1000)
        assert nothing["verdict"] == "INCONCLUSIVE" and nothing["pairs_for_80_percent_power"] is None


def test_a_printed_p_is_checked_as_far_as_the_printed_digits_go() -> None:
    for p in (0.591, 0.59, 0.6):
        assert judge(3.44, 19.55, 10, p=p)["printed"]["agrees"]
    for p in (0.55, 0.5, 0.62, 0.01):
        assert not judge(3.44, 19.55, 10, p=p)["printed"]["agrees"]
    assert judge(3.0, 20.0, 10, p=0.66)["printed"]["agrees"]  # a mean of 3 may have been 3.4: p = .61 to .69


def test_the_best_of_many_by_luck() -> None:
    """By simulation: the expected best, how often luck reaches the claimed best, and what no sample can reach."""
    rng = np.random.default_rng(2)
    maxima = rng.normal(1.0, 2.0, (200_000, 8)).max(1)
    best = judge(1.0, 2.0, 8, best=5.0)["best"]
    assert best["expected_by_luck"] == pytest.approx(maxima.mean(), abs=0.01)
    assert best["chance_by_luck"] == pytest.approx((maxima >= 5.0).mean(), abs=0.005)
    assert best["above_luck"] is True
    more = judge(1.0, 2.0, 8, best=5.0, seeds_tried=100)["best"]
    assert more["expected_by_luck"] > best["expected_by_luck"] and more["above_luck"] is False
    assert more["largest_possible"] is None  # the best need not be among the 8

    one_winner = np.array([1.0] + [0.0] * 7)  # the sample with the largest possible best
    result = judge(float(one_winner.mean()), float(one_winner.std(ddof=1)), 8, best=1.0)
    assert result["best"]["largest_possible"] == pytest.approx(1.0)
    with pytest.raises(ValueError, match="^best: found 9, which is impossible with a mean of 1 and"):
        judge(1.0, 2.0, 8, best=9.0)


def test_power_is_that_of_statsmodels_and_finite_for_large_effects_too() -> None:
    for n in (2, 5, 20, 100):
        for effect in (0.0, 0.1, 0.5, 0.8):
            assert power(effect, n) == pytest.approx(TTestPower().power(effect, n, 0.05), abs=1e-8)
        large = [power(effect, n) for effect in np.linspace(1, 50, 99)]
        assert (np.diff(large) >= -1e-9).all() and 0 < large[0] and large[-1] <= 1
    assert power(0.5, 20) == pytest.approx(0.5645044184)  # reference vector V10e


def test_the_standard_sample_has_mean_0_and_sd_1() -> None:
    for n in (2, 3, 10, 1001):
        x = standard_sample(n)
        assert len(x) == n and x.mean() == pytest.approx(0, abs=1e-12) and x.std(ddof=1) == pytest.approx(1)


def test_the_interval_covers_the_truth() -> None:
    rng = np.random.default_rng(3)
    d = rng.normal(0.5, 1.0, (400, 12))
    results = [judge(float(x.mean()), float(x.std(ddof=1)), 12) for x in d]
    for key, truth in (("difference", 0.5), ("effect_size", 0.5)):
        covered = np.mean([r[key]["ci_low"] <= truth <= r[key]["ci_high"] for r in results])
        assert stats.binomtest(int(covered * 400), 400, 0.95).pvalue > 0.001


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n": 1}, "n: found 1; allowed: 2 to 1,000,000 seeds"),
        ({"n": 10_000_000}, "n: found 10000000"),
        ({"sd": 0.0}, "sd: found 0.0; allowed: a finite number above 0"),
        ({"sd": -1.0}, "sd: found -1.0"),
        ({"sd": math.inf}, "sd: found inf"),
        ({"mean": math.nan}, "mean: found nan"),
        ({"wins": 11}, "wins: found 11; allowed: 0 to 10, the number of seeds"),
        ({"wins": -1}, "wins: found -1"),
        ({"wins": 0}, "wins: found 0 of 10, which is impossible with a mean of 3.44 and a standard deviation of 19.55"),
        ({"mean": -3.44, "wins": 10}, "wins: found 10 of 10, which is impossible"),
        (
            {"wins": 10},
            "wins: found 10 of 10, which is impossible with a mean of 3.44 and a standard deviation of 19.55 over 10 "
            "seeds; allowed: 1 to 9",
        ),
        ({"mean": 5.0, "sd": 1.0, "wins": 1}, "wins: found 1 of 10, which is impossible with a mean of 5 and"),
        ({"mean": 5.0, "sd": 1.0, "wins": 9}, "wins: found 9 of 10, which is impossible with a mean of 5 and"),
        ({"mean": -5.0, "sd": 1.0, "wins": 1}, "wins: found 1 of 10, which is impossible with a mean of -5 and"),
        ({"best": 60.0}, "best: found 60, which is impossible with a mean of 3.44 and a standard deviation of 19.55"),
        ({"best": 9.0}, "best: found 9, which is impossible"),  # someone must be a standard error above the mean
        ({"wins": 1, "best": 20.0}, "wins: found 1 of 10 beside a best of 20, which is impossible with a mean of 3.44"),
        ({"best": 3.0}, "best: found 3.0; allowed: a finite number that is at least the mean, 3.44"),
        ({"best": 30.0, "seeds_tried": 9}, "seeds_tried: found 9; allowed: 10"),
        ({"seeds_tried": 20}, "seeds_tried: found 20 without the best seed's value"),
        ({"p": 1.5}, "p: found 1.5; allowed: 0 to 1"),
        ({"alpha": 0.7}, "alpha: found 0.7"),
    ],
)
def test_impossible_figures_are_errors_that_name_them(changes: dict[str, float], message: str) -> None:
    figures: dict[str, float] = {"mean": 3.44, "sd": 19.55, "n": 10} | changes
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        judge(**figures)  # type: ignore[arg-type]
