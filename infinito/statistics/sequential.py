"""Looking at the data before all pairs are run, without paying for it in false positives.

A plain t-test after every pair from 5 to 50, stopped at the first p < .05, finds a difference between equal arms in
27 % of experiments. Two honest ways, one of them chosen before the first run: a few planned looks with smaller levels
(`obrien_fleming`), or a look whenever one likes with an e-value (`log_e_value`).
"""

import functools
import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, stats

from infinito.statistics.paired import Array, paired_t

Design = Sequence[int] | Literal["anytime"]

QUADRATURE_NODES = 400
FIRST_ANYTIME_LOOK = 5  # with fewer pairs not even differences that are all the same reject at 5 %


class Look(NamedTuple):
    """What a look at the first n of the planned pairs shows; lengths in the unit of the differences."""

    kind: Literal["obrien-fleming", "anytime"]
    number: int | None  # of this look, from 1; None for anytime, as are looks and level
    looks: int | None  # planned looks
    n: int
    planned: int  # pairs at most
    alpha: float  # chance of ever rejecting while there is no difference
    level: float | None  # two-sided level of the t-test at this look
    p_value: float  # of the t-test, to be compared with the level; anytime: min(1, 1 / e), to be compared with alpha
    e_value: float | None  # anytime only
    ci_low: float | None  # None: nothing can be excluded yet
    ci_high: float | None
    stop: bool  # the interval excludes 0: reject, and run no more


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


@functools.cache
def anytime_level(n: int, g: float = 1.0, alpha: float = 0.05) -> float:
    """Two-sided level of the t-test with n pairs that rejects when the e-value reaches 1 / alpha; 0: it cannot."""
    ratio = math.exp((0.5 * math.log1p(n * g) - math.log(alpha)) * 2 / n)
    if ratio >= 1 + n * g:
        return 0.0
    return float(2 * stats.t.sf(math.sqrt((ratio - 1) / (1 - ratio / (1 + n * g)) * (n - 1)), n - 1))


def anytime_interval(d: ArrayLike, g: float = 1.0, alpha: float = 0.05) -> tuple[Array, Array]:
    """Confidence sequence of the mean of d [..., n]: all means whose e-value is below 1 / alpha, valid at any stop.

    Returns:
        (low, high), arrays [...]; infinite while n is too small to exclude anything.
    """
    d = np.asarray(d, float)
    level = anytime_level(d.shape[-1], g, alpha)
    if level == 0:
        return np.full(d.shape[:-1], -np.inf), np.full(d.shape[:-1], np.inf)
    test = paired_t(d, level)
    return test.ci_low, test.ci_high


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


_levels = functools.cache(obrien_fleming)


def _planned(design: Design, pairs: int, n: int) -> tuple[int, ...] | None:
    """The planned looks, None for anytime, after a check of n pairs against the plan."""
    looks = None if design == "anytime" else tuple(design)
    if looks is not None and (isinstance(design, str) or not looks or looks[0] < 2 or looks[-1] != pairs):
        raise ValueError(f"found looks {design}: allowed are rising numbers of pairs from 2 to {pairs}, or anytime")
    if n > pairs:
        raise ValueError(f"found {n} pairs: allowed are at most the {pairs} planned")
    return looks


def look(d: ArrayLike, *, design: Design, pairs: int, alpha: float = 0.05) -> Look:
    """The test at one look, and an interval that stays honest however often one looks and whenever one stops.

    Args:
        d: differences [n] of the pairs that have run. A look judges all of them, so their order is irrelevant here; in
            the plan it is not: they must be the first n that were planned, not a choice of them.
        design: the planned numbers of pairs, rising, the last one `pairs` (O'Brien & Fleming); or "anytime".
        pairs: pairs that are run at most.
        alpha: chance of ever rejecting while there is no difference.

    Returns:
        Look. Its interval is the repeated confidence interval (confidence 1 - level) or the confidence sequence
        (1 - alpha): with a probability of about 1 - alpha the intervals of all looks hold the true mean.

    Raises:
        ValueError: n is no planned look, or below 5 for anytime, or above `pairs`; looks that do not end at `pairs`.
    """
    d = np.asarray(d, float)
    n = len(d)
    looks = _planned(design, pairs, n)
    if looks is None:
        if n < FIRST_ANYTIME_LOOK:
            raise ValueError(f"found {n} pairs: allowed are looks at {FIRST_ANYTIME_LOOK} pairs or more")
        log_e = float(log_e_value(d))
        low, high = (float(x) for x in anytime_interval(d, alpha=alpha))
        e, p, number, level = math.exp(min(log_e, 700.0)), math.exp(-max(log_e, 0.0)), None, None
    else:
        levels = _levels(looks, alpha)
        if n not in looks:
            raise ValueError(f"found {n} pairs: allowed are the planned looks at {', '.join(map(str, looks))} pairs")
        number = looks.index(n) + 1
        level = levels[number - 1]
        test = paired_t(d, level)
        e, p, low, high = None, float(test.p), float(test.ci_low), float(test.ci_high)
    return Look(
        kind="anytime" if looks is None else "obrien-fleming",
        number=number,
        looks=None if looks is None else len(looks),
        n=n,
        planned=pairs,
        alpha=alpha,
        level=level,
        p_value=p,
        e_value=e,
        ci_low=low if math.isfinite(low) else None,
        ci_high=high if math.isfinite(high) else None,
        stop=low > 0 or high < 0,
    )


def stopped(d: ArrayLike, *, design: Design, pairs: int, alpha: float = 0.05) -> Look:
    """The first look at which to stop, else the last one that was reached. Pairs after the stop do not count.

    Args:
        d: differences [n] in the order in which the pairs were planned to run, which decides where it stops.
        design, pairs, alpha: as in `look`; anytime looks after every pair from 5 on.

    Raises:
        ValueError: as `look`, or n is below the first look.
    """
    d = np.asarray(d, float)
    looks = _planned(design, pairs, len(d)) or range(FIRST_ANYTIME_LOOK, pairs + 1)
    if len(d) < looks[0]:
        raise ValueError(f"found {len(d)} pairs: the first look is at {looks[0]}")
    for n in looks:
        if n <= len(d):
            result = look(d[:n], design=design, pairs=pairs, alpha=alpha)
            if result.stop:
                break
    return result
