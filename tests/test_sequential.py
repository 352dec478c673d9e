"""Sequential tests: published boundaries, e-values by their formula, and intervals that invert them."""

import math

import numpy as np
import pytest
from scipy import stats

from infinito import sequential as s
from infinito.compare import paired_t


@pytest.mark.parametrize(
    ("looks", "z"),
    [  # bounds as printed by ldBounds and gsDesign for O'Brien-Fleming spending, two-sided .05
        ((8, 16, 24, 32), [4.3326, 2.9631, 2.3590, 2.0141]),
        ((10, 20), [2.9626, 1.9686]),
        ((20,), [1.959964]),
    ],
)
def test_obrien_fleming_bounds(looks, z):
    assert stats.norm.isf(np.array(s.obrien_fleming(looks)) / 2) == pytest.approx(z, abs=1e-4)


def test_obrien_fleming_spends_exactly_alpha():
    looks, steps = (10, 20, 30), np.random.default_rng(0).standard_normal((400_000, 3))
    z = np.cumsum(steps, axis=1) / np.sqrt([1, 2, 3])
    ever = (2 * stats.norm.sf(np.abs(z)) < s.obrien_fleming(looks)).any(1)
    assert ever.mean() == pytest.approx(0.05, abs=0.0012)


@pytest.mark.parametrize("looks", [(), (0, 5), (10, 10), (20, 10)])
def test_looks_must_ascend(looks):
    with pytest.raises(ValueError, match="ascending"):
        s.obrien_fleming(looks)


def test_log_e_value_by_its_formula():
    d = np.random.default_rng(1).normal(0.3, 1, (5, 12))
    t, v, c = paired_t(d).t, 11, 1 + 12 * 0.5
    expected = -0.5 * math.log(c) + 6 * np.log((1 + t**2 / v) / (1 + t**2 / (c * v)))
    assert s.log_e_value(d, 0.5) == pytest.approx(expected)


def test_log_e_value_without_variance():
    assert float(s.log_e_value(np.zeros(10))) == pytest.approx(-0.5 * math.log(11))
    assert float(s.log_e_value(np.ones(10))) == pytest.approx(4.5 * math.log(11))


def test_the_anytime_interval_holds_the_means_that_are_not_rejected():
    d = np.random.default_rng(2).normal(0.3, 1, 15)
    low, high = s.anytime_interval(d)
    for limit in (low, high):
        assert float(s.log_e_value(d - limit)) == pytest.approx(math.log(20))
    assert float(s.log_e_value(d - (low + high) / 2)) < math.log(20)
    assert low < float(paired_t(d).ci_low) and high > float(paired_t(d).ci_high)
    assert [float(x) for x in s.anytime_interval(d[:2])] == [-math.inf, math.inf]
