"""Differences over the folds of a cross-validation, which are not independent: they share training examples."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from infinito.statistics.paired import ratio_to_error


class Corrected(NamedTuple):
    """The corrected resampled t-test; lengths and means in the unit of the data."""

    mean: float
    t: float
    df: int
    p: float
    ci_low: float
    ci_high: float


def corrected_t(d: ArrayLike, folds: int, alpha: float = 0.05) -> Corrected:
    """Two-sided t-test of differences over folds (Nadeau & Bengio 2003, equation 9).

    The variance of their mean is that of a difference times 1 / n + n_test / n_train, which in a cross-validation of k
    folds is 1 / n + 1 / (k - 1).

    Args:
        d: differences [n], n >= 2, of those folds that both arms have.
        folds: k, those of the cross-validation, also where some of them failed.

    Raises:
        ValueError: fewer than 2 differences, or fewer folds than differences.
    """
    d = np.asarray(d, float)
    n = len(d)
    if not 2 <= n <= folds:
        raise ValueError(f"found {n} differences over {folds} folds: allowed are 2 to as many as there are folds")
    mean, sd = float(d.mean()), float(d.std(ddof=1)) if np.ptp(d) > 0 else 0.0
    se = sd * math.sqrt(1 / n + 1 / (folds - 1))
    t, reach = float(ratio_to_error(mean, se)), float(stats.t.isf(alpha / 2, n - 1)) * se
    return Corrected(mean, t, n - 1, float(2 * stats.t.sf(abs(t), n - 1)), mean - reach, mean + reach)
