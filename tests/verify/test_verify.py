"""Recorded runs, trained again for real: equal bits are called equal, and where two trainings part is found."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor

from infinito import tasks, training, verify
from infinito.runs import stacks
from infinito.runs.engine import compiles
from infinito.runs.table import Run, collect
from infinito.stages import STAGES
from infinito.storage import read_json, read_table, read_weights, write_json, write_table, write_weights
from infinito.study import load_study
from tests.conftest import ROOT, Infinito, in_process

STEPS, POINTS = 6, [3, 6]  # of the tiny study
Refused = Callable[..., str]


@pytest.fixture
def study(finished_study: Path) -> Path:
    """A finished study; its one stack that the tests look at closely is `stack_of`."""
    shutil.copyfile(ROOT / "dvc.yaml", finished_study / "dvc.yaml")
    return finished_study


def stack_of(study: Path, design: str = "pairs", arm: str = "candidate") -> tuple[Path, list[str]]:
    """The folder of the first stack of a design, and its runs, lane by lane."""
    table = read_table(study / "models/runs/runs.parquet").to_pandas()
    rows = table[(table["design"] == design) & (table["arm"] == arm)]
    rows = rows[rows["stack_id"] == rows["stack_id"].iloc[0]].sort_values("lane")
    return study / "models/runs/stacks" / rows["stack_id"].iloc[0], rows["run_id"].tolist()


def change_record(folder: Path, **changes: Any) -> None:
    """Change keys of a stack.json; None removes."""
    record = read_json(folder / "stack.json") | changes
    write_json(folder / "stack.json", {key: value for key, value in record.items() if value is not None})


def change_weights(file: Path, change: Callable[[dict[str, Tensor]], None]) -> None:
    tensors = {name: tensor.clone() for name, tensor in read_weights(file).items()}
    change(tensors)
    write_weights(file, tensors)


def findings(infinito: Infinito, study: Path, *runs: str, code: int) -> dict[str, dict[str, Any]]:
    """What `--json` says of runs, by their ids."""
    done = infinito("verify", *runs, "--study", str(study), "--json")
    assert done.returncode == code, done
    found = json.loads(done.stdout)
    assert found["equal"] == (code == 0) == all(run["equal"] for run in found["runs"])
    return {run["run_id"]: run for run in found["runs"]}


# -------------------------------------------------------------------------------------------------------- equal records


def test_an_untouched_record_is_equal_and_really_trained_again(infinito: Infinito, study: Path) -> None:
    for file in study.glob(".infinito/scratch/*/*.safetensors"):  # what must not be used
        file.write_bytes(b"rubbish")
    longer = read_table(study / "models/ensemble/runs.parquet").to_pandas()["run_id"].iloc[0]
    confirmed = read_table(study / "models/golden/confirmation/runs.parquet").to_pandas()["run_id"].iloc[-1]
    _, runs = stack_of(study)
    done = infinito("verify", runs[1], runs[4][:8], longer, confirmed, "--study", str(study))
    assert done.returncode == 0, done
    assert f"{runs[4]} (candidate, pairs, lane 4): equal bit for bit over 6 steps and" in done.stdout
    assert f"{longer} (candidate, longer, lane 0): equal bit for bit over 12 steps" in done.stdout
    assert done.stdout.count("environment: as recorded") == 3
    assert done.stdout.endswith("\n4 runs of 3 stacks, trained again: 4 equal bit for bit, 0 not\n")
    assert not [*study.glob(".infinito/verify*")]


def test_samples_and_all_runs(infinito: Infinito, study: Path) -> None:
    for path in ("models/golden", "models/ensemble"):
        shutil.rmtree(study / path)
    assert len(findings(infinito, study, "--sample", "2", code=0)) == 2
    everything = findings(infinito, study, "--all", code=0)
    assert set(everything) == set(read_table(study / "models/runs/runs.parquet").to_pandas()["run_id"])


def test_another_order_of_the_lanes_gives_the_same_bits(infinito: Infinito, study: Path) -> None:
    folder, runs = stack_of(study)
    for name in ("initial", "final", "trace"):
        file = folder / f"{name}.safetensors"
        write_weights(file, {key: tensor.flip(0) for key, tensor in read_weights(file).items()})
    change_record(folder, runs=runs[::-1])
    file = study / "models/runs/runs.parquet"
    table = read_table(file).to_pandas()
    here = table["stack_id"] == folder.name
    table.loc[here, "lane"] = len(runs) - 1 - table.loc[here, "lane"]
    write_table(file, table)
    found = findings(infinito, study, *runs, code=0)
    assert [found[run]["lane"] for run in runs] == [5, 4, 3, 2, 1, 0]


def test_another_width_begins_equal_and_its_verdict_follows_the_bits(infinito: Infinito, study: Path) -> None:
    """The engine promises equal bits for equal widths only."""
    folder, runs = stack_of(study)
    change_record(folder, train=read_json(folder / "stack.json")["train"] | {"stack": 9})
    done = infinito("verify", runs[0], "--study", str(study), "--json")
    found = json.loads(done.stdout)
    (run,) = found["runs"]
    assert found["stacks"][0]["width"] == 9
    assert run["initial_equal"] and run["final_difference"] < 1e-3
    assert run["described"]  # the width is no part of a run's identity
    assert (done.returncode == 0) == run["equal"] == (run["final_difference"] == 0 and run["first_step"] is None)


def test_the_environment_is_compared_with_the_record(infinito: Infinito, study: Path) -> None:
    folder, runs = stack_of(study)
    record = read_json(folder / "stack.json")
    versions = record["versions"] | {"torch": "1.0", "c++": "older"}
    change_record(folder, versions=versions, processor="a faster one", code_sha256="0" * 64, compiled=True)
    done = infinito("verify", runs[0], "--study", str(study))
    assert done.returncode == 0  # the bits decide
    line = done.stdout.splitlines()[0]
    for words in (
        f"torch {record['versions']['torch']} (was 1.0)",
        f"c++ {training.compiler_version()} (was older)",
        f"processor {record['processor']} (was a faster one)",
        f"code_sha256 {record['code_sha256'][:12]} (was 000000000000)",
        "compiled False (was True)",
    ):
        assert words in line
    assert "device" not in line


def test_what_was_not_compiled_is_not_compiled_again(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INFINITO_COMPILE")
    folder, runs = stack_of(study)
    here = load_study(study)
    table = verify.runs_of(here)
    (stack,) = verify.recorded(here, table, {runs[0]})
    assert not stack.job.compiled and not verify.changed_environment(stack)
    change_record(folder, compiled=True)
    (stack,) = verify.recorded(here, table, {runs[0]})
    assert stack.job.compiled == compiles("cpu")


def test_a_diverged_run_is_equal_to_itself(infinito: Infinito, write_study: Callable[..., Path]) -> None:
    folder = write_study({"train.learning_rate": 1e30, "train.clip_norm": 1e30})
    study = load_study(folder)
    STAGES["prepare"](study, in_process)
    jobs = stacks.plan(study, tasks.load(study.data), [Run("baseline", "pairs", 1, 1)])
    collect(in_process(jobs), study.runs)
    assert all(run["equal"] for run in findings(infinito, folder, "--all", code=0).values())


def test_runs_that_began_with_the_weights_of_a_file(
    infinito: Infinito, refused: Refused, write_study: Callable[..., Path]
) -> None:
    golden = {"golden.forward": ["selected", "checkpoint"], "golden.checkpoint": "initial.safetensors"}
    folder = write_study(golden)
    study = load_study(folder)
    STAGES["prepare"](study, in_process)
    data = tasks.load(study.data)
    drawn = in_process(stacks.plan(study, data, [Run("candidate", "pairs", 5, 2)]))[0]
    file = folder / "initial.safetensors"
    write_weights(file, {name: value[0] for name, value in read_weights(drawn / "initial.safetensors").items()})
    collect(in_process(stacks.plan(study, data, [Run("candidate", "confirm", 0, 2)], initial=file)), study.runs)
    (run,) = findings(infinito, folder, "--all", code=0).values()
    assert run["described"] and run["initial_equal"]
    file.unlink()
    assert "initial_sha256: found" in refused("verify", "--all", "--study", str(folder))


# ------------------------------------------------------------------------------------------------------ changed records


@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_a_changed_trace_is_found_at_its_step_and_tensor(infinito: Infinito, study: Path, step: int) -> None:
    folder, runs = stack_of(study)
    names = read_json(folder / "stack.json")["tensors"]
    lane, tensor = 1, step + 2

    def part(trace: dict[str, Tensor]) -> None:
        """As if one tensor had been another from this step on."""
        trace["all"][lane, step - 1 :] += 1
        for place, point in enumerate(POINTS):
            trace["tensors"][lane, place, tensor] += point >= step

    change_weights(folder / "trace.safetensors", part)
    found = findings(infinito, study, *runs[:3], code=1)
    assert [found[run]["equal"] for run in runs[:3]] == [True, False, True]
    run = found[runs[lane]]
    point = 3 if step <= 3 else 6
    assert (run["first_step"], run["point"], run["differing_tensors"]) == (step, point, [names[tensor]])
    assert run["consistent"] and run["initial_equal"] and run["final_equal"] and run["test_loss_difference"] == 0
    line = verify.run_line(run)
    where = f"at step {point}" + ("" if point == step else ", the next point with a digest of every tensor")
    assert f"differs first after step {step} of 6; {where}: {names[tensor]} (of {len(names)} tensors)" in line
    assert "equal bit for bit over" in verify.run_line(found[runs[0]])


def test_another_learning_rate_parts_at_the_first_step(infinito: Infinito, study: Path) -> None:
    folder, runs = stack_of(study)
    change_record(folder, train=read_json(folder / "stack.json")["train"] | {"learning_rate": 0.011})
    for run in findings(infinito, study, *runs, code=1).values():
        assert run["initial_equal"] and not run["final_equal"] and not run["hash_equal"] and not run["described"]
        assert 0 < run["final_difference"] < 0.1 and run["test_loss_difference"] > 0 and run["consistent"]
        line = verify.run_line(run)
        assert f"differ by {run['final_difference']:.3g} at most" in line and "initial weights equal" in line
        assert "differs first after step 1 of 6; at step 3, the next point" in line
        assert "more (of" in line and "other settings or seeds" in line


def test_a_tensor_alone_and_a_trace_that_contradicts_itself(infinito: Infinito, study: Path) -> None:
    folder, runs = stack_of(study)
    names = read_json(folder / "stack.json")["tensors"]

    def part(trace: dict[str, Tensor]) -> None:
        trace["all"][0, 1] += 1  # between two points: nothing to contradict
        trace["all"][1, 2] += 1
        trace["tensors"][2, 1, 0] += 1

    change_weights(folder / "trace.safetensors", part)
    found = list(findings(infinito, study, *runs[:3], code=1).values())
    assert [run["first_step"] for run in found] == [2, 3, None]
    assert [run["point"] for run in found] == [None, None, 6]
    assert [run["differing_tensors"] for run in found] == [[], [], [names[0]]]
    assert [run["consistent"] for run in found] == [True, False, False]
    lines = [verify.run_line(run) for run in found]
    assert "no tensor differs at the 2 points" in lines[0] and "contradicts" not in lines[0]
    assert "the record contradicts itself" in lines[1]
    assert f"at step 6, the first point where digests of tensors differ: {names[0]}" in lines[2]


def test_changed_weights_are_measured_lane_by_lane(infinito: Infinito, study: Path) -> None:
    folder, runs = stack_of(study)
    name = read_json(folder / "stack.json")["tensors"][0]

    def initial(weights: dict[str, Tensor]) -> None:
        weights[name][1] = torch.nextafter(weights[name][1], torch.tensor(9.0))

    def final(weights: dict[str, Tensor]) -> None:
        weights[name][0].view(-1)[0] += 0.5
        weights[name][3].view(-1)[0] = torch.nan

    change_weights(folder / "initial.safetensors", initial)
    change_weights(folder / "final.safetensors", final)
    found = list(findings(infinito, study, *runs[:4], code=1).values())
    assert [run["initial_equal"] for run in found] == [True, False, True, True]
    assert [run["final_equal"] for run in found] == [False, True, True, False]
    assert [run["equal"] for run in found] == [False, False, True, False]
    assert found[0]["final_difference"] == pytest.approx(0.5, rel=1e-5) and found[3]["final_difference"] is None
    assert "initial weights differ already; final weights equal" in verify.run_line(found[1])
    assert "final weights differ by more than a number says" in verify.run_line(found[3])
    assert "not in the digests of all weights after 6 steps" in verify.run_line(found[0])


def test_a_changed_run_table_does_not_pass(infinito: Infinito, study: Path) -> None:
    folder, runs = stack_of(study)
    file = study / "models/runs/runs.parquet"
    table = read_table(file).to_pandas().set_index("run_id", drop=False)
    table.loc[runs[0], "test_loss"] += 0.25
    table.loc[runs[1], "weights_sha256"] = "0" * 64
    table.loc[runs[2], "data_seed"] += 1
    write_table(file, table.reset_index(drop=True))
    done = infinito("verify", *runs[:4], "--study", str(study))
    assert done.returncode == 1
    found = list(findings(infinito, study, *runs[:4], code=1).values())
    assert [run["equal"] for run in found] == [False, False, False, True]
    assert done.stdout.endswith("\n4 runs of 1 stack, trained again: 1 equal bit for bit, 3 not\n")
    assert found[0]["test_loss_difference"] == pytest.approx(0.25)
    assert "test loss differs by 0.25" in verify.run_line(found[0])
    assert "final weights equal; runs.parquet has another hash of them" in verify.run_line(found[1])
    assert not found[2]["described"] and found[2]["first_step"] == 1


def test_another_network_is_said_to_be_one(infinito: Infinito, study: Path) -> None:
    folder, runs = stack_of(study)
    record = read_json(folder / "stack.json")
    change_record(folder, train=record["train"] | {"trunk": record["train"]["trunk"] | {"width": 16}})
    (run,) = findings(infinito, study, runs[0], code=1).values()
    assert not run["initial_equal"] and run["final_difference"] is None and run["first_step"] == 1
    change_record(folder, train=record["train"], tensors=["x", *record["tensors"][1:]])
    (run,) = findings(infinito, study, runs[0], code=1).values()
    assert run["differing_tensors"] is None and run["final_equal"]
    assert "the network has other tensors now" in verify.run_line(run)


def test_older_records_are_compared_by_their_weights(infinito: Infinito, study: Path) -> None:
    folder, runs = stack_of(study)
    train = read_json(folder / "stack.json")["train"]
    del train["precision"]
    change_record(folder, train=train, tensors=None, threads=None)
    (folder / "trace.safetensors").unlink()
    table = read_table(study / "models/runs/runs.parquet").to_pandas()
    write_table(study / "models/runs/runs.parquet", table.drop(columns="weights_sha256"))
    done = infinito("verify", runs[0], "--study", str(study))
    assert done.returncode == 0
    assert "equal bit for bit; no trace was recorded, so only initial and final weights were compared" in done.stdout

    def final(weights: dict[str, Tensor]) -> None:
        weights["output_projection.weight"][0].view(-1)[0] += 1

    change_weights(folder / "final.safetensors", final)
    (run,) = findings(infinito, study, runs[0], code=1).values()
    assert run["tensors"] is None and run["final_difference"] == pytest.approx(1)
    assert "differs; no trace was recorded" in verify.run_line(run)


# ------------------------------------------------------------------------------------------------------------ bad input


def test_runs_are_named_by_the_beginning_of_one_id(refused: Refused, study: Path, tmp_path: Path) -> None:
    where = "--study", str(study)
    assert "RUN_ID: found none; allowed: ids or their beginnings, or --sample N, or --all" in refused("verify", *where)
    assert "RUN_ID: found 'xyz', with which no id begins; allowed" in refused("verify", "xyz", *where)
    table = pd.concat([read_table(file).to_pandas() for file in study.glob("models/**/runs.parquet")])
    letter = table["run_id"].str[0].mode()[0]
    several = (table["run_id"].str[0] == letter).sum()
    assert f"RUN_ID: found '{letter}', with which {several} ids begin" in refused("verify", letter, *where)
    for n in (0, len(table) + 1):
        assert f"--sample: found {n}; allowed: 1 to {len(table)}" in refused("verify", "--sample", str(n), *where)
    assert "RUN_ID: found x, --all; allowed" in refused("verify", "x", "--all", *where)
    shutil.rmtree(study / "models")
    assert "runs.parquet: no such file, and no other runs" in refused("verify", "--all", *where)
    (study / "dvc.yaml").unlink()
    assert "dvc.yaml: no such file" in refused("verify", "--all", *where)
    assert "params.yaml: no such file" in refused("verify", "--all", "--study", str(tmp_path / "nowhere"))


def test_other_data_are_refused(refused: Refused, study: Path) -> None:
    _, runs = stack_of(study)
    manifest = study / "data/prepared/manifest.json"
    write_json(manifest, read_json(manifest) | {"other": 1})
    assert "manifest.json: found data" in refused("verify", runs[0], "--study", str(study))
    shutil.rmtree(study / "data")
    assert "manifest.json: no such file; run the stage" in refused("verify", runs[0], "--study", str(study))


RECORDS = {
    "stack.json: arm is missing": {"arm": None},
    "stack.json: train.steps: input should be a valid integer": {"train.steps": "many"},
    "stack.json: train.stack: found 2; allowed: 6 or more": {"train.stack": 2},
    "stack.json: train.stack: found auto": {"train.stack": "auto"},
    "stack.json: train: input should be a valid": {"train": 3},
    "stack.json: runs: not those that runs.parquet has": {"runs": ["a"]},
    "stack.json: threads: found 0; allowed": {"threads": 0},
    "stack.json: tensors is missing": {"tensors": None},
    "stack.json: initial_sha256: found 000000000000, which golden.checkpoint": {"initial_sha256": "0" * 64},
    "network: 'nothing' is unknown": {"arm": {"network": "nothing", "settings": {}}},
    "all: found torch.int32 [6, 6]; allowed: torch.int32 [6, 7]": {"train.steps": 7},
}


@pytest.mark.parametrize("message, change", RECORDS.items())
def test_a_damaged_record_is_refused_by_name(
    refused: Refused, study: Path, message: str, change: dict[str, Any]
) -> None:
    folder, runs = stack_of(study)
    train = read_json(folder / "stack.json")["train"]
    inner = {key.removeprefix("train."): value for key, value in change.items() if key.startswith("train.")}
    change_record(folder, **({"train": train | inner} if inner else change))
    assert message in refused("verify", runs[0], "--study", str(study))


@pytest.mark.parametrize("name", ["stack.json", "trace.safetensors", "initial.safetensors", "final.safetensors"])
def test_missing_and_corrupt_files_are_refused_by_name(refused: Refused, study: Path, name: str) -> None:
    folder, runs = stack_of(study)
    other = stack_of(study, "grid")[1][0]
    file = folder / name
    file.write_bytes(b"rubbish")
    assert f"{file}: not " in refused("verify", other, runs[0], "--study", str(study))  # before anything is trained
    file.unlink()
    assert f"{file}: no such file" in refused("verify", runs[0], "--study", str(study))


def test_a_file_of_another_stack_is_refused(refused: Refused, study: Path) -> None:
    folder, runs = stack_of(study)
    shorter = folder / "final.safetensors"
    write_weights(shorter, {name: tensor[:4] for name, tensor in read_weights(shorter).items()})
    assert "final.safetensors: " in (line := refused("verify", runs[0], "--study", str(study)))
    assert "allowed: [6, ..]" in line
    table = read_table(study / "models/runs/runs.parquet").to_pandas()
    write_table(study / "models/runs/runs.parquet", table.drop(columns="lane"))
    for path in ("models/golden", "models/ensemble"):
        shutil.rmtree(study / path)
    assert "column lane is missing" in refused("verify", runs[0], "--study", str(study))
