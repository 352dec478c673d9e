"""Rank correlations: other software and bad input."""

import math

import numpy as np
import pytest
from scipy import stats

from infinito.statistics.correlation import kendall, spearman


def test_spearman_is_that_of_scipy_with_ties_too():
    x, y = np.random.default_rng(0).integers(0, 6, (2, 4, 12)).astype(float)
    result = spearman(x, y)
    for row in range(4):
        reference = stats.spearmanr(x[row], y[row])
        assert result.rho[row] == pytest.approx(reference.statistic)
        assert result.p[row] == pytest.approx(reference.pvalue, rel=1e-6)
        assert result.ci_low[row] < result.rho[row] < result.ci_high[row]


def test_only_ranks_count():
    x, y = np.random.default_rng(1).standard_normal((2, 9))
    assert float(spearman(np.exp(x), y**3).rho) == pytest.approx(float(spearman(x, y).rho))
    assert float(spearman(-x, y).rho) == pytest.approx(-float(spearman(x, y).rho))


def test_perfect_agreement():
    result = spearman([1, 2, 3, 4, 5], [2, 3, 5, 8, 9])
    assert [float(x) for x in (result.rho, result.ci_high)] == pytest.approx([1, 1])
    assert float(result.p) == pytest.approx(0, abs=1e-9)
    assert kendall([1, 2, 3], [1, 2, 3]) == 1 and kendall([1, 2, 3, 4], [2, 1, 4, 3]) == pytest.approx(1 / 3)
    assert math.isnan(kendall([1, 1, 1], [1, 2, 3]))


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [([1, 2, 3], [1, 2, 3], "4 rows"), ([1, 2, 3, 4], [1, 2, 3], "shapes"), ([1] * 5, range(5), "constant")],
)
def test_bad_input_is_one_clear_line(x, y, message):
    with pytest.raises(ValueError, match=message):
        spearman(list(x), list(y))
