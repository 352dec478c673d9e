"""A run table that is not what its stacks recorded, or of other data, is refused by every stage that reads one."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from infinito.runs import integrity
from infinito.runs.table import RunTable
from infinito.stages import STAGES
from infinito.storage import read_json, read_table, write_table
from infinito.study import load_study
from tests.conftest import in_process
from tests.plans import change
from tests.recorded import edit
from tests.rerecorded import rerecord

READERS = ("compare", "attribute", "golden", "ensemble", "report")


def forge(study: Path, harm: Callable[[pd.DataFrame], pd.DataFrame], table: str = "models/runs") -> None:
    file = study / table / "runs.parquet"
    write_table(file, harm(read_table(file).to_pandas()).reset_index(drop=True))


@pytest.mark.parametrize("stage", READERS)
def test_every_stage_refuses_a_forged_loss_and_other_data(finished_study: Path, stage: str) -> None:
    forge(finished_study, lambda table: table.assign(test_loss=table["test_loss"] * 0.5))
    before = {file: file.stat().st_mtime_ns for file in (finished_study / "results").rglob("*.json")}
    with pytest.raises(ValueError, match=r"runs.parquet: run \w+: test_loss: found .*; allowed: .* recorded it"):
        STAGES[stage](load_study(finished_study), in_process)
    forge(
        finished_study, lambda table: table.assign(test_loss=table["test_loss"] / 0.5)
    )  # halves and doubles are exact
    STAGES["prepare"](change(finished_study, {"prepare.seed": 7}), in_process)
    with pytest.raises(ValueError, match=r"runs.parquet: run \w+ was trained on the data \w{12}, .* has \w{12}"):
        STAGES[stage](change(finished_study, {"prepare.seed": 0}), in_process)
    assert {file: file.stat().st_mtime_ns for file in (finished_study / "results").rglob("*.json")} == before


@pytest.mark.parametrize("table", ["models/golden/confirmation", "models/ensemble"])
def test_the_runs_of_later_stages_are_checked_too(finished_study: Path, table: str) -> None:
    forge(finished_study, lambda rows: rows.assign(val_loss=rows["val_loss"] + 1.0), table)
    with pytest.raises(ValueError, match="val_loss: found"):
        STAGES["report"](load_study(finished_study), in_process)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda rows: rows.assign(data_seed=rows["data_seed"] + 1), "data_seed: found 1"),
        (lambda rows: rows.assign(diverged=True), "diverged: found True; allowed: False"),
        (lambda rows: rows.assign(lane=rows["lane"][::-1].to_numpy()), "lane: found"),
        (lambda rows: rows.assign(new=1.0), "new: found 1.0; allowed: None"),
        (lambda rows: rows.drop(columns="steps"), "steps: found None; allowed: 6"),
        (lambda rows: rows.assign(test_loss=np.nextafter(rows["test_loss"], 9.0)), "test_loss: found"),
        (lambda rows: rows.iloc[1:], "is missing, which"),
        (lambda rows: rows[rows["stack_id"] != rows["stack_id"].iloc[0]], "is missing, which"),
        (lambda rows: rows.assign(stack_id="nowhere"), "nowhere/stack.json: missing, with all that is known of its 38"),
        (lambda rows: rows.assign(run_id=[f"{run[::-1]}" for run in rows["run_id"]]), "is missing, which"),
        (lambda rows: pd.concat([rows, rows.iloc[:1].assign(init_seed=1, run_id="new")]), "run new is not among those"),
    ],
)
def test_what_differs_is_named(
    finished_study: Path, harm: Callable[[pd.DataFrame], pd.DataFrame], message: str
) -> None:
    forge(finished_study, harm)
    with pytest.raises(ValueError) as error:
        RunTable.load(finished_study / "models/runs")
    assert message in str(error.value) and "\n" not in str(error.value)
    assert any(message in fault for fault in integrity.faults(finished_study / "models/runs"))


def test_the_order_of_the_rows_does_not_matter(finished_study: Path) -> None:
    forge(finished_study, lambda rows: rows.iloc[::-1])
    assert not [*integrity.faults(finished_study / "models/runs")]
    RunTable.load(finished_study / "models/runs")


def test_a_record_of_an_older_version_is_said_to_be_one(finished_study: Path) -> None:
    file = next((finished_study / "models/runs").glob("stacks/*/stack.json"))
    record = read_json(file)
    edit(file, rows=None)
    with pytest.raises(ValueError, match="stack.json: rows is missing: the record is of an older version; .*dvc repro"):
        RunTable.load(finished_study / "models/runs")
    edit(file, rows=record["rows"], files=None)
    assert any(
        "files.final.safetensors is missing" in fault for fault in integrity.faults(finished_study / "models/runs")
    )


def test_figures_that_are_no_numbers_are_compared_too(finished_study: Path) -> None:
    """A score may be undefined, and then is so in the record."""
    folder = finished_study / "models/runs"
    table = read_table(folder / "runs.parquet").to_pandas().assign(accuracy=np.nan)
    rerecord(folder, table)
    RunTable.load(folder)
    forge(finished_study, lambda rows: rows.assign(accuracy=1.0))
    with pytest.raises(ValueError, match="accuracy: found 1.0; allowed: None"):
        RunTable.load(folder)


@pytest.mark.parametrize("name", ["final.safetensors", "items.parquet"])
def test_weights_and_losses_are_read_only_if_they_are_the_recorded_ones(finished_study: Path, name: str) -> None:
    table = RunTable.load(finished_study / "models/runs")
    candidate, _ = table.pairs()
    mine, other = (table.folder / "stacks" / candidate["stack_id"].iloc[at] / name for at in (0, -1))
    assert mine != other
    shutil.copyfile(other, mine)
    read: Any = table.weights if "safetensors" in name else lambda runs: table.items(list(runs["run_id"]))
    with pytest.raises(ValueError, match=f"{name}: found .*; allowed: .*, as stack.json recorded it"):
        read(candidate)
    os.remove(mine)
    with pytest.raises(ValueError, match=f"{name}: found nothing"):
        read(candidate)
