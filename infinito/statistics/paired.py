"""Statistics of paired differences, as pure functions.

The unit is the *pair*: one run of each arm that share a fresh init seed and a fresh data seed. Everywhere here

    d = loss of the baseline - loss of the candidate, in the unit of the metric,

so a positive difference says that the candidate is better. Pairs are the last axis; axes before it, where a docstring
allows them, are independent experiments. The pairs are independent of one another, so the paired t-test is exact for
normal differences.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import integrate, optimize, special, stats

Array = NDArray[np.float64]
Estimate = dict[str, float | int | None]

EXACT_SIGN_FLIP_PAIRS = 16
RESAMPLES = 9999


class TTest(NamedTuple):
    """One-sample t-test of a mean against 0, one entry per experiment; lengths and means in the unit of the data."""

    mean: Array
    sd: Array
    t: Array
    df: int
    p: Array
    ci_low: Array
    ci_high: Array


class Equivalence(NamedTuple):
    """Two one-sided t-tests, one entry per experiment; the interval has confidence 1 - 2 alpha."""

    t_lower: Array
    p_lower: Array
    t_upper: Array
    p_upper: Array
    p: Array
    ci_low: Array
    ci_high: Array


def estimate(value: float, ci_low: float, ci_high: float, n: int) -> Estimate:
    """An estimate as plain numbers, ready for JSON; what is infinite or undefined becomes None."""
    low, middle, high = (float(x) if math.isfinite(x) else None for x in (ci_low, value, ci_high))
    return {"value": middle, "ci_low": low, "ci_high": high, "n": int(n)}


def ratio_to_error(mean: ArrayLike, se: ArrayLike) -> Array:
    """mean / se, with 0 / 0 = 0 and x / 0 = +-inf: identical data are no error, they are no evidence or all of it."""
    mean, se = np.asarray(mean, float), np.asarray(se, float)
    exact = np.where(mean == 0, 0.0, np.copysign(np.inf, mean))
    return np.where(se > 0, mean / np.where(se > 0, se, 1.0), exact)


def paired_t(d: ArrayLike, alpha: float = 0.05) -> TTest:
    """Two-sided paired t-test and its confidence interval (Student 1908).

    Args:
        d: differences [..., n], n >= 2.
        alpha: 1 - confidence.

    Returns:
        TTest of arrays [...]. Identical differences have sd 0: p = 1 if they are 0, else p = 0.
    """
    d = np.asarray(d, float)
    n = d.shape[-1]
    mean = d.mean(-1)
    sd = np.where(np.ptp(d, axis=-1) > 0, d.std(-1, ddof=1), 0.0)  # the mean of equal numbers may be off by rounding
    se = sd / math.sqrt(n)
    t = ratio_to_error(mean, se)
    reach = stats.t.isf(alpha / 2, n - 1) * se
    return TTest(mean, sd, t, n - 1, 2 * stats.t.sf(np.abs(t), n - 1), mean - reach, mean + reach)


def mean_estimate(x: ArrayLike, alpha: float = 0.05) -> Estimate:
    """Mean of x [n] with its t interval; with n = 1 or alpha = 0 the interval is None."""
    x = np.asarray(x, float)
    if len(x) < 2 or alpha == 0:
        return estimate(x.mean(), math.nan, math.nan, len(x))
    test = paired_t(x, alpha)
    return estimate(float(test.mean), float(test.ci_low), float(test.ci_high), len(x))


def effect_size(d: ArrayLike, alpha: float = 0.05) -> tuple[Estimate, Estimate]:
    """Standardised mean difference of pairs: Cohen's dz = mean / sd and Hedges' gz, its unbiased version.

    Both carry the same interval for the true mean / sd, from inverting the noncentral t distribution (Hedges 1981;
    Cumming & Finch 2001).

    Args:
        d: differences [n], n >= 2.

    Returns:
        (dz, gz); a value is None where it does not exist (sd 0; gz for n = 2).
    """
    test = paired_t(d, alpha)
    n = test.df + 1
    if test.sd == 0:
        nothing = estimate(math.nan, math.nan, math.nan, n)
        return nothing, nothing
    dz = float(test.mean / test.sd)
    if abs(test.t) < 1000:
        limits = (special.nctdtrinc(test.df, p, test.t) for p in (1 - alpha / 2, alpha / 2))
    else:  # the inversion takes forever, and all that is uncertain is the standard deviation
        limits = (test.t * np.sqrt(x / test.df) for x in stats.chi2.ppf([alpha / 2, 1 - alpha / 2], test.df))
    low, high = sorted(float(x) / math.sqrt(n) for x in limits)
    if n == 2:
        return estimate(dz, low, high, n), estimate(math.nan, low, high, n)
    unbias = math.sqrt(2 / test.df) * math.exp(special.gammaln(test.df / 2) - special.gammaln((test.df - 1) / 2))
    return estimate(dz, low, high, n), estimate(unbias * dz, low, high, n)


def _signs(n: int, rng: np.random.Generator) -> tuple[Array, bool]:
    """Sign vectors [B, n] and whether they are all there are (one of each mirrored couple) or random draws."""
    if n <= EXACT_SIGN_FLIP_PAIRS:
        codes = np.arange(2 ** (n - 1))[:, None]
        return np.where(codes >> np.arange(n) & 1, -1.0, 1.0), True
    return rng.choice([-1.0, 1.0], size=(RESAMPLES, n)), False


def sign_flip(d: ArrayLike, *, rng: np.random.Generator) -> Array:
    """Two-sided sign-flip permutation test of "d is symmetric about 0" (Fisher 1935).

    Exact (all 2^n flips) up to 16 pairs, else 9999 random flips and p = (b + 1) / (B + 1) (Phipson & Smyth 2010).

    Args:
        d: differences [..., n].
        rng: draws the flips when n > 16.

    Returns:
        p-values [...]. With n = 5 none can be below .0625.
    """
    d = np.asarray(d, float)
    # only the sizes enter the null distribution: sorted, the p-value does not depend on the order or sign of the pairs
    size = np.sort(np.abs(d), axis=-1)
    signs, exact = _signs(d.shape[-1], rng)
    observed = np.abs(d.sum(-1, keepdims=True)) - 1e-12 * size.sum(-1, keepdims=True)
    extreme = (np.abs(size @ signs.T) >= observed).sum(-1)
    return extreme / len(signs) if exact else (extreme + 1) / (RESAMPLES + 1)


def max_t(d: ArrayLike, *, rng: np.random.Generator) -> Array:
    """p-values of m candidates against one baseline, adjusted for trying m (Westfall & Young 1993, single step).

    All candidates get the same sign flips, so their correlation through the shared baseline is used.

    Args:
        d: differences [m, n] of the same n pairs.
        rng: draws the flips when n > 16.

    Returns:
        adjusted p-values [m]; they control the chance of any false positive.
    """
    d = np.asarray(d, float)
    d = d[:, np.lexsort(np.abs(d))]  # random flips too give a p-value that does not depend on the order of the pairs
    signs, exact = _signs(d.shape[-1], rng)
    # a flip keeps sum(d^2), and |t| grows with |sum(d)| / sqrt(sum(d^2)): no standard deviations are needed
    scale = np.sqrt((d**2).sum(-1))
    unit = d / np.where(scale > 0, scale, 1.0)[:, None]
    largest = np.abs(signs @ unit.T).max(-1)
    extreme = (largest[:, None] >= np.abs(unit.sum(-1)) - 1e-12).sum(0)
    return extreme / len(signs) if exact else (extreme + 1) / (RESAMPLES + 1)


def wilcoxon(d: ArrayLike) -> tuple[float, float, float]:
    """Wilcoxon's signed-rank test (1945) of "d is symmetric about 0", two-sided; zeros are dropped.

    Args:
        d: differences [n].

    Returns:
        (rank sum of the positive, the smaller rank sum, p). All zero: (0, 0, 1).
    """
    d = np.asarray(d, float)
    if not d.any():
        return 0.0, 0.0, 1.0
    # method="exact" would return a wrong p with ties or zeros; "auto" permutes there
    two_sided = stats.wilcoxon(d, zero_method="wilcox", method="auto")
    nonzero = d[d != 0]
    positive = stats.rankdata(np.abs(nonzero))[nonzero > 0].sum()
    return float(positive), float(two_sided.statistic), float(two_sided.pvalue)


def sign_test(d: ArrayLike) -> float:
    """Two-sided p of the sign test (Arbuthnott 1710) on d [n]: are wins and losses equally likely? Zeros drop out."""
    d = np.asarray(d, float)
    wins, losses = int((d > 0).sum()), int((d < 0).sum())
    return min(1.0, 2 * float(special.bdtr(min(wins, losses), wins + losses, 0.5)))


def mcnemar(candidate_failed: ArrayLike, baseline_failed: ArrayLike) -> float:
    """Two-sided exact p of McNemar's test (1947): does one arm fail more often than the other on the same seeds?

    Args:
        candidate_failed: whether the candidate's run of each pair failed, booleans [n].
        baseline_failed: the same of the baseline.

    Returns:
        p of the sign test on the pairs in which exactly one arm failed; 1 if there is none.
    """
    mine, others = np.asarray(candidate_failed, bool), np.asarray(baseline_failed, bool)
    return sign_test(others.astype(int) - mine)


def probability_of_improvement(d: ArrayLike, alpha: float = 0.05) -> Estimate:
    """P(d > 0) + P(d = 0) / 2 of d [n], with the interval of Clopper & Pearson (1934); a tie counts as half a win."""
    d = np.asarray(d, float)
    n = len(d)
    wins = (d > 0).sum() + (d == 0).sum() / 2
    low = stats.beta.ppf(alpha / 2, wins, n - wins + 1) if wins > 0 else 0.0
    high = stats.beta.ppf(1 - alpha / 2, wins + 1, n - wins) if wins < n else 1.0
    return estimate(wins / n, low, high, n)


def tost(d: ArrayLike, smallest_effect: float, alpha: float = 0.05) -> Equivalence:
    """Two one-sided t-tests of "the mean difference is at least +-smallest_effect" (Schuirmann 1987).

    Args:
        d: differences [..., n].
        smallest_effect: the smallest difference that matters, in the unit of d, > 0.
        alpha: level of each of the two tests.

    Returns:
        Equivalence of arrays [...]; p < alpha says that the mean lies inside +-smallest_effect.
    """
    test = paired_t(d, 2 * alpha)
    se = test.sd / math.sqrt(test.df + 1)
    t_lower = ratio_to_error(test.mean + smallest_effect, se)
    t_upper = ratio_to_error(test.mean - smallest_effect, se)
    p_lower, p_upper = stats.t.sf(t_lower, test.df), stats.t.cdf(t_upper, test.df)
    return Equivalence(t_lower, p_lower, t_upper, p_upper, np.maximum(p_lower, p_upper), test.ci_low, test.ci_high)


def bayes_rope(d: ArrayLike, smallest_effect: float) -> tuple[Array, Array]:
    """Posterior probabilities of the mean difference under the flat prior of Jeffreys, t with n - 1 df (Kruschke 2013).

    Args:
        d: differences [..., n].
        smallest_effect: half-width of the region of practical equivalence, in the unit of d.

    Returns:
        (P(|mean| < smallest_effect), P(mean > smallest_effect)), arrays [...].
    """
    test = tost(d, smallest_effect)
    return 1 - test.p_lower - test.p_upper, test.p_upper


def over_spread(f: Callable[[Array], Array], df: int, upto: float = math.inf) -> float:
    """Mean of f(s / sd), s the standard deviation of a normal sample with df degrees of freedom, over s / sd < upto.

    By Gauss-Legendre quadrature; f takes and gives arrays [400]. Good to 1e-9 for a smooth f in [0, 1].
    """
    spread = stats.chi(df, scale=1 / math.sqrt(df))
    low, high = spread.ppf(1e-13), min(spread.isf(1e-13), upto)
    if high <= low:
        return 0.0
    nodes, weights = _nodes()
    s = low + (high - low) * (nodes + 1) / 2
    return float((high - low) / 2 * weights @ (spread.pdf(s) * f(s)))


@functools.cache
def _nodes() -> tuple[Array, Array]:
    nodes, weights = np.polynomial.legendre.leggauss(400)
    return nodes, weights


def power(effect: float, n: int, alpha: float = 0.05) -> float:
    """Chance that a two-sided paired t-test with n pairs finds a true mean / sd of `effect`.

    By quadrature over the spread of the sample: the noncentral t distribution of scipy, which statsmodels uses, is NaN
    for large effects.
    """
    shift, critical = abs(effect) * math.sqrt(n), stats.t.isf(alpha / 2, n - 1)
    rejected = over_spread(lambda s: special.ndtr(shift - critical * s) + special.ndtr(-shift - critical * s), n - 1)
    return min(rejected, 1.0)


def pairs_needed(effect: float, power: float = 0.8, alpha: float = 0.05) -> float:
    """Pairs, as a real number >= 2, with which a true mean / sd of `effect` is found with probability `power`.

    Raises:
        ValueError: the effect is 0.
    """
    if effect == 0:
        raise ValueError("found effect 0: no number of pairs can show an effect of 0")

    def lacking(n: float) -> float:
        return minimal_detectable_effect(n, 1.0, power, alpha) - abs(effect)

    z = stats.norm.isf(alpha / 2)
    normal = ((z + stats.norm.ppf(power)) / effect) ** 2 + z**2 / 2  # of so many pairs t is normal
    if normal > 1e6:
        return float(normal)
    if lacking(2) <= 0:
        return 2.0
    enough = 4.0
    while lacking(enough) > 0:
        enough *= 2
    return float(optimize.brentq(lacking, enough / 2, enough))


def minimal_detectable_effect(n: float, sd: float, power: float = 0.8, alpha: float = 0.05) -> float:
    """Mean difference, in the unit of sd, that n pairs find with probability `power`.

    By the noncentral t distribution itself: the solver of statsmodels returns its starting value, or something else,
    for few pairs at levels of 1 % and below.
    """
    df = n - 1
    critical = float(stats.t.isf(alpha / 2, df))
    if critical > 1000:  # the inversion takes forever, and all that is uncertain is the standard deviation
        return critical * math.sqrt(stats.chi2.ppf(power, df) / df / n) * sd
    shift = special.nctdtrinc(df, 1 - power, critical)
    wrong_sign = np.nan_to_num(stats.nct.cdf(-critical, df, shift))  # significant too; NaN where it is next to 0
    return float(special.nctdtrinc(df, 1 - power + wrong_sign, critical)) / math.sqrt(n) * sd


def pilot_sd(d: ArrayLike, confidence: float = 0.8) -> float:
    """Upper confidence limit of the standard deviation of d [n]: plan with it, not with the estimate (Colas 2018)."""
    d = np.asarray(d, float)
    return float(d.std(ddof=1) * math.sqrt((len(d) - 1) / stats.chi2.ppf(1 - confidence, len(d) - 1)))


def adjust(p: Sequence[float], method: Literal["holm", "fdr_bh", "bonferroni"] = "holm") -> list[float]:
    """p-values of a family, adjusted (Holm 1979; Benjamini & Hochberg 1995, only for screening).

    Args:
        p: one p-value per test; every candidate, metric, step and subset that was tried counts.
    """
    from statsmodels.stats.multitest import multipletests

    return [float(x) for x in multipletests(p, method=method)[1]]


def bootstrap(
    x: ArrayLike, *, rng: np.random.Generator, method: Literal["BCa", "percentile"] = "BCa", alpha: float = 0.05
) -> dict[str, float]:
    """Bootstrap interval of the mean of x [n], 9999 resamples (Efron 1987). Too narrow below about 30 values.

    Returns:
        ci_low, ci_high, standard_error.
    """
    result = stats.bootstrap(
        (np.asarray(x, float),), np.mean, n_resamples=RESAMPLES, confidence_level=1 - alpha, method=method, rng=rng
    )
    low, high = result.confidence_interval
    return {"ci_low": float(low), "ci_high": float(high), "standard_error": float(result.standard_error)}


def acceleration(x: ArrayLike) -> float:
    """Acceleration constant of the BCa interval of the mean of x [n], by the jackknife (Efron 1987)."""
    x = np.asarray(x, float)
    left_out = (x.sum() - x) / (len(x) - 1)
    pull = left_out.mean() - left_out
    return float((pull**3).sum() / (6 * (pull**2).sum() ** 1.5))


def bootstrap_t(d: ArrayLike, *, rng: np.random.Generator, alpha: float = 0.05) -> tuple[float, float]:
    """Studentised bootstrap interval of the mean of d [n] (Efron & Tibshirani 1993): holds its level under skewness."""
    d = np.asarray(d, float)
    d = d[np.argsort(np.abs(d), kind="stable")]  # the interval does not depend on the order, and mirrors with the sign
    test = paired_t(d)
    again = paired_t(rng.choice(d, size=(RESAMPLES, len(d))) - test.mean)
    low, high = np.quantile(again.t[np.isfinite(again.t)], [alpha / 2, 1 - alpha / 2])
    se = test.sd / math.sqrt(len(d))
    return float(test.mean - high * se), float(test.mean - low * se)


def skewness(d: ArrayLike) -> float | None:
    """Bias-corrected sample skewness of d [n]; None below 3 values or without variance."""
    d = np.asarray(d, float)
    if len(d) < 3 or d.std() <= 1e-12 * np.abs(d).max():
        return None
    return float(stats.skew(d, bias=False))


def expected_maximum(k: int) -> float:
    """E[max of k independent standard normal draws], by quadrature: what the best of k equal seeds looks like.

    1.54 for k = 10, 2.51 for k = 100. An observed best below mean + this * sd is what luck alone predicts.
    """
    if k < 1:
        raise ValueError(f"found {k} draws: the maximum needs at least 1")

    def integrand(x: float) -> float:
        return k * x * math.exp(-x * x / 2) / math.sqrt(2 * math.pi) * special.ndtr(x) ** (k - 1)

    return float(integrate.quad(integrand, -12, 12, epsabs=1e-13)[0])
