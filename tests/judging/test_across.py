"""Statistics over tasks and arms: hand-made matrices, other software, and laws that every input obeys."""

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from infinito.judging import across as c
from infinito.judging import unpaired
from infinito.statistics.paired import adjust

few = settings(max_examples=15, deadline=None)
task = st.lists(st.integers(-9, 9), min_size=2, max_size=6)
RAGGED = [[1.0, 5.0, 2.0], [4.0, 4.0], [0.0, 7.0, 3.0, 2.0]]


def tables(arms):
    """Scores [arm][task][run] of 1 to 4 tasks."""
    return st.integers(1, 4).flatmap(lambda tasks: st.tuples(*[st.lists(task, min_size=tasks, max_size=tasks)] * arms))


def limits(estimate):
    return [estimate["ci_low"], estimate["ci_high"]]


# --- known answers ---


def test_interquartile_mean_by_hand():
    # of 1 to 8 the middle half is 3 4 5 6, of 0 to 9 floor(10 / 4) = 2 fall at each end
    assert c.interquartile_mean([[1, 8, 3, 6], [5, 4, 7, 2]])["value"] == pytest.approx(4.5)
    assert c.interquartile_mean([[0, 1, 2, 3, 100], [5, 6, 7, 8, -100]])["value"] == pytest.approx(4.0)
    # a task of 2 runs counts as much as one of 4: weights 1/8 1/8 1/8 1/8 1/4 1/4 of 0 1 2 3 10 20, 1/6 off each end
    expected = (1 * (1 / 4 - 1 / 6) + 2 / 8 + 3 / 8 + 10 / 4 + 20 * (5 / 6 - 3 / 4)) / (2 / 3)
    assert c.interquartile_mean([[0, 1, 2, 3], [10, 20]])["value"] == pytest.approx(expected)


def test_probability_of_improvement_by_hand():
    # task 0: of 4 couples 3 won and 1 tied; task 1: none won
    found = c.probability_of_improvement([[2, 3], [0, 0]], [[1, 2], [1, 1]])
    assert found["value"] == pytest.approx((3.5 / 4 + 0) / 2) and found["n"] == 2


def test_differences_wins_and_ranks_by_hand():
    a, b, other = [[3, 5], [1, 1], [2, 4]], [[1, 3], [1, 1], [5, 7]], [[0, 0], [9, 9], [6, 6]]
    assert c.task_differences(a, b, [1, 1, 2]).tolist() == [2, 0, -1.5]
    assert c.wins([2, 0, -1.5]) == (1, 1, 1, 1.0)
    assert c.mean_normalised_difference(a, b, [1, 1, 2])["value"] == pytest.approx(0.5 / 3)
    found = c.ranks([a, b, other])
    assert [[x["value"] for x in row] for row in found.tasks] == [[1, 2, 3], [2.5, 2.5, 1], [3, 1.5, 1.5]]
    assert [x["value"] for x in found.mean] == pytest.approx([6.5 / 3, 2, 5.5 / 3])
    assert c.spreads([a, b]) == pytest.approx([math.sqrt(2), 0, math.sqrt(2)])


def test_profile_by_hand():
    found = c.performance_profile([[0, 1, 2, 3], [2, 5]], [-1, 0, 2, 5])
    assert found.share.tolist() == [1, (3 / 4 + 1) / 2, (1 / 4 + 1 / 2) / 2, 0]
    certain = 0.025 ** (1 / 4)  # two tasks of at least 2 runs
    assert (found.low[0], found.high[0]) == (pytest.approx(certain), 1)
    assert (found.low[3], found.high[3]) == (0, pytest.approx(1 - certain))
    assert (found.low <= found.share).all() and (found.share <= found.high).all()


def test_wilcoxon_speaks_from_6_tasks_on():
    assert c.wilcoxon_over_tasks([1, 2, 3, 4, 5]) is None
    assert c.wilcoxon_over_tasks([1, 2, 3, 4, 5, 6]) == pytest.approx(2 / 64)


# C4.5 without and with the parameter m chosen, AUC on 14 data sets (Demsar 2006, table 2)
C45 = [0.763, 0.599, 0.954, 0.628, 0.882, 0.936, 0.661, 0.583, 0.775, 1.000, 0.940, 0.619, 0.972, 0.957]
C45_M = [0.768, 0.591, 0.971, 0.661, 0.888, 0.931, 0.668, 0.583, 0.838, 1.000, 0.962, 0.666, 0.981, 0.978]


def test_the_data_sets_of_demsar():
    found = c.task_differences([[x] for x in C45_M], [[x] for x in C45], np.ones(14))
    assert c.wins(found)[:3] == (10, 2, 2)
    p = c.wilcoxon_over_tasks(found)
    assert p < 0.02
    assert p == pytest.approx(c.wilcoxon_over_tasks(-found))


def test_arms_without_overlap_are_not_certain():
    a, b = [[5, 6, 7]] * 2, [[1, 2, 3]] * 2
    found = c.probability_of_improvement(a, b)
    assert (found["value"], *limits(found)) == (1, pytest.approx(0.025 ** (1 / 6)), 1)
    found = c.probability_of_improvement(b, a)
    assert (found["value"], *limits(found)) == (0, 0, pytest.approx(1 - 0.025 ** (1 / 6)))


def test_one_run_or_one_task():
    a, b = [[1.0], [3.0, 4.0]], [[0.0, 1.0], [2.0, 3.0]]
    for found in (c.interquartile_mean(a), c.probability_of_improvement(a, b), c.ranks([a, b]).mean[0]):
        assert found["value"] is not None and limits(found) == [None, None]
    assert np.isnan(c.performance_profile(a, [2.0]).low).all()
    assert limits(c.mean_normalised_difference([[1, 2]], [[3, 5]])) == [None, None]
    assert None not in limits(c.mean_normalised_difference([[1], [2]], [[3], [5]], [1, 1]))
    with pytest.raises(ValueError, match="found units"):
        c.mean_normalised_difference([[1], [2]], [[3], [5]])


def test_what_cannot_be():
    for arms, said in (
        ([[[1, 2]], [[1, 2], [3]]], "found 1, 2 tasks"),
        ([[], []], "found 0, 0 tasks"),
        ([[[1, 2]], [[]]], "runs of task 0"),
        ([[[1, 2]], [[1, math.nan]]], "runs of task 0"),
    ):
        with pytest.raises(ValueError, match=said):
            c.probability_of_improvement(*arms)
    with pytest.raises(ValueError, match="an arm of 2 runs"):
        c.equal_variances([[1, 2], [1, 2, 3]])


# --- other software ---


def test_the_definitions_of_scipy():
    rng = np.random.default_rng(0)
    for tasks, n in ((1, 5), (3, 7), (8, 10)):
        a, b = rng.normal(size=(2, tasks, n)).round(1)
        assert c.interquartile_mean(a)["value"] == pytest.approx(stats.trim_mean(a, 0.25, axis=None))
        won = np.mean([stats.mannwhitneyu(x, y).statistic / n**2 for x, y in zip(a, b, strict=True)])
        assert c.probability_of_improvement(a, b)["value"] == pytest.approx(won)
        d = [unpaired.effect_size(x, y)[0]["value"] for x, y in zip(a, b, strict=True)]
        assert c.task_differences(a, b) == pytest.approx(d)
        found = c.ranks([a, b, a + b])
        expected = stats.rankdata(-np.array([a, b, a + b]).mean(-1), axis=0).mean(-1)
        assert [x["value"] for x in found.mean] == pytest.approx(expected)


def test_the_stratified_bootstrap_of_scipy():
    a = np.random.default_rng(1).normal(size=(2, 12))

    def middle(x, y, axis):
        return stats.trim_mean(np.concatenate([x, y], axis=axis), 0.25, axis=axis)

    found = c.interquartile_mean(a)
    reference = stats.bootstrap(list(a), middle, method="percentile", rng=np.random.default_rng(0)).confidence_interval
    width = reference.high - reference.low
    assert limits(found) == pytest.approx([reference.low, reference.high], abs=0.06 * width)


@pytest.mark.parametrize(("sizes", "m"), [((5, 5, 5), 5), ((4, 20, 9), 12), ((50, 40), 4)])
def test_dunnett_is_that_of_scipy(sizes, m):
    rng = np.random.default_rng(m)
    arms, base = [rng.normal(0.8, 1, n) for n in sizes], rng.normal(size=m)
    found, reference = c.against_baseline(arms, base), stats.dunnett(*arms, control=base, rng=rng)
    interval = reference.confidence_interval()
    assert [x.p_dunnett for x in found] == pytest.approx(reference.pvalue, abs=1e-3)
    assert [x.dunnett_low for x in found] == pytest.approx(interval.low, abs=5e-3)
    assert [x.dunnett_high for x in found] == pytest.approx(interval.high, abs=5e-3)
    p = [unpaired.welch(x, base).p for x in arms]
    assert [x.p for x in found] == p and [x.p_holm for x in found] == adjust(p)
    assert c.equal_variances([*arms, base]) == pytest.approx(stats.levene(*arms, base).pvalue)


def test_dunnett_in_print():
    # two-sided 5 % points of Dunnett (1964) for equal arms: (arms without the baseline, degrees of freedom)
    for (arms, df), t in {(2, 10): 2.57, (4, 20): 2.65, (9, 60): 2.76}.items():
        assert c._dunnett_critical(np.full(arms, 0.5), df, 0.05) == pytest.approx(t, abs=0.011)


def test_dunnett_knows_no_order_of_runs_and_mirrors_with_the_sign():
    arms = np.random.default_rng(6).normal(size=(3, 5))
    found, mirrored = c.against_baseline(arms[:2], arms[2]), c.against_baseline(-arms[:2], -arms[2])
    assert c.against_baseline(arms[:2, ::-1], arms[2, ::-1]) == found
    for x, y in zip(found, mirrored, strict=True):
        assert [y.p_dunnett, y.dunnett_low] == pytest.approx([x.p_dunnett, -x.dunnett_high])
        assert (x.p_dunnett < 0.05) == (not x.dunnett_low <= 0 <= x.dunnett_high)


def test_dunnett_against_one_arm_is_students_test():
    a, b = [1.0, 2.0, 4.0], [3.0, 5.0, 7.0, 6.0]
    (found,), reference = c.against_baseline([a], b), stats.ttest_ind(a, b)
    interval = reference.confidence_interval()
    got = [found.p_dunnett, found.dunnett_low, found.dunnett_high]
    assert got == pytest.approx([reference.pvalue, interval.low, interval.high])


@pytest.mark.filterwarnings("error")
def test_arms_without_spread():
    same, apart = c.against_baseline([[1, 1, 1], [2, 2]], [1, 1])
    assert (same.p, same.p_holm, same.p_dunnett) == (1, 1, 1) and (apart.p, apart.p_dunnett) == (0, 0)
    assert apart.dunnett_low == apart.dunnett_high == 1
    assert c.equal_variances([[1, 1, 1], [2, 2, 2]]) == 1
    assert limits(c.interquartile_mean([[2, 2], [2, 2]])) == [2, 2]
    equal = c.probability_of_improvement([[1, 1]], [[1, 1]])
    assert equal["value"] == 0.5 and equal["ci_low"] < 0.5 < equal["ci_high"]
    with pytest.raises(ValueError, match="found units"):
        c.task_differences([[1, 1]], [[2, 2]])


# --- promises, where the truth is known ---


def test_stratified_intervals_hold_the_truth():
    rng = np.random.default_rng(2)
    held = []
    for _ in range(250):
        a, b = rng.normal([[0], [1], [2]], 1, (3, 15)), rng.normal([[0], [1], [2]], 1, (3, 15))
        middle, p = c.interquartile_mean(a), c.probability_of_improvement(a, b)
        held.append((middle["ci_low"] <= 1 <= middle["ci_high"], p["ci_low"] <= 0.5 <= p["ci_high"]))
    assert (np.mean(held, axis=0) > 0.9).all() and (np.mean(held, axis=0) < 0.99).all()


def test_the_hierarchical_interval_is_about_tasks():
    # the arms differ by 1 on average, on each task by more or less: drawing runs alone would promise too much
    rng = np.random.default_rng(3)
    held = []
    for _ in range(250):
        effect = rng.normal(1, 1, (12, 1))
        a, b = rng.normal(effect, 0.5, (12, 6)), rng.normal(0, 0.5, (12, 6))
        found = c.mean_normalised_difference(a, b, np.ones(12))
        held.append(found["ci_low"] <= 1 <= found["ci_high"])
    assert np.mean(held) == pytest.approx(0.94, abs=0.04)


def test_dunnett_finds_one_false_arm_in_20_families():
    arms = np.random.default_rng(4).normal(size=(20_000, 5, 5))  # the last is the baseline
    mean, sd = arms.mean(-1), np.sqrt(arms.var(-1, ddof=1).mean(-1))
    largest = (np.abs(mean[:, :-1] - mean[:, -1:]) / (sd * math.sqrt(2 / 5))[:, None]).max(-1)
    assert (largest > c._dunnett_critical(np.full(4, 0.5), 20, 0.05)).mean() == pytest.approx(0.05, abs=0.005)
    assert (largest > stats.t.isf(0.025, 20)).mean() > 0.12  # unadjusted


def test_a_table_of_10_arms_20_tasks_and_20_runs_takes_no_time():
    x = np.random.default_rng(5).normal(size=(10, 20, 20))
    start = time.process_time()
    for arm in x:
        c.interquartile_mean(arm)
    c.ranks(x)
    assert time.process_time() - start < 2


# --- laws ---


@few
@given(tables(2), st.randoms(use_true_random=False))
def test_the_order_of_runs_changes_no_bit(arms, random):
    a, b = ([np.array(x) / 7 for x in arm] for arm in arms)
    x, y = ([np.array(random.sample(list(t), len(t))) for t in arm] for arm in (a, b))
    unit = np.ones(len(a))
    assert c.interquartile_mean(x) == c.interquartile_mean(a)
    assert c.probability_of_improvement(x, y) == c.probability_of_improvement(a, b)
    assert c.mean_normalised_difference(x, y, unit) == c.mean_normalised_difference(a, b, unit)
    assert c.ranks([x, y]) == c.ranks([a, b])
    for one, two in zip(c.performance_profile(x, [0, 1]), c.performance_profile(a, [0, 1]), strict=True):
        assert one.tolist() == two.tolist()


@few
@given(tables(2))
def test_swapped_arms_are_the_mirror_image(arms):
    a, b = arms
    mine, others = c.probability_of_improvement(a, b), c.probability_of_improvement(b, a)
    assert others["value"] == pytest.approx(1 - mine["value"])
    assert limits(others) == pytest.approx([1 - x for x in limits(mine)[::-1]], abs=0.1)  # other draws
    unit = np.ones(len(a))
    d = c.task_differences(a, b, unit)
    assert c.task_differences(b, a, unit).tolist() == (-d).tolist()
    assert c.wins(-d)[:3] == c.wins(d)[2::-1] and c.wins(-d).p == c.wins(d).p
    first, second = c.ranks([a, b]), c.ranks([b, a])
    assert [x["value"] for x in first.mean] == [x["value"] for x in second.mean][::-1]
    assert sum(x["value"] for x in first.mean) == pytest.approx(3)


@few
@given(tables(2), st.sampled_from([0.25, 1024.0]), st.integers(-100, 100))
def test_scale_and_shift(arms, scale, shift):
    a, b = arms
    x, y = ([np.array(t) * scale + shift for t in arm] for arm in arms)
    plain, other = c.interquartile_mean(a), c.interquartile_mean(x)
    expected = [plain[z] * scale + shift for z in ("value", "ci_low", "ci_high")]
    assert [other[z] for z in ("value", "ci_low", "ci_high")] == pytest.approx(expected, abs=1e-9)
    assert c.probability_of_improvement(x, y) == c.probability_of_improvement(a, b)
    unit = np.ones(len(a))
    one, two = c.mean_normalised_difference(a, b, unit), c.mean_normalised_difference(x, y, scale * unit)
    assert two["value"] == pytest.approx(one["value"]) and limits(two) == pytest.approx(limits(one)) or len(a) == 1


@few
@given(tables(3))
def test_intervals_hold_their_estimates(arms):
    found = c.ranks(arms)
    for x in [*found.mean, *(x for row in found.tasks for x in row), c.probability_of_improvement(*arms[:2])]:
        assert x["ci_low"] - 1e-12 <= x["value"] <= x["ci_high"] + 1e-12
    profile = c.performance_profile(arms[0], np.arange(-10, 11))
    assert (np.diff(profile.share) <= 0).all() and (profile.share[0], profile.share[-1]) == (1, 0)
    assert ((profile.low <= profile.share) & (profile.share <= profile.high)).all()


def test_a_table_with_gaps_is_taken_task_by_task():
    found = c.ranks([RAGGED, RAGGED[::-1]])
    assert [row[0]["value"] for row in found.tasks] == [2, 1.5, 1]
    assert c.mean_normalised_difference(RAGGED, RAGGED, np.ones(3))["value"] == 0
