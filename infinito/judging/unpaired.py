"""Two samples whose runs don't belong together: candidate [n] against baseline [m], positive = candidate better."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, special, stats

from infinito.statistics.paired import Array, Estimate, estimate, ratio_to_error


class Welch(NamedTuple):
    """Welch's t-test; lengths and means in the unit of the data."""

    mean: float  # difference
    se: float
    t: float
    df: float
    p: float
    ci_low: float
    ci_high: float


def _both(a: ArrayLike, b: ArrayLike) -> tuple[Array, Array]:
    a, b = np.asarray(a, float), np.asarray(b, float)
    for name, x in (("candidate", a), ("baseline", b)):
        if x.ndim != 1 or len(x) < 2:
            raise ValueError(f"found {x.size} runs of the {name}: a comparison needs at least 2 of each")
        if not np.isfinite(x).all():
            raise ValueError(f"found a figure of the {name} that is not finite")
    return a, b


def _variance(x: Array) -> float:
    return float(x.var(ddof=1)) if np.ptp(x) > 0 else 0.0  # the mean of equal numbers may be off by rounding


def welch(a: ArrayLike, b: ArrayLike, alpha: float = 0.05) -> Welch:
    """Two-sided t-test of two means, whatever their variances, and its interval (Welch 1947).

    Two samples without spread have p = 1 if they are equal, else p = 0.

    Raises:
        ValueError: fewer than 2 runs in an arm, or one that is not finite.
    """
    a, b = _both(a, b)
    parts = np.array([_variance(a) / len(a), _variance(b) / len(b)])
    se = math.sqrt(parts.sum())
    df = float(parts.sum() ** 2 / (parts**2 / [len(a) - 1, len(b) - 1]).sum()) if se else float(len(a) + len(b) - 2)
    mean = float(a.mean() - b.mean())
    t = float(ratio_to_error(mean, se))
    reach = float(stats.t.isf(alpha / 2, df)) * se
    return Welch(mean, se, t, df, float(2 * stats.t.sf(abs(t), df)), mean - reach, mean + reach)


def equivalence(a: ArrayLike, b: ArrayLike, smallest_effect: float) -> float:
    """p of two one-sided Welch tests of "the means differ by at least smallest_effect" (Schuirmann 1987)."""
    test = welch(a, b)
    lower, upper = (float(ratio_to_error(test.mean + sign * smallest_effect, test.se)) for sign in (1, -1))
    return float(max(stats.t.sf(lower, test.df), stats.t.cdf(upper, test.df)))


def effect_size(a: ArrayLike, b: ArrayLike, alpha: float = 0.05) -> tuple[Estimate, Estimate]:
    """Cohen's d, the difference by the root of the mean of both variances, and Hedges' g, its unbiased version.

    Both with the interval of Bonett (2008, equation 10), which lets the variances differ. None without any spread.
    """
    a, b = _both(a, b)
    n, variances, df = min(len(a), len(b)), [_variance(a), _variance(b)], [len(a) - 1, len(b) - 1]
    sd = math.sqrt(sum(variances) / 2)
    if sd == 0:
        nothing = estimate(math.nan, math.nan, math.nan, n)
        return nothing, nothing
    d = float(a.mean() - b.mean()) / sd
    error = d**2 * sum(v**2 / k for v, k in zip(variances, df, strict=True)) / (8 * sd**4)
    error += sum(v / k for v, k in zip(variances, df, strict=True)) / sd**2
    reach = float(stats.norm.isf(alpha / 2)) * math.sqrt(error)
    unbias = 1 - 3 / (4 * sum(df) - 1)
    return estimate(d, d - reach, d + reach, n), estimate(unbias * d, d - reach, d + reach, n)


def probability_of_improvement(a: ArrayLike, b: ArrayLike, alpha: float = 0.05) -> Estimate:
    """P(A > B) + P(A = B) / 2 of a run of each, with the interval of Brunner and Munzel (2000).

    Where all runs of one arm are above all of the other one nothing varies, and that interval would be a point: it is
    then what as many pairs as the smaller arm has runs would give (Clopper & Pearson 1934), which is wider.
    """
    a, b = _both(a, b)
    n, m = len(a), len(b)
    ranks = stats.rankdata(np.concatenate([a, b]))
    inside = stats.rankdata(a), stats.rankdata(b)
    above_b, above_a = ranks[:n] - inside[0], ranks[n:] - inside[1]
    p = float(above_b.mean() / m)
    if p in (0.0, 1.0):
        reach = (alpha / 2) ** (1 / min(n, m))
        return estimate(p, reach if p else 0.0, 1.0 if p else 1 - reach, min(n, m))
    parts = np.array([above_b.var(ddof=1) / m**2 / n, above_a.var(ddof=1) / n**2 / m])
    if parts.sum() == 0:
        return estimate(p, p, p, min(n, m))
    df = float(parts.sum() ** 2 / (parts**2 / [n - 1, m - 1]).sum())
    reach = float(stats.t.isf(alpha / 2, df)) * math.sqrt(parts.sum())
    return estimate(p, max(0.0, p - reach), min(1.0, p + reach), min(n, m))


def mann_whitney(a: ArrayLike, b: ArrayLike) -> float:
    """p of the rank test of Mann and Whitney (1947): exact for few runs without ties."""
    a, b = _both(a, b)
    return float(stats.mannwhitneyu(a, b).pvalue) if np.ptp(np.concatenate([a, b])) > 0 else 1.0


def runs_needed(effect: float, power: float = 0.8, alpha: float = 0.05) -> int | None:
    """Runs of each arm with which a true difference of `effect` mean standard deviations is found; None for 0."""
    if effect == 0:
        return None

    def lacking(n: float) -> float:
        df, shift = 2 * n - 2, abs(effect) * math.sqrt(n / 2)
        critical = float(stats.t.isf(alpha / 2, df))
        if critical > 1000 or shift > 1000:
            return power - float(special.ndtr(shift - critical))
        found = (
            1 - float(special.nctdtr(df, shift, critical)) + float(np.nan_to_num(stats.nct.cdf(-critical, df, shift)))
        )
        return power - found

    if lacking(2) <= 0:
        return 2
    most = 4.0
    while lacking(most) > 0:
        most *= 2
        if most > 1e9:
            return None
    return math.ceil(optimize.brentq(lacking, most / 2, most))
