"""Sequential tests: published boundaries, e-values by their formula, and intervals that invert them."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from infinito.statistics import sequential as s
from infinito.statistics.paired import paired_t


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


LOOKS = (8, 16, 24, 32)


def test_the_level_of_anytime_is_where_the_e_value_reaches_1_over_alpha():
    for n in (5, 10, 40):
        t = stats.t.isf(s.anytime_level(n) / 2, n - 1)
        d = np.arange(n) - (n - 1) / 2
        at_the_bound = d + t * d.std(ddof=1) / math.sqrt(n)
        assert float(s.log_e_value(at_the_bound)) == pytest.approx(math.log(20))
    assert s.anytime_level(4) == 0 < s.anytime_level(s.FIRST_ANYTIME_LOOK)


def test_a_planned_look_is_the_t_test_at_its_level():
    d = np.random.default_rng(3).normal(1.0, 1, 32)
    for number, (n, level) in enumerate(zip(LOOKS, s.obrien_fleming(LOOKS), strict=True), start=1):
        look, test = s.look(d[:n], design=LOOKS, pairs=32), paired_t(d[:n], level)
        assert (look.kind, look.number, look.looks, look.n, look.planned) == ("obrien-fleming", number, 4, n, 32)
        assert (look.level, look.e_value, look.p_value) == (level, None, float(test.p))
        assert (look.ci_low, look.ci_high) == (float(test.ci_low), float(test.ci_high))
        assert look.stop == (look.p_value < level) == (look.ci_low > 0 or look.ci_high < 0)


def test_an_anytime_look_is_the_e_value():
    d = np.random.default_rng(3).normal(1.0, 1, 32)
    for n in range(5, 33):
        look = s.look(d[:n], design="anytime", pairs=50)
        assert (look.kind, look.number, look.looks, look.level, look.planned) == ("anytime", None, None, None, 50)
        assert look.e_value == pytest.approx(math.exp(s.log_e_value(d[:n])))
        assert look.p_value == pytest.approx(min(1, 1 / look.e_value))
        assert look.stop == (look.p_value <= 0.05) == (look.ci_low > 0 or look.ci_high < 0)


def test_a_look_is_plain_json():
    d = np.random.default_rng(4).normal(size=8)
    looks = [s.look(d, design=LOOKS, pairs=32), s.look(np.ones(2000), design="anytime", pairs=2000)]
    looks += [s.look(d, design="anytime", pairs=8), s.look(d[:5], design="anytime", pairs=8, alpha=0.001)]
    for look in looks:
        assert json.loads(json.dumps(look._asdict(), allow_nan=False)) == look._asdict()
    assert (looks[-1].ci_low, looks[-1].ci_high, looks[-1].stop) == (None, None, False)


def test_it_stops_at_the_first_look_that_rejects_else_at_the_last():
    d = np.random.default_rng(5).normal(0.9, 1, 32)
    for design, ends in ((LOOKS, LOOKS), ("anytime", range(5, 33))):
        verdicts = {n: s.look(d[:n], design=design, pairs=32).stop for n in ends}
        first = next(n for n in ends if verdicts[n])
        assert 5 < first < 32
        assert s.stopped(d, design=design, pairs=32) == s.look(d[:first], design=design, pairs=32)
        # later pairs do not count
        assert s.stopped(np.r_[d[:first], -d[first:]], design=design, pairs=32).n == first
    nothing = np.resize([1.0, -1.0], 32)
    assert s.stopped(nothing, design=LOOKS, pairs=32).n == 32
    assert s.stopped(nothing[:23], design=LOOKS, pairs=32).n == 16
    assert s.stopped(nothing[:23], design="anytime", pairs=32).n == 23


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(-64, 64).map(lambda x: x / 16), min_size=16, max_size=16),
    st.sampled_from([(8, 16), "anytime"]),
    st.randoms(use_true_random=False),
)
def test_relabelling_the_arms_flips_the_interval_and_the_order_within_a_look_is_irrelevant(d, design, random):
    d = np.array(d)
    ends, mirrored = s.stopped(d, design=design, pairs=16), s.stopped(-d, design=design, pairs=16)
    flipped = mirrored._replace(
        ci_low=None if mirrored.ci_high is None else -mirrored.ci_high,
        ci_high=None if mirrored.ci_low is None else -mirrored.ci_low,
    )
    order = list(range(16))
    random.shuffle(order)
    whole, shuffled = (s.look(x, design=design, pairs=16) for x in (d, d[order]))
    for got, expected in ((flipped, ends), (shuffled, whole)):
        for name, value in expected._asdict().items():
            same = pytest.approx(value, rel=1e-6, abs=1e-9) if isinstance(value, float) else value
            assert getattr(got, name) == same, name


@pytest.mark.parametrize(
    ("n", "design", "pairs", "message"),
    [
        (10, LOOKS, 32, "found 10 pairs: allowed are the planned looks at 8, 16, 24, 32 pairs"),
        (33, LOOKS, 32, "found 33 pairs: allowed are at most the 32 planned"),
        (51, "anytime", 50, "found 51 pairs: allowed are at most the 50 planned"),
        (4, "anytime", 50, "found 4 pairs: allowed are looks at 5 pairs or more"),
        (16, LOOKS, 40, "from 2 to 40"),
        (16, (), 40, "from 2 to 40"),
        (10, (1, 10), 10, "from 2 to 10"),
        (10, "whenever", 10, "found looks whenever"),
        (10, (10, 5, 10), 10, "ascending"),
    ],
)
def test_a_look_that_was_not_planned(n, design, pairs, message):
    with pytest.raises(ValueError, match=message) as error:
        s.look(np.zeros(n), design=design, pairs=pairs)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("design", "first"), [(LOOKS, 8), ("anytime", 5)])
def test_nothing_is_stopped_before_the_first_look(design, first):
    with pytest.raises(ValueError, match=f"found {first - 1} pairs: the first look is at {first}"):
        s.stopped(np.zeros(first - 1), design=design, pairs=32)
