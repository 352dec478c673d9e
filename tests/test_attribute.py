"""Two crossed random factors: known answers, other software, laws, and bad input."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from infinito import attribute as a
from infinito.attribute import attribute


def grid(seed: int, shape: tuple[int, ...] = (6, 4, 3), variances=(1.0, 0.5, 0.2, 0.3)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    i, j, k = shape
    sd = np.sqrt(variances)
    init, data = sd[0] * rng.standard_normal((i, 1, 1)), sd[1] * rng.standard_normal((1, j, 1))
    return init + data + sd[2] * rng.standard_normal((i, j, 1)) + sd[3] * rng.standard_normal(shape)


@pytest.mark.parametrize("shape", [(6, 4, 3), (5, 7, 1)])
def test_mean_squares_and_f_tests_are_those_of_statsmodels(shape):
    y = grid(1, shape)
    i, j, _ = (x.ravel() for x in np.indices(shape))
    table = pd.DataFrame({"y": y.ravel(), "i": i, "j": j})
    crossed = " + C(i):C(j)" if shape[2] > 1 else ""
    reference = anova_lm(ols("y ~ C(i) + C(j)" + crossed, table).fit())["mean_sq"]
    ms = a.mean_squares(y)
    assert [float(ms.init), float(ms.data)] == pytest.approx([reference["C(i)"], reference["C(j)"]])
    if crossed:
        got = [float(ms.interaction), float(ms.residual)]
        assert got == pytest.approx([reference["C(i):C(j)"], reference["Residual"]])
    else:
        assert float(ms.interaction) == pytest.approx(reference["Residual"])


def test_a_grid_done_by_hand():
    ms = a.mean_squares(np.array([[1.0, 3.0], [2.0, 8.0]])[..., None])
    # rows 2 and 5, columns 1.5 and 5.5, mean 3.5; what is left over is +-1 in every cell
    assert [float(x) for x in (ms.init, ms.data, ms.interaction)] == [9, 16, 4]
    got = {name: float(x) for name, x in a.components(ms).items()}
    assert got == {"init": 2.5, "data": 6.0, "interaction_and_residual": 4.0}
    test = a.crossed_test(ms)
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
    ms = a.MeanSquares(*map(np.float64, (init, data, interaction, 0, 1)), shape=(5, 3, 1))
    test = a.crossed_test(ms)
    assert float(test.se) == pytest.approx(math.sqrt(v / 15))
    assert float(test.df) == pytest.approx(df)


def test_leading_axes_are_independent_grids():
    y = np.stack([grid(seed) for seed in range(6)]).reshape(2, 3, 6, 4, 3)
    together = a.crossed_test(a.mean_squares(y))
    limits = a.intervals(a.mean_squares(y))
    for at in np.ndindex(2, 3):
        alone = a.mean_squares(y[at])
        assert [x[at] for x in together] == pytest.approx([float(x) for x in a.crossed_test(alone)])
        for name, limit in a.intervals(alone).items():
            assert [x[at] for x in limits[name]] == pytest.approx([float(x) for x in limit])
        assert a.blup(y)[at] == pytest.approx(a.blup(y[at]))


def reml_by_search(ms: a.MeanSquares) -> np.ndarray:
    """Components that minimise the restricted deviance, by a general optimiser."""
    i, j, k = ms.shape
    squares = np.array([ms.init, ms.data, ms.interaction, ms.residual][: 3 + (k > 1)], float)
    df = np.array(ms.df[: len(squares)])

    def deviance(root):
        s = np.append(root**2, 0.0)[:4]
        crossed = s[3] + k * s[2]
        expected = np.array([crossed + j * k * s[0], crossed + i * k * s[1], crossed, s[3]])[: len(df)]
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
    ms = a.mean_squares(grid(seed, (5, 4, replicates), variances))
    assert list(a.reml(ms).values()) == pytest.approx(reml_by_search(ms), rel=1e-3, abs=1e-5)


def test_reml_is_anova_unless_a_component_is_negative():
    seen = set()
    for seed in range(40):
        ms = a.mean_squares(grid(seed, (4, 4, 2), (0.1, 0.5, 0.1, 0.5)))
        raw, pooled = a.components(ms), a.reml(ms)
        negative = any(x < 0 for x in raw.values())
        seen.add(negative)
        same = list(pooled.values()) == pytest.approx([float(x) for x in raw.values()])
        assert same != negative
        assert min(pooled.values()) >= 0
    assert seen == {True, False}


def test_the_interval_of_a_component_may_leave_the_parameter_space_but_is_reported_clipped():
    y = grid(2, (6, 6, 2), (0.0, 1.0, 0.0, 1.0))
    low = float(a.intervals(a.mean_squares(y))["init"][0])
    shown = attribute(y)["components"]["init"]
    assert low < 0 and shown["ci_low"] == 0
    assert shown["raw"] == pytest.approx(float(a.components(a.mean_squares(y))["init"]))


def test_a_negative_component_is_shown_raw_and_as_0():
    for seed in range(50):
        parts = attribute(grid(seed, (4, 4, 2), (0.0, 1.0, 0.0, 1.0)))["components"]
        if parts["init"]["raw"] < 0:
            break
    assert parts["init"]["raw"] < 0 and parts["init"]["value"] == 0 and parts["init"]["share"] == 0
    assert sum(part["share"] for part in parts.values()) == pytest.approx(1)


def test_attribute_finds_planted_components():
    variances = (4.0, 1.0, 0.25, 0.25)
    result = attribute(grid(3, (60, 60, 2), variances))
    assert list(result["components"]) == ["init", "data", "interaction", "residual"]
    for part, truth in zip(result["components"].values(), variances, strict=True):
        assert part["ci_low"] < truth < part["ci_high"]
        assert part["value"] == pytest.approx(truth, rel=0.35)
    assert result["p_init"] < 1e-6 and result["p_data"] < 1e-6


def test_attribute_of_a_grid_without_seed_effects():
    result = attribute(grid(4, (8, 8, 1), (0.0, 0.0, 0.0, 1.0))[..., 0])
    assert list(result["components"]) == ["init", "data", "interaction_and_residual"]
    assert result["p_init"] > 0.05 and result["p_data"] > 0.05
    assert result["crossed"]["n"] == 64 and result["components"]["init"]["n"] == 7
    assert max(map(abs, result["blup_init"])) < 0.5


def test_blup_shrinks_row_means_by_their_reliability():
    y = grid(5, (6, 4, 1))
    row = y.mean((1, 2))
    reliability = float(a.icc(a.mean_squares(y))["Ck"])
    assert 0 < reliability < 1
    assert a.blup(y) == pytest.approx(reliability * (row - row.mean()))


def test_constant_grid():
    result = attribute(np.full((3, 4), 2.5))
    assert result["p_init"] == 1 and result["crossed"]["se"] == 0
    assert all(part["value"] == 0 and part["share"] is None for part in result["components"].values())
    assert json.loads(json.dumps(result, allow_nan=False)) == result


GRIDS = st.tuples(st.integers(2, 5), st.integers(2, 5), st.integers(1, 3)).flatmap(
    lambda shape: st.lists(
        st.integers(-64, 64).map(lambda x: x / 16), min_size=math.prod(shape), max_size=math.prod(shape)
    ).map(lambda cells: np.array(cells).reshape(shape))
)


@settings(max_examples=60, deadline=None)
@given(GRIDS, st.integers(-100, 100))
def test_a_constant_moves_the_mean_and_nothing_else(y, constant):
    before, after = attribute(y), attribute(y + constant)
    assert after["grand_mean"] == pytest.approx(before["grand_mean"] + constant)
    assert after["crossed"]["se"] == pytest.approx(before["crossed"]["se"])
    for name, part in before["components"].items():
        assert after["components"][name]["raw"] == pytest.approx(part["raw"], abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(GRIDS, st.randoms(use_true_random=False))
def test_the_names_of_seeds_are_irrelevant(y, random):
    rows, columns = list(range(y.shape[0])), list(range(y.shape[1]))
    random.shuffle(rows)
    random.shuffle(columns)
    shuffled, result = attribute(y[rows][:, columns]), attribute(y)
    assert shuffled.pop("blup_init") == pytest.approx([result["blup_init"][i] for i in rows], abs=1e-9)
    assert shuffled["crossed"]["se"] == pytest.approx(result["crossed"]["se"], abs=1e-12)
    for name, part in result["components"].items():
        assert shuffled["components"][name]["raw"] == pytest.approx(part["raw"], abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(GRIDS)
def test_turning_the_grid_swaps_init_and_data(y):
    turned, result = attribute(y.transpose(1, 0, 2)), attribute(y)
    assert turned["components"]["data"]["raw"] == pytest.approx(result["components"]["init"]["raw"], abs=1e-9)
    assert turned["components"]["init"]["raw"] == pytest.approx(result["components"]["data"]["raw"], abs=1e-9)
    assert json.loads(json.dumps(result, allow_nan=False)) == result


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.ones((1, 5)), "found 1 init seeds and 5 data seeds"),
        (np.ones((5, 1)), "found 5 init seeds and 1 data seeds"),
        (np.ones((5, 5, 0)), "at least 2"),
        (np.ones(5), r"shape \(5,\)"),
        (np.array([[1.0, 2.0], [math.nan, 3.0]]), r"found nan in cell \(1, 0\)"),
        (np.array([[1.0, 2.0], [3.0, math.inf]]), r"found inf in cell \(1, 1\)"),
    ],
)
def test_bad_input_is_one_clear_line(y, message):
    with pytest.raises(ValueError, match=message) as error:
        attribute(y)
    assert "\n" not in str(error.value)
