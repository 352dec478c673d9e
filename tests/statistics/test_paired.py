"""Statistics of paired differences: known answers, other software, and laws that every input obeys."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import ttost_paired

from infinito.statistics import paired as c

BASELINE = [2.412, 2.398, 2.455, 2.371, 2.43, 2.407, 2.389, 2.441, 2.42, 2.366]
CANDIDATE = [2.385, 2.401, 2.42, 2.352, 2.433, 2.371, 2.38, 2.402, 2.397, 2.374]
D = np.subtract(BASELINE, CANDIDATE)


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


def test_mcnemar_by_hand():
    # 5 pairs in which only the candidate failed, 1 in which only the baseline did: 2 (1 + 6) / 2^6
    candidate = [True] * 5 + [False] * 1 + [True] * 3 + [False] * 11
    baseline = [False] * 5 + [True] * 1 + [True] * 3 + [False] * 11
    assert c.mcnemar(candidate, baseline) == pytest.approx(14 / 64)
    assert c.mcnemar(baseline, candidate) == c.mcnemar(candidate, baseline)
    assert c.mcnemar([True, False], [True, False]) == 1
    assert c.mcnemar([True] * 6, [False] * 6) == pytest.approx(2 / 64)


@pytest.mark.parametrize("alpha", [0.1, 0.05, 0.01, 0.001, 1e-5])
@pytest.mark.parametrize("n", [4, 8, 10, 50])
def test_planning_holds_at_every_level(n, alpha):
    effect = c.minimal_detectable_effect(n, 1.0, alpha=alpha)
    critical = stats.t.isf(alpha / 2, n - 1)
    draws = np.random.default_rng(0)
    t = (draws.standard_normal(400_000) + effect * math.sqrt(n)) / np.sqrt(draws.chisquare(n - 1, 400_000) / (n - 1))
    assert (np.abs(t) > critical).mean() == pytest.approx(0.8, abs=0.003)
    assert c.pairs_needed(effect, alpha=alpha) == pytest.approx(n, rel=1e-5)


@pytest.mark.parametrize("effect", [0.1, 0.3, 0.5, 1.0, 2.0])
def test_planning_is_that_of_statsmodels_where_that_converges(effect):
    n = TTestPower().solve_power(effect, None, 0.05, 0.8, alternative="two-sided")
    assert c.pairs_needed(effect) == pytest.approx(n, rel=1e-6)
    assert c.minimal_detectable_effect(n, 1.0) == pytest.approx(effect, rel=1e-6)


def test_intervals_at_tiny_levels_are_finite_and_without_a_level_there_is_none():
    test = c.paired_t(D, 1e-20)
    assert np.isfinite([test.ci_low, test.ci_high]).all()
    assert c.mean_estimate(D, 0) == {"value": pytest.approx(D.mean()), "ci_low": None, "ci_high": None, "n": 10}


# --- laws ---


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 20), st.integers(1, 4), st.randoms(use_true_random=False))
def test_max_t_knows_neither_the_order_of_the_pairs_nor_the_sign(n, m, random):
    d = np.random.default_rng(random.randrange(1000)).normal(size=(m, n))
    order = list(range(n))
    random.shuffle(order)
    expected = c.max_t(d, rng=np.random.default_rng(0))
    assert c.max_t(d[:, order], rng=np.random.default_rng(0)) == pytest.approx(expected)
    assert c.max_t(-d, rng=np.random.default_rng(0)) == pytest.approx(expected)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40), st.randoms(use_true_random=False))
def test_mcnemar_knows_neither_the_order_of_the_pairs_nor_the_arms(failed, random):
    shuffled = list(failed)
    random.shuffle(shuffled)
    p = c.mcnemar(*zip(*failed, strict=True))
    assert 0 < p <= 1
    assert p == c.mcnemar(*zip(*shuffled, strict=True)) == c.mcnemar(*list(zip(*failed, strict=True))[::-1])
