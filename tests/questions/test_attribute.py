"""The variance between runs by source: planted components, missing runs, laws, and bad input."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from infinito.questions.attribute import SOURCES, attribute
from infinito.statistics import anova
from tests.grids import grid, nested


def test_the_interval_of_a_component_may_leave_the_parameter_space_but_is_reported_clipped():
    y = grid(2, (6, 6, 2), (0.0, 1.0, 0.0, 1.0))
    low = float(anova.intervals(anova.mean_squares(y))["init"][0])
    shown = attribute(y)["components"]["init"]
    assert low < 0 and shown["ci_low"] == 0
    assert shown["raw"] == pytest.approx(float(anova.components(anova.mean_squares(y))["init"]))


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
            denied = f"{SOURCES[name]} is not shown to matter" in result["sentence"]
            claimed = f"to {SOURCES[name]}" in result["sentence"]
            assert denied == (result[f"p_{name}"] >= 0.05) and claimed != denied


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
    assert [result[f"{x}_{y}"] for x in ("F", "p") for y in ("init", "data")] == [None] * 4
    assert result["crossed"]["se"] == 0 and "neither the init seed nor the data seed decides" in result["sentence"]
    assert all(part["value"] == 0 and part["share"] is None for part in result["components"].values())
    assert json.loads(json.dumps(result, allow_nan=False)) == result


@pytest.mark.parametrize("seeds", [2, 5])
@pytest.mark.parametrize(("idle", "busy"), [("init", "data"), ("data", "init")])
@pytest.mark.parametrize("runs", [(), (3,)])
def test_a_seed_that_changes_nothing_is_named_and_proves_nothing_of_other_seeds(idle, busy, seeds, runs):
    """Constant initial weights, or data in one order, without dropout: 0.1 + 0.2 leaves no rounding to be tested."""
    one = 0.1 + np.random.default_rng(0).standard_normal((1, seeds, *runs)) / 3
    y = np.repeat(one, seeds, axis=0)
    result = attribute(y if idle == "init" else y.swapaxes(0, 1), third="noise")
    assert {key: result[key] for key in result if key[:2] in ("F_", "p_")}.keys() >= {"F_init", "p_init", "p_data"}
    assert all(result[key] is None for key in result if key[:2] in ("F_", "p_"))
    said = f"; all runs of these {idle} seeds are equal: the {idle} seed decides nothing here."
    assert result["sentence"].endswith(said) and "is due to" in result["sentence"]
    parts = result["components"]
    assert all((part["share_ci_low"], part["share_ci_high"]) == (0, 1) for part in parts.values())
    assert parts[idle]["value"] == 0 and parts[idle]["ci_low"] is None and parts[idle]["ci_high"] is None
    if not runs:
        variance = one.var(ddof=1)
        assert parts[busy]["value"] == pytest.approx(variance) and parts[busy]["share"] == 1
        low, high = (seeds - 1) * variance / stats.chi2.isf([0.025, 0.975], seeds - 1)  # as wide as these seeds allow
        assert (parts[busy]["ci_low"], parts[busy]["ci_high"]) == (pytest.approx(low), pytest.approx(high))
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_noise_alone():
    y = np.tile(np.random.default_rng(0).standard_normal(4), (3, 3, 1))
    result = attribute(y, third="noise")
    assert (
        "the init seed decides nothing here; all runs of these data seeds are equal: the data seed decides"
        in (result["sentence"])
    )
    assert result["sentence"].startswith(
        "Of the variance between runs 100% [0%, 100%] is due to the noise seed; all runs"
    )
    assert result["p_init"] is None and result["p_data"] is None


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
