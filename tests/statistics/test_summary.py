"""Which summary figures numbers can have, held against numbers and against an optimiser."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize

from infinito.statistics.summary import possible, rounded


def figures(x: np.ndarray, decimals: int) -> dict[str, Any]:
    found = {"mean": x.mean(), "sd": x.std(ddof=1), "largest": x.max()}
    return {key: round(float(value), decimals) for key, value in found.items()} | {
        "n": len(x),
        "positive": int((x > 0).sum()),
    }


@pytest.mark.parametrize("decimals", [0, 1, 3, 12])
def test_the_figures_of_numbers_are_possible(decimals: int) -> None:
    draws = np.random.default_rng(0)
    for n, shift, scale in itertools.product((2, 3, 10, 50), (-2.0, 0.0, 0.3, 5.0), (0.4, 1.0, 30.0)):
        for x in (
            draws.normal(shift, scale, n),
            draws.pareto(1.5, n) * scale + shift,
            np.sort(draws.integers(-3, 4, n)),
        ):
            known = figures(np.asarray(x, float), decimals)
            for without in ((), ("positive",), ("largest",), ("positive", "largest")):
                assert possible(**{key: value for key, value in known.items() if key not in without}), (known, without)


def test_the_limits_of_one_number_against_all_others() -> None:
    """Samuelson 1968: |x - mean| is at most sd (n - 1) / sqrt(n), and the largest at least sd / sqrt(n) above."""
    for n in (2, 5, 10):
        low, high = 0.1 + 1 / math.sqrt(n), 0.1 + (n - 1) / math.sqrt(n)
        exact = {"mean": 0.1 + 1e-13, "sd": 1 + 1e-13, "n": n}
        assert possible(**exact, largest=low + 1e-9) and possible(**exact, largest=high - 1e-9)
        assert not possible(**exact, largest=low - 1e-3) and not possible(**exact, largest=high + 1e-3)


@pytest.mark.parametrize("n, positive, largest", [(4, 2, 3.0), (4, 3, 2.0), (4, 1, 4.0), (5, 4, 1.5), (3, 3, 2.0)])
def test_what_is_possible_is_what_an_optimiser_finds(n: int, positive: int, largest: float) -> None:
    """The least and greatest standard deviation at a mean, searched for from many starts."""
    draws, mean = np.random.default_rng(1), 0.800000000001
    bounds = [(largest, largest)] + [(0.0, largest)] * (positive - 1) + [(-20.0, 0.0)] * (n - positive)

    def sd(x: np.ndarray, sign: float) -> float:
        return sign * float(np.std(x, ddof=1))

    sums = {"type": "eq", "fun": lambda x: x.mean() - mean}
    found = []
    for sign in (1.0, -1.0):
        starts = [
            np.array([draws.uniform(*bound) if bound[0] < bound[1] else bound[0] for bound in bounds])
            for _ in range(30)
        ]
        done = [minimize(sd, start, (sign,), "SLSQP", bounds=bounds, constraints=sums) for start in starts]
        found.append(sign * min(end.fun for end in done if end.success and abs(end.x.mean() - mean) < 1e-6))
    least, greatest = found
    known = {"mean": mean, "n": n, "positive": positive, "largest": largest + 1e-12}
    for inside in (least + 1e-3, greatest - 1e-3):
        assert possible(sd=inside + 1e-13, **known)
    for outside in (least - 1e-2, greatest + 1e-2):
        assert outside < 0 or not possible(sd=outside + 1e-13, **known)


def test_a_printed_number_may_have_been_a_little_else() -> None:
    assert (
        rounded(19.55) == pytest.approx((19.545, 19.555))
        and rounded(3.0) == (2.5, 3.5)
        and rounded(200) == (199.5, 200.5)
    )
    # with nine wins of ten it takes the rounding of both
    assert possible(3.0, 1.0, 10, positive=9) and not possible(3.001, 1.001, 10, positive=9)
