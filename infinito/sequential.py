"""Looking at the data before all pairs are run, without paying for it in false positives.

A plain t-test after every pair from 5 to 50, stopped at the first p < .05, finds a difference between equal arms in
27 % of experiments. Two honest ways, one of them chosen before the first run: a few planned looks with smaller levels
(`obrien_fleming`), or a look whenever one likes with an e-value (`log_e_value`).
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, stats

from infinito.compare import Array, paired_t

QUADRATURE_NODES = 400


def log_e_value(d: ArrayLike, g: float = 1.0) -> Array:
    """Natural logarithm of the e-value of "the mean is 0" against a mean / sd spread as Normal(0, g).

    The right-Haar mixture of the t statistic (Wang & Ramdas 2024; Grunwald, de Heide & Koolen 2024). One may stop at
    any time: under the null hypothesis the e-value ever reaches 1 / alpha with a probability of at most alpha.

    Args:
        d: paired differences [..., n], n >= 2, in the order in which they came in.
        g: variance of the expected effect sizes.

    Returns:
        [...]; reject at level alpha as soon as it is >= ln(1 / alpha), 2.996 at 5 %.
    """
    d = np.asarray(d, float)
    n = d.shape[-1]
    total = (d**2).sum(-1)
    explained = n * d.mean(-1) ** 2 * n * g / (1 + n * g)
    # (1 + t^2/v) / (1 + t^2/((1 + ng) v)), written without a division by a variance that may be 0
    ratio = np.where(total > 0, total / np.where(total > 0, total - explained, 1.0), 1.0)
    return n / 2 * np.log(ratio) - 0.5 * math.log1p(n * g)


def anytime_interval(d: ArrayLike, g: float = 1.0, alpha: float = 0.05) -> tuple[Array, Array]:
    """Confidence sequence of the mean of d [..., n]: all means whose e-value is below 1 / alpha, valid at any stop.

    Returns:
        (low, high), arrays [...]; infinite while n is too small to exclude anything.
    """
    test = paired_t(d)
    n = test.df + 1
    ratio = math.exp((0.5 * math.log1p(n * g) - math.log(alpha)) * 2 / n)
    if ratio >= 1 + n * g:
        return np.full_like(test.mean, -np.inf), np.full_like(test.mean, np.inf)
    reach = math.sqrt((ratio - 1) / (1 - ratio / (1 + n * g)) * test.df / n) * test.sd
    return test.mean - reach, test.mean + reach


def _excess(bound: float, place: Array, mass: Array, sd: float, spend: float) -> float:
    """How much more than `spend` of the mass steps outside +-bound when it moves by Normal(0, sd^2)."""
    return float(mass @ (stats.norm.sf((bound - place) / sd) + stats.norm.cdf((-bound - place) / sd)) - spend)


def obrien_fleming(looks: Sequence[int], alpha: float = 0.05) -> list[float]:
    """Levels of planned looks that spend alpha as O'Brien & Fleming: almost nothing early (Lan & DeMets 1983).

    Stop and reject at the first look whose two-sided p is below its level; the interval to report then is the ordinary
    one with confidence 1 - that level (repeated confidence interval, Jennison & Turnbull 1989).

    Args:
        looks: number of pairs at each planned look, ascending; the last one is the planned end.

    Returns:
        two-sided level of each look.

    Raises:
        ValueError: looks are not positive and ascending.
    """
    if not looks or looks[0] < 1 or any(later <= earlier for earlier, later in zip(looks, looks[1:], strict=False)):
        raise ValueError(f"found looks {list(looks)}: they must be positive and ascending")
    time = np.array(looks) / looks[-1]
    spent = 4 * stats.norm.sf(stats.norm.isf(alpha / 4) / np.sqrt(time))
    nodes, weights = np.polynomial.legendre.leggauss(QUADRATURE_NODES)
    levels = []
    place, mass = np.zeros(1), np.ones(1)  # the Brownian motion that has not stopped yet, as weighted points
    for step, now, spend in zip(np.diff(time, prepend=0), time, np.diff(spent, prepend=0), strict=True):
        sd = math.sqrt(step)
        bound = optimize.brentq(_excess, 0, 20, args=(place, mass, sd, spend), xtol=1e-12)
        levels.append(float(2 * stats.norm.sf(bound / math.sqrt(now))))
        density = stats.norm.pdf(nodes[:, None] * bound, place, sd) @ mass
        place, mass = nodes * bound, weights * bound * density
    return levels
