"""Why do runs differ? Two crossed random factors, init seed and data seed, with or without replicates of a cell.

    y[i, j, n, r] = mean + a[i] + b[j] + ab[i, j] + s[i, j, n] + e[i, j, n, r]

with a variance for each term: init, data, their interaction, the noise seeds of a cell (dropout, exploration), and
nondeterminism, which is what differs between reruns of identical seeds. What a design does not replicate cannot be told
apart and is reported as one component: with one run per cell that is `interaction_and_residual`.

In a balanced grid every init seed meets every data seed equally often, and the analysis of variance is exact. With
missing runs only point estimates are left (`unbalanced_reml`). Runs that share a seed are not independent, so the mean
of a grid is tested with `crossed_test`, never with a t-test over its cells: that one rejects a true null hypothesis in
47 % of 10 x 10 grids, and the more cells the worse.

Arrays are y[..., I, J, K]: init seeds, data seeds, replicates (or two axes of them); axes before are independent grids.
"""

import itertools
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from infinito.paired import Array, Estimate, estimate, ratio_to_error

Interval = tuple[Array, Array]

RELIABLE_SEEDS = 5  # of both kinds, for the crossed test to hold its level
SMALLEST_RATIO = 1e-12  # of the innermost variance to that of all runs, for MixedLM to work
SOURCES = {
    "init": "initialisation",
    "data": "the data seed",
    "interaction": "the interaction of both",
    "interaction_and_residual": "interaction and residual",
    "residual": "the residual",
    "noise": "the noise seed",
    "nondeterminism": "nondeterminism",
}


class Stratum(NamedTuple):
    """A source of variance: its mean square is expected to exceed the one inside it by runs * variance."""

    square: Array
    df: int
    runs: int  # that share one draw of this source
    inside: str | None  # the source below, whose mean square is the yardstick; None: the innermost


class MeanSquares(NamedTuple):
    """Balanced analysis of variance, one entry per grid; squares of the unit of the data."""

    init: Array
    data: Array
    interaction: Array
    within: dict[str, Array]  # between replicates of a cell, outermost first; {} without replicates
    grand_mean: Array
    shape: tuple[int, ...]  # I, J, and a count for every entry of `within`

    @property
    def residual(self) -> Array:
        """Mean square of the innermost replicates, 0 without replicates."""
        return list(self.within.values())[-1] if self.within else np.zeros_like(self.init)

    @property
    def strata(self) -> dict[str, Stratum]:
        """All sources: init, data, interaction (or interaction_and_residual), and those of `within`."""
        i, j, *counts = self.shape
        crossed = "interaction" if self.within else "interaction_and_residual"
        runs = math.prod(counts)
        inside = [*self.within, None]
        found = {
            "init": Stratum(self.init, i - 1, j * runs, crossed),
            "data": Stratum(self.data, j - 1, i * runs, crossed),
            crossed: Stratum(self.interaction, (i - 1) * (j - 1), runs, inside[0]),
        }
        units = i * j
        for (name, square), count, below in zip(self.within.items(), counts, inside[1:], strict=True):
            runs //= count
            found[name] = Stratum(square, units * (count - 1), runs, below)
            units *= count
        return found


class CrossedTest(NamedTuple):
    """Test of the mean of a grid against 0, one entry per grid; se in the unit of the data."""

    mean: Array
    se: Array
    t: Array
    df: Array
    p: Array
    ci_low: Array
    ci_high: Array


def mean_squares(y: ArrayLike, within: Sequence[str] = ("residual",)) -> MeanSquares:
    """Mean squares of balanced grids.

    Args:
        y: [..., I, J, and an axis for every name of `within`], I and J at least 2.
        within: what replicates a cell, outermost first; axes of length 1 are no replicates.
    """
    y = np.asarray(y, float)
    i, j, *counts = y.shape[-2 - len(within) :]
    squares: dict[str, Array] = {}
    cell, runs = y, 1
    for depth, name in reversed(list(enumerate(within))):
        count = counts[depth]
        # relative to the first one, so that equal replicates give exactly 0
        first = cell[..., :1]
        mean = (cell - first).mean(-1, keepdims=True)
        if count > 1:
            square = ((cell - first - mean) ** 2).sum(tuple(range(-3 - depth, 0)))
            squares[name] = runs * square / (i * j * math.prod(counts[:depth]) * (count - 1))
        cell, runs = (first + mean)[..., 0], runs * count
    row, column = cell.mean(-1, keepdims=True), cell.mean(-2, keepdims=True)
    grand = cell.mean((-2, -1), keepdims=True)
    return MeanSquares(
        init=j * runs * ((row - grand) ** 2).sum((-2, -1)) / (i - 1),
        data=i * runs * ((column - grand) ** 2).sum((-2, -1)) / (j - 1),
        interaction=runs * ((cell - row - column + grand) ** 2).sum((-2, -1)) / ((i - 1) * (j - 1)),
        within=dict(reversed(squares.items())),
        grand_mean=grand[..., 0, 0],
        shape=(i, j, *(count for count in counts if count > 1)),
    )


def _difference(strata: Mapping[str, Stratum], squares: Mapping[str, Array]) -> dict[str, Array]:
    """Variances from (expected) mean squares: every one less the one inside it, per run."""
    return {
        name: squares[name] if s.inside is None else (squares[name] - squares[s.inside]) / s.runs
        for name, s in strata.items()
    }


def components(ms: MeanSquares) -> dict[str, Array]:
    """Unbiased variance components (Henderson 1953); they may be negative.

    Returns:
        {init, data, interaction, and the entries of `ms.within`}, or without replicates
        {init, data, interaction_and_residual}.
    """
    return _difference(ms.strata, {name: s.square for name, s in ms.strata.items()})


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
    strata, limits = ms.strata, {}
    for name, s in strata.items():
        if s.inside is None:
            limits[name] = chi2_interval(s.square, s.df, alpha)
        else:
            inside = strata[s.inside]
            limits[name] = difference_interval(s.square, inside.square, s.df, inside.df, s.runs, alpha)
    return limits


def share_intervals(ms: MeanSquares, alpha: float = 0.05) -> dict[str, Interval]:
    """Confidence limits of every component's share of the variance, in [0, 1]; keys as in `components`.

    Conservative: a share is at its lower limit where its own component is at its lower one and all others are at their
    upper ones, as if all estimates erred against it at once; and the other way round. In simulations the intervals at
    95 % cover 95 % to 100 %. Not a number where nothing varies.
    """
    limits = intervals(ms, alpha)
    lows = {name: np.maximum(low, 0) for name, (low, _) in limits.items()}
    highs = {name: np.maximum(high, 0) for name, (_, high) in limits.items()}
    # of many sources that are nothing, one is easily found to be something: all must be at their lower limits at once
    family = intervals(ms, alpha / (len(limits) - 1))
    lowest = {name: np.maximum(low, 0) for name, (low, _) in family.items()}
    others = {name: [other for other in limits if other != name] for name in limits}
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            name: (
                lows[name] / (lows[name] + sum(highs[other] for other in others[name])),
                highs[name] / (highs[name] + sum(lowest[other] for other in others[name])),
            )
            for name in limits
        }


def f_test(ms: MeanSquares) -> dict[str, tuple[Array, Array]]:
    """F tests of "this source does not matter", for every source but the innermost.

    Returns:
        {init: (F, p), data: (F, p), ...}; keys as in `components`.
    """
    strata, tests = ms.strata, {}
    for name, s in strata.items():
        if s.inside is not None:
            inside = strata[s.inside]
            f = ratio_to_error(s.square, inside.square)
            tests[name] = f, stats.f.sf(f, s.df, inside.df)
    return tests


def reml(ms: MeanSquares) -> dict[str, float]:
    """Restricted maximum likelihood components of one grid; never negative.

    Balanced data need no iterations: expected mean squares must not decrease from the innermost source outwards, and
    the likelihood is greatest where mean squares that violate this order are pooled (Thompson 1962). Equal to
    `components` where none of those is negative.

    Returns:
        dict with the keys of `components`.
    """
    strata = ms.strata
    names = list(strata)
    square, df = [float(s.square) for s in strata.values()], [s.df for s in strata.values()]
    # the first may not be smaller than the second
    edges = [(n, names.index(s.inside)) for n, s in enumerate(strata.values()) if s.inside is not None]
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
    fitted = _difference(strata, {name: np.asarray(m) for name, m in zip(names, best, strict=True)})
    return {name: float(value) for name, value in fitted.items()}


def unbalanced_reml(y: ArrayLike, within: Sequence[str] = ()) -> tuple[dict[str, float], float, bool]:
    """Restricted maximum likelihood components of one grid with missing runs, by statsmodels' MixedLM.

    Args:
        y: [I, J, and an axis for every name of `within`], not a number where a run is missing; along every axis of
            `within` some cell has two different values.
        within: what replicates a cell, outermost first.

    Returns:
        (components with the keys of `components`; the mean, by generalised least squares; did the fit converge?)

    Raises:
        ValueError: the innermost component is so small beside the others that MixedLM breaks down.
    """
    import statsmodels.api as sm
    from statsmodels.regression.mixed_linear_model import MixedLMParams

    y = np.asarray(y, float)
    at = np.nonzero(np.isfinite(y))
    mean, sd = float(y[at].mean()), float(y[at].std())
    crossed = "interaction" if within else "interaction_and_residual"
    names = ["init", "data", crossed, *within]
    if np.ptp(y[at]) == 0:
        return dict.fromkeys(names, 0.0), mean, True
    # what a run shares with others, by source; the innermost source is its own
    shared = [at[0], at[1], *(np.ravel_multi_index(at[:depth], y.shape[:depth]) for depth in range(2, y.ndim))]
    table = pd.DataFrame({"y": (y[at] - mean) / sd} | dict(zip(names, shared, strict=False)))
    outer = names[:-1]
    known = pd.get_dummies(table[outer[2:][-1:] or outer].astype("category"), dtype=float).to_numpy()
    left_over = table["y"] - known @ np.linalg.lstsq(known, table["y"].to_numpy())[0]
    innermost = float(left_over @ left_over) / (len(table) - np.linalg.matrix_rank(known))
    if innermost < SMALLEST_RATIO:
        raise ValueError(
            f"found missing runs, and hardly any variance of {names[-1]}: MixedLM fails, complete the grid"
        )
    model = sm.MixedLM.from_formula(
        "y ~ 1", table, groups=np.ones(len(table)), vc_formula={name: f"0 + C({name})" for name in outer}
    )
    # its standard errors are not used, and where a variance is 0 they do not exist and break the fit
    model.hessian = lambda params: (-np.eye(1 + len(outer)), False)
    # variances are fitted in units of the innermost one, which may be tiny: from a start of 1 the search gets lost
    size = 1 / (len(names) * innermost)
    start = MixedLMParams.from_components(
        fe_params=np.zeros(1), cov_re=np.zeros((0, 0)), vcomp=np.full(len(outer), size)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # the gradient methods stop at wrong places and say that they converged
        fit = model.fit(method="nm", start_params=start, maxiter=5000, xtol=1e-5 * math.sqrt(size), ftol=1e-8)
    fitted = dict(zip(model.exog_vc.names, fit.vcomp, strict=True)) | {names[-1]: fit.scale}
    return (
        {name: float(fitted[name]) * sd**2 for name in names},
        mean + sd * float(np.asarray(fit.fe_params)[0]),
        fit.converged,
    )


def icc(ms: MeanSquares) -> dict[str, Array]:
    """Intraclass correlations of init seeds over data seeds (McGraw & Wong 1996), two-way random effects.

    Returns:
        A1: agreement of single runs; C1: consistency of single runs; Ck: reliability of the mean over all data seeds,
        whose square root bounds the correlation that any predictor of an init seed's quality can reach. Not finite
        where init seeds do not differ at all.
    """
    i, j = ms.shape[:2]
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
    n_init, n_data, n_crossed = (s.df for s in list(ms.strata.values())[:3])
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
    """One complete grid [I, J], [I, J, K] or [I, J, N, R] as [I, J, runs], checked.

    Raises:
        ValueError: another number of axes, fewer than 2 init or data seeds, or a value that is not finite.
    """
    y = np.asarray(y, float)
    if y.ndim not in (2, 3, 4):
        raise ValueError(f"found an array of shape {y.shape}: a grid is [init seeds, data seeds] or [.., replicates]")
    if min(y.shape[:2]) < 2 or y.size == 0:
        raise ValueError(f"found {y.shape[0]} init seeds and {y.shape[1]} data seeds: a grid needs at least 2 of each")
    if not np.isfinite(y).all():
        cell = tuple(int(x) for x in np.argwhere(~np.isfinite(y))[0])
        raise ValueError(f"found {y[cell]} in cell {cell}: every cell of a grid must be finite (cap divergence)")
    return y.reshape(*y.shape[:2], -1)


def _replicated(y: Array, within: Sequence[str]) -> tuple[Array, list[str], dict[str, int]]:
    """Leaves out what does not replicate anything.

    Args:
        y: [I, J, and an axis for every name of `within`], not a number where a run is missing.

    Returns:
        (y without such axes, the names of those that stay, {name: degrees of freedom} of the axes whose replicates are
        all equal bit for bit: these are known to bring no variance).
    """
    names, constant = list(within), {}
    for axis in range(y.ndim - 1, 1, -1):
        present = np.isfinite(y).any(tuple(range(axis + 1, y.ndim)))
        one = np.fmax.reduce(y, axis=axis)  # a replicate that is there
        if (present.sum(-1) > 1).any():
            innermost = axis == y.ndim - 1
            if not innermost or not (np.isnan(y) | (y == np.expand_dims(one, axis))).all():
                continue
            constant[names[axis - 2]] = int(present.sum() - present.any(-1).sum())
        y = one
        del names[axis - 2]
    return y, names, constant


def _balanced(y: Array, within: Sequence[str], alpha: float) -> dict[str, Any]:
    """The result of `attribute` for a complete grid, by analysis of variance."""
    ms = mean_squares(y, within)
    raw, limits, shares, pooled = components(ms), intervals(ms, alpha), share_intervals(ms, alpha), reml(ms)
    parts: dict[str, Estimate] = {}
    for name, stratum in ms.strata.items():
        low, high = (max(float(x), 0.0) for x in limits[name])
        share_low, share_high = (float(x) if math.isfinite(x) else None for x in shares[name])
        parts[name] = estimate(max(float(raw[name]), 0.0), low, high, stratum.df) | {
            "raw": float(raw[name]),
            "reml": pooled[name],
            "share_ci_low": share_low,
            "share_ci_high": share_high,
        }
    tests: dict[str, float | None] = {}
    for name, (f, p) in f_test(ms).items():
        tests |= {f"F_{name}": float(f) if math.isfinite(f) else None, f"p_{name}": float(p)}
    crossed = crossed_test(ms, alpha)
    more = [
        f"{RELIABLE_SEEDS - n} more {kind} seed{'s' * (RELIABLE_SEEDS - n > 1)}"
        for n, kind in zip(y.shape, ("init", "data"), strict=False)
        if n < RELIABLE_SEEDS
    ]
    return {
        "method": "ANOVA",
        "components": parts,
        **tests,
        "grand_mean": float(ms.grand_mean),
        "crossed": estimate(float(crossed.mean), float(crossed.ci_low), float(crossed.ci_high), y.size)
        | {
            "se": float(crossed.se),
            "t": float(crossed.t) if math.isfinite(crossed.t) else None,
            "df": float(crossed.df),
            "p_value": float(crossed.p),
            "reliable": not more,
            "note": f"needs at least {RELIABLE_SEEDS} init and {RELIABLE_SEEDS} data seeds: run {' and '.join(more)}"
            if more
            else None,
        },
        "icc": {name: float(x) if math.isfinite(x) else None for name, x in icc(ms).items()},
        "blup_init": [float(x) for x in blup(grid(y))],
        "note": None,
    }


def _unbalanced(y: Array, within: Sequence[str]) -> dict[str, Any]:
    """The result of `attribute` for a grid with missing runs: point estimates only."""
    present = np.isfinite(y)
    cells = np.asarray(present.any(tuple(range(2, y.ndim))))
    for axis, name, other in ((1, "init", "data"), (0, "data", "init")):
        several = int((cells.sum(axis) >= 2).sum())
        if several < 2:
            raise ValueError(
                f"found {several} {name} seeds that were run with 2 or more {other} seeds: at least 2 are needed"
            )
    inits, datas = int(cells.any(1).sum()), int(cells.any(0).sum())
    # sets of runs that share all seeds but those further inside; the differences of their number are degrees of freedom
    sets = [int(present.any(tuple(range(depth, y.ndim))).sum()) for depth in range(2, y.ndim + 1)]
    crossed_df = sets[0] - inits - datas + 1
    if crossed_df < 1:
        raise ValueError(
            f"found {sets[0]} cells with runs, of {inits} init and {datas} data seeds: {inits + datas} are needed"
        )
    fitted, mean, converged = unbalanced_reml(y, within)
    df = [inits - 1, datas - 1, crossed_df, *(int(x) for x in np.diff(sets))]
    nothing = {"raw": None, "share_ci_low": None, "share_ci_high": None}
    parts = {
        name: estimate(value, math.nan, math.nan, n) | nothing | {"reml": value}
        for (name, value), n in zip(fitted.items(), df, strict=True)
    }
    return {
        "method": f"REML, unbalanced: {present.sum()} of {y.size} {'runs' if within else 'cells'}",
        "components": parts,
        **{f"{kind}_{name}": None for name in list(fitted)[:-1] for kind in ("F", "p")},
        "grand_mean": mean,
        "crossed": None,
        "icc": None,
        "blup_init": None,
        "note": None if converged else "the REML fit did not converge: take its values as rough",
    }


def _sentence(result: Mapping[str, Any], alpha: float) -> str:
    """Which source explains how much, in one sentence; a source whose F test says nothing is not said to matter."""
    parts: dict[str, Estimate] = result["components"]
    if not any(part["value"] for part in parts.values()):
        return "All runs are equal: there is no variance to explain."

    def share(name: str) -> str:
        part = parts[name]
        middle, low, high = (100 * (part[key] or 0.0) for key in ("share", "share_ci_low", "share_ci_high"))
        return f"{middle:.0f}%" if part["share_ci_low"] is None else f"{middle:.0f}% [{low:.0f}%, {high:.0f}%]"

    ranked = sorted(parts, key=lambda name: -(parts[name]["value"] or 0.0))
    if result["method"] != "ANOVA":
        shares = ", ".join(f"{SOURCES[name]} {share(name)}" for name in ranked)
        return f"Some runs are missing, so no source is shown to matter; estimated shares of the variance: {shares}."
    p = {name: result[f"p_{name}"] for name in parts if f"p_{name}" in result}
    # the innermost source has no test, and needs none: it is what is left when nothing else matters
    leading, *others = (name for name in ranked if p.get(name, 0.0) < alpha and parts[name]["value"])
    largest = " (the largest estimated share)" if leading == ranked[0] and others else ""
    due = [f"{share(leading)} is due to {SOURCES[leading]}{largest}", *(f"{share(x)} to {SOURCES[x]}" for x in others)]
    unknown = [f"; {SOURCES[x]} is not shown to matter (F test p = {p[x]:.2g})" for x in p if p[x] >= alpha]
    return f"Of the variance between runs {', '.join(due)}{''.join(unknown)}."


def attribute(
    y: ArrayLike,
    *,
    third: Literal["residual", "noise", "nondeterminism"] = "residual",
    alpha: float = 0.05,
) -> dict[str, Any]:
    """Where does the variance between runs come from?

    Args:
        y: losses or paired differences of a grid [I, J], [I, J, K] or [I, J, N, R]: init seeds, data seeds, noise seeds
            of a cell, reruns of identical seeds. Not a number where a run is missing.
        third: what the third axis of three is: noise seeds, reruns ("nondeterminism"), or not said.
        alpha: 1 - confidence of the intervals, and level of the tests in `sentence`.

    Returns:
        JSON-ready dict:
        method: "ANOVA", or "REML, unbalanced: n of N cells" (runs, where cells are replicated) if some are missing.
        components: init, data, interaction (it holds the noise of a cell, and the nondeterminism, unless these are
            replicated; without any replicates its name is interaction_and_residual), then those of residual, noise and
            nondeterminism that are replicated. Each an estimate of a variance, value and limits clipped at 0,
            n = degrees of freedom, and `raw` (may be negative), `share` (of the sum of the values), `share_ci_low`,
            `share_ci_high` (see `share_intervals`) and `reml`.
        deterministic: are reruns of identical seeds equal bit for bit? None without reruns. Replicates that are all
            equal are none: their component is 0 with limits 0, and all else is computed from one run of each.
        F_init, p_init, F_data, p_data, and the same for every other source but the innermost: does it matter at all?
        grand_mean: mean of all runs.
        crossed: estimate of the grand mean over fresh seeds, n = number of runs, and se, t, df, p_value, `reliable` (at
            least 5 seeds of both kinds), `note` (what to run otherwise, or None).
        icc: {A1, C1, Ck}; blup_init: predicted effect of every init seed, in the unit of y.
        sentence: the answer in plain words.
        note: None, or a warning about the fit.
        With missing runs there are point estimates only: value = reml, and limits, raw, F_, p_, crossed, icc and
        blup_init are None; grand_mean is that of the fitted model.

    Raises:
        ValueError: another number of axes, fewer than 2 init or data seeds (with missing runs: that were run with 2 or
            more of the other, or too few cells in all), an infinite value, and see `unbalanced_reml`.
    """
    y = np.asarray(y, float)
    grid(np.where(np.isnan(y), 0.0, y))
    named = ([], [third], ["noise", "nondeterminism"])[y.ndim - 2]
    y, within, constant = _replicated(y, named)
    result = _balanced(y, within, alpha) if np.isfinite(y).all() else _unbalanced(y, within)
    parts = result["components"]
    if constant and not within:  # there is no residual that the interaction could be mixed with
        parts["interaction"] = parts.pop("interaction_and_residual")  # the last one, so the order stays
    for name in named:
        if name in constant:
            parts[name] = estimate(0.0, 0.0, 0.0, constant[name]) | {"raw": 0.0, "reml": 0.0}
            parts[name] |= {"share_ci_low": 0.0, "share_ci_high": 0.0}
    total = sum(part["value"] for part in parts.values())
    for part in parts.values():
        part["share"] = part["value"] / total if total > 0 else None
    reruns = "nondeterminism" in within or "nondeterminism" in constant
    result["deterministic"] = "nondeterminism" in constant if reruns else None
    result["sentence"] = _sentence(result, alpha)
    return result
