"""The table of runs: every run once, with its weights, and refused by name when it is damaged."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from infinito.runs import finish
from infinito.runs.table import RunTable
from infinito.stages import STAGES
from infinito.storage import read_table, read_weights, write_weights
from infinito.study import load_study
from tests.conftest import in_process
from tests.rerecorded import rerecord


def test_a_finished_study_holds_every_run_once_with_its_weights(finished_study: Path) -> None:
    table = RunTable.load(finished_study / "models" / "runs")
    assert len(table.table) == 2 * (10 + 9) and table.table["run_id"].is_unique
    candidate, baseline = table.pairs()
    assert candidate[["init_seed", "data_seed"]].equals(baseline[["init_seed", "data_seed"]])
    assert candidate["init_seed"].is_unique and candidate["data_seed"].is_unique
    assert table.grid("baseline", "test_loss").shape == (3, 3, 1, 1)
    final, initial = table.weights(candidate), table.weights(candidate, "initial")
    for lane, expected in enumerate(candidate["weights_sha256"]):
        assert finish._weights_sha256(final, lane) == expected
        assert any(not torch.equal(final[name][lane], initial[name][lane]) for name in final)
    nats, tokens = table.items(list(candidate["run_id"]))
    np.testing.assert_allclose(nats.sum(1) / tokens.sum(), candidate["test_loss"], rtol=1e-5)
    curves = read_table(finished_study / "models/runs/curves.parquet").to_pandas()
    assert set(curves["step"]) == {3, 6} and len(curves) == len(table.table) * 2 * 2


def one_pair(runs: pd.DataFrame) -> pd.DataFrame:
    pairs = runs["design"] == "pairs"
    return runs[~pairs | (runs["init_seed"] == runs.loc[pairs, "init_seed"].min())]


def again(runs: pd.DataFrame, design: str, **changed: str) -> pd.DataFrame:
    return pd.concat([runs, runs[runs["design"] == design].head(1).assign(**changed)])


def without(runs: pd.DataFrame, design: str, count: int) -> pd.DataFrame:
    return runs.drop(index=runs[runs["design"] == design].index[:count])


@pytest.mark.parametrize(
    "stage, damage, message",
    [
        (
            "compare",
            lambda runs: again(runs, "pairs"),
            r"found run \w{16} 2 times \(candidate, pairs: init_seed 1000000, ",
        ),
        (
            "compare",
            lambda runs: again(runs, "pairs", run_id="f" * 16),
            r"found runs \w{16}, f{16} of the same seeds \(candidate, pairs: init_seed 1000000, data_seed 1000000, ",
        ),
        ("compare", lambda runs: without(runs, "pairs", 1), "lacks an arm"),
        ("compare", one_pair, "design pairs: found 1 pair of runs; allowed: 2 or more"),
        ("ensemble", one_pair, "design pairs: found 1 pair of runs; allowed: 2 or more"),
        ("compare", lambda runs: without(runs, "pairs", 99), "design pairs: candidate: found 0 runs"),
        (
            "attribute",
            lambda runs: without(runs, "grid", 99),
            "grid of the candidate: found 0 runs of 0 init seeds and 0 d",
        ),
        (
            "golden",
            lambda runs: without(runs, "grid", 99),
            "grid of the candidate: found 0 runs of 0 init seeds and 0 data",
        ),
        (
            "golden",
            lambda runs: without(runs, "grid", 8),
            "design grid of the candidate: found 3 runs of 1 init seeds and 3",
        ),
        (
            "golden",
            lambda runs: without(runs, "grid", 1),
            r"found no val_loss for init seed \d+ with data seed \d+ \(1 such places\); allowed: a run for every",
        ),
    ],
)
def test_a_damaged_run_table_is_refused_in_words(
    finished_study: Path, stage: str, damage: Callable[[pd.DataFrame], pd.DataFrame], message: str
) -> None:
    file = finished_study / "models/runs/runs.parquet"
    rerecord(file.parent, damage(read_table(file).to_pandas()).reset_index(drop=True))
    with pytest.raises(ValueError, match=message) as error:
        STAGES[stage](load_study(finished_study), in_process)
    assert str(error.value).startswith(str(file)) and "\n" not in str(error.value)


def test_a_corrupt_run_table_is_refused_by_name(finished_study: Path) -> None:
    before = (finished_study / "results/compare.json").read_bytes()
    (finished_study / "models/runs/runs.parquet").write_bytes(b"PAR1 rubbish PAR1")
    with pytest.raises(ValueError, match="runs.parquet: not a readable Parquet file"):
        STAGES["compare"](load_study(finished_study), in_process)
    assert (finished_study / "results/compare.json").read_bytes() == before


def test_weights_of_another_shape_are_refused(finished_study: Path) -> None:

    for file in (finished_study / "models/runs/stacks").glob("*/final.safetensors"):
        weights = read_weights(file)
        weights["output_projection.weight"] = weights["output_projection.weight"][..., :-1]
        write_weights(file, weights)
    rerecord(finished_study / "models/runs")
    with pytest.raises(ValueError, match=r"checkpoint does not fit the network: output_projection.weight"):
        STAGES["ensemble"](load_study(finished_study), in_process)
