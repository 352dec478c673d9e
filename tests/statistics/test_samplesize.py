"""Power and sample size: against the tests themselves, simulated, and against the specification's figures."""

import math

import numpy as np
import pytest

from infinito.planning.plan import TRUTHS
from infinito.statistics import sequential
from infinito.statistics.anova import crossed_test, mean_squares
from infinito.statistics.paired import power, tost
from infinito.statistics.samplesize import (
    anytime_design,
    crossed_power,
    crossed_seeds,
    equal_looks,
    equivalence_pairs,
    equivalence_power,
    looks_design,
    looks_for_power,
    planned_pairs,
    power_table,
)


def test_pairs_reach_the_power_and_are_never_fewer_than_ten() -> None:
    for effect, n in ((0.2, 199), (0.3, 90), (0.5, 34), (0.8, 15), (2.0, 10), (100.0, 10)):
        assert planned_pairs(1.0, effect) == n  # 5 pairs would do for an effect of 2, but give no verdict
        assert planned_pairs(0.03, effect * 0.03) == n  # the unit doesn't matter
        assert power(effect, n) >= 0.8 and (n == 10 or power(effect, n - 1) < 0.8)
    assert planned_pairs(1.0, 0.001) is None and looks_for_power(1.0, 0.001) is None  # over a million


def test_power_rises_with_pairs_and_effect_and_falls_with_spread() -> None:
    rows = power_table(1.0, 0.4, 0.5, 37)
    assert [row["pairs"] for row in rows] == [10, 20, 30, 37, 50, 100]
    for key, sign in (("power", 1), ("equivalence_power", 1), ("minimal_detectable_effect", -1)):
        assert (np.diff([row[key] for row in rows]) * sign > 0).all()
    by_margin = [equivalence_power(1.0, margin, 20) for margin in (0.1, 0.3, 0.5, 1.0)]
    assert by_margin == sorted(by_margin)
    pairs = [planned_pairs(sd, 0.1) or 0 for sd in (0.05, 0.1, 0.2, 0.4)]
    assert pairs == sorted(pairs) and pairs[0] < pairs[-1]


def test_the_power_to_show_equivalence_is_that_of_the_test() -> None:
    rng = np.random.default_rng(0)
    for n, margin in ((10, 0.8), (20, 0.8), (35, 0.5), (12, 0.3)):
        simulated = (tost(rng.normal(size=(40_000, n)), margin).p < 0.05).mean()
        assert equivalence_power(1.0, margin, n) == pytest.approx(simulated, abs=0.008)
    assert equivalence_power(1.0, 1e-3, 10) < 1e-6
    fewest = equivalence_pairs(1.0, 0.5)
    assert fewest and equivalence_power(1.0, 0.5, fewest) >= 0.8 > equivalence_power(1.0, 0.5, fewest - 1)
    assert equivalence_pairs(1.0, 50.0) == 10
    assert equivalence_pairs(1.0, 1e-4) is None


def test_designs_that_may_stop_early_keep_their_level_and_save_pairs() -> None:
    fixed = planned_pairs(1.0, 0.5)
    looks, anytime = looks_for_power(1.0, 0.5), anytime_design(1.0, 0.5)
    assert fixed and looks and anytime and isinstance(looks.looks, list)
    assert looks.looks == equal_looks(looks.pairs) and looks.looks[-1] == looks.pairs
    for design in (looks, anytime):
        assert fixed <= design.pairs and design.power >= 0.8
        assert design.expected_effect < design.expected_null <= design.pairs
    assert looks.pairs < anytime.pairs  # the price of looking whenever one likes
    # without an effect, rejections are false: exactly alpha with planned looks, at most alpha at any time
    assert looks_design(1.0, 0.0, 40).power == pytest.approx(0.05, abs=0.006)
    null = anytime_design(1.0, 0.0, pairs=100)
    assert null is not None and null.power <= 0.05
    # the specification's own simulations: power .99 and 21.4 pairs; power .99 and a median of 16
    four = looks_design(1.0, 0.8, 32)
    assert four.looks == [8, 16, 24, 32]
    assert (four.power, four.expected_effect) == pytest.approx((0.99, 21.4), rel=0.01)
    spec = anytime_design(1.0, 0.8, pairs=50)
    assert spec is not None and spec.power == pytest.approx(0.99, abs=0.01)
    assert spec.expected_effect == pytest.approx(18, abs=2)
    assert anytime_design(1.0, 0.01) is None  # more than 5000 pairs
    assert anytime_design(1.0, 0.5) == anytime  # simulated, but always the same


def test_the_simulated_boundaries_are_those_of_the_tests_themselves() -> None:
    """A few experiments, judged pair by pair by the functions that judge a study."""
    rng = np.random.default_rng(5)
    d = rng.normal(0.7, 1.0, (300, 24))
    for design, kind in (((6, 12, 18, 24), "looks"), ("anytime", "anytime")):
        ends = [sequential.stopped(x, design=design, pairs=24) for x in d]  # type: ignore[arg-type]
        simulated = looks_design(1.0, 0.7, 24) if kind == "looks" else anytime_design(1.0, 0.7, pairs=24)
        assert simulated is not None
        assert np.mean([end.stop for end in ends]) == pytest.approx(simulated.power, abs=0.09)
        assert np.mean([end.n for end in ends]) == pytest.approx(simulated.expected_effect, abs=1.2)


@pytest.mark.parametrize(("truth", "reference"), [((1, 1, 1), 0.233), ((0.2, 0.2, 0.8), 0.295), ((0, 0, 1), 0.458)])
def test_the_power_of_a_grid_is_that_of_real_grids(truth: tuple[float, float, float], reference: float) -> None:
    """Against the specification's table for 5 x 5, d = .6, and against grids drawn cell by cell."""
    init, data, rest = (part / sum(truth) for part in truth)
    found = crossed_power(0.6, (init, data, rest), 5)
    assert found == pytest.approx(reference, abs=0.01)
    rng = np.random.default_rng(1)
    cells = 0.6 + math.sqrt(init) * rng.normal(size=(20_000, 5, 1)) + math.sqrt(data) * rng.normal(size=(20_000, 1, 5))
    y = (cells + math.sqrt(rest) * rng.normal(size=(20_000, 5, 5)))[..., None]
    assert found == pytest.approx((crossed_test(mean_squares(y)).p < 0.05).mean(), abs=0.012)


def test_a_grid_never_takes_fewer_runs_than_pairs() -> None:
    for truth in TRUTHS.values():
        init, data, rest = (part / sum(truth) for part in truth)
        n = crossed_seeds(0.8, (init, data, rest))
        assert n is not None and n * n >= (planned_pairs(1.0, 0.8) or 0)
    assert crossed_seeds(0.1, (1 / 3, 1 / 3, 1 / 3)) is None
