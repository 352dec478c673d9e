"""Restricted maximum likelihood (REML): variance components that are never negative, also of grids with missing runs.

The model is that of `anova`. A balanced grid needs no search (`reml`); with missing runs there are point estimates only
(`unbalanced_reml`).
"""

import itertools
import math
import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from infinito.statistics.anova import MeanSquares, variances

SMALLEST_RATIO = 1e-12  # of the innermost variance to that of all runs, for MixedLM to work


def reml(ms: MeanSquares) -> dict[str, float]:
    """Restricted maximum likelihood components of one grid; never negative.

    Balanced data need no iterations: expected mean squares must not decrease from the innermost source outwards, and
    the likelihood is greatest where mean squares that violate this order are pooled (Thompson 1962). Equal to
    `anova.components` where none of those is negative.

    Returns:
        dict with the keys of `anova.components`.
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
    fitted = variances(strata, {name: np.asarray(m) for name, m in zip(names, best, strict=True)})
    return {name: float(value) for name, value in fitted.items()}


def unbalanced_reml(y: ArrayLike, within: Sequence[str] = ()) -> tuple[dict[str, float], float, bool]:
    """Restricted maximum likelihood components of one grid with missing runs, by statsmodels' MixedLM.

    Args:
        y: [I, J, and an axis for every name of `within`], not a number where a run is missing; along every axis of
            `within` some cell has two different values.
        within: what replicates a cell, outermost first.

    Returns:
        (components with the keys of `anova.components`; the mean, by generalised least squares; did the fit converge?)

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
