"""The verdict on paired losses: its numbers and words, laws that every input obeys, and bad input."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infinito.compare import Family, compare, family, report_protocol, report_protocols, verdict
from infinito.paired import adjust, mean_estimate, paired_t, tost
from infinito.sequential import look, stopped

BASELINE = [2.412, 2.398, 2.455, 2.371, 2.43, 2.407, 2.389, 2.441, 2.42, 2.366]
CANDIDATE = [2.385, 2.401, 2.42, 2.352, 2.433, 2.371, 2.38, 2.402, 2.397, 2.374]

# multiples of 1/64 are added and subtracted without rounding, so the laws hold exactly and ties stay ties
LOSSES = st.integers(2, 20).flatmap(
    lambda n: st.tuples(*[st.lists(st.integers(1, 256).map(lambda x: x / 64), min_size=n, max_size=n)] * 2)
)


def with_mean_and_sd(mean: float, sd: float, n: int) -> np.ndarray:
    x = np.arange(n, dtype=float)
    return mean + sd * (x - x.mean()) / x.std(ddof=1)


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
    result = compare(candidate, baseline, smallest_effect=smallest_effect)
    assert result["verdict"] == expected
    for word in words:
        assert word in result["sentence"]
    assert "\n" not in result["sentence"] and "nan" not in result["sentence"] and "None" not in result["sentence"]


def test_an_inconclusive_sentence_plans_the_next_experiment():
    result = compare(np.zeros(10), with_mean_and_sd(0.0344, 0.1955, 10), smallest_effect=0.01)
    assert result["verdict"] == "INCONCLUSIVE"
    assert result["pairs_for_80_percent_power"] == 256
    assert "about 256 pairs are needed" in result["sentence"]
    assert f"{result['minimal_detectable_effect']:.3g}" in result["sentence"]


def test_skewed_differences_are_flagged_and_get_the_bootstrap_t():
    baseline = np.exp(2 * np.random.default_rng(1).standard_normal(20))
    result = compare(np.zeros(20), baseline, smallest_effect=0.01)
    assert "skewed" in result["sentence"]
    interval, t = result["secondary"]["bootstrap_t"], result["difference"]
    assert interval["ci_high"] > t["ci_high"] and interval["ci_low"] > t["ci_low"]
    assert compare(CANDIDATE, BASELINE, smallest_effect=0.01)["secondary"]["bootstrap_t"] is None


def test_the_relative_difference_needs_positive_losses():
    result = compare(CANDIDATE, BASELINE, smallest_effect=0.01)
    assert result["relative_difference"]["value"] == pytest.approx(np.log(np.divide(BASELINE, CANDIDATE)).mean())
    shifted = compare(np.subtract(CANDIDATE, 2.4), np.subtract(BASELINE, 2.4), smallest_effect=0.01)
    assert shifted["relative_difference"] is None and shifted["secondary"]["log_ratio_p"] is None
    assert shifted["p_value"] == pytest.approx(result["p_value"])


def test_all_differences_equal():
    nothing = compare(BASELINE, BASELINE, smallest_effect=0.01)
    assert nothing["wins"] == 0 and nothing["p_value"] == 1 and nothing["pairs_for_80_percent_power"] is None
    assert nothing["effect_size"] == {"value": None, "ci_low": None, "ci_high": None, "n": 10}
    same = compare(np.ones(10), np.full(10, 1.5), smallest_effect=0.01)
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
    refusals = compare(np.arange(1, n + 1), np.arange(n) + 2.5, smallest_effect=0.01, alpha=alpha)["refusals"]
    assert len(refusals) == len(words)
    for refusal, part in zip(refusals, words, strict=True):
        assert part in refusal


@pytest.mark.parametrize("alpha", [0.1, 0.0625, 0.05, 0.01, 0.001])
def test_what_is_refused_is_what_these_tests_cannot_do(alpha):
    for n in range(2, 14):
        best = compare(np.arange(1, n + 1), np.arange(n) * 2.0 + 2.5, smallest_effect=0.01, alpha=alpha)
        second, refused = best["secondary"], any("sign-flip" in text for text in best["refusals"])
        reached = {second[name] < alpha for name in ("sign_flip_p", "wilcoxon_p", "sign_test_p")}
        assert reached == {not refused}
        assert (best["probability_of_improvement"]["ci_low"] > 0.5) == (not refused)


def test_meaningfully_better_asks_for_three_wins_in_four_and_for_evidence():
    def meaningful(wins: int, n: int) -> bool:
        gain = np.where(np.arange(n) < wins, 1.0, -1.0)
        secondary = compare(np.full(n, 5.0), 5.0 + gain, smallest_effect=0.01)["secondary"]
        assert secondary["role"] == "secondary, never decide"
        return secondary["meaningfully_better"]

    assert meaningful(16, 20) and not meaningful(14, 20)  # 14 of 20: the interval starts at .46
    assert not meaningful(70, 100)  # surely above one half, but not three in four
    assert not meaningful(3, 4)


# --- families ---

FAMILY = np.random.default_rng(1).normal(0.4, 1, (3, 20))


def family_of(d, **settings):
    """Three arms with two metrics; the second is the first with the opposite sign."""
    return family({arm: {"loss": row, "accuracy": -row} for arm, row in zip("abc", d, strict=True)}, **settings)


def test_without_a_family_the_test_stands_alone():
    result = compare(CANDIDATE, BASELINE, smallest_effect=0.001)
    assert result["p_adjusted"] == result["p_value"] and result["hypotheses"] == 1
    assert result["equivalence"]["p_adjusted"] == result["equivalence"]["p_value"]
    assert not {"difference_simultaneous", "sequential"} & result.keys() and "Holm" not in result["sentence"]
    alone = Family(1, result["p_value"], result["equivalence"]["p_value"])
    assert compare(CANDIDATE, BASELINE, smallest_effect=0.001, family=alone) == result


def test_in_a_family_the_adjusted_p_decides():
    alone = compare(CANDIDATE, BASELINE, smallest_effect=0.001)
    adjusted = compare(CANDIDATE, BASELINE, smallest_effect=0.001, family=Family(6, 0.06, 1.0))
    assert (alone["verdict"], adjusted["verdict"]) == ("BETTER", "INCONCLUSIVE")
    assert (adjusted["p_value"], adjusted["p_adjusted"], adjusted["hypotheses"]) == (alone["p_value"], 0.06, 6)
    assert "p = 0.06, Holm-adjusted for 6 hypotheses" in adjusted["sentence"]
    assert adjusted["difference"] == alone["difference"]
    assert adjusted["difference_simultaneous"] == mean_estimate(np.subtract(BASELINE, CANDIDATE), 0.05 / 6)
    equal = compare(CANDIDATE, BASELINE, smallest_effect=0.03, family=Family(2, 0.02, 0.04))
    assert equal["verdict"] == "EQUIVALENT" and equal["equivalence"]["p_adjusted"] == 0.04
    assert "Different but negligible" in equal["sentence"] and "p = 0.04 after Holm" in equal["sentence"]
    assert "p = 0.02, Holm-adjusted for 2 hypotheses" in equal["sentence"]


def test_in_a_family_the_simultaneous_interval_decides_how_much_better():
    alone = compare(CANDIDATE, BASELINE, smallest_effect=0.004)  # its 95 % interval starts at 0.0048
    assert "is better, by at least" in alone["sentence"]
    member = compare(CANDIDATE, BASELINE, smallest_effect=0.004, family=Family(4, 0.02, 1.0))
    assert member["difference_simultaneous"]["ci_low"] < 0.004
    assert "is better, though not surely by at least" in member["sentence"]
    # Holm may reject where the interval of Bonferroni still holds 0: then nothing is sure about the size
    last = compare(CANDIDATE, BASELINE, smallest_effect=0.001, family=Family(40, 0.04, 1.0))
    assert last["difference_simultaneous"]["ci_low"] < -0.001 and last["verdict"] == "BETTER"
    assert "is better, though not surely by at least" in last["sentence"]
    worse = compare(BASELINE, CANDIDATE, smallest_effect=0.001, family=Family(40, 0.04, 1.0))
    assert "is worse, though not surely by at least" in worse["sentence"]


def test_a_family_pays_for_every_hypothesis():
    rows = family_of(FAMILY, smallest_effect=0.5)
    assert [(row["arm"], row["metric"], row["primary"]) for row in rows] == [
        (arm, metric, (arm, metric) == ("a", "loss")) for arm in "abc" for metric in ("loss", "accuracy")
    ]
    p = [float(paired_t(row).p) for row in FAMILY]
    assert [row["p_value"] for row in rows] == pytest.approx([x for x in p for _ in range(2)])
    assert [row["p_holm"] for row in rows] == pytest.approx(adjust([x for x in p for _ in range(2)]))
    loss, accuracy = rows[::2], rows[1::2]
    assert [row["difference"] for row in loss] == [mean_estimate(row) for row in FAMILY]
    equal = [float(tost(row, 0.5).p) for row in FAMILY]
    assert [row["p_equivalence"] for row in loss] == pytest.approx(equal)
    assert [row["p_equivalence_holm"] for row in loss] == pytest.approx(adjust(equal))
    assert all(row["p_value"] < row["p_max_t"] < 1 for row in loss)
    assert {row[key] for row in accuracy for key in ("p_max_t", "p_equivalence", "p_equivalence_holm")} == {None}
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows


def test_a_family_of_one_is_the_plain_test():
    d = np.subtract(BASELINE, CANDIDATE)
    (row,) = family({"candidate": {"test_loss": d}}, smallest_effect=0.01)
    result = compare(CANDIDATE, BASELINE, smallest_effect=0.01)
    assert row["primary"] and row["p_value"] == row["p_holm"] == result["p_value"]
    assert row["p_equivalence"] == row["p_equivalence_holm"] == result["equivalence"]["p_value"]
    assert row["p_max_t"] == result["secondary"]["sign_flip_p"] and row["difference"] == result["difference"]


@settings(max_examples=5, deadline=None)
@given(st.permutations(range(20)))
def test_a_family_knows_no_order_of_pairs_and_a_sign_flips_only_the_estimates(order):
    rows = family_of(FAMILY, smallest_effect=0.5)
    shuffled, flipped = family_of(FAMILY[:, order], smallest_effect=0.5), family_of(-FAMILY, smallest_effect=0.5)
    for row, same, other in zip(rows, shuffled, flipped, strict=True):
        assert_same(same, row)
        assert_same(other, row | {"difference": negated(row["difference"])})


@pytest.mark.parametrize(
    ("differences", "message"),
    [
        ({}, "found no arm or no metric"),
        ({"a": {}}, "found no arm or no metric"),
        ({"a": {"loss": [1.0, 2.0]}, "b": {"accuracy": [1.0, 2.0]}}, "found metrics accuracy of b: allowed are loss"),
        ({"a": {"loss": [1.0, 2.0]}, "b": {"loss": [1.0, 2.0, 3.0]}}, r"found loss of shapes \[\(2,\), \(3,\)\]"),
        ({"a": {"loss": [1.0]}}, r"found loss of shapes \[\(1,\)\]"),
        ({"a": {"loss": [1.0, math.nan]}}, "finite"),
    ],
)
def test_what_is_no_family(differences, message):
    with pytest.raises(ValueError, match=message) as error:
        family(differences, smallest_effect=0.1)
    assert "\n" not in str(error.value)


# --- looks ---


def of_differences(d, **settings):
    return compare(np.full(len(d), 8.0), 8.0 + d, **settings)


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
    plain = compare(candidate, baseline, smallest_effect=0.3)
    result = compare(candidate, baseline, smallest_effect=0.3, look=look(d, design=design, pairs=24))
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
        compare(*arms, smallest_effect=0.25, alpha=alpha, look=look(x, design=design, pairs=pairs, alpha=alpha))
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


# --- laws ---


def strings_and_numbers(x):
    """Leaves of a result as {path: value}."""
    if isinstance(x, dict):
        return {f"{key}.{path}": leaf for key, value in x.items() for path, leaf in strings_and_numbers(value).items()}
    return {"": x}


def assert_same(got, expected):
    got, expected = strings_and_numbers(got), strings_and_numbers(expected)
    assert got.keys() == expected.keys()
    for key, value in expected.items():
        assert got[key] == (pytest.approx(value, rel=1e-6, abs=1e-9) if isinstance(value, float) else value), key


def negated(x):
    return x and {"value": minus(x["value"]), "ci_low": minus(x["ci_high"]), "ci_high": minus(x["ci_low"]), "n": x["n"]}


def minus(x):
    return None if x is None else -x


@settings(max_examples=40, deadline=None)
@given(LOSSES)
def test_swapping_the_arms_flips_the_sign_and_nothing_else(losses):
    candidate, baseline = losses
    result = compare(candidate, baseline, smallest_effect=0.25)
    swapped = compare(baseline, candidate, smallest_effect=0.25)
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
        compare(np.array(losses[0]) + shift, np.array(losses[1]) + shift, smallest_effect=0.25)
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
    shuffled = compare(np.array(losses[0])[order], np.array(losses[1])[order], smallest_effect=0.25)
    result = compare(*losses, smallest_effect=0.25)
    for one in (shuffled, result):
        one["secondary"].pop("bootstrap_t")  # equal |d| of opposite sign may trade places: Monte Carlo error only
    assert_same(shuffled, result)


@settings(max_examples=30, deadline=None)
@given(LOSSES)
def test_the_result_is_plain_json_and_the_same_every_time(losses):
    result = compare(*losses, smallest_effect=0.25)
    assert compare(*losses, smallest_effect=0.25) == result
    assert json.loads(json.dumps(result, allow_nan=False)) == result


# --- bad input ---


@pytest.mark.parametrize(
    ("candidate", "baseline", "smallest_effect", "message"),
    [
        ([1.0], [2.0], 0.1, "found 1 pairs: a comparison needs at least 2, a verdict needs 10"),
        ([], [], 0.1, "found 0 pairs"),
        ([1.0, 2.0], [1.0, 2.0, 3.0], 0.1, r"shapes \(2,\) and \(3,\)"),
        ([[1.0, 2.0]], [[1.0, 2.0]], 0.1, "one loss per pair"),
        ([1.0, math.nan], [1.0, 2.0], 0.1, "found nan as candidate loss of pair 1"),
        ([1.0, 2.0], [math.inf, 2.0], 0.1, "found inf as baseline loss of pair 0"),
        ([1.0, 2.0], [1.0, 2.0], 0.0, "smallest_effect 0.0"),
        ([1.0, 2.0], [1.0, 2.0], math.nan, "smallest_effect nan"),
    ],
)
def test_bad_input_is_one_clear_line(candidate, baseline, smallest_effect, message):
    with pytest.raises(ValueError, match=message) as error:
        compare(candidate, baseline, smallest_effect=smallest_effect)
    assert "\n" not in str(error.value)


# --- the report's protocol ---


def test_report_protocol():
    result = report_protocol([1.0, 3.0, 2.0], [2.0, 2.0, 2.0])
    assert result["mean_percent"] == 0 and result["sd_percent"] == 50
    assert (result["wins"], result["n"], result["best_seed"], result["best_percent"]) == (1, 3, 0, 50)
    assert result["expected_best_by_luck"] == pytest.approx(0.846284 * 50, abs=1e-4)
    assert result["p_value"] == 1
    assert json.loads(json.dumps(result)) == result


def test_report_protocol_expects_33_percent_from_the_luckiest_of_10_equal_seeds():
    percent = with_mean_and_sd(3.44, 19.55, 10)
    result = report_protocol(100 - percent, np.full(10, 100.0))
    assert result["expected_best_by_luck"] == pytest.approx(33.5, abs=0.05)
    assert result["p_value"] == pytest.approx(0.591, abs=1e-3)


def test_report_protocol_refuses_what_has_no_percentage():
    with pytest.raises(ValueError, match="found baseline loss 0"):
        report_protocol([1.0, 1.0], [0.0, 1.0])
    with pytest.raises(ValueError, match="found 1 pairs"):
        report_protocol([1.0], [1.0])


def test_one_report_after_another_claims_from_its_own_seeds():
    candidate, baseline = np.random.default_rng(0).uniform(1, 2, (2, 25))
    claims = report_protocols(candidate, baseline)
    assert [claim["first_pair"] for claim in claims] == [0, 10]  # 5 pairs are left over
    assert claims[1] == {"first_pair": 10} | report_protocol(candidate[10:20], baseline[10:20])
    assert len({claim["mean_percent"] for claim in claims}) == 2
    assert [claim["n"] for claim in report_protocols(candidate, baseline, size=6)] == [6] * 4
    assert report_protocols(candidate, baseline, size=26) == []
