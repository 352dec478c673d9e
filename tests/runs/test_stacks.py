"""Stacks of runs: what makes a run the run it is, and that its company does not matter."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from infinito import tasks, training
from infinito.runs import stacks
from infinito.runs.finish import finish
from infinito.runs.table import Run, RunTable
from infinito.stages import STAGES
from infinito.storage import file_sha256, read_json, read_table, read_weights, write_weights
from infinito.study import load_study
from tests.conftest import in_process


def prepared(folder: Path) -> tuple[object, tasks.Data]:
    study = load_study(folder)
    STAGES["prepare"](study, in_process)
    return study, tasks.load(study.data)


def test_every_stack_has_its_record(finished_study: Path) -> None:
    table = RunTable.load(finished_study / "models" / "runs")
    for stack_id, rows in table.table.groupby("stack_id"):
        record = table.record(str(stack_id))
        assert record["runs"] == rows.sort_values("lane")["run_id"].tolist()
        for key in ("arm", "train", "data_sha256", "code_sha256", "versions", "device", "finished"):
            assert record[key]
        assert ("c++" in record["versions"]) == record["compiled"]


def test_identity_is_the_run_alone(write_study: Callable[..., Path]) -> None:
    study, data = prepared(write_study())
    job = stacks.plan(study, data, [Run("candidate", "pairs", 1, 2), Run("candidate", "pairs", 3, 4)])[0]
    other = dataclasses.replace(job, runs=job.runs[:1])
    assert job.run_id(job.runs[0]) == other.run_id(job.runs[0]) and job.stack_id != other.stack_id
    ids = {job.run_id(run) for run in (Run("candidate", "pairs", 1, 2), Run("candidate", "pairs", 2, 1))}
    for change in ({"steps": 7}, {"learning_rate": 0.02}, {"batch": 9}):
        ids.add(dataclasses.replace(job, train=job.train.model_copy(update=change)).run_id(job.runs[0]))
    ids.add(dataclasses.replace(job, data_sha256="other").run_id(job.runs[0]))
    assert len(ids) == 6
    same = job.train.model_copy(update={"pairs": 99, "stack": 2})
    assert dataclasses.replace(job, train=same).run_id(job.runs[0]) == job.run_id(job.runs[0])


def test_noise_and_reps_are_part_of_the_identity(write_study: Callable[..., Path]) -> None:
    study, data = prepared(write_study())
    wanted = [
        Run("baseline", "grid", 1, 2),
        Run("baseline", "grid", 1, 2, rep=1),
        Run("baseline", "grid", 1, 2, own_noise_seed=7),
    ]
    folder = in_process(stacks.plan(study, data, wanted))[0]
    table = read_table(folder / "runs.parquet").to_pandas()
    assert table["run_id"].is_unique and table["noise_seed"].tolist() == [2, 2, 7]
    first, again, other = table["weights_sha256"]
    assert first == again != other  # a rerun gives the same bits, another noise does not


def test_runs_may_start_from_given_weights(write_study: Callable[..., Path]) -> None:
    study, data = prepared(write_study())
    drawn = in_process(stacks.plan(study, data, [Run("candidate", "pairs", 5, 2)]))[0]
    initial = study.folder / "initial.safetensors"
    write_weights(initial, {name: value[0] for name, value in read_weights(drawn / "initial.safetensors").items()})
    given = in_process(stacks.plan(study, data, [Run("candidate", "pairs", 0, 2)], initial=initial))[0]
    tables = [read_table(folder / "runs.parquet").to_pandas() for folder in (drawn, given)]
    assert tables[0]["weights_sha256"].tolist() == tables[1]["weights_sha256"].tolist()
    assert tables[0]["run_id"].tolist() != tables[1]["run_id"].tolist()
    assert read_json(given / "stack.json")["initial_sha256"] == file_sha256(initial)
    for content, message in ((b"rubbish", "don't fit the network"), (None, "no such file")):
        initial.unlink()
        if content:
            initial.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            stacks.plan(study, data, [Run("candidate", "pairs", 0, 2)], initial=initial)


def test_without_a_compiler_a_study_says_so_in_one_line(
    write_study: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    study, data = prepared(write_study())
    monkeypatch.setattr(training, "compiler", lambda: None)
    monkeypatch.delenv("INFINITO_COMPILE")
    in_process(stacks.plan(study, data, [Run(arm, "pairs", 1, 1) for arm in ("candidate", "baseline")]))
    assert [record.getMessage()[:24] for record in caplog.records] == ["no C++ compiler found (g"]


def test_a_finished_stack_is_not_trained_again(write_study: Callable[..., Path]) -> None:
    study, data = prepared(write_study())
    job = stacks.plan(study, data, [Run("baseline", "pairs", 1, 1)])[0]
    folder = finish(job, lambda steps: None)
    before = (folder / "final.safetensors").stat().st_mtime_ns
    steps: list[int] = []
    assert finish(job, steps.append) == folder and steps == [job.steps]
    assert (folder / "final.safetensors").stat().st_mtime_ns == before


def test_other_stacking_gives_the_same_runs(write_study: Callable[..., Path]) -> None:
    study, data = prepared(write_study())
    wanted = [Run("candidate", "pairs", seed, seed) for seed in range(5)]
    hashes = []
    for order in (wanted, wanted[::-1], wanted[2:] + wanted[:2]):
        folders = in_process(stacks.plan(study, data, order))
        table = pd.concat([read_table(folder / "runs.parquet").to_pandas() for folder in folders])
        hashes.append(dict(zip(table["run_id"], table["weights_sha256"], strict=True)))
    assert hashes[0] == hashes[1] == hashes[2] and len(hashes[0]) == 5


def test_a_diverged_run_is_recorded_and_scored_as_guessing(write_study: Callable[..., Path]) -> None:
    study, data = prepared(write_study({"train.learning_rate": 1e30, "train.clip_norm": 1e30}))
    folder = in_process(stacks.plan(study, data, [Run("baseline", "pairs", 1, 1)]))[0]
    row = read_table(folder / "runs.parquet").to_pandas().iloc[0]
    assert row["diverged"] and row["test_loss"] == row["val_loss"] == pytest.approx(np.log(data.task.vocabulary))
