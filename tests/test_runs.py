import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from infinito import engine, stacks, tasks
from infinito.params import load_study
from infinito.runs import Run, RunTable
from infinito.stages import STAGES
from infinito.storage import (
    file_sha256,
    read_json,
    read_table,
    read_weights,
    replacing,
    write_table,
    write_weights,
)
from tests.conftest import ROOT, in_process


def prepared(folder: Path) -> tuple[object, tasks.Data]:
    study = load_study(folder)
    STAGES["prepare"](study, in_process)
    return study, tasks.load(study.data)


def test_a_finished_study_holds_every_run_once_with_its_weights(finished_study: Path) -> None:
    table = RunTable.load(finished_study / "models" / "runs")
    assert len(table.table) == 2 * (10 + 9) and table.table["run_id"].is_unique
    candidate, baseline = table.pairs()
    assert candidate[["init_seed", "data_seed"]].equals(baseline[["init_seed", "data_seed"]])
    assert candidate["init_seed"].is_unique and candidate["data_seed"].is_unique
    assert table.grid("baseline", "test_loss").shape == (3, 3, 1, 1)
    final, initial = table.weights(candidate), table.weights(candidate, "initial")
    for lane, expected in enumerate(candidate["weights_sha256"]):
        assert stacks._weights_sha256(final, lane) == expected
        assert any(not torch.equal(final[name][lane], initial[name][lane]) for name in final)
    nats, tokens = table.items(list(candidate["run_id"]))
    np.testing.assert_allclose(nats.sum(1) / tokens.sum(), candidate["test_loss"], rtol=1e-5)
    curves = read_table(finished_study / "models/runs/curves.parquet").to_pandas()
    assert set(curves["step"]) == {3, 6} and len(curves) == len(table.table) * 2 * 2


def test_every_stack_has_its_record(finished_study: Path) -> None:
    table = RunTable.load(finished_study / "models" / "runs")
    for stack_id, rows in table.table.groupby("stack_id"):
        record = table.record(str(stack_id))
        assert record["runs"] == rows.sort_values("lane")["run_id"].tolist()
        for key in ("arm", "train", "data_sha256", "code_sha256", "versions", "device", "finished"):
            assert record[key]


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
    monkeypatch.setattr(engine, "compiler", lambda: None)
    monkeypatch.delenv("INFINITO_COMPILE")
    in_process(stacks.plan(study, data, [Run(arm, "pairs", 1, 1) for arm in ("candidate", "baseline")]))
    assert [record.getMessage()[:24] for record in caplog.records] == ["no C++ compiler found (g"]


def test_a_finished_stack_is_not_trained_again(write_study: Callable[..., Path]) -> None:
    study, data = prepared(write_study())
    job = stacks.plan(study, data, [Run("baseline", "pairs", 1, 1)])[0]
    folder = stacks.finish(job, lambda steps: None)
    before = (folder / "final.safetensors").stat().st_mtime_ns
    steps: list[int] = []
    assert stacks.finish(job, steps.append) == folder and steps == [job.steps]
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
    assert row["diverged"] and row["test_loss"] == row["val_loss"] == pytest.approx(np.log(data.vocabulary))


@pytest.mark.parametrize("damage, message", [("duplicate", "occurs twice"), ("missing", "lacks an arm")])
def test_a_damaged_run_table_is_refused_by_name(finished_study: Path, damage: str, message: str) -> None:
    file = finished_study / "models/runs/runs.parquet"
    table = read_table(file).to_pandas()
    first = table[table["design"] == "pairs"].index[0]
    table = table.drop(index=first) if damage == "missing" else pd.concat([table, table.loc[[first]]])
    write_table(file, table.reset_index(drop=True))
    with pytest.raises(ValueError, match=message):
        STAGES["compare"](load_study(finished_study), in_process)


def test_a_corrupt_run_table_is_refused_by_name(finished_study: Path) -> None:
    before = (finished_study / "results/compare.json").read_bytes()
    (finished_study / "models/runs/runs.parquet").write_bytes(b"PAR1 rubbish PAR1")
    with pytest.raises(ValueError, match="runs.parquet: not a readable Parquet file"):
        STAGES["compare"](load_study(finished_study), in_process)
    assert (finished_study / "results/compare.json").read_bytes() == before


def test_weights_of_another_shape_are_refused(finished_study: Path) -> None:
    from infinito.storage import read_weights, write_weights

    for file in (finished_study / "models/runs/stacks").glob("*/final.safetensors"):
        weights = read_weights(file)
        weights["output_projection.weight"] = weights["output_projection.weight"][..., :-1]
        write_weights(file, weights)
    with pytest.raises(ValueError, match=r"checkpoint does not fit the network: output_projection.weight"):
        STAGES["ensemble"](load_study(finished_study), in_process)


def stage(folder: Path, name: str) -> subprocess.Popen[str]:
    environment = os.environ | {"INFINITO_WORKERS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-m", "flows.stage", name],
        cwd=folder,
        env=environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )


def test_a_killed_training_goes_on_where_it_was(write_study: Callable[..., Path]) -> None:
    changes = {"train.steps": 60, "train.stack": 4}
    killed, whole = write_study(changes, "killed"), write_study(changes, "whole")
    for folder in (killed, whole):
        STAGES["prepare"](load_study(folder), in_process)
    process, scratch = stage(killed, "train"), killed / ".infinito" / "scratch"
    deadline = time.monotonic() + 60
    while len(list(scratch.glob("*/stack.json"))) < 2:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (killed / "models/runs").exists()
    saved = {file: file.stat().st_mtime_ns for file in scratch.glob("*/stack.json")}
    assert 2 <= len(saved) < 12
    again = stage(killed, "train")
    assert again.wait(timeout=120) == 0, again.stderr
    assert all(file.stat().st_mtime_ns == modified for file, modified in saved.items())
    STAGES["train"](load_study(whole), in_process)
    tables = [
        read_table(folder / "models/runs/runs.parquet").to_pandas().drop(columns="wall_seconds")
        for folder in (killed, whole)
    ]
    pd.testing.assert_frame_equal(*tables)
    for name in ("curves", "items"):
        parts = [read_table(folder / f"models/runs/{name}.parquet").to_pandas() for folder in (killed, whole)]
        pd.testing.assert_frame_equal(*parts)


@pytest.mark.parametrize(
    "changes, damage, name, message",
    [
        ({"train.pairs": 1, "ensemble.sizes": [1]}, None, "train", "params.yaml: train.pairs: found 1"),
        ({"train.nonsense": 1}, None, "train", "params.yaml: train.nonsense: unknown key"),
        ({"train.baseline": {"network": "lstm", "settings": {}}}, None, "train", "network: 'lstm' is unknown"),
        (
            {"train.baseline": {"network": "nowhere:Net", "settings": {}}},
            None,
            "train",
            "network: 'nowhere:Net' can't be imported",
        ),
        ({}, "data/prepared/train.parquet", "train", "train.parquet: its contents are not those"),
        ({}, None, "compare", "runs.parquet: no such file; run the stage that writes it"),
        ({}, None, "tune", "stage: found 'tune'; allowed: prepare, train"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    write_study: Callable[..., Path], changes: dict[str, object], damage: str | None, name: str, message: str
) -> None:
    folder = write_study()
    STAGES["prepare"](load_study(folder), in_process)
    write_study(changes)
    if damage:
        (folder / damage).write_bytes(b"rubbish")
    before = sorted(folder.rglob("*"))
    process = stage(folder, name)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2, errors
    assert errors.startswith("infinito: ") and errors.count("\n") == 1 and message in errors
    assert sorted(folder.rglob("*")) == before


def test_two_processes_may_finish_the_same_stack(write_study: Callable[..., Path]) -> None:
    folder = write_study()
    STAGES["prepare"](load_study(folder), in_process)
    processes = [stage(folder, "train") for _ in range(2)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    assert len(RunTable.load(folder / "models/runs").table) == 38
    assert not [path for path in (folder / ".infinito/scratch").iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("first_wins", [False, True])
def test_many_writers_of_one_folder_all_succeed_and_leave_one_whole_folder(tmp_path: Path, first_wins: bool) -> None:
    target = tmp_path / "folder"

    def write(writer: int) -> None:
        for _ in range(50):
            with replacing(target, first_wins=first_wins) as temporary:
                temporary.mkdir()
                for name in "ab":
                    (temporary / name).write_text(str(writer))

    with ThreadPoolExecutor(8) as pool:
        assert not any(pool.map(write, range(8)))
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    assert (target / "a").read_text() == (target / "b").read_text()


def test_a_full_disk_leaves_nothing_half_written(finished_study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = read_json(finished_study / "results/compare.json")

    def full(self: Path, *args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        STAGES["compare"](load_study(finished_study), in_process)
    monkeypatch.undo()
    assert read_json(finished_study / "results/compare.json") == before
    assert not [path for path in (finished_study / "results").iterdir() if path.name.startswith(".")]
