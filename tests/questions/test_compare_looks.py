"""The verdict at a look before the end, planned or at any time."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infinito.questions.compare import Family, compare
from infinito.statistics.sequential import look, stopped
from tests.comparisons import LOSSES, NATS, assert_same, negated, strings_and_numbers


def of_differences(d, **settings):
    return compare(np.full(len(d), 8.0), 8.0 + d, **settings, metric=NATS)


def test_a_planned_stop_decides_by_its_own_interval():
    d = np.random.default_rng(0).normal(1.5, 1, 32)
    ends = stopped(d, design=(8, 16, 24, 32), pairs=32)
    assert (ends.n, ends.stop) == (16, True)
    result = of_differences(d[:16], smallest_effect=0.05, look=ends)
    assert result["verdict"] == "BETTER" and result["refusals"] == []
    assert result["difference"] == {
        "value": pytest.approx(d[:16].mean()),
        "ci_low": ends.ci_low,
        "ci_high": ends.ci_high,
        "n": 16,
    }
    assert result["p_value"] == result["p_adjusted"] == ends.p_value and result["sequential"] == ends._asdict()
    assert "stopped at look 2 of 4 (16 of at most 32 pairs)" in result["sentence"]
    assert "99.6955% CI" in result["sentence"] and "against 0.003 at this look" in result["sentence"]
    assert (
        of_differences(-d[:16], smallest_effect=0.05, look=stopped(-d, design=(8, 16, 24, 32), pairs=32))["verdict"]
        == "WORSE"
    )


def test_an_anytime_stop_decides_by_its_own_interval():
    d = np.random.default_rng(0).normal(1.0, 1, 32)
    ends = stopped(d, design="anytime", pairs=50)
    result = of_differences(d[: ends.n], smallest_effect=0.001, look=ends)
    assert ends.stop and result["verdict"] == "BETTER"
    assert (result["difference"]["ci_low"], result["p_value"]) == (ends.ci_low, ends.p_value)
    assert f"stopped after {ends.n} of at most 50 pairs" in result["sentence"]
    assert f"e = {ends.e_value:.3g}" in result["sentence"]


@pytest.mark.parametrize("design", [(5, 10, 20), "anytime"])
def test_a_look_that_does_not_stop_is_no_verdict_before_the_end(design):
    d = 0.01 * np.resize([1.0, -1.1], 20)
    early = of_differences(d[:10], smallest_effect=0.5, look=look(d[:10], design=design, pairs=20))
    assert early["verdict"] == "INCONCLUSIVE" and "Inconclusive so far" in early["sentence"]
    assert early["refusals"] == ["10 of 20 planned pairs do not decide: there is no verdict yet, run up to 10 more."]
    late = of_differences(d, smallest_effect=0.5, look=look(d, design=design, pairs=20))
    assert late["verdict"] == "EQUIVALENT" and late["refusals"] == []
    assert "not stopped" in late["sentence"] and "Equivalent" in late["sentence"]
    unclear = of_differences(d, smallest_effect=1e-4, look=look(d, design=design, pairs=20))
    assert unclear["verdict"] == "INCONCLUSIVE" and unclear["refusals"] == []


def test_a_real_but_negligible_difference_is_equivalent_at_a_look_too():
    d = 0.01 + 1e-4 * np.resize([1.0, -1.0], 20)
    result = of_differences(d, smallest_effect=0.5, look=look(d, design=(20, 40), pairs=40))
    assert result["verdict"] == "EQUIVALENT" and "Different but negligible" in result["sentence"]


def numbers(x):
    return [leaf for leaf in strings_and_numbers(x).values() if isinstance(leaf, float)]


@pytest.mark.parametrize("design", [(12, 24), "anytime"])
@pytest.mark.parametrize("shift", [0.0, 2.0])
def test_after_a_look_nothing_unadjusted_is_left(design, shift):
    d = np.random.default_rng(2).normal(shift, 1, 12)
    candidate, baseline = np.full(12, 8.0) + np.arange(12) / 8, 8.0 + np.arange(12) / 8 + d
    plain = compare(candidate, baseline, smallest_effect=0.3, metric=NATS)
    result = compare(candidate, baseline, smallest_effect=0.3, look=look(d, design=design, pairs=24), metric=NATS)
    kept = {"probability_equivalent", "probability_better", "meaningfully_better", "role"}
    assert {key for key, value in result["secondary"].items() if value is not None} == kept
    assert result["effect_size"] == plain["effect_size"] | {"ci_low": None, "ci_high": None}
    limits = {
        limit
        for key, value in plain.items()
        for part in (value, *(value.values() if isinstance(value, dict) else ()))
        if isinstance(part, dict)
        for name, limit in part.items()
        if name.startswith("ci_")
    } - {0.0, 1.0, None}
    assert len(limits) >= 12
    assert not limits & set(numbers(result))
    for key in ("difference", "candidate", "baseline", "relative_difference", "probability_of_improvement"):
        assert result[key]["ci_low"] < plain[key]["ci_low"] and result[key]["ci_high"] >= plain[key]["ci_high"], key
        assert result[key]["value"] == plain[key]["value"]
    assert result["minimal_detectable_effect"] > plain["minimal_detectable_effect"]
    assert plain.keys() | {"sequential"} == result.keys()


@settings(max_examples=40, deadline=None)
@given(LOSSES, st.sampled_from(["planned", "last", "anytime"]), st.sampled_from([0.05, 0.001]))
def test_swapping_the_arms_at_a_look_flips_the_sign_and_nothing_else(losses, kind, alpha):
    d = np.subtract(losses[1], losses[0])
    n = len(d)
    if kind == "anytime" and n < 5:
        return
    design, pairs = {"planned": ((n, 2 * n), 2 * n), "last": ((n,), n), "anytime": ("anytime", n)}[kind]
    result, swapped = (
        compare(
            *arms, smallest_effect=0.25, alpha=alpha, look=look(x, design=design, pairs=pairs, alpha=alpha), metric=NATS
        )
        for arms, x in ((losses, d), (losses[::-1], -d))
    )
    assert {result["verdict"], swapped["verdict"]} in (
        {"BETTER", "WORSE"},
        {"EQUIVALENT"},
        {"INCONCLUSIVE"},
    )
    assert_same(swapped["difference"], negated(result["difference"]))
    assert_same(swapped["candidate"], result["baseline"])
    assert swapped["p_value"] == pytest.approx(result["p_value"], rel=1e-6, abs=1e-9)
    for one in (result, swapped):
        assert json.loads(json.dumps(one, allow_nan=False)) == one
        assert "nan" not in one["sentence"] and "None" not in one["sentence"] and "\n" not in one["sentence"]


def test_a_look_at_other_pairs_or_in_a_family_is_refused():
    d = np.resize([1.0, -1.0], 16)
    ends = look(d, design=(16, 32), pairs=32)
    for pairs, settings_, message in (
        (d[:15], {}, "found a look at 16 pairs with alpha 0.05 for 15 pairs with alpha 0.05"),
        (d, {"alpha": 0.01}, "for 16 pairs with alpha 0.01"),
        (d, {"family": Family(2, 0.5, 0.5)}, "found a look within a family of 2: allowed is one hypothesis"),
    ):
        with pytest.raises(ValueError, match=message):
            of_differences(pairs, smallest_effect=0.1, look=ends, **settings_)
