"""The table of runs: every run once, with its weights, and refused by name when it is damaged."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from infinito.params import load_study
from infinito.runs import finish
from infinito.runs.table import RunTable
from infinito.stages import STAGES
from infinito.storage import read_table, read_weights, write_weights
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


@pytest.mark.parametrize("damage, message", [("duplicate", "occurs twice"), ("missing", "lacks an arm")])
def test_a_damaged_run_table_is_refused_by_name(finished_study: Path, damage: str, message: str) -> None:
    file = finished_study / "models/runs/runs.parquet"
    table = read_table(file).to_pandas()
    first = table[table["design"] == "pairs"].index[0]
    table = table.drop(index=first) if damage == "missing" else pd.concat([table, table.loc[[first]]])
    rerecord(file.parent, table.reset_index(drop=True))
    with pytest.raises(ValueError, match=message):
        STAGES["compare"](load_study(finished_study), in_process)


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
