"""Restricted maximum likelihood, against a general optimiser and, with every run there, against statsmodels."""

import numpy as np
import pytest
from scipy import optimize

from infinito.statistics.anova import MeanSquares, components, mean_squares
from infinito.statistics.reml import reml, unbalanced_reml
from tests.grids import NESTED, grid, nested


def reml_by_search(ms: MeanSquares) -> np.ndarray:
    """Components that minimise the restricted deviance, by a general optimiser."""
    strata = ms.strata
    squares = np.array([float(s.square) for s in strata.values()])
    df = np.array([s.df for s in strata.values()])

    def deviance(root):
        own = dict(zip(strata, root**2, strict=True))
        expected = {}
        for name in [*reversed(list(strata)[2:]), "init", "data"]:
            expected[name] = own[name] * strata[name].runs + expected.get(strata[name].inside, 0.0)
        expected = np.array([expected[name] for name in strata])
        return (df * (np.log(expected) + squares / expected)).sum()

    starts = [np.sqrt(squares * scale) for scale in (0.05, 0.3, 1.0)]
    fits = [
        optimize.minimize(deviance, x, method="Nelder-Mead", options=dict(xatol=1e-9, fatol=1e-13, maxiter=20000))
        for x in starts
    ]
    return min(fits, key=lambda fit: fit.fun).x ** 2


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("replicates", [1, 3])
@pytest.mark.parametrize("variances", [(1.0, 0.5, 0.2, 0.3), (0.0, 0.0, 0.0, 1.0), (0.0, 1.0, 0.02, 1.0)])
def test_reml_minimises_the_restricted_deviance(seed, replicates, variances):
    ms = mean_squares(grid(seed, (5, 4, replicates), variances))
    assert list(reml(ms).values()) == pytest.approx(reml_by_search(ms), rel=1e-3, abs=1e-5)


@pytest.mark.parametrize(
    "variances", [(1.0, 0.5, 0.3, 0.2, 0.1), (0.0, 1.0, 0.0, 0.0, 1.0), (1.0, 1.0, 0.0, 1.0, 1e-3)]
)
def test_nested_reml_minimises_the_restricted_deviance(variances):
    ms = mean_squares(nested(4, (4, 4, 2, 2), variances), NESTED)
    assert list(reml(ms).values()) == pytest.approx(reml_by_search(ms), rel=1e-3, abs=1e-5)


def test_reml_is_anova_unless_a_component_is_negative():
    seen = set()
    for seed in range(40):
        ms = mean_squares(grid(seed, (4, 4, 2), (0.1, 0.5, 0.1, 0.5)))
        raw, pooled = components(ms), reml(ms)
        negative = any(x < 0 for x in raw.values())
        seen.add(negative)
        same = list(pooled.values()) == pytest.approx([float(x) for x in raw.values()])
        assert same != negative
        assert min(pooled.values()) >= 0
    assert seen == {True, False}


@pytest.mark.parametrize("shape", [(6, 5), (5, 6, 2), (5, 5, 2, 2)])
@pytest.mark.parametrize("seed", range(4))
def test_mixed_lm_agrees_with_balanced_reml(shape, seed):
    variances = [(1.0, 0.5, 0.3, 0.2, 0.1), (1.0, 0.0, 0.3, 0.0, 0.1), (0.0, 0.0, 0.0, 0.0, 1.0), (1, 1, 1, 1, 1e-6)][
        seed
    ]
    y = 1e-2 * nested(seed, (*shape, 1, 1)[:4], variances).reshape(shape) + 2
    within = [[], ["residual"], [*NESTED]][len(shape) - 2]
    fitted, mean, converged = unbalanced_reml(y, within)
    reference = reml(mean_squares(y if within else y[..., None], within or ["residual"]))
    assert converged and list(fitted) == list(reference) and mean == pytest.approx(y.mean())
    assert list(fitted.values()) == pytest.approx(list(reference.values()), rel=1e-3, abs=1e-7 * y.var())
