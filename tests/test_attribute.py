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


NESTED = ("noise", "nondeterminism")


def nested(seed: int, shape=(6, 5, 3, 2), variances=(1.0, 0.5, 0.3, 0.2, 0.1), grids=()) -> np.ndarray:
    """[*grids, I, J, noise seeds, reruns]."""
    rng = np.random.default_rng(seed)
    i, j, n, _ = shape
    sizes = ((i, 1, 1, 1), (1, j, 1, 1), (i, j, 1, 1), (i, j, n, 1), shape)
    return sum(math.sqrt(v) * rng.standard_normal((*grids, *size)) for v, size in zip(variances, sizes, strict=True))


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


def test_nested_mean_squares_are_those_of_statsmodels():
    y = nested(1)
    i, j, n, _ = (x.ravel() for x in np.indices(y.shape))
    table = pd.DataFrame({"y": y.ravel(), "i": i, "j": j, "n": n})
    reference = anova_lm(ols("y ~ C(i) * C(j) + C(i):C(j):C(n)", table).fit())
    strata = a.mean_squares(y, NESTED).strata
    assert list(strata) == ["init", "data", "interaction", *NESTED]
    assert [float(s.square) for s in strata.values()] == pytest.approx(list(reference["mean_sq"]))
    assert [s.df for s in strata.values()] == pytest.approx(list(reference["df"]))
    assert [s.runs for s in strata.values()] == [30, 36, 6, 2, 1]
    assert float(a.f_test(a.mean_squares(y, NESTED))["noise"][0]) == pytest.approx(
        reference["mean_sq"].iloc[3] / reference["mean_sq"].iloc[4]
    )


def test_nested_components_are_unbiased_and_their_intervals_cover():
    truth = dict(zip(("init", "data", "interaction", *NESTED), (1.0, 0.5, 0.3, 0.2, 0.1), strict=True))
    ms = a.mean_squares(nested(2, grids=(2000,)), NESTED)
    limits = a.intervals(ms)
    for name, value in a.components(ms).items():
        assert value.mean() == pytest.approx(truth[name], rel=0.06)
        low, high = limits[name]
        assert 0.93 <= ((low <= truth[name]) & (truth[name] <= high)).mean() <= 0.975


@pytest.mark.parametrize("variances", [(1.0, 0.5, 0.3, 0.2, 0.1), (0.0, 0.0, 0.0, 0.0, 1.0), (5.0, 0.0, 0.1, 0.1, 0.1)])
def test_intervals_of_shares_are_conservative(variances):
    ms = a.mean_squares(nested(3, (5, 6, 2, 2), variances, grids=(2000,)), NESTED)
    for (low, high), variance in zip(a.share_intervals(ms).values(), variances, strict=True):
        share = variance / sum(variances)
        assert ((low <= share) & (share <= high)).mean() >= 0.94
        assert (low >= 0).all() and (high <= 1).all()


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
    ms = a.MeanSquares(*map(np.float64, (init, data, interaction)), within={}, grand_mean=np.float64(1), shape=(5, 3))
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
    ms = a.mean_squares(grid(seed, (5, 4, replicates), variances))
    assert list(a.reml(ms).values()) == pytest.approx(reml_by_search(ms), rel=1e-3, abs=1e-5)


@pytest.mark.parametrize(
    "variances", [(1.0, 0.5, 0.3, 0.2, 0.1), (0.0, 1.0, 0.0, 0.0, 1.0), (1.0, 1.0, 0.0, 1.0, 1e-3)]
)
def test_nested_reml_minimises_the_restricted_deviance(variances):
    ms = a.mean_squares(nested(4, (4, 4, 2, 2), variances), NESTED)
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


@pytest.mark.parametrize(
    ("shape", "third", "sources"),
    [
        ((6, 5), "residual", ["interaction_and_residual"]),
        ((6, 5, 1), "noise", ["interaction_and_residual"]),
        ((6, 5, 2), "residual", ["interaction", "residual"]),
        ((6, 5, 2), "noise", ["interaction", "noise"]),
        ((6, 5, 2), "nondeterminism", ["interaction", "nondeterminism"]),
        ((6, 5, 1, 1), "residual", ["interaction_and_residual"]),
        ((6, 5, 2, 1), "residual", ["interaction", "noise"]),
        ((6, 5, 1, 2), "residual", ["interaction", "nondeterminism"]),
        ((6, 5, 2, 2), "residual", ["interaction", "noise", "nondeterminism"]),
    ],
)
def test_components_are_named_after_what_is_replicated(shape, third, sources):
    y = np.random.default_rng(6).standard_normal(shape)
    result = attribute(y, third=third)
    assert list(result["components"]) == ["init", "data", *sources]
    assert result["deterministic"] is (False if "nondeterminism" in sources else None)
    assert {name for name in result if name.startswith("p_")} == {f"p_{x}" for x in ["init", "data", *sources[:-1]]}
    assert result["method"] == "ANOVA" and result["note"] is None and result["crossed"]["n"] == y.size
    assert sum(part["share"] for part in result["components"].values()) == pytest.approx(1)
    assert all(p["share_ci_low"] <= p["share"] <= p["share_ci_high"] for p in result["components"].values())
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_reruns_that_are_equal_bit_for_bit_are_no_replicates():
    y = nested(7, (6, 5, 2, 1))
    once, thrice = attribute(y), attribute(np.repeat(y, 3, axis=-1))
    nothing = thrice["components"].pop("nondeterminism")
    assert thrice.pop("deterministic") is True and once.pop("deterministic") is None
    assert thrice == once and once["crossed"]["n"] == 60
    assert nothing["n"] == 120 and {nothing.pop(name) for name in set(nothing) - {"n"}} == {0.0}
    # a single run per cell: what is left is the interaction, for nondeterminism is known to be nothing
    single, again = attribute(y[:, :, :1]), attribute(np.repeat(y[:, :, :1], 2, axis=-1))
    assert list(again["components"]) == ["init", "data", "interaction", "nondeterminism"]
    assert again["components"]["interaction"] == single["components"]["interaction_and_residual"]
    assert again["crossed"] == single["crossed"]


def test_one_bit_of_difference_is_nondeterminism():
    y = np.repeat(nested(7, (6, 5, 2, 1)), 2, axis=-1)
    y[2, 3, 1, 1] = np.nextafter(y[2, 3, 1, 1], 9)
    result = attribute(y)
    assert result["deterministic"] is False and result["components"]["nondeterminism"]["value"] < 1e-30
    noise = attribute(y[..., 0])["components"]["residual"]
    for limit in ("value", "ci_low", "ci_high"):
        assert result["components"]["noise"][limit] == pytest.approx(noise[limit], rel=1e-3)


def test_noise_seeds_that_change_nothing_are_no_replicates():
    result = attribute(np.repeat(grid(8, (6, 5, 1)), 3, axis=-1), third="noise")
    assert list(result["components"]) == ["init", "data", "interaction", "noise"]
    assert result["components"]["noise"]["ci_high"] == 0 and result["crossed"]["n"] == 30


def test_the_crossed_test_says_when_it_has_too_few_seeds():
    notes = [attribute(grid(9, (i, j, 1)))["crossed"]["note"] for i, j in ((3, 5), (5, 4), (2, 3), (5, 5))]
    assert notes[0] == "needs at least 5 init and 5 data seeds: run 2 more init seeds"
    assert notes[1].endswith(": run 1 more data seed")
    assert notes[2].endswith(": run 3 more init seeds and 2 more data seeds")
    assert notes[3] is None
    assert [attribute(grid(9, (i, 5, 1)))["crossed"]["reliable"] for i in (4, 5)] == [False, True]


def test_the_sentence_names_what_matters_and_only_that():
    result = attribute(grid(10, (12, 8, 1), (4.0, 0.0, 1.0, 0.0)))
    share = result["components"]["init"]
    numbers = "{share:.0%} [{share_ci_low:.0%}, {share_ci_high:.0%}]".format(**share)
    start = f"Of the variance between runs {numbers} is due to initialisation (the largest estimated share), "
    assert result["sentence"].startswith(start)
    assert f"the data seed is not shown to matter (F test p = {result['p_data']:.2g})." in result["sentence"]


def test_no_sentence_claims_a_source_that_its_f_test_does_not_support():
    for seed in range(60):
        result = attribute(nested(seed, (3, 4, 2, 1), (0.3, 0.3, 0.3, 1.0, 0.0)))
        for name in ("init", "data", "interaction"):
            denied = f"{a.SOURCES[name]} is not shown to matter" in result["sentence"]
            claimed = f"to {a.SOURCES[name]}" in result["sentence"]
            assert denied == (result[f"p_{name}"] >= 0.05) and claimed != denied


@pytest.mark.parametrize("shape", [(6, 5), (5, 6, 2), (5, 5, 2, 2)])
@pytest.mark.parametrize("seed", range(4))
def test_mixed_lm_agrees_with_balanced_reml(shape, seed):
    variances = [(1.0, 0.5, 0.3, 0.2, 0.1), (1.0, 0.0, 0.3, 0.0, 0.1), (0.0, 0.0, 0.0, 0.0, 1.0), (1, 1, 1, 1, 1e-6)][
        seed
    ]
    y = 1e-2 * nested(seed, (*shape, 1, 1)[:4], variances).reshape(shape) + 2
    within = [[], ["residual"], [*NESTED]][len(shape) - 2]
    fitted, mean, converged = a.unbalanced_reml(y, within)
    reference = a.reml(a.mean_squares(y if within else y[..., None], within or ["residual"]))
    assert converged and list(fitted) == list(reference) and mean == pytest.approx(y.mean())
    assert list(fitted.values()) == pytest.approx(list(reference.values()), rel=1e-3, abs=1e-7 * y.var())


def test_missing_runs_leave_point_estimates():
    y = grid(11, (14, 14, 1), (4.0, 1.0, 0.5, 0.0))[..., 0]
    y[np.random.default_rng(0).random(y.shape) < 0.2] = math.nan
    result, n = attribute(y), int(np.isfinite(y).sum())
    assert result["method"] == f"REML, unbalanced: {n} of 196 cells" and result["note"] is None
    parts = result["components"]
    assert [part["n"] for part in parts.values()] == [13, 13, n - 27]
    for part, truth in zip(parts.values(), (4.0, 1.0, 0.5), strict=True):
        assert part["value"] == part["reml"] == pytest.approx(truth, rel=0.6)
        assert part["ci_low"] is part["ci_high"] is part["raw"] is part["share_ci_low"] is None
    assert sum(part["share"] for part in parts.values()) == pytest.approx(1)
    names = ("F_init", "p_init", "F_data", "p_data", "crossed", "icc", "blup_init")
    assert all(result[name] is None for name in names)
    assert attribute(grid(11, (14, 14, 1))).keys() == result.keys()
    assert "no source is shown to matter" in result["sentence"]
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_mixed_lm_recovers_planted_components_from_grids_with_deleted_runs():
    truth = np.array([1.0, 0.5, 0.3, 0.2])
    got = []
    for seed in range(20):
        y = grid(seed, (6, 7, 2), truth)
        y[np.random.default_rng(seed).random(y.shape) < 0.2] = math.nan
        got.append([part["value"] for part in attribute(y)["components"].values()])
    assert np.mean(got, 0) == pytest.approx(truth, rel=0.4)


def test_missing_reruns_of_a_deterministic_network_do_not_matter():
    y = np.repeat(nested(12, (6, 5, 2, 1)), 3, axis=-1)
    full = attribute(y)
    y[1, 2, 0, 0] = y[3, 3, 1, 2] = math.nan
    some = attribute(y)
    assert some.pop("components").pop("nondeterminism")["n"] == 118 and full.pop("components")
    assert some == full
    y[0, 0] = math.nan
    missing = attribute(y)
    assert missing["method"] == "REML, unbalanced: 58 of 60 runs" and missing["deterministic"] is True
    assert missing["components"]["nondeterminism"]["value"] == 0


def test_a_fit_that_does_not_converge_is_noted_once_and_not_printed(monkeypatch, recwarn):
    from statsmodels.regression.mixed_linear_model import MixedLM

    fit = MixedLM.fit
    monkeypatch.setattr(MixedLM, "fit", lambda self, **options: fit(self, **options | {"maxiter": 3}))
    y = grid(13, (6, 6, 1))[..., 0]
    y[0, 0] = math.nan
    assert attribute(y)["note"] == "the REML fit did not converge: take its values as rough"
    assert not recwarn


def test_missing_runs_of_a_grid_without_residual_are_refused():
    y = np.arange(5.0)[:, None] + 0.1 * np.arange(5.0) ** 2
    y[1, 2] = math.nan
    with pytest.raises(ValueError, match="hardly any variance of interaction_and_residual"):
        attribute(y)


def test_constant_grid_with_a_missing_run():
    y = np.full((4, 4), 2.5)
    y[1, 2] = math.nan
    result = attribute(y)
    assert [part["value"] for part in result["components"].values()] == [0, 0, 0] and result["grand_mean"] == 2.5
    assert result["sentence"] == attribute(np.full((3, 4), 2.5))["sentence"]


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
        (np.ones((2, 2, 2, 2, 2)), r"shape \(2, 2, 2, 2, 2\)"),
        (np.array([[1.0, 2.0], [math.nan, 3.0]]), "found 1 init seeds that were run with 2 or more data seeds"),
        (np.array([[1, 2, math.nan, math.nan], [math.nan, math.nan, 3, 4]]), "found 0 data seeds that were run with 2"),
        (
            np.array([[1.0, 2.0, math.nan], [3.0, math.nan, 4.0]]),
            "found 1 data seeds that were run with 2 or more init",
        ),
        (np.array([[1.0, 2, math.nan], [math.nan, 4, 5], [6, math.nan, math.nan]]), "found 5 cells .* 6 are needed"),
        (np.array([[1.0, 2.0], [3.0, math.inf]]), r"found inf in cell \(1, 1\)"),
    ],
)
def test_bad_input_is_one_clear_line(y, message):
    with pytest.raises(ValueError, match=message) as error:
        attribute(y)
    assert "\n" not in str(error.value)
