"""The analysis of variance of crossed random factors: known answers, other software, and laws."""

import math

import numpy as np
import pandas as pd
import pytest
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from infinito.statistics import anova
from tests.grids import NESTED, grid, nested


@pytest.mark.parametrize("shape", [(6, 4, 3), (5, 7, 1)])
def test_mean_squares_and_f_tests_are_those_of_statsmodels(shape):
    y = grid(1, shape)
    i, j, _ = (x.ravel() for x in np.indices(shape))
    table = pd.DataFrame({"y": y.ravel(), "i": i, "j": j})
    crossed = " + C(i):C(j)" if shape[2] > 1 else ""
    reference = anova_lm(ols("y ~ C(i) + C(j)" + crossed, table).fit())["mean_sq"]
    ms = anova.mean_squares(y)
    assert [float(ms.init), float(ms.data)] == pytest.approx([reference["C(i)"], reference["C(j)"]])
    if crossed:
        got = [float(ms.interaction), float(ms.residual)]
        assert got == pytest.approx([reference["C(i):C(j)"], reference["Residual"]])
    else:
        assert float(ms.interaction) == pytest.approx(reference["Residual"])


def test_nested_mean_squares_are_those_of_statsmodels():
    y = nested(1)
    i, j, n, _ = (x.ravel() for x in np.indices(y.shape))
    table = pd.DataFrame({"y": y.ravel(), "i": i, "j": j, "n": n})
    reference = anova_lm(ols("y ~ C(i) * C(j) + C(i):C(j):C(n)", table).fit())
    strata = anova.mean_squares(y, NESTED).strata
    assert list(strata) == ["init", "data", "interaction", *NESTED]
    assert [float(s.square) for s in strata.values()] == pytest.approx(list(reference["mean_sq"]))
    assert [s.df for s in strata.values()] == pytest.approx(list(reference["df"]))
    assert [s.runs for s in strata.values()] == [30, 36, 6, 2, 1]
    assert float(anova.f_test(anova.mean_squares(y, NESTED))["noise"][0]) == pytest.approx(
        reference["mean_sq"].iloc[3] / reference["mean_sq"].iloc[4]
    )


def test_nested_components_are_unbiased_and_their_intervals_cover():
    truth = dict(zip(("init", "data", "interaction", *NESTED), (1.0, 0.5, 0.3, 0.2, 0.1), strict=True))
    ms = anova.mean_squares(nested(2, grids=(2000,)), NESTED)
    limits = anova.intervals(ms)
    for name, value in anova.components(ms).items():
        assert value.mean() == pytest.approx(truth[name], rel=0.06)
        low, high = limits[name]
        assert 0.93 <= ((low <= truth[name]) & (truth[name] <= high)).mean() <= 0.975


@pytest.mark.parametrize("variances", [(1.0, 0.5, 0.3, 0.2, 0.1), (0.0, 0.0, 0.0, 0.0, 1.0), (5.0, 0.0, 0.1, 0.1, 0.1)])
def test_intervals_of_shares_are_conservative(variances):
    ms = anova.mean_squares(nested(3, (5, 6, 2, 2), variances, grids=(2000,)), NESTED)
    for (low, high), variance in zip(anova.share_intervals(ms).values(), variances, strict=True):
        share = variance / sum(variances)
        assert ((low <= share) & (share <= high)).mean() >= 0.94
        assert (low >= 0).all() and (high <= 1).all()


def test_a_grid_done_by_hand():
    ms = anova.mean_squares(np.array([[1.0, 3.0], [2.0, 8.0]])[..., None])
    # rows 2 and 5, columns 1.5 and 5.5, mean 3.5; what is left over is +-1 in every cell
    assert [float(x) for x in (ms.init, ms.data, ms.interaction)] == [9, 16, 4]
    got = {name: float(x) for name, x in anova.components(ms).items()}
    assert got == {"init": 2.5, "data": 6.0, "interaction_and_residual": 4.0}
    test = anova.crossed_test(ms)
    assert float(test.se) == pytest.approx(math.sqrt((9 + 16 - 4) / 4))
    assert float(test.df) == pytest.approx(21**2 / (81 + 256 + 16))


@pytest.mark.parametrize(
    ("init", "data", "interaction", "v", "df"),
    [
        (9, 16, 4, 21, 441 / (81 / 4 + 256 / 2 + 16 / 8)),
        (9, 3, 4, 9, 4),
        (3, 9, 4, 9, 2),
        (2, 3, 4, 4, 8),
        (4, 4, 4, 4, 8),
    ],
)
def test_crossed_test_takes_the_largest_error_term(init, data, interaction, v, df):
    ms = anova.MeanSquares(
        *map(np.float64, (init, data, interaction)), within={}, grand_mean=np.float64(1), shape=(5, 3)
    )
    test = anova.crossed_test(ms)
    assert float(test.se) == pytest.approx(math.sqrt(v / 15))
    assert float(test.df) == pytest.approx(df)


def test_leading_axes_are_independent_grids():
    y = np.stack([grid(seed) for seed in range(6)]).reshape(2, 3, 6, 4, 3)
    together = anova.crossed_test(anova.mean_squares(y))
    limits = anova.intervals(anova.mean_squares(y))
    for at in np.ndindex(2, 3):
        alone = anova.mean_squares(y[at])
        assert [x[at] for x in together] == pytest.approx([float(x) for x in anova.crossed_test(alone)])
        for name, limit in anova.intervals(alone).items():
            assert [x[at] for x in limits[name]] == pytest.approx([float(x) for x in limit])
        assert anova.blup(y)[at] == pytest.approx(anova.blup(y[at]))


def test_blup_shrinks_row_means_by_their_reliability():
    y = grid(5, (6, 4, 1))
    row = y.mean((1, 2))
    reliability = float(anova.icc(anova.mean_squares(y))["Ck"])
    assert 0 < reliability < 1
    assert anova.blup(y) == pytest.approx(reliability * (row - row.mean()))
