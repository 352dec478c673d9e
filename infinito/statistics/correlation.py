"""Can the winners be told early? Rank correlations between a cheap proxy and the final loss of init seeds.

One row is what the proxy can vary with: a proxy that knows only the init seed has I rows, to be compared with the mean
loss of each init seed. Comparing it with all I x J cells of a grid counts every seed J times and rejects a true null
hypothesis in 33 % of 10 x 10 grids.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from infinito.statistics.paired import Array


class Correlation(NamedTuple):
    """Rank correlation, one entry per experiment."""

    rho: Array
    p: Array
    ci_low: Array
    ci_high: Array


def spearman(x: ArrayLike, y: ArrayLike, alpha: float = 0.05) -> Correlation:
    """Spearman's rank correlation (1904) with the interval of Bonett & Wright (2000).

    Args:
        x, y: proxy and target [..., n], n >= 4.
        alpha: 1 - confidence.

    Returns:
        Correlation of arrays [...]; p is two-sided, by the t approximation.

    Raises:
        ValueError: fewer than 4 rows, different shapes, or a constant x or y.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    n = x.shape[-1]
    if x.shape != y.shape or n < 4:
        raise ValueError(f"found shapes {x.shape} and {y.shape}: a rank correlation needs equal shapes and 4 rows")
    if (np.ptp(x, axis=-1) == 0).any() or (np.ptp(y, axis=-1) == 0).any():
        raise ValueError("found a constant: its ranks correlate with nothing")
    result = stats.pearsonr(stats.rankdata(x, axis=-1), stats.rankdata(y, axis=-1), axis=-1)
    rho = np.clip(result.statistic, -1, 1)
    reach = stats.norm.isf(alpha / 2) * np.sqrt((1 + rho**2 / 2) / (n - 3))
    with np.errstate(divide="ignore"):  # |rho| = 1 has the limits +-1
        z = np.arctanh(rho)
    return Correlation(rho, np.asarray(result.pvalue), np.tanh(z - reach), np.tanh(z + reach))


def kendall(x: ArrayLike, y: ArrayLike) -> float:
    """Kendall's tau-b (1945) of x, y [n]; nan if one of them is constant."""
    tau = float(stats.kendalltau(x, y).statistic)
    return tau if math.isfinite(tau) else math.nan
