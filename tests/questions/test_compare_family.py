"""Families of hypotheses: every one is paid for."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infinito.questions.compare import Family, compare, family
from infinito.statistics.paired import adjust, mean_estimate, paired_t, tost
from tests.comparisons import BASELINE, CANDIDATE, NATS, assert_same, negated

FAMILY = np.random.default_rng(1).normal(0.4, 1, (3, 20))


def family_of(d, **settings):
    """Three arms with two metrics; the second is the first with the opposite sign."""
    return family({arm: {"loss": row, "accuracy": -row} for arm, row in zip("abc", d, strict=True)}, **settings)


def test_without_a_family_the_test_stands_alone():
    result = compare(CANDIDATE, BASELINE, smallest_effect=0.001, metric=NATS)
    assert result["p_adjusted"] == result["p_value"] and result["hypotheses"] == 1
    assert result["equivalence"]["p_adjusted"] == result["equivalence"]["p_value"]
    assert not {"difference_simultaneous", "sequential"} & result.keys() and "Holm" not in result["sentence"]
    alone = Family(1, result["p_value"], result["equivalence"]["p_value"])
    assert compare(CANDIDATE, BASELINE, smallest_effect=0.001, family=alone, metric=NATS) == result


def test_in_a_family_the_adjusted_p_decides():
    alone = compare(CANDIDATE, BASELINE, smallest_effect=0.001, metric=NATS)
    adjusted = compare(CANDIDATE, BASELINE, smallest_effect=0.001, family=Family(6, 0.06, 1.0), metric=NATS)
    assert (alone["verdict"], adjusted["verdict"]) == ("BETTER", "INCONCLUSIVE")
    assert (adjusted["p_value"], adjusted["p_adjusted"], adjusted["hypotheses"]) == (alone["p_value"], 0.06, 6)
    assert "p = 0.06, Holm-adjusted for 6 hypotheses" in adjusted["sentence"]
    assert adjusted["difference"] == alone["difference"]
    assert adjusted["difference_simultaneous"] == mean_estimate(np.subtract(BASELINE, CANDIDATE), 0.05 / 6)
    equal = compare(CANDIDATE, BASELINE, smallest_effect=0.03, family=Family(2, 0.02, 0.04), metric=NATS)
    assert equal["verdict"] == "EQUIVALENT" and equal["equivalence"]["p_adjusted"] == 0.04
    assert "Different but negligible" in equal["sentence"] and "p = 0.04 after Holm" in equal["sentence"]
    assert "p = 0.02, Holm-adjusted for 2 hypotheses" in equal["sentence"]


def test_in_a_family_the_simultaneous_interval_decides_how_much_better():
    alone = compare(CANDIDATE, BASELINE, smallest_effect=0.004, metric=NATS)  # its 95 % interval starts at 0.0048
    assert "is better, by at least" in alone["sentence"]
    member = compare(CANDIDATE, BASELINE, smallest_effect=0.004, family=Family(4, 0.02, 1.0), metric=NATS)
    assert member["difference_simultaneous"]["ci_low"] < 0.004
    assert "is better, though not surely by at least" in member["sentence"]
    # Holm may reject where the interval of Bonferroni still holds 0: then nothing is sure about the size
    last = compare(CANDIDATE, BASELINE, smallest_effect=0.001, family=Family(40, 0.04, 1.0), metric=NATS)
    assert last["difference_simultaneous"]["ci_low"] < -0.001 and last["verdict"] == "BETTER"
    assert "is better, though not surely by at least" in last["sentence"]
    worse = compare(BASELINE, CANDIDATE, smallest_effect=0.001, family=Family(40, 0.04, 1.0), metric=NATS)
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
    result = compare(CANDIDATE, BASELINE, smallest_effect=0.01, metric=NATS)
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
        ({"a": {"loss": [1.0, 2.0]}, "b": {"loss": [1.0, 2.0, 3.0]}}, "found 2 and 3 differences of loss"),
        ({"a": {"loss": [1.0]}}, "found 1 differences of loss"),
        ({"a": {"loss": [1.0, math.nan]}}, "finite"),
    ],
)
def test_what_is_no_family(differences, message):
    with pytest.raises(ValueError, match=message) as error:
        family(differences, smallest_effect=0.1)
    assert "\n" not in str(error.value)
