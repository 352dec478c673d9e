"""Statistics of two independent samples: known answers, other software, and laws that every input obeys."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.power import TTestIndPower
from statsmodels.stats.weightstats import ttost_ind

from infinito.judging import unpaired as c

# KellerJordan/modded-nanogpt, records/track_1_short/2026-05-07_XSAGatedLayers at f411b3d: last line of every log
XSA_LOSS = [3.2792, 3.2769, 3.2775, 3.2785, 3.2798, 3.2790, 3.2805, 3.2798, 3.2803, 3.2787, 3.2777]
MASTER_LOSS = [3.2794, 3.2803, 3.2794, 3.2797, 3.2797, 3.2798, 3.2808]
XSA_MS = [85188, 85258, 85313, 85251, 85299, 85198, 85206, 85260, 85213, 85123, 85081]
MASTER_MS = [85993, 85850, 85967, 85919, 85890, 85905, 85788]

# yandex-research/rtdl-revisiting-models, output/california_housing at e3ed46c: test rmse, tuned, seeds 0 to 14
FT_RMSE = [
    *[0.4578510253, 0.4573347167, 0.4610979613, 0.4585337813, 0.4636453132, 0.4548737375, 0.4551552736, 0.4645203122],
    *[0.4570049617, 0.4600316008, 0.4596529199, 0.4521784418, 0.4621510874, 0.4644180507, 0.4583094732],
]
MLP_RMSE = [
    *[0.4942085567, 0.5006588681, 0.4945189924, 0.4989870097, 0.4965474470, 0.4939746727, 0.4979784433, 0.4967865875],
    *[0.5035519045, 0.5011451177, 0.4967998842, 0.5009417029, 0.5009139943, 0.4986107975, 0.5025896278],
]

# the same, output/covtype: test accuracy; the last of the candidate is a run that had not ended
COVTYPE_FT = [
    *[0.9707236474, 0.9692692960, 0.9696479437, 0.9692004509, 0.9687357469, 0.9693897748, 0.9684689724, 0.9696049155],
    *[0.9708527319, 0.9697856338, 0.9699921689, 0.9688562257, 0.9703363941, 0.9698889013, 0.9700782252, 0.4123],
]
COVTYPE_MLP = [
    *[0.9624536372, 0.9632625664, 0.9621868626, 0.9627204117, 0.9613090884, 0.9629871862, 0.9608529900, 0.9628150736],
    *[0.9637444816, 0.9624708484, 0.9648804248, 0.9626515667, 0.9605259761, 0.9631506932, 0.9610853420],
]

# pain after two treatments (Brunner & Munzel 2000, table 1)
PAIN_Y = [1, 2, 1, 1, 1, 1, 1, 1, 1, 1, 2, 4, 1, 1]
PAIN_N = [3, 3, 4, 3, 1, 2, 3, 1, 1, 5, 4]

few = settings(max_examples=40, deadline=None)
sample = st.lists(st.integers(-20, 20), min_size=2, max_size=8)


def lower_is_better(x, scale=1.0):
    return -np.array(x) * scale


ANSWERS = [
    (
        "val_loss",
        lower_is_better(XSA_LOSS),
        lower_is_better(MASTER_LOSS),
        {
            "difference": 0.000971429,
            "ci95": [0.000109495, 0.00183336],
            "t": 2.40741,
            "df": 14.6372,
            "p": 0.0297549,
            "d": 1.07177,
            "n_80": 15,
            "mann_whitney_p": 0.111683,
        },
    ),
    (
        "seconds",
        lower_is_better(XSA_MS, 0.001),
        lower_is_better(MASTER_MS, 0.001),
        {
            "difference": 0.684442,
            "ci95": [0.61186, 0.757023],
            "t": 20.3588,
            "df": 13.0852,
            "p": 2.7172e-11,
            "d": 9.82589,
            "n_80": 2,
            "mann_whitney_p": 6.28457e-05,
        },
    ),
    (
        "rtdl_files",
        lower_is_better(FT_RMSE),
        lower_is_better(MLP_RMSE),
        {
            "difference": 0.0394303,
            "ci95": [0.0369195, 0.0419412],
            "t": 32.2103,
            "df": 27.2115,
            "p": 3.30304e-23,
            "d": 11.7615,
            "n_80": 2,
            "mann_whitney_p": 3.39182e-06,
        },
    ),
    (
        "covtype with a run that had not ended",
        np.array(COVTYPE_FT),
        np.array(COVTYPE_MLP),
        {
            "difference": -0.0276525,
            "ci95": [-0.101904, 0.0465986],
            "t": -0.793781,
            "df": 15.0022,
            "p": 0.439699,
            "d": -0.280644,
            "n_80": 201,
            "mann_whitney_p": 3.61621e-05,
        },
    ),
]


# --- known answers ---


@pytest.mark.parametrize(("a", "b", "answer"), [x[1:] for x in ANSWERS], ids=[x[0] for x in ANSWERS])
def test_published_runs(a, b, answer):
    test, (d, _) = c.welch(a, b), c.effect_size(a, b)
    got = [test.mean, test.ci_low, test.ci_high, test.t, test.df, test.p, d["value"], c.mann_whitney(a, b)]
    expected = [answer["difference"], *answer["ci95"], *(answer[x] for x in ("t", "df", "p", "d", "mann_whitney_p"))]
    assert got == pytest.approx(expected, rel=1e-5)
    assert c.runs_needed(d["value"]) == answer["n_80"]
    assert c.further_runs(a, b) == max(0, answer["n_80"] - min(len(a), len(b)))


def test_pain_scores_of_brunner_and_munzel():
    value, se, df = c.brunner_munzel(PAIN_N, PAIN_Y)
    assert (value, (value - 0.5) / se, df) == pytest.approx((0.788961, 3.1375, 17.683), rel=1e-4)
    interval = c.probability_of_improvement(PAIN_N, PAIN_Y)
    assert interval["value"] == pytest.approx(value) and interval["n"] == 11
    reach = stats.t.isf(0.025, df) * se
    assert [value - reach, value + reach] == pytest.approx([0.595217, 0.982705], rel=1e-4)  # as published
    # on the scale of log odds: 1.3188 +- 2.1037 * 0.0921 / (0.789 * 0.211)
    assert [interval["ci_low"], interval["ci_high"]] == pytest.approx([0.5387, 0.9229], abs=5e-4)


def test_without_overlap_what_is_certain_is_that_pairs_were_won():
    won = c.probability_of_improvement([5, 6, 7, 8], [1, 2, 3])
    assert won == {"value": 1.0, "ci_low": pytest.approx(0.025 ** (1 / 3)), "ci_high": 1.0, "n": 3}
    lost = c.probability_of_improvement([1, 2, 3], [5, 6, 7, 8])
    assert lost == {"value": 0.0, "ci_low": 0.0, "ci_high": pytest.approx(1 - 0.025 ** (1 / 3)), "n": 3}
    equal = c.probability_of_improvement([1, 1], [1, 1, 1])
    assert [equal["ci_low"], equal["ci_high"]] == pytest.approx([0.025**0.5 / 2, 1 - 0.025**0.5 / 2])


def test_one_overlap_does_not_promise_more_than_none():
    a = np.arange(20.0)
    none, one = c.probability_of_improvement(a + 20, a), c.probability_of_improvement(a + 19.5 - (a == 0), a)
    assert one["value"] < none["value"] == 1
    assert one["ci_low"] <= none["ci_low"]


def test_one_run_has_no_spread():
    assert c.mean_difference([2.0, 4.0], [1.0]) == {"value": 2.0, "ci_low": None, "ci_high": None, "n": 1}
    assert c.probability_of_improvement([2, 4], [3]) == {"value": 0.5, "ci_low": None, "ci_high": None, "n": 1}
    assert c.mann_whitney([1.0], [2.0]) == 1
    for f in (c.welch, c.effect_size, c.brunner_munzel, c.further_runs):
        with pytest.raises(ValueError, match="found 1 runs of the baseline"):
            f([1.0, 2.0], [1.0])
        with pytest.raises(ValueError, match="found 0 runs of the candidate"):
            f([], [1.0, 2.0])


def test_what_is_not_a_number_is_named():
    with pytest.raises(ValueError, match="found 2 runs of the candidate that are not finite"):
        c.welch([1, math.nan, math.inf], [1, 2])


@pytest.mark.filterwarnings("error")
def test_arms_without_spread():
    equal, apart = c.welch([0.1] * 3, [0.1] * 6), c.welch([0.3] * 3, [0.1] * 6)
    assert (equal.mean, equal.se, equal.t, equal.df, equal.p, equal.ci_low, equal.ci_high) == (0, 0, 0, 7, 1, 0, 0)
    assert (apart.se, apart.t, apart.df, apart.p) == (0, math.inf, 7, 0)
    assert apart.ci_low == apart.ci_high == apart.mean == 0.3 - 0.1
    assert c.effect_size([1, 1], [2, 2])[0] == {"value": None, "ci_low": None, "ci_high": None, "n": 2}
    assert c.mann_whitney([1, 1, 1], [1, 1]) == 1
    assert c.further_runs([1, 1], [1, 1]) is None
    assert c.further_runs([1, 1], [2, 2]) == 0
    assert c.tost([1, 1], [1, 1], 0.5).p == 0 and c.tost([1, 1], [2, 2], 0.5).p == 1
    one_sided = c.welch([1.0, 1.0, 1.0], [1.0, 2.0, 4.0])
    assert one_sided.df == 2 and one_sided.p == pytest.approx(float(stats.ttest_1samp([1.0, 2.0, 4.0], 1.0).pvalue))


def test_mann_whitney_with_ties_counts_the_splits():
    assert c.mann_whitney([1, 1, 1], [2, 2, 2]) == pytest.approx(2 / 20)
    # ranks 1 2.5 2.5 4: of the 6 splits only those of the rank sums 3.5 and 6.5 are as far from 5
    assert c.mann_whitney([1, 2], [2, 3]) == pytest.approx(4 / 6)


def test_planning_at_the_ends():
    assert c.runs_needed(1000.0) == 2
    assert c.runs_needed(1e-4) == pytest.approx(2 * (1.959964 + 0.841621) ** 2 / 1e-8, rel=1e-3)
    with pytest.raises(ValueError, match="effect 0"):
        c.runs_needed(0.0)


# --- other software ---


@pytest.mark.parametrize(("n", "m"), [(2, 2), (3, 9), (12, 5), (30, 30)])
def test_scipy_and_statsmodels_find_the_same(n, m):
    rng = np.random.default_rng(n)
    a, b = rng.normal(0.5, 1, n), rng.normal(0, 3, m)
    test, reference = c.welch(a, b, 0.1), stats.ttest_ind(a, b, equal_var=False)
    interval = reference.confidence_interval(0.9)
    got = [test.t, test.df, test.p, test.ci_low, test.ci_high]
    assert got == pytest.approx([reference.statistic, reference.df, reference.pvalue, interval.low, interval.high])
    p, (t_lower, p_lower, _), (t_upper, p_upper, _) = ttost_ind(a, b, -1, 1, usevar="unequal")
    equivalence = c.tost(a, b, 1)
    assert list(equivalence[:5]) == pytest.approx([t_lower, p_lower, t_upper, p_upper, p])
    value, se, df = c.brunner_munzel(a, b)
    if se:
        reference = stats.brunnermunzel(b, a)
        t = (value - 0.5) / se
        assert [t, 2 * stats.t.sf(abs(t), df)] == pytest.approx([reference.statistic, reference.pvalue])
    assert c.mann_whitney(a, b) == pytest.approx(stats.mannwhitneyu(a, b).pvalue)


def test_tied_mann_whitney_is_the_permutation_test():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 4, 6), rng.integers(1, 5, 5)
    ranks = stats.rankdata(np.concatenate([a, b]))
    sums = np.array([ranks[list(split)].sum() for split in itertools.combinations(range(11), 6)])
    tail = min((sums <= ranks[:6].sum()).mean(), (sums >= ranks[:6].sum()).mean())
    assert c.mann_whitney(a, b) == pytest.approx(min(1, 2 * tail))


@pytest.mark.parametrize("effect", [0.1, 0.3, 0.5, 1.0, 2.0])
def test_planning_is_that_of_statsmodels_where_that_converges(effect):
    assert c.runs_needed(effect) == math.ceil(TTestIndPower().solve_power(effect, None, 0.05, 0.8))
    assert c.two_sample_power(effect, 10) == pytest.approx(TTestIndPower().power(effect, 10, 0.05))


def test_planning_for_few_runs_is_what_simulation_finds():
    draws = np.random.default_rng(0).standard_normal((2, 40_000, 3)) + np.array([4.776, 0])[:, None, None]
    for n in (2, 3):
        rejected = stats.ttest_ind(*draws[..., :n], axis=-1).pvalue < 0.05
        assert c.two_sample_power(4.776, n) == pytest.approx(rejected.mean(), abs=0.01)
    assert c.runs_needed(4.776) == 3  # with 2 it is .69


# --- promises, where the truth is known ---


@pytest.mark.parametrize(("n", "m", "sd"), [(5, 5, 1.0), (5, 10, 3.0), (10, 5, 2.0)])
def test_a_null_is_a_null(n, m, sd):
    rng = np.random.default_rng(1)
    trials = [(rng.normal(0, 1, n), rng.normal(0, sd, m)) for _ in range(1500)]
    assert np.mean([c.welch(a, b).p < 0.05 for a, b in trials]) == pytest.approx(0.05, abs=0.015)
    intervals = [c.probability_of_improvement(a, b) for a, b in trials[:600]]
    assert np.mean([x["ci_low"] <= 0.5 <= x["ci_high"] for x in intervals]) > 0.935
    at_the_edge = [c.tost(a + 1, b, 1).p < 0.05 for a, b in trials[:600]]
    assert np.mean(at_the_edge) < 0.07


@pytest.mark.parametrize(("n", "m", "sd"), [(5, 5, 1.0), (6, 12, 2.0), (12, 6, 2.0)])
def test_intervals_hold_the_truth(n, m, sd):
    rng = np.random.default_rng(2)
    true_d = 2 / math.sqrt((1 + sd**2) / 2)
    true_p = stats.norm.cdf(2 / math.sqrt(1 + sd**2))
    held = []
    for _ in range(1000):
        a, b = rng.normal(2, 1, n), rng.normal(0, sd, m)
        d, p = c.effect_size(a, b)[0], c.probability_of_improvement(a, b)
        held.append((d["ci_low"] <= true_d <= d["ci_high"], p["ci_low"] <= true_p <= p["ci_high"]))
    assert (np.mean(held, axis=0) > 0.93).all()


def test_g_is_unbiased():
    rng = np.random.default_rng(3)
    sizes = [[x["value"] for x in c.effect_size(rng.normal(1, 1, 5), rng.normal(0, 1, 5))] for _ in range(2000)]
    d, g = np.mean(sizes, axis=0)
    assert g == pytest.approx(1, abs=0.05) and d > 1.06


def test_the_worst_case_without_overlap():
    # a run of the candidate is above all of the baseline or below: it wins 3 of 3 as often as .28^3 = .022
    rng = np.random.default_rng(4)
    intervals = []
    for _ in range(2000):
        a, b = np.where(rng.random(3) < 0.28, 10.0, -10.0), rng.normal(size=12)
        intervals.append(c.probability_of_improvement(a, b))
    assert 0.01 < np.mean([x["ci_low"] > 0.28 for x in intervals]) <= 0.025  # .025^(1/3) is .29
    assert not [x for x in intervals if x["ci_high"] < 0.28]


# --- laws ---


@few
@given(sample, sample)
def test_swapped_arms_are_the_mirror_image(a, b):
    test, swapped = c.welch(a, b), c.welch(b, a)
    assert [swapped.mean, swapped.t, swapped.ci_low, swapped.ci_high] == pytest.approx(
        [-test.mean, -test.t, -test.ci_high, -test.ci_low]
    )
    assert (swapped.se, swapped.df, swapped.p) == pytest.approx((test.se, test.df, test.p))
    assert c.tost(b, a, 3).p == pytest.approx(c.tost(a, b, 3).p)
    assert c.mann_whitney(b, a) == pytest.approx(c.mann_whitney(a, b))
    mine, others = c.probability_of_improvement(a, b), c.probability_of_improvement(b, a)
    expected = [1 - mine[x] for x in ("value", "ci_high", "ci_low")]
    assert [others[x] for x in ("value", "ci_low", "ci_high")] == pytest.approx(expected)
    for x, y in zip(c.effect_size(a, b), c.effect_size(b, a), strict=True):
        if x["value"] is not None:
            assert [y["value"], y["ci_low"]] == pytest.approx([-x["value"], -x["ci_high"]], rel=1e-5, abs=1e-9)


@few
@given(sample, sample, st.randoms(use_true_random=False))
def test_the_order_of_runs_changes_no_bit(a, b, random):
    a, b = np.array(a) / 7, np.array(b) / 7
    x, y = random.sample(list(a), len(a)), random.sample(list(b), len(b))
    for f in (c.welch, c.effect_size, c.probability_of_improvement, c.mann_whitney, c.mean_difference):
        assert f(x, y) == f(a, b)


@few
@given(sample, sample, st.sampled_from([0.25, 1024.0]), st.integers(-1000, 1000))
def test_scale_and_shift(a, b, scale, shift):
    assume(np.ptp(a) + np.ptp(b) > 0)
    x, y = np.array(a) * scale + shift, np.array(b) * scale + shift
    test, other = c.welch(a, b), c.welch(x, y)
    lengths = [other.mean, other.se, other.ci_low, other.ci_high]
    assert lengths == pytest.approx([scale * z for z in (test.mean, test.se, test.ci_low, test.ci_high)], abs=1e-9)
    assert [other.t, other.df, other.p] == pytest.approx([test.t, test.df, test.p], abs=1e-9)
    assert c.tost(x, y, 2 * scale).p == pytest.approx(c.tost(a, b, 2).p)
    assert c.effect_size(x, y)[1]["value"] == pytest.approx(c.effect_size(a, b)[1]["value"], abs=1e-9)
    assert c.probability_of_improvement(x, y) == c.probability_of_improvement(a, b)
    assert c.mann_whitney(x, y) == c.mann_whitney(a, b)


@few
@given(sample, sample)
def test_every_interval_holds_its_estimate_and_equals_the_test(a, b):
    test = c.welch(a, b)
    assert test.ci_low <= test.mean <= test.ci_high
    if 1e-9 < abs(test.p - 0.05):
        assert (test.p < 0.05) == (not test.ci_low <= 0 <= test.ci_high)
    interval = c.probability_of_improvement(a, b)
    assert 0 <= interval["ci_low"] <= interval["value"] <= interval["ci_high"] <= 1
    assert 0 < c.mann_whitney(a, b) <= 1
