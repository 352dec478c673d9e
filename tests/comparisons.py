"""Paired losses to compare, and results to hold against one another."""

import numpy as np
import pytest
from hypothesis import strategies as st

from infinito.tasks import Metric

NATS = Metric("loss", "nats per token", "lower", guess=2.0)
SHARE = Metric("accuracy", "share of images", "higher", guess=0.1, bounds=(0, 1))

BASELINE = [2.412, 2.398, 2.455, 2.371, 2.43, 2.407, 2.389, 2.441, 2.42, 2.366]
CANDIDATE = [2.385, 2.401, 2.42, 2.352, 2.433, 2.371, 2.38, 2.402, 2.397, 2.374]

# multiples of 1/64 are added and subtracted without rounding, so the laws hold exactly and ties stay ties;
# of 11 to 13 pairs with ties scipy's Wilcoxon test tries all 2^n signs one by one, as of fewer pairs, but for seconds
SIZES = [*range(2, 11), *range(14, 21)]
LOSSES = st.sampled_from(SIZES).flatmap(
    lambda n: st.tuples(*[st.lists(st.integers(1, 256).map(lambda x: x / 64), min_size=n, max_size=n)] * 2)
)


def with_mean_and_sd(mean: float, sd: float, n: int) -> np.ndarray:
    x = np.arange(n, dtype=float)
    return mean + sd * (x - x.mean()) / x.std(ddof=1)


def strings_and_numbers(x):
    """Leaves of a result as {path: value}."""
    if isinstance(x, dict):
        return {f"{key}.{path}": leaf for key, value in x.items() for path, leaf in strings_and_numbers(value).items()}
    return {"": x}


def assert_same(got, expected, rel=1e-6):
    got, expected = strings_and_numbers(got), strings_and_numbers(expected)
    assert got.keys() == expected.keys()
    for key, value in expected.items():
        assert got[key] == (pytest.approx(value, rel=rel, abs=rel * 1e-3) if isinstance(value, float) else value), key


def negated(x):
    return x and {"value": minus(x["value"]), "ci_low": minus(x["ci_high"]), "ci_high": minus(x["ci_low"]), "n": x["n"]}


def minus(x):
    return None if x is None else -x
