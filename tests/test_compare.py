"""Statistics of paired losses: known answers, other software, laws that every input obeys, and bad input."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.weightstats import ttost_paired

from infinito import compare as c
from infinito.compare import compare, report_protocol

BASELINE = [2.412, 2.398, 2.455, 2.371, 2.43, 2.407, 2.389, 2.441, 2.42, 2.366]
CANDIDATE = [2.385, 2.401, 2.42, 2.352, 2.433, 2.371, 2.38, 2.402, 2.397, 2.374]
D = np.subtract(BASELINE, CANDIDATE)

# multiples of 1/64 are added and subtracted without rounding, so the laws hold exactly and ties stay ties
LOSSES = st.integers(2, 20).flatmap(
    lambda n: st.tuples(*[st.lists(st.integers(1, 256).map(lambda x: x / 64), min_size=n, max_size=n)] * 2)
)


def with_mean_and_sd(mean: float, sd: float, n: int) -> np.ndarray:
    x = np.arange(n, dtype=float)
    return mean + sd * (x - x.mean()) / x.std(ddof=1)


# --- known answers ---


def test_a_mean_of_3_44_with_sd_19_55_over_10_pairs_shows_nothing():
    test = c.paired_t(with_mean_and_sd(3.44, 19.55, 10))
    assert float(test.t) == pytest.approx(0.556, abs=5e-4)
    assert float(test.p) == pytest.approx(0.591, abs=1e-3)
    assert [float(test.ci_low), float(test.ci_high)] == pytest.approx([-10.5, 17.4], abs=0.06)
    assert c.power(0.176, 10) == pytest.approx(0.079, abs=5e-4)
    assert math.ceil(c.pairs_needed(0.176)) == 256
    assert c.sign_test([1] * 7 + [-1] * 3) == pytest.approx(0.344, abs=5e-4)


@pytest.mark.parametrize(
    ("effect", "at_80", "at_90"),
    [
        (0.2, 199, 265),
        (0.3, 90, 119),
        (0.5, 34, 44),
        (0.8, 15, 19),
        (1.0, 10, 13),
        (1.2, 8, 10),
        (1.5, 6, 7),
        (2, 5, 5),
    ],
)
def test_pairs_needed(effect, at_80, at_90):
    assert [math.ceil(c.pairs_needed(effect, power)) for power in (0.8, 0.9)] == [at_80, at_90]
    assert math.ceil(c.pairs_needed(-effect)) == at_80


@pytest.mark.parametrize(
    ("n", "effect"), [(5, 1.68), (8, 1.16), (10, 1.00), (15, 0.78), (20, 0.66), (30, 0.53), (50, 0.40)]
)
def test_minimal_detectable_effect_is_the_effect_found_with_80_percent_power(n, effect):
    assert c.minimal_detectable_effect(n, 1.0) == pytest.approx(effect, abs=5e-3)
    assert c.minimal_detectable_effect(n, 3.0) == pytest.approx(3 * c.minimal_detectable_effect(n, 1.0))
    assert c.power(c.minimal_detectable_effect(n, 1.0), n) == pytest.approx(0.8, abs=1e-6)


def test_pairs_needed_at_the_ends():
    assert c.pairs_needed(1000.0) == 2.0
    assert c.pairs_needed(1e-4) == pytest.approx((1.959964 + 0.841621) ** 2 / 1e-8, rel=1e-3)
    with pytest.raises(ValueError, match="effect 0"):
        c.pairs_needed(0.0)


@pytest.mark.parametrize(
    ("k", "expected"),
    [
        (1, 0),
        (2, 0.564190),
        (5, 1.162964),
        (10, 1.538753),
        (20, 1.867475),
        (25, 1.965315),
        (50, 2.249074),
        (100, 2.507594),
    ],
)
def test_expected_maximum(k, expected):
    assert c.expected_maximum(k) == pytest.approx(expected, abs=1e-6)


def test_expected_maximum_agrees_with_draws():
    draws = np.random.default_rng(0).standard_normal((200_000, 7)).max(1)
    assert c.expected_maximum(7) == pytest.approx(draws.mean(), abs=0.01)


def test_sign_flip_cannot_reject_with_5_pairs_and_can_with_6():
    rng = np.random.default_rng(0)
    assert c.sign_flip([1.0, 2, 3, 4, 5], rng=rng) == pytest.approx(2 / 32)
    assert c.sign_flip([1.0, 2, 3, 4, 5, 6], rng=rng) == pytest.approx(2 / 64)
    assert c.sign_flip([1.0, -1, 1, -1], rng=rng) == 1


@pytest.mark.parametrize("n", [4, 9, 16, 25])
def test_sign_flip_is_the_permutation_test_of_paired_samples(n):
    rng = np.random.default_rng(n)
    d = rng.normal(0.4, 1, n)
    reference = stats.permutation_test((d,), np.mean, permutation_type="samples", n_resamples=70_000, rng=rng).pvalue
    exact = n <= 16
    assert float(c.sign_flip(d, rng=rng)) == pytest.approx(reference, abs=1e-12 if exact else 0.02)


def test_sign_flip_of_many_experiments_is_each_of_them():
    d = np.random.default_rng(3).normal(size=(4, 8))
    rng = np.random.default_rng(0)
    assert c.sign_flip(d, rng=rng) == pytest.approx([float(c.sign_flip(row, rng=rng)) for row in d])


def test_max_t_is_sign_flip_for_one_candidate_and_never_smaller_for_more():
    d = np.random.default_rng(4).normal(0.5, 1, (3, 9))
    single = c.sign_flip(d, rng=np.random.default_rng(0))
    assert c.max_t(d[:1], rng=np.random.default_rng(0))[0] == pytest.approx(single[0])
    adjusted = c.max_t(d, rng=np.random.default_rng(0))
    assert (adjusted >= single).all() and (adjusted > single).any()
    assert c.max_t(np.zeros((2, 5)), rng=np.random.default_rng(0)) == pytest.approx([1, 1])


def test_wilcoxon_drops_zeros_and_shares_ranks_of_ties():
    # |d| without the zero: 1 1 2 3, ranks 1.5 1.5 3 4; of the 16 sign patterns 6 have a smaller sum <= 1.5
    positive, smaller, p = c.wilcoxon([0, 1, -1, 2, 3])
    assert (positive, smaller, p) == pytest.approx((8.5, 1.5, 6 / 16))
    assert c.wilcoxon([0, 0, 0]) == (0, 0, 1)


def test_a_tie_is_half_a_win():
    assert c.probability_of_improvement([1, 0, -1, 1])["value"] == 2.5 / 4
    full = c.probability_of_improvement(np.ones(10))
    assert (full["ci_low"], full["ci_high"]) == pytest.approx((0.025**0.1, 1.0))
    plain, reference = c.probability_of_improvement(D), stats.binomtest(7, 10).proportion_ci(method="exact")
    assert (plain["ci_low"], plain["ci_high"]) == pytest.approx((reference.low, reference.high))


def test_tost_is_that_of_statsmodels():
    p, (t_lower, p_lower, _), (t_upper, p_upper, _) = ttost_paired(np.array(BASELINE), np.array(CANDIDATE), -0.02, 0.02)
    test = c.tost(D, 0.02)
    got = [float(x) for x in (test.p, test.t_lower, test.p_lower, test.t_upper, test.p_upper)]
    assert got == pytest.approx([p, t_lower, p_lower, t_upper, p_upper])


def test_posterior_probabilities_and_the_third_way_add_up_to_1():
    equivalent, better = c.bayes_rope(D, 0.01)
    worse = c.bayes_rope(-D, 0.01)[1]
    assert float(equivalent + better + worse) == pytest.approx(1)
    assert float(better) == pytest.approx(stats.t.sf(0.01, 9, D.mean(), D.std(ddof=1) / math.sqrt(10)))


def test_effect_size_interval_inverts_the_noncentral_t():
    dz, gz = c.effect_size(D)
    t = float(c.paired_t(D).t)
    tails = [stats.nct.sf(t, 9, dz["ci_low"] * math.sqrt(10)), stats.nct.cdf(t, 9, dz["ci_high"] * math.sqrt(10))]
    assert tails == pytest.approx([0.025, 0.025], rel=1e-6)
    assert 0.9 < gz["value"] / dz["value"] < 1


def test_effect_size_interval_of_an_enormous_effect():
    near, far = (c.effect_size(with_mean_and_sd(mean, 1.0, 10))[0] for mean in (300.0, 330.0))
    assert near["value"] * math.sqrt(10) < 1000 < far["value"] * math.sqrt(10)
    for limit in ("ci_low", "ci_high"):
        assert near[limit] / near["value"] == pytest.approx(far[limit] / far["value"], rel=1e-3)
    rounding_noise = c.effect_size(1 - np.arange(10) % 2 * 1e-16)[0]
    assert rounding_noise["value"] > 1e12
    negative = c.effect_size(-with_mean_and_sd(330.0, 1.0, 10))[0]
    assert negative["ci_low"] == pytest.approx(-far["ci_high"]) and negative["ci_high"] == pytest.approx(-far["ci_low"])


def test_pilot_sd_is_above_the_true_sd_4_times_in_5():
    pilots = np.random.default_rng(5).standard_normal((4000, 8))
    assert np.mean([c.pilot_sd(x) > 1 for x in pilots]) == pytest.approx(0.8, abs=0.02)


def test_bootstrap_t_leans_to_the_long_tail():
    d = np.exp(np.random.default_rng(6).standard_normal(20))
    low, high = c.bootstrap_t(d, rng=np.random.default_rng(0))
    assert high - d.mean() > d.mean() - low > 0
    symmetric = with_mean_and_sd(0, 1, 20)
    low, high = c.bootstrap_t(symmetric, rng=np.random.default_rng(0))
    test = c.paired_t(symmetric)
    assert (low, high) == pytest.approx((float(test.ci_low), float(test.ci_high)), rel=0.1)


# --- the verdict ---


@pytest.mark.parametrize(
    ("mean", "p", "p_equivalence", "n", "expected"),
    [
        (0.1, 0.04, 0.5, 10, "BETTER"),
        (-0.1, 0.04, 0.5, 10, "WORSE"),
        (0.1, 0.05, 0.5, 10, "INCONCLUSIVE"),
        (0.1, 0.30, 0.04, 10, "EQUIVALENT"),
        (0.1, 0.04, 0.04, 10, "EQUIVALENT"),
        (0.1, 1e-9, 1.0, 9, "INCONCLUSIVE"),
        (0.0, 1.0, 1e-9, 9, "INCONCLUSIVE"),
    ],
)
def test_verdict(mean, p, p_equivalence, n, expected):
    assert c.verdict(mean, p, p_equivalence, n) == expected


@pytest.mark.parametrize(
    ("candidate", "baseline", "smallest_effect", "expected", "words"),
    [
        (CANDIDATE, BASELINE, 0.001, "BETTER", ["is better, by at least the 0.001", "0.0174", "p = 0.012", "7 of 10"]),
        (CANDIDATE, BASELINE, 0.006, "BETTER", ["though not surely by at least the 0.006"]),
        (BASELINE, CANDIDATE, 0.001, "WORSE", ["is worse, by at least the 0.001", "higher", "3 of 10"]),
        (CANDIDATE, BASELINE, 0.03, "EQUIVALENT", ["Different but negligible", "±0.03", "0.00718", "0.0276"]),
        (BASELINE, BASELINE, 0.03, "EQUIVALENT", ["Equivalent", "identical: check that the seeds"]),
        (CANDIDATE[:9], BASELINE[:9], 0.001, "INCONCLUSIVE", ["9 pairs are too few", "run 1 more"]),
        (CANDIDATE[:2], BASELINE[:2], 0.001, "INCONCLUSIVE", ["2 pairs are too few", "run 8 more"]),
        (
            [1, 2, 3, 4, 5, 6, 7, 8, 9, 9],
            [2, 1, 4, 3, 6, 5, 8, 7, 10, 7],
            0.1,
            "INCONCLUSIVE",
            ["neither shown better"],
        ),
    ],
)
def test_compare_says_it_in_words(candidate, baseline, smallest_effect, expected, words):
    result = compare(candidate, baseline, smallest_effect=smallest_effect)
    assert result["verdict"] == expected
    for word in words:
        assert word in result["sentence"]
    assert "\n" not in result["sentence"] and "nan" not in result["sentence"] and "None" not in result["sentence"]


def test_an_inconclusive_sentence_plans_the_next_experiment():
    result = compare(np.zeros(10), with_mean_and_sd(0.0344, 0.1955, 10), smallest_effect=0.01)
    assert result["verdict"] == "INCONCLUSIVE"
    assert result["pairs_for_80_percent_power"] == 256
    assert "about 256 pairs are needed" in result["sentence"]
    assert f"{result['minimal_detectable_effect']:.3g}" in result["sentence"]


def test_skewed_differences_are_flagged_and_get_the_bootstrap_t():
    baseline = np.exp(2 * np.random.default_rng(1).standard_normal(20))
    result = compare(np.zeros(20), baseline, smallest_effect=0.01)
    assert "skewed" in result["sentence"]
    interval, t = result["secondary"]["bootstrap_t"], result["difference"]
    assert interval["ci_high"] > t["ci_high"] and interval["ci_low"] > t["ci_low"]
    assert compare(CANDIDATE, BASELINE, smallest_effect=0.01)["secondary"]["bootstrap_t"] is None


def test_the_relative_difference_needs_positive_losses():
    result = compare(CANDIDATE, BASELINE, smallest_effect=0.01)
    assert result["relative_difference"]["value"] == pytest.approx(np.log(np.divide(BASELINE, CANDIDATE)).mean())
    shifted = compare(np.subtract(CANDIDATE, 2.4), np.subtract(BASELINE, 2.4), smallest_effect=0.01)
    assert shifted["relative_difference"] is None and shifted["secondary"]["log_ratio_p"] is None
    assert shifted["p_value"] == pytest.approx(result["p_value"])


def test_all_differences_equal():
    nothing = compare(BASELINE, BASELINE, smallest_effect=0.01)
    assert nothing["wins"] == 0 and nothing["p_value"] == 1 and nothing["pairs_for_80_percent_power"] is None
    assert nothing["effect_size"] == {"value": None, "ci_low": None, "ci_high": None, "n": 10}
    same = compare(np.ones(10), np.full(10, 1.5), smallest_effect=0.01)
    assert same["verdict"] == "BETTER" and same["p_value"] == 0
    assert same["difference"] == {"value": 0.5, "ci_low": 0.5, "ci_high": 0.5, "n": 10}


# --- laws ---


def strings_and_numbers(x):
    """Leaves of a result as {path: value}."""
    if isinstance(x, dict):
        return {f"{key}.{path}": leaf for key, value in x.items() for path, leaf in strings_and_numbers(value).items()}
    return {"": x}


def assert_same(got, expected):
    got, expected = strings_and_numbers(got), strings_and_numbers(expected)
    assert got.keys() == expected.keys()
    for key, value in expected.items():
        assert got[key] == (pytest.approx(value, rel=1e-6, abs=1e-9) if isinstance(value, float) else value), key


def negated(x):
    return x and {"value": minus(x["value"]), "ci_low": minus(x["ci_high"]), "ci_high": minus(x["ci_low"]), "n": x["n"]}


def minus(x):
    return None if x is None else -x


@settings(max_examples=40, deadline=None)
@given(LOSSES)
def test_swapping_the_arms_flips_the_sign_and_nothing_else(losses):
    candidate, baseline = losses
    result = compare(candidate, baseline, smallest_effect=0.25)
    swapped = compare(baseline, candidate, smallest_effect=0.25)
    chance, equal, secondary = result["probability_of_improvement"], result["equivalence"], result["secondary"]
    expected = result | {
        "verdict": {"BETTER": "WORSE", "WORSE": "BETTER"}.get(result["verdict"], result["verdict"]),
        "sentence": swapped["sentence"],
        "difference": negated(result["difference"]),
        "effect_size": negated(result["effect_size"]),
        "probability_of_improvement": {
            "value": 1 - chance["value"],
            "ci_low": 1 - chance["ci_high"],
            "ci_high": 1 - chance["ci_low"],
            "n": chance["n"],
        },
        "wins": sum(x < y for x, y in zip(baseline, candidate, strict=True)),
        "equivalence": equal | {"ci_low": -equal["ci_high"], "ci_high": -equal["ci_low"]},
        "candidate": result["baseline"],
        "baseline": result["candidate"],
        "relative_difference": negated(result["relative_difference"]),
        "skewness": minus(result["skewness"]),
        "secondary": secondary
        | {
            "bootstrap_t": negated(secondary["bootstrap_t"]),
            "probability_better": 1 - secondary["probability_equivalent"] - secondary["probability_better"],
        },
    }
    assert_same(swapped, expected)


@settings(max_examples=40, deadline=None)
@given(LOSSES, st.integers(1, 1000))
def test_a_constant_added_to_all_losses_changes_no_test(losses, constant):
    relative = {"relative_difference", "candidate", "baseline"}
    before, after = (
        compare(np.array(losses[0]) + shift, np.array(losses[1]) + shift, smallest_effect=0.25)
        for shift in (0, constant)
    )
    for result in (before, after):
        result["secondary"].pop("log_ratio_p")
    kept = before.keys() - relative
    assert_same({key: after[key] for key in kept}, {key: before[key] for key in kept})
    assert after["candidate"]["value"] == pytest.approx(before["candidate"]["value"] + constant)


@settings(max_examples=40, deadline=None)
@given(LOSSES, st.randoms(use_true_random=False))
def test_the_order_of_the_pairs_is_irrelevant(losses, random):
    order = list(range(len(losses[0])))
    random.shuffle(order)
    shuffled = compare(np.array(losses[0])[order], np.array(losses[1])[order], smallest_effect=0.25)
    result = compare(*losses, smallest_effect=0.25)
    for one in (shuffled, result):
        one["secondary"].pop("bootstrap_t")  # equal |d| of opposite sign may trade places: Monte Carlo error only
    assert_same(shuffled, result)


@settings(max_examples=30, deadline=None)
@given(LOSSES)
def test_the_result_is_plain_json_and_the_same_every_time(losses):
    result = compare(*losses, smallest_effect=0.25)
    assert compare(*losses, smallest_effect=0.25) == result
    assert json.loads(json.dumps(result, allow_nan=False)) == result


# --- bad input ---


@pytest.mark.parametrize(
    ("candidate", "baseline", "smallest_effect", "message"),
    [
        ([1.0], [2.0], 0.1, "found 1 pairs: a comparison needs at least 2, a verdict needs 10"),
        ([], [], 0.1, "found 0 pairs"),
        ([1.0, 2.0], [1.0, 2.0, 3.0], 0.1, r"shapes \(2,\) and \(3,\)"),
        ([[1.0, 2.0]], [[1.0, 2.0]], 0.1, "one loss per pair"),
        ([1.0, math.nan], [1.0, 2.0], 0.1, "found nan as candidate loss of pair 1"),
        ([1.0, 2.0], [math.inf, 2.0], 0.1, "found inf as baseline loss of pair 0"),
        ([1.0, 2.0], [1.0, 2.0], 0.0, "smallest_effect 0.0"),
        ([1.0, 2.0], [1.0, 2.0], math.nan, "smallest_effect nan"),
    ],
)
def test_bad_input_is_one_clear_line(candidate, baseline, smallest_effect, message):
    with pytest.raises(ValueError, match=message) as error:
        compare(candidate, baseline, smallest_effect=smallest_effect)
    assert "\n" not in str(error.value)


# --- the report's protocol ---


def test_report_protocol():
    result = report_protocol([1.0, 3.0, 2.0], [2.0, 2.0, 2.0])
    assert result["mean_percent"] == 0 and result["sd_percent"] == 50
    assert (result["wins"], result["n"], result["best_seed"], result["best_percent"]) == (1, 3, 0, 50)
    assert result["expected_best_by_luck"] == pytest.approx(0.846284 * 50, abs=1e-4)
    assert result["p_value"] == 1
    assert json.loads(json.dumps(result)) == result


def test_report_protocol_expects_33_percent_from_the_luckiest_of_10_equal_seeds():
    percent = with_mean_and_sd(3.44, 19.55, 10)
    result = report_protocol(100 - percent, np.full(10, 100.0))
    assert result["expected_best_by_luck"] == pytest.approx(33.5, abs=0.05)
    assert result["p_value"] == pytest.approx(0.591, abs=1e-3)


def test_report_protocol_refuses_what_has_no_percentage():
    with pytest.raises(ValueError, match="found baseline loss 0"):
        report_protocol([1.0, 1.0], [0.0, 1.0])
    with pytest.raises(ValueError, match="found 1 pairs"):
        report_protocol([1.0], [1.0])
