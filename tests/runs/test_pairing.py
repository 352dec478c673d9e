"""Pairs of runs: who meets whom, and one clear refusal for each way in which a comparison would be unfair."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infinito.runs.pairing import NEVER_EMPTY, SEEDS, SHARED, paired_runs

SOURCE = "models/runs/runs.parquet"


def runs(arm: str, n: int = 4) -> pd.DataFrame:
    seeds = np.arange(n)
    return pd.DataFrame(
        {
            "run_id": [f"{arm}-{i}" for i in range(n)],
            "arm": arm,
            "init_seed": 100 + seeds // 2,
            "data_seed": 200 + seeds // 2,
            "noise_seed": 300 + seeds % 2,
            "rep": 0,
            "data_sha256": "data",
            "evaluation_sha256": "evaluation",
            "train_examples": 1000,
            "steps": 10,
            "device": "cpu",
            "arm_sha256": f"sha of {arm}",
            "code_sha256": f"code of {arm}",
            "test_loss": np.linspace(1, 2, n),
        }
    )


def both(n: int = 4) -> tuple[pd.DataFrame, pd.DataFrame]:
    return runs("candidate", n), runs("baseline", n)


def refusal(candidate: pd.DataFrame, baseline: pd.DataFrame) -> str:
    with pytest.raises(ValueError) as error:
        paired_runs(candidate, baseline, SOURCE)
    message = str(error.value)
    assert message.startswith(f"{SOURCE}: ") and "found" in message and "allowed" in message and "\n" not in message
    return message


def test_pairs_share_their_seeds_and_keep_all_columns():
    candidate, baseline = paired_runs(*both(), SOURCE)
    assert list(candidate["run_id"]) == [f"candidate-{i}" for i in range(4)]
    assert list(baseline["run_id"]) == [f"baseline-{i}" for i in range(4)]
    assert set(candidate.columns) == set(runs("x").columns)


def test_two_arms_may_differ_in_their_code():
    candidate, baseline = both()
    for frame, arm in zip(paired_runs(candidate, baseline, SOURCE), ("candidate", "baseline"), strict=True):
        assert set(frame["code_sha256"]) == {f"code of {arm}"}


# --- refusals ---


@pytest.mark.parametrize("column", [*NEVER_EMPTY, "test_loss"])
def test_a_missing_column(column):
    candidate, baseline = both()
    assert f"baseline: found no column {column};" in refusal(candidate, baseline.drop(columns=column))


@pytest.mark.parametrize("column", NEVER_EMPTY)
def test_a_missing_value(column):
    candidate, baseline = both()
    candidate[column] = candidate[column].astype(object)
    candidate.loc[2, column] = None
    message = refusal(candidate, baseline)
    assert f"{column}: found no value" in message
    assert column == "run_id" or "run candidate-2" in message


@pytest.mark.parametrize("arm", [0, 1])
def test_no_runs(arm):
    frames = list(both())
    frames[arm] = frames[arm][:0]
    assert f"{('candidate', 'baseline')[arm]}: found 0 runs" in refusal(*frames)


def test_a_run_that_occurs_twice():
    candidate, baseline = both()
    message = refusal(pd.concat([candidate, candidate[1:2]]), baseline)
    assert "run candidate-1: run_id: found 2 times in the candidate; allowed: once" in message


def test_two_runs_of_the_same_seeds():
    candidate, baseline = both()
    again = baseline[3:].assign(run_id="other")
    message = refusal(candidate, pd.concat([baseline, again], ignore_index=True))
    assert "runs baseline-3, other: seeds: found init_seed 101, data_seed 201, noise_seed 301, rep 0 2 times" in message


def test_the_same_run_in_both_arms():
    candidate, baseline = both()
    candidate.loc[1, "run_id"] = "baseline-1"
    assert "run baseline-1: run_id: found candidate and baseline" in refusal(candidate, baseline)


@pytest.mark.parametrize("arm", [0, 1])
@pytest.mark.parametrize(("column", "words"), [("arm_sha256", "configuration"), ("code_sha256", "version of the code")])
def test_two_configurations_or_versions_within_an_arm(arm, column, words):
    frames = both()
    name = ("candidate", "baseline")[arm]
    frames[arm].loc[2:, column] = "other"
    message = refusal(*frames)
    assert f"runs {name}-0, {name}-2: {column}: found 2 values in the {name}" in message
    assert "and other;" in message and f"allowed: exactly one {words} per arm" in message


@pytest.mark.parametrize("arm", [0, 1])
def test_a_pair_that_lacks_an_arm(arm):
    frames = list(both())
    frames[arm] = frames[arm].drop(index=2)
    there, lacking = ("baseline", "candidate")[arm], ("candidate", "baseline")[arm]
    message = refusal(*frames)
    assert f"run {there}-2: seeds: found init_seed 101, data_seed 201, noise_seed 300, rep 0" in message
    assert f"which lacks an arm, the {lacking} (1 such runs)" in message


def test_many_pairs_that_lack_an_arm_are_counted_and_some_named():
    candidate, baseline = both(10)
    message = refusal(candidate[:5], baseline)
    assert "runs baseline-5, baseline-6, baseline-7 and 2 more" in message and "(5 such runs)" in message


@pytest.mark.parametrize(
    ("column", "value"),
    [("data_sha256", "x"), ("evaluation_sha256", "x"), ("train_examples", 7), ("steps", 7), ("device", "x")],
)
def test_runs_of_a_pair_that_differ(column, value):
    candidate, baseline = both()
    candidate.loc[[1, 3], column] = value
    message = refusal(candidate, baseline)
    assert f"runs candidate-1, baseline-1: {column}: found {value} and {baseline[column][1]}; allowed: " in message
    assert "(2 pairs differ)" in message


def test_pairs_may_differ_from_one_another():
    candidate, baseline = both()
    for frame in (candidate, baseline):
        frame.loc[2:, "device"] = "another kind"
    for frame, expected in zip(paired_runs(candidate, baseline, SOURCE), (candidate, baseline), strict=True):
        assert list(frame["device"]) == ["cpu", "cpu", "another kind", "another kind"]
        assert list(frame["run_id"]) == list(expected["run_id"])


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite(loss):
    candidate, baseline = both()
    baseline.loc[1, "test_loss"] = loss
    assert f"run baseline-1: test_loss: found {loss}; allowed: a finite number" in refusal(candidate, baseline)


# --- laws ---

ORDER = st.permutations(range(4))


@settings(max_examples=50, deadline=None)
@given(ORDER, ORDER)
def test_the_order_of_the_rows_is_irrelevant(mine, others):
    candidate, baseline = both()
    expected = paired_runs(candidate, baseline, SOURCE)
    got = paired_runs(candidate.iloc[mine], baseline.iloc[others], SOURCE)
    for frame, other in zip(got, expected, strict=True):
        pd.testing.assert_frame_equal(frame, other)


@settings(max_examples=50, deadline=None)
@given(ORDER, st.sampled_from([*SHARED, "test_loss", "arm_sha256", "code_sha256", *SEEDS, "run_id"]), st.integers(0, 3))
def test_a_refusal_does_not_depend_on_the_order_of_the_rows_either(order, column, row):
    candidate, baseline = both()
    new = math.nan if column == "test_loss" else 999 if candidate[column].dtype.kind in "iu" else "baseline-2"
    candidate.loc[row, column] = new
    assert refusal(candidate.iloc[order], baseline) == refusal(candidate, baseline)


@settings(max_examples=50, deadline=None)
@given(ORDER)
def test_relabelling_the_arms_swaps_them_and_nothing_else(order):
    candidate, baseline = both()
    pairs = paired_runs(candidate.iloc[order], baseline, SOURCE)
    swapped = paired_runs(baseline, candidate.iloc[order], SOURCE)
    for frame, other in zip(pairs, swapped[::-1], strict=True):
        pd.testing.assert_frame_equal(frame, other)


@settings(max_examples=50, deadline=None)
@given(st.sets(st.integers(0, 7)), st.sets(st.integers(0, 7)))
def test_exactly_the_complete_sets_of_pairs_are_accepted(mine, others):
    candidate, baseline = both(8)
    frames = candidate.loc[sorted(mine)], baseline.loc[sorted(others)]
    if mine == others and mine:
        got = paired_runs(*frames, SOURCE)
        for seed in SEEDS:
            assert list(got[0][seed]) == list(got[1][seed])
        assert len(got[0]) == len(mine)
    else:
        refusal(*frames)
