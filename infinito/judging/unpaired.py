"""Statistics of two independent samples, as pure functions: runs of two arms that do not belong together in pairs.

Everywhere a [n] are the runs of the candidate and b [m] those of the baseline, signed such that a larger number is
better: a positive difference says that the candidate is better. Nothing depends on the order of the runs. The n of an
estimate is that of the smaller arm.
"""

import functools
import itertools
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

from infinito.statistics.paired import Array, Estimate, estimate, over_spread, ratio_to_error

EXACT_RANK_RUNS = 16
LARGEST_SEARCH = 1e6


class Welch(NamedTuple):
    """Welch's t-test of the difference of two means against 0; means and lengths in the unit of the data."""

    mean: float
    se: float
    t: float
    df: float
    p: float
    ci_low: float
    ci_high: float


class Equivalence(NamedTuple):
    """Two one-sided Welch tests; the interval has confidence 1 - 2 alpha."""

    t_lower: float
    p_lower: float
    t_upper: float
    p_upper: float
    p: float
    ci_low: float
    ci_high: float


def _sorted(a: ArrayLike, b: ArrayLike, least: int) -> tuple[Array, Array]:
    """Both samples in order of size, so that sums have the same bits whatever the order of the runs was.

    Raises:
        ValueError: an arm has fewer runs than `least`, or a number that is not finite.
    """
    both = np.asarray(a, float), np.asarray(b, float)
    for name, x in zip(("candidate", "baseline"), both, strict=True):
        if x.ndim != 1 or len(x) < least:
            raise ValueError(f"found {x.size} runs of the {name}, shape {x.shape}: at least {least} in one row needed")
        if not np.isfinite(x).all():
            raise ValueError(f"found {np.sum(~np.isfinite(x))} runs of the {name} that are not finite")
    return np.sort(both[0]), np.sort(both[1])


def _sd(x: Array) -> float:
    return float(x.std(ddof=1)) if np.ptp(x) > 0 else 0.0  # the mean of equal numbers may be off by rounding


def _error(sd_a: float, n: int, sd_b: float, m: int) -> tuple[float, float]:
    """Standard error of the difference of two means and its degrees of freedom (Welch 1938; Satterthwaite 1946)."""
    part_a, part_b = sd_a / math.sqrt(n), sd_b / math.sqrt(m)
    se = math.hypot(part_a, part_b)
    if se == 0:
        return 0.0, float(n + m - 2)
    return se, 1 / ((part_a / se) ** 4 / (n - 1) + (part_b / se) ** 4 / (m - 1))


def welch(a: ArrayLike, b: ArrayLike, alpha: float = 0.05) -> Welch:
    """Two-sided t-test of two means whose variances may differ, and its confidence interval (Welch 1938, 1947).

    Args:
        a, b: runs [n] and [m], n and m >= 2.
        alpha: 1 - confidence.

    Returns:
        Welch. Two arms without any spread: df = n + m - 2, p = 1 if they are equal, else p = 0.

    Raises:
        ValueError: an arm has one run, which has no spread, or a number that is not finite.
    """
    a, b = _sorted(a, b, 2)
    mean = float(a.mean() - b.mean())
    se, df = _error(_sd(a), len(a), _sd(b), len(b))
    if se == 0:
        mean = float(a[0] - b[0])
    t = float(ratio_to_error(mean, se))
    reach = float(stats.t.isf(alpha / 2, df)) * se
    return Welch(mean, se, t, df, float(2 * stats.t.sf(abs(t), df)), mean - reach, mean + reach)


def mean_difference(a: ArrayLike, b: ArrayLike, alpha: float = 0.05) -> Estimate:
    """Mean of a [n] - mean of b [m] with Welch's interval; with one run in an arm or alpha = 0 the interval is None."""
    a, b = _sorted(a, b, 1)
    n = min(len(a), len(b))
    if n < 2 or alpha == 0:
        return estimate(float(a.mean() - b.mean()), math.nan, math.nan, n)
    test = welch(a, b, alpha)
    return estimate(test.mean, test.ci_low, test.ci_high, n)


def tost(a: ArrayLike, b: ArrayLike, smallest_effect: float, alpha: float = 0.05) -> Equivalence:
    """Two one-sided Welch tests of "the means differ by at least smallest_effect" (Schuirmann 1987; Dannenberg 1994).

    Args:
        a, b: runs [n] and [m], n and m >= 2.
        smallest_effect: the smallest difference that matters, in the unit of the data, > 0.
        alpha: level of each of the two tests.

    Returns:
        Equivalence; p < alpha says that the difference of the means lies inside +-smallest_effect.
    """
    test = welch(a, b, 2 * alpha)
    t_lower = float(ratio_to_error(test.mean + smallest_effect, test.se))
    t_upper = float(ratio_to_error(test.mean - smallest_effect, test.se))
    p_lower, p_upper = float(stats.t.sf(t_lower, test.df)), float(stats.t.cdf(t_upper, test.df))
    return Equivalence(t_lower, p_lower, t_upper, p_upper, max(p_lower, p_upper), test.ci_low, test.ci_high)


def effect_size(a: ArrayLike, b: ArrayLike, alpha: float = 0.05) -> tuple[Estimate, Estimate]:
    """Standardised difference of two arms: d = difference / s and Hedges' g, its unbiased version.

    s is the root of the mean of the two variances, not of the pooled one: the size of the arms does not matter, and it
    goes with Welch's test (Delacre et al. 2021, there d*_s and g*_s). Its degrees of freedom are those of Huynh (1989).
    Both carry the same interval, from inverting the noncentral t distribution.

    Args:
        a, b: runs [n] and [m], n and m >= 2.

    Returns:
        (d, g); a value is None where it does not exist (no spread in either arm; g at 1 degree of freedom).
    """
    a, b = _sorted(a, b, 2)
    test, n, m = welch(a, b), len(a), len(b)
    if test.se == 0:
        nothing = estimate(math.nan, math.nan, math.nan, min(n, m))
        return nothing, nothing
    sd_a, sd_b = _sd(a), _sd(b)
    s = math.hypot(sd_a, sd_b) / math.sqrt(2)
    df = 4 / ((sd_a / s) ** 4 / (n - 1) + (sd_b / s) ** 4 / (m - 1))
    d = test.mean / s
    if abs(test.t) < 1000:
        limits = (float(special.nctdtrinc(df, p, test.t)) for p in (1 - alpha / 2, alpha / 2))
    else:  # the inversion takes forever, and all that is uncertain is the standard deviation
        limits = (test.t * math.sqrt(x / df) for x in stats.chi2.ppf([alpha / 2, 1 - alpha / 2], df))
    low, high = sorted(x * test.se / s for x in limits)
    unbias = math.nan
    if df > 1 + 1e-9:
        unbias = math.sqrt(2 / df) * math.exp(special.gammaln(df / 2) - special.gammaln((df - 1) / 2))
    return estimate(d, low, high, min(n, m)), estimate(unbias * d, low, high, min(n, m))


def brunner_munzel(a: ArrayLike, b: ArrayLike) -> tuple[float, float, float]:
    """P(A > B) + P(A = B) / 2 with its standard error and degrees of freedom (Brunner & Munzel 2000).

    It is Welch's formula, applied to the share of the other arm that each run is above.

    Args:
        a, b: runs [n] and [m], n and m >= 2.

    Returns:
        (estimate, standard error, degrees of freedom); the standard error is 0 where nothing overlaps or all is tied.
    """
    a, b = _sorted(a, b, 2)
    n, m = len(a), len(b)
    ranks = stats.rankdata(np.concatenate([a, b]))
    above_b, above_a = (ranks[:n] - stats.rankdata(a)) / m, (ranks[n:] - stats.rankdata(b)) / n
    return float(above_b.mean()), *_error(_sd(above_b), n, _sd(above_a), m)


def probability_of_improvement(a: ArrayLike, b: ArrayLike, alpha: float = 0.05) -> Estimate:
    """P(A > B) + P(A = B) / 2, the chance that a run of the candidate beats one of the baseline; a tie is half a win.

    The interval is that of Brunner & Munzel (2000) on the scale of log odds (Pauly et al. 2016), so that it stays
    between 0 and 1. Where all runs of one arm are above all of the other their formula says that nothing is uncertain.
    What is certain is this: k = min(n, m) pairs of runs without a run in common are independent, all k were won, and
    that happens with probability at most P^k. So P is at least (alpha / 2)^(1 / k), the limit of Clopper & Pearson
    (1934) for k of k wins, and no arms without overlap can promise more. Likewise where all runs are equal. Arms that
    overlap get no limit nearer to the end than that either.

    Args:
        a, b: runs [n] and [m].

    Returns:
        estimate; with one run in an arm the interval is None.
    """
    a, b = _sorted(a, b, 1)
    k = min(len(a), len(b))
    if k < 2:
        wins = np.sign(a[:, None] - b)
        return estimate(float((1 + wins.mean()) / 2), math.nan, math.nan, k)
    value, se, df = brunner_munzel(a, b)
    certain = (alpha / 2) ** (1 / k)
    if se == 0:
        low, high = {0.0: (0.0, 1 - certain), 1.0: (certain, 1.0)}.get(value, (certain / 2, 1 - certain / 2))
        return estimate(value, low, high, k)
    reach = float(stats.t.isf(alpha / 2, df)) * se / (value * (1 - value))
    low, high = (float(special.expit(special.logit(value) + side * reach)) for side in (-1, 1))
    return estimate(value, min(low, certain), max(high, 1 - certain), k)


def mann_whitney(a: ArrayLike, b: ArrayLike) -> float:
    """Two-sided p of the rank test of "both arms have the same distribution" (Mann & Whitney 1947).

    Exact up to 8 runs in an arm without ties, and up to 16 runs in all with ties, over all ways to split them; else by
    the normal approximation, corrected for ties. Without any difference p = 1.

    Args:
        a, b: runs [n] and [m], n and m >= 1.
    """
    a, b = _sorted(a, b, 1)
    both = np.concatenate([a, b])
    distinct = len(np.unique(both))
    if distinct == 1:
        return 1.0
    if distinct < len(both) <= EXACT_RANK_RUNS:  # the approximation promises .047 for 3 against 3, of 20 splits
        ranks = stats.rankdata(both)
        sums, observed = ranks[_splits(len(both), len(a))].sum(1), ranks[: len(a)].sum()  # halves: no rounding
        return min(1.0, 2 * float(min((sums <= observed).mean(), (sums >= observed).mean())))
    return float(stats.mannwhitneyu(a, b, alternative="two-sided", method="auto").pvalue)


@functools.cache
def _splits(runs: int, of_them: int) -> NDArray[np.int8]:
    return np.array(list(itertools.combinations(range(runs), of_them)), np.int8)


def two_sample_power(effect: float, n: int, alpha: float = 0.05) -> float:
    """Chance that a two-sided t-test with n runs in each arm finds a true difference of `effect` standard deviations.

    For arms with the same variance, by quadrature over the spread of the sample. Welch's test is weaker below 5 runs.
    """
    shift, df = abs(effect) * math.sqrt(n / 2), 2 * n - 2
    critical = stats.t.isf(alpha / 2, df)
    rejected = over_spread(lambda s: special.ndtr(shift - critical * s) + special.ndtr(-shift - critical * s), df)
    return min(rejected, 1.0)


def runs_needed(effect: float, power: float = 0.8, alpha: float = 0.05) -> int:
    """Fewest runs of each arm, >= 2, that find a true difference of `effect` standard deviations with this `power`.

    Raises:
        ValueError: the effect is 0.
    """
    if effect == 0:
        raise ValueError("found effect 0: no number of runs can show an effect of 0")
    z = stats.norm.isf(alpha / 2)
    normal = 2 * ((z + stats.norm.ppf(power)) / effect) ** 2 + z**2 / 4  # of so many runs t is normal
    if normal > LARGEST_SEARCH:
        return math.ceil(normal)
    too_few, enough = 1, 2
    while two_sample_power(effect, enough, alpha) < power:
        too_few, enough = enough, 2 * enough
    while enough - too_few > 1:
        middle = (enough + too_few) // 2
        reached = two_sample_power(effect, middle, alpha) >= power
        too_few, enough = (too_few, middle) if reached else (middle, enough)
    return enough


def further_runs(a: ArrayLike, b: ArrayLike, power: float = 0.8, alpha: float = 0.05) -> int | None:
    """Further runs that the smaller arm needs, the other up to the same number, if the truth is what was seen.

    Args:
        a, b: runs [n] and [m], n and m >= 2.

    Returns:
        `runs_needed` of their d less min(n, m), at least 0; None where the means are equal.
    """
    test = welch(a, b)
    if test.mean == 0:
        return None
    d = effect_size(a, b)[0]
    needed = 2 if d["value"] is None else runs_needed(float(d["value"]), power, alpha)
    return max(0, needed - int(d["n"] or 0))
