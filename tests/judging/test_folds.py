"""Differences over folds: the published folds, the formula by hand, and laws that every input obeys."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from infinito.judging import folds as c
from infinito.statistics.paired import paired_t

# openml/automlbenchmark, reports/old/input/results_small-8c1h{,_ref}.csv at dfe8d21: AUC of folds 0 to 9; None: failed
FOREST = {
    "kc1": [0.860946, 0.816865, 0.870897, 0.844995, 0.770174, 0.811798, 0.862445, 0.850698, 0.882874, 0.790994],
    "blood": [0.755848, 0.707115, 0.605263, 0.681774, 0.812865, 0.637914, 0.67154, 0.626218, 0.733746, 0.630547],
    "credit": [0.86381, 0.782143, 0.757143, 0.770476, 0.788571, 0.826429, 0.818571, 0.815952, 0.746905, 0.776667],
}
AUTOSKLEARN_KC1 = [0.833013, 0.84375, 0.869675, 0.831205, 0.790773, 0.835036, None, 0.865509, 0.900238, 0.793452]
AUTOSKLEARN_BLOOD = [
    *[0.763645, 0.838207, 0.710526, 0.739279, 0.795322, 0.730507, 0.743177, 0.767544, 0.71517, 0.770382]
]
H2O_KC1 = [0.852392, 0.845321, 0.863041, 0.82712, 0.782261, 0.815288, 0.841335, 0.857848, 0.881342, 0.797928]
OBOE_CREDIT = [0.72381, 0.604762, 0.628571, None, 0.707143, 0.728571, 0.730952, None, 0.65, 0.638095]
OBOE_BLOOD = [0.596491, None, 0.483918, None, 0.584795, 0.593567, 0.688596, 0.622807, 0.632611, 0.523736]

few = settings(max_examples=40, deadline=None)
differences = st.lists(st.integers(-50, 50), min_size=2, max_size=10)


@pytest.mark.parametrize(
    ("candidate", "task", "mean", "p", "low", "high"),
    [
        (AUTOSKLEARN_KC1, "kc1", 0.00693444, 0.450681, -0.0132318, 0.0271007),
        (H2O_KC1, "kc1", 0.000119, 0.986413, -0.0152566, 0.0154946),
        (AUTOSKLEARN_BLOOD, "blood", 0.0710929, 0.0348752, 0.00629777, 0.135888),
        (OBOE_CREDIT, "credit", -0.118542, 0.000152289, -0.156536, -0.080548),
        (OBOE_BLOOD, "blood", -0.0934275, 0.049869, -0.186785, -7.04288e-05),
    ],
)
def test_published_folds(candidate, task, mean, p, low, high):
    d = [mine - other for mine, other in zip(candidate, FOREST[task], strict=True) if mine is not None]
    test = c.corrected_t(d, 10)
    got = [float(x) for x in (test.mean, test.p, test.ci_low, test.ci_high)]
    assert got == pytest.approx([mean, p, low, high], rel=2e-5)
    assert test.df == len(d) - 1


def test_by_hand():
    # differences 0, 1, 2 have mean 1 and variance 1; 1 / 3 + 1 / 2 = 5 / 6
    test = c.corrected_t([0, 1, 2], 3)
    assert float(test.t) == pytest.approx(math.sqrt(6 / 5))
    assert float(test.ci_high) == pytest.approx(1 + stats.t.isf(0.025, 2) * math.sqrt(5 / 6))
    assert float(c.resampled_t([0, 1, 2], 1 / 9).t) == pytest.approx(1 / math.sqrt(1 / 3 + 1 / 9))


@pytest.mark.filterwarnings("error")
def test_identical_differences():
    assert float(c.corrected_t([0.1] * 3, 5).p) == 0
    assert float(c.corrected_t([0.0] * 3, 5).p) == 1


def test_what_cannot_be():
    for d in ([1.0], [], 1.0):
        with pytest.raises(ValueError, match="at least 2"):
            c.corrected_t(d, 10)
        with pytest.raises(ValueError, match="at least 2"):
            c.resampled_t(d, 0.1)
    with pytest.raises(ValueError, match="found 3 differences over 2 folds"):
        c.corrected_t([1, 2, 3], 2)
    with pytest.raises(ValueError, match="a positive number needed"):
        c.resampled_t([1, 2, 3], 0)


def test_many_experiments_are_each_of_them():
    d = np.random.default_rng(0).normal(size=(4, 5))
    together, each = c.corrected_t(d, 5), [c.corrected_t(row, 5) for row in d]
    assert together.p == pytest.approx([float(x.p) for x in each])


def test_where_splits_share_examples_the_plain_test_is_too_sure():
    # differences with the correlation that the correction assumes, n_test / (n_train + n_test) = 1 / 10
    rng = np.random.default_rng(1)
    d = math.sqrt(0.1) * rng.standard_normal((4000, 1)) + math.sqrt(0.9) * rng.standard_normal((4000, 10))
    assert (c.corrected_t(d, 10).p < 0.05).mean() == pytest.approx(0.05, abs=0.01)
    assert (paired_t(d).p < 0.05).mean() > 0.13


@few
@given(differences, st.randoms(use_true_random=False))
def test_neither_the_order_of_folds_nor_the_sign_matters(d, random):
    test, shuffled = c.corrected_t(d, 10), c.corrected_t(random.sample(d, len(d)), 10)
    mirrored = c.corrected_t([-x for x in d], 10)
    assert shuffled == test
    assert float(mirrored.t) == pytest.approx(-float(test.t)) and float(mirrored.p) == pytest.approx(float(test.p))
    assert float(mirrored.ci_low) == pytest.approx(-float(test.ci_high))


@few
@given(differences, st.sampled_from([0.01, 3.0]))
def test_scale(d, scale):
    test, other = c.corrected_t(d, 10), c.corrected_t(scale * np.array(d), 10)
    assert float(other.p) == pytest.approx(float(test.p))
    assert [float(other.ci_low), float(other.ci_high)] == pytest.approx(
        [scale * float(test.ci_low), scale * float(test.ci_high)]
    )


@few
@given(differences)
def test_it_is_never_surer_than_the_plain_test(d):
    plain, corrected = paired_t(d), c.corrected_t(d, 10)
    assert float(corrected.p) >= float(plain.p) - 1e-12
    assert float(corrected.ci_low) <= float(plain.ci_low) + 1e-9
