"""Why do runs differ? Two crossed random factors, init seed and data seed, with or without replicates.

    y[i, j, k] = mean + a[i] + b[j] + ab[i, j] + e[i, j, k],   variances: init, data, interaction, residual

The model is balanced: every init seed meets every data seed, K times. Without replicates (K = 1) interaction and
residual cannot be told apart and are reported as one component. Runs that share a seed are not independent, so the mean
of a grid is tested with `crossed_test`, never with a t-test over its cells: that one rejects a true null hypothesis in
47 % of 10 x 10 grids, and the more cells the worse.

Arrays are y[..., I, J, K]: init seeds, data seeds, replicates; axes before them are independent grids.
"""

import itertools
import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from infinito.compare import Array, Estimate, estimate, ratio_to_error

Interval = tuple[Array, Array]


class MeanSquares(NamedTuple):
    """Balanced analysis of variance, one entry per grid; squares of the unit of the data."""

    init: Array
    data: Array
    interaction: Array
    residual: Array  # 0 without replicates
    grand_mean: Array
    shape: tuple[int, int, int]  # I, J, K

    @property
    def df(self) -> tuple[int, int, int, int]:
        """Degrees of freedom of init, data, interaction, residual."""
        i, j, k = self.shape
        return i - 1, j - 1, (i - 1) * (j - 1), i * j * (k - 1)


class CrossedTest(NamedTuple):
    """Test of the mean of a grid against 0, one entry per grid; se in the unit of the data."""

    mean: Array
    se: Array
    t: Array
    df: Array
    p: Array
    ci_low: Array
    ci_high: Array


def mean_squares(y: ArrayLike) -> MeanSquares:
    """Mean squares of grids y[..., I, J, K], I and J at least 2."""
    y = np.asarray(y, float)
    i, j, k = y.shape[-3:]
    cell = y.mean(-1)
    row, column = cell.mean(-1, keepdims=True), cell.mean(-2, keepdims=True)
    grand = cell.mean((-2, -1), keepdims=True)
    squares = ((row - grand) ** 2).sum((-2, -1)), ((column - grand) ** 2).sum((-2, -1))
    crossed = ((cell - row - column + grand) ** 2).sum((-2, -1))
    within = ((y - cell[..., None]) ** 2).sum((-3, -2, -1))
    return MeanSquares(
        init=j * k * squares[0] / (i - 1),
        data=i * k * squares[1] / (j - 1),
        interaction=k * crossed / ((i - 1) * (j - 1)),
        residual=within / max(i * j * (k - 1), 1),
        grand_mean=grand[..., 0, 0],
        shape=(i, j, k),
    )


def components(ms: MeanSquares) -> dict[str, Array]:
    """Unbiased variance components (Henderson 1953); they may be negative.

    Returns:
        {init, data, interaction, residual}, or {init, data, interaction_and_residual} without replicates.
    """
    i, j, k = ms.shape
    seeds = {
        "init": (ms.init - ms.interaction) / (j * k),
        "data": (ms.data - ms.interaction) / (i * k),
    }
    if k == 1:
        return seeds | {"interaction_and_residual": ms.interaction}
    return seeds | {"interaction": (ms.interaction - ms.residual) / k, "residual": ms.residual}


def difference_interval(m1: ArrayLike, m2: ArrayLike, n1: int, n2: int, c: float, alpha: float = 0.05) -> Interval:
    """Interval of (E[m1] - E[m2]) / c for independent mean squares with n1 and n2 degrees of freedom.

    Modified large-sample method (Ting, Burdick, Graybill, Jeyaratnam & Lu 1990; Burdick & Graybill 1992). It holds its
    level where Satterthwaite's falls to 74 %. Limits are not clipped at 0.
    """
    m1, m2 = np.asarray(m1, float), np.asarray(m2, float)
    a = alpha / 2
    g1, g2 = (1 - n / stats.chi2.isf(a, n) for n in (n1, n2))
    h1, h2 = (n / stats.chi2.ppf(a, n) - 1 for n in (n1, n2))
    f_high, f_low = stats.f.isf(a, n1, n2), stats.f.ppf(a, n1, n2)
    g12 = ((f_high - 1) ** 2 - (g1 * f_high) ** 2 - h2**2) / f_high
    h12 = ((1 - f_low) ** 2 - (h1 * f_low) ** 2 - g2**2) / f_low
    below = (g1 * m1) ** 2 + (h2 * m2) ** 2 + g12 * m1 * m2
    above = (h1 * m1) ** 2 + (g2 * m2) ** 2 + h12 * m1 * m2
    return (m1 - m2 - np.sqrt(np.maximum(below, 0))) / c, (m1 - m2 + np.sqrt(np.maximum(above, 0))) / c


def chi2_interval(m: ArrayLike, n: int, alpha: float = 0.05) -> Interval:
    """Exact interval of the expectation of a mean square with n degrees of freedom."""
    m = np.asarray(m, float)
    return n * m / stats.chi2.isf(alpha / 2, n), n * m / stats.chi2.ppf(alpha / 2, n)


def intervals(ms: MeanSquares, alpha: float = 0.05) -> dict[str, Interval]:
    """Confidence limits of every variance component, not clipped at 0; keys as in `components`."""
    i, j, k = ms.shape
    n_init, n_data, n_crossed, n_residual = ms.df
    seeds = {
        "init": difference_interval(ms.init, ms.interaction, n_init, n_crossed, j * k, alpha),
        "data": difference_interval(ms.data, ms.interaction, n_data, n_crossed, i * k, alpha),
    }
    if k == 1:
        return seeds | {"interaction_and_residual": chi2_interval(ms.interaction, n_crossed, alpha)}
    return seeds | {
        "interaction": difference_interval(ms.interaction, ms.residual, n_crossed, n_residual, k, alpha),
        "residual": chi2_interval(ms.residual, n_residual, alpha),
    }


def f_test(ms: MeanSquares) -> dict[str, tuple[Array, Array]]:
    """F tests of "the init (data) seed does not matter".

    Returns:
        {init: (F, p), data: (F, p)}.
    """
    n_init, n_data, n_crossed, _ = ms.df
    f = {"init": ratio_to_error(ms.init, ms.interaction), "data": ratio_to_error(ms.data, ms.interaction)}
    return {name: (f[name], stats.f.sf(f[name], n, n_crossed)) for name, n in (("init", n_init), ("data", n_data))}


def reml(ms: MeanSquares) -> dict[str, float]:
    """Restricted maximum likelihood components of one grid; never negative.

    Balanced data need no iterations: expected mean squares must not decrease from residual to interaction to init and
    data, and the likelihood is greatest where mean squares that violate this order are pooled (Thompson 1962). Equal to
    `components` where none of those is negative.

    Returns:
        dict with the keys of `components`.
    """
    names = ["init", "data", "interaction", "residual"][: 3 if ms.shape[2] == 1 else 4]
    square, df = [float(getattr(ms, name)) for name in names], ms.df[: len(names)]
    edges = [(0, 2), (1, 2), (2, 3)][: len(names) - 1]  # the first may not be smaller than the second
    best, best_deviance = square, math.inf
    for pooled in itertools.product([False, True], repeat=len(edges)):
        pool = list(range(len(names)))
        for (upper, lower), together in zip(edges, pooled, strict=True):
            if together:
                pool = [pool[upper] if x == pool[lower] else x for x in pool]
        members = [[n for n, other in enumerate(pool) if other == x] for x in pool]
        mean = [sum(df[n] * square[n] for n in group) / sum(df[n] for n in group) for group in members]
        deviance = sum(n * math.log(max(m, 1e-300)) for n, m in zip(df, mean, strict=True))
        if all(mean[upper] >= mean[lower] for upper, lower in edges) and deviance < best_deviance:
            best, best_deviance = mean, deviance
    fitted = ms._replace(**{name: np.asarray(m) for name, m in zip(names, best, strict=True)})  # type: ignore[arg-type]
    return {name: float(value) for name, value in components(fitted).items()}


def icc(ms: MeanSquares) -> dict[str, Array]:
    """Intraclass correlations of init seeds over data seeds (McGraw & Wong 1996), two-way random effects.

    Returns:
        A1: agreement of single runs; C1: consistency of single runs; Ck: reliability of the mean over all data seeds,
        whose square root bounds the correlation that any predictor of an init seed's quality can reach. Not finite
        where init seeds do not differ at all.
    """
    i, j, _ = ms.shape
    signal = ms.init - ms.interaction
    single = ms.init + (j - 1) * ms.interaction
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "A1": signal / (single + j / i * (ms.data - ms.interaction)),
            "C1": signal / single,
            "Ck": signal / ms.init,
        }


def shrinkage(ms: MeanSquares) -> Array:
    """Reliable share of the differences between the means of init seeds, max(0, 1 - interaction / init), in [0, 1]."""
    return np.where(ms.init > ms.interaction, 1 - ms.interaction / np.where(ms.init > 0, ms.init, 1.0), 0.0)


def blup(y: ArrayLike) -> Array:
    """Best linear unbiased predictions of the init effects a[i] (Henderson 1975), by empirical Bayes.

    Args:
        y: grids [..., I, J, K].

    Returns:
        [..., I], in the unit of y: the means of the init seeds, centred and shrunken by their reliability.
    """
    y = np.asarray(y, float)
    row = y.mean((-2, -1))
    return shrinkage(mean_squares(y))[..., None] * (row - row.mean(-1, keepdims=True))


def crossed_test(ms: MeanSquares, alpha: float = 0.05) -> CrossedTest:
    """Two-sided test of "the mean is 0" over fresh init seeds and fresh data seeds.

    Two-way clustered standard error (Cameron, Gelbach & Miller 2011) with Satterthwaite's degrees of freedom, never
    smaller than that of any single error term. It needs I, J >= 5, and is conservative where no seed matters.
    """
    n_init, n_data, n_crossed, _ = ms.df
    a, b, ab = ms.init, ms.data, ms.interaction
    v = np.maximum.reduce([a + b - ab, a, b, ab])
    se = np.sqrt(v / math.prod(ms.shape))
    spread = a**2 / n_init + b**2 / n_data + ab**2 / n_crossed
    both = v**2 / np.where(spread > 0, spread, 1.0)
    df = np.select([(a > ab) & (b > ab), a > ab, b > ab], [both, n_init, n_data], default=n_crossed)
    t = ratio_to_error(ms.grand_mean, se)
    reach = stats.t.isf(alpha / 2, df) * se
    low, high = ms.grand_mean - reach, ms.grand_mean + reach
    return CrossedTest(ms.grand_mean, se, t, df, 2 * stats.t.sf(np.abs(t), df), low, high)


def grid(y: ArrayLike) -> Array:
    """One grid [I, J] or [I, J, K] as [I, J, K], checked.

    Raises:
        ValueError: another number of axes, fewer than 2 init or data seeds, or a value that is not finite.
    """
    y = np.asarray(y, float)
    if y.ndim not in (2, 3):
        raise ValueError(f"found an array of shape {y.shape}: a grid is [init seeds, data seeds] or [.., replicates]")
    if min(y.shape[:2]) < 2 or y.size == 0:
        raise ValueError(f"found {y.shape[0]} init seeds and {y.shape[1]} data seeds: a grid needs at least 2 of each")
    if not np.isfinite(y).all():
        cell = tuple(int(x) for x in np.argwhere(~np.isfinite(y))[0])
        raise ValueError(f"found {y[cell]} in cell {cell}: every cell of a grid must be finite (cap divergence)")
    return y if y.ndim == 3 else y[..., None]


def attribute(y: ArrayLike, *, alpha: float = 0.05) -> dict[str, Any]:
    """Where does the variance between runs come from?

    Args:
        y: losses or paired differences of a grid [I, J] or [I, J, K]: init seeds, data seeds, replicates.
        alpha: 1 - confidence of the intervals.

    Returns:
        JSON-ready dict:
        components: {init, data, interaction_and_residual}, with replicates {init, data, interaction, residual}; each an
            estimate of a variance, value and limits clipped at 0, n = degrees of freedom, and `raw` (may be negative),
            `share` (of the sum of the values) and `reml`.
        F_init, p_init, F_data, p_data: does the seed matter at all?
        grand_mean: mean of all runs.
        crossed: estimate of the grand mean over fresh seeds, n = number of runs, and se, t, df, p_value.
        icc: {A1, C1, Ck}; blup_init: predicted effect of every init seed, in the unit of y.

    Raises:
        ValueError: see `grid`.
    """
    y = grid(y)
    ms = mean_squares(y)
    raw, limits, pooled = components(ms), intervals(ms, alpha), reml(ms)
    total = sum(max(float(x), 0.0) for x in raw.values())
    parts: dict[str, Estimate] = {}
    for (name, value), df in zip(raw.items(), ms.df, strict=False):
        low, high = (max(float(x), 0.0) for x in limits[name])
        parts[name] = estimate(max(float(value), 0.0), low, high, df) | {
            "raw": float(value),
            "share": max(float(value), 0.0) / total if total > 0 else None,
            "reml": pooled[name],
        }
    tests, crossed = f_test(ms), crossed_test(ms, alpha)
    finite = {name: float(f) if math.isfinite(f) else None for name, (f, _) in tests.items()}
    correlations = {name: float(x) if math.isfinite(x) else None for name, x in icc(ms).items()}
    return {
        "components": parts,
        "F_init": finite["init"],
        "p_init": float(tests["init"][1]),
        "F_data": finite["data"],
        "p_data": float(tests["data"][1]),
        "grand_mean": float(ms.grand_mean),
        "crossed": estimate(float(crossed.mean), float(crossed.ci_low), float(crossed.ci_high), y.size)
        | {
            "se": float(crossed.se),
            "t": float(crossed.t) if math.isfinite(crossed.t) else None,
            "df": float(crossed.df),
            "p_value": float(crossed.p),
        },
        "icc": correlations,
        "blup_init": [float(x) for x in blup(y)],
    }
