"""The verdict on paired losses: its numbers and words, laws that every input obeys, and bad input."""

import dataclasses
import json
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infinito.questions.compare import compare, verdict
from tests.comparisons import BASELINE, CANDIDATE, LOSSES, NATS, SHARE, assert_same, minus, negated, with_mean_and_sd

# --- the verdict ---


@pytest.mark.parametrize(
    ("mean", "p", "p_equivalence", "n", "expected"),
    [
        (0.1, 0.04, 0.5, 10, "BETTER"),
        (-0.1, 0.04, 0.5, 10, "WORSE"),
        (0.1, 0.05, 0.5, 10, "INCONCLUSIVE"),
        (0.1, 0.30, 0.04, 10, "EQUIVALENT"),
        (0.1, 0.04, 0.04, 10, "EQUIVALENT"),
        (0.1, 1e-9, 1.0, 9, "INCONCLUSIVE"),
        (0.0, 1.0, 1e-9, 9, "INCONCLUSIVE"),
    ],
)
def test_verdict(mean, p, p_equivalence, n, expected):
    assert verdict(mean, p, p_equivalence, n) == expected


@pytest.mark.parametrize(
    ("candidate", "baseline", "smallest_effect", "expected", "words"),
    [
        (CANDIDATE, BASELINE, 0.001, "BETTER", ["is better, by at least the 0.001", "0.0174", "p = 0.012", "7 of 10"]),
        (CANDIDATE, BASELINE, 0.006, "BETTER", ["though not surely by at least the 0.006"]),
        (BASELINE, CANDIDATE, 0.001, "WORSE", ["is worse, by at least the 0.001", "higher", "3 of 10"]),
        (CANDIDATE, BASELINE, 0.03, "EQUIVALENT", ["Different but negligible", "±0.03", "0.00718", "0.0276"]),
        (BASELINE, BASELINE, 0.03, "EQUIVALENT", ["Equivalent", "identical: check that the seeds"]),
        (CANDIDATE[:9], BASELINE[:9], 0.001, "INCONCLUSIVE", ["9 pairs are too few", "run 1 more"]),
        (CANDIDATE[:2], BASELINE[:2], 0.001, "INCONCLUSIVE", ["2 pairs are too few", "run 8 more"]),
        (
            [1, 2, 3, 4, 5, 6, 7, 8, 9, 9],
            [2, 1, 4, 3, 6, 5, 8, 7, 10, 7],
            0.1,
            "INCONCLUSIVE",
            ["neither shown better"],
        ),
    ],
)
def test_compare_says_it_in_words(candidate, baseline, smallest_effect, expected, words):
    result = compare(candidate, baseline, smallest_effect=smallest_effect, metric=NATS)
    assert result["verdict"] == expected
    for word in words:
        assert word in result["sentence"]
    assert "\n" not in result["sentence"] and "nan" not in result["sentence"] and "None" not in result["sentence"]


def test_an_inconclusive_sentence_plans_the_next_experiment():
    result = compare(np.zeros(10), with_mean_and_sd(0.0344, 0.1955, 10), smallest_effect=0.01, metric=NATS)
    assert result["verdict"] == "INCONCLUSIVE"
    assert result["pairs_for_80_percent_power"] == 256
    assert "about 256 pairs are needed" in result["sentence"]
    assert f"{result['minimal_detectable_effect']:.3g}" in result["sentence"]


def test_skewed_differences_are_flagged_and_get_the_bootstrap_t():
    baseline = np.exp(2 * np.random.default_rng(1).standard_normal(20))
    result = compare(np.zeros(20), baseline, smallest_effect=0.01, metric=NATS)
    assert "skewed" in result["sentence"]
    interval, t = result["secondary"]["bootstrap_t"], result["difference"]
    assert interval["ci_high"] > t["ci_high"] and interval["ci_low"] > t["ci_low"]
    assert compare(CANDIDATE, BASELINE, smallest_effect=0.01, metric=NATS)["secondary"]["bootstrap_t"] is None


def test_the_relative_difference_needs_positive_losses():
    result = compare(CANDIDATE, BASELINE, smallest_effect=0.01, metric=NATS)
    assert result["relative_difference"]["value"] == pytest.approx(np.log(np.divide(BASELINE, CANDIDATE)).mean())
    shifted = compare(np.subtract(CANDIDATE, 2.4), np.subtract(BASELINE, 2.4), smallest_effect=0.01, metric=NATS)
    assert shifted["relative_difference"] is None and shifted["secondary"]["log_ratio_p"] is None
    assert shifted["p_value"] == pytest.approx(result["p_value"])


def test_all_differences_equal():
    nothing = compare(BASELINE, BASELINE, smallest_effect=0.01, metric=NATS)
    assert nothing["wins"] == 0 and nothing["p_value"] == 1 and nothing["pairs_for_80_percent_power"] is None
    assert nothing["effect_size"] == {"value": None, "ci_low": None, "ci_high": None, "n": 10}
    same = compare(np.ones(10), np.full(10, 1.5), smallest_effect=0.01, metric=NATS)
    assert same["verdict"] == "BETTER" and same["p_value"] == 0
    assert same["difference"] == {"value": 0.5, "ci_low": 0.5, "ci_high": 0.5, "n": 10}


# --- what n pairs cannot support ---


@pytest.mark.parametrize(
    ("n", "alpha", "words"),
    [
        (20, 0.05, []),
        (10, 0.001, ["With 10 pairs no sign-flip, Wilcoxon or sign test can reach p < 0.001, and no probability"]),
        (9, 0.05, ["With 9 pairs there is no verdict, 10 are needed: run 1 more."]),
        (6, 0.05, ["run 4 more."]),
        (5, 0.05, ["run 5 more.", "With 5 pairs no sign-flip, Wilcoxon or sign test can reach p < 0.05"]),
        (
            2,
            0.05,
            ["run 8 more.", "run 4 more.", "With 2 pairs there is neither a skewness nor a Hedges' g: run 1 more."],
        ),
    ],
)
def test_refusals_say_how_many_pairs_are_missing(n, alpha, words):
    refusals = compare(np.arange(1, n + 1), np.arange(n) + 2.5, smallest_effect=0.01, alpha=alpha, metric=NATS)[
        "refusals"
    ]
    assert len(refusals) == len(words)
    for refusal, part in zip(refusals, words, strict=True):
        assert part in refusal


@pytest.mark.parametrize("alpha", [0.1, 0.0625, 0.05, 0.01, 0.001])
def test_what_is_refused_is_what_these_tests_cannot_do(alpha):
    for n in range(2, 14):
        best = compare(np.arange(1, n + 1), np.arange(n) * 2.0 + 2.5, smallest_effect=0.01, alpha=alpha, metric=NATS)
        second, refused = best["secondary"], any("sign-flip" in text for text in best["refusals"])
        reached = {second[name] < alpha for name in ("sign_flip_p", "wilcoxon_p", "sign_test_p")}
        assert reached == {not refused}
        assert (best["probability_of_improvement"]["ci_low"] > 0.5) == (not refused)


def test_meaningfully_better_asks_for_three_wins_in_four_and_for_evidence():
    def meaningful(wins: int, n: int) -> bool:
        gain = np.where(np.arange(n) < wins, 1.0, -1.0)
        secondary = compare(np.full(n, 5.0), 5.0 + gain, smallest_effect=0.01, metric=NATS)["secondary"]
        assert secondary["role"] == "secondary, never decide"
        return secondary["meaningfully_better"]

    assert meaningful(16, 20) and not meaningful(14, 20)  # 14 of 20: the interval starts at .46
    assert not meaningful(70, 100)  # surely above one half, but not three in four
    assert not meaningful(3, 4)


# --- laws ---


@settings(max_examples=40, deadline=None)
@given(LOSSES)
def test_swapping_the_arms_flips_the_sign_and_nothing_else(losses):
    candidate, baseline = losses
    result = compare(candidate, baseline, smallest_effect=0.25, metric=NATS)
    swapped = compare(baseline, candidate, smallest_effect=0.25, metric=NATS)
    chance, equal, secondary = result["probability_of_improvement"], result["equivalence"], result["secondary"]
    expected = result | {
        "verdict": {"BETTER": "WORSE", "WORSE": "BETTER"}.get(result["verdict"], result["verdict"]),
        "sentence": swapped["sentence"],
        "difference": negated(result["difference"]),
        "effect_size": negated(result["effect_size"]),
        "probability_of_improvement": {
            "value": 1 - chance["value"],
            "ci_low": 1 - chance["ci_high"],
            "ci_high": 1 - chance["ci_low"],
            "n": chance["n"],
        },
        "wins": sum(x < y for x, y in zip(baseline, candidate, strict=True)),
        "equivalence": equal | {"ci_low": -equal["ci_high"], "ci_high": -equal["ci_low"]},
        "candidate": result["baseline"],
        "baseline": result["candidate"],
        "relative_difference": negated(result["relative_difference"]),
        "skewness": minus(result["skewness"]),
        "secondary": secondary
        | {
            "bootstrap_t": negated(secondary["bootstrap_t"]),
            "probability_better": 1 - secondary["probability_equivalent"] - secondary["probability_better"],
            "meaningfully_better": chance["ci_high"] < 0.5 and chance["value"] <= 0.25,
        },
    }
    assert_same(swapped, expected)


@settings(max_examples=40, deadline=None)
@given(LOSSES, st.integers(1, 1000))
def test_a_constant_added_to_all_losses_changes_no_test(losses, constant):
    relative = {"relative_difference", "candidate", "baseline"}
    before, after = (
        compare(np.array(losses[0]) + shift, np.array(losses[1]) + shift, smallest_effect=0.25, metric=NATS)
        for shift in (0, constant)
    )
    for result in (before, after):
        result["secondary"].pop("log_ratio_p")
    kept = before.keys() - relative
    assert_same({key: after[key] for key in kept}, {key: before[key] for key in kept})
    assert after["candidate"]["value"] == pytest.approx(before["candidate"]["value"] + constant)


@settings(max_examples=40, deadline=None)
@given(LOSSES, st.randoms(use_true_random=False))
def test_the_order_of_the_pairs_is_irrelevant(losses, random):
    order = list(range(len(losses[0])))
    random.shuffle(order)
    shuffled = compare(np.array(losses[0])[order], np.array(losses[1])[order], smallest_effect=0.25, metric=NATS)
    result = compare(*losses, smallest_effect=0.25, metric=NATS)
    for one in (shuffled, result):
        one["secondary"].pop("bootstrap_t")  # equal |d| of opposite sign may trade places: Monte Carlo error only
    assert_same(shuffled, result)


@settings(max_examples=30, deadline=None)
@given(LOSSES)
def test_the_result_is_plain_json_and_the_same_every_time(losses):
    result = compare(*losses, smallest_effect=0.25, metric=NATS)
    assert compare(*losses, smallest_effect=0.25, metric=NATS) == result
    assert json.loads(json.dumps(result, allow_nan=False)) == result


# --- bad input ---


@pytest.mark.parametrize(
    ("candidate", "baseline", "smallest_effect", "message"),
    [
        ([1.0], [2.0], 0.1, "found 1 pairs: a comparison needs at least 2, a verdict needs 10"),
        ([], [], 0.1, "found 0 pairs"),
        ([1.0, 2.0], [1.0, 2.0, 3.0], 0.1, "found 2 losses of the candidate, 3 of the baseline"),
        ([[1.0, 2.0]], [[1.0, 2.0]], 0.1, "one loss per pair"),
        ([1.0, math.nan], [1.0, 2.0], 0.1, "found nan as candidate loss of pair 1"),
        ([1.0, 2.0], [math.inf, 2.0], 0.1, "found inf as baseline loss of pair 0"),
        ([1.0, 2.0], [1.0, 2.0], 0.0, "smallest_effect 0.0"),
        ([1.0, 2.0], [1.0, 2.0], math.nan, "smallest_effect nan"),
    ],
)
def test_bad_input_is_one_clear_line(candidate, baseline, smallest_effect, message):
    with pytest.raises(ValueError, match=message) as error:
        compare(candidate, baseline, smallest_effect=smallest_effect, metric=NATS)
    assert "\n" not in str(error.value)


# --- the words of the metric ---


@settings(max_examples=50, deadline=None)
@given(LOSSES)
def test_a_metric_that_is_better_when_higher_changes_words_and_levels_only(losses):
    free = dataclasses.replace(SHARE, bounds=None)
    nats, share = (compare(*losses, smallest_effect=0.25, metric=metric) for metric in (NATS, free))
    for arm in ("candidate", "baseline"):
        assert_same(share.pop(arm), negated(nats.pop(arm)))
    said = nats.pop("sentence").replace("test loss", "test accuracy").replace("nats per token", "share of images")
    said = re.sub("lower|higher", lambda word: "higher" if word[0] == "lower" else "lower", said)
    assert share.pop("sentence") == said
    assert share == nats


def test_levels_stay_inside_the_bounds_of_the_metric():
    right = -np.array([1.0, 1.0, 0.9, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    result = compare(right, right + np.linspace(0.0, 0.1, 10), smallest_effect=0.01, metric=SHARE)
    assert result["candidate"]["value"] == pytest.approx(0.99) and result["candidate"]["ci_high"] == 1.0
    assert result["candidate"]["ci_low"] < 0.99 and result["relative_difference"] is None
    assert result["verdict"] == "BETTER" and "share of images higher on average" in result["sentence"]
