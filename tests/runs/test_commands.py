"""Runs made by commands: what comes out of them, how they fail, and what is never done twice."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from infinito import params
from infinito.runs import RunTable, integrity, reported
from infinito.stages import STAGES
from infinito.storage import read_json, read_table
from infinito.study import load_study
from tests.commands import command, content, starts, write
from tests.conftest import ROOT, in_process
from tests.toy import alive, eventually


def trained(folder: Path, params: dict[str, Any]) -> pd.DataFrame:
    study = load_study(write(folder, params))
    for stage in ("prepare", "train"):
        STAGES[stage](study, in_process)
    return RunTable.load(study.runs).table


def refused(folder: Path, params: dict[str, Any]) -> str:
    with pytest.raises(ValueError) as error:
        load_study(write(folder, params))
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of commands through all its stages."""
    sections = content(grid={"inits": 2, "datas": 2, "noises": 1, "reps": 2})
    sections["attribute"] = {"alpha": 0.05}
    sections["golden"] = {"forward": ["selected"], "checkpoint": None, "data_seeds": 10, "controls": 1}
    sections["golden"] |= {"alpha": 0.025, "margin": 0.0, "useful": 0.01}
    study = load_study(write(tmp_path_factory.mktemp("finished"), sections))
    for stage in study.params.stages:
        STAGES[stage](study, in_process)
    return study.folder


def test_all_stages_run_on_commands(finished: Path) -> None:
    compare, golden = (read_json(finished / f"results/{name}.json") for name in ("compare", "golden"))
    assert compare["verdict"] == "BETTER" and compare["failures"] == []
    assert compare["difference"]["value"] == pytest.approx(0.1)  # the same chance in both runs of a pair
    assert compare["measure"] == {"name": "accuracy", "unit": "share of images", "better": "higher"}
    assert read_json(finished / "results/attribute.json")["candidate"]["deterministic"] is True
    assert golden["checkpoint"] is None and golden["registered"] and len(golden["differences"]) == 10
    page = (finished / "results/report.md").read_text()
    assert "nan" not in page.replace("nannot", "") and "Is the candidate better than the baseline?" in page


def test_a_run_leaves_its_record(finished: Path) -> None:
    table = RunTable.load(finished / "models/runs")
    run = table.design("pairs", "candidate").iloc[0]
    record = table.record(run["stack_id"])
    told = next(x for x, i in zip(record["commands"], record["runs"], strict=True) if i == run["run_id"])
    assert told["command"][-5:] == ["0.6", str(run["init_seed"]), str(run["data_seed"]), "{out}", "none"]
    assert (told["exit_code"], told["attempts"], told["failure"]) == (0, 1, None)
    assert record["code"].keys() == {"train.py"} and record["versions"]["python"]
    logs = read_table(finished / f"models/runs/stacks/{run['stack_id']}/logs.parquet").to_pandas()
    log = logs.set_index("run_id")["log"][run["run_id"]]
    assert float(log.split()[-1]) == -run["test_loss"]  # the last of the two figures, better when higher
    assert run["val_loss"] == pytest.approx(run["test_loss"]) and not list(integrity.faults(table.folder))


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("exit", "exit code 3: no such device"),
        ("silent", "test: found no line 'accuracy: {value}' in its output"),
        ("killed", "killed by SIGKILL"),
        ("nan", "test: found nan; allowed: a finite number"),
    ],
)
def test_a_run_that_fails_is_counted_and_named(tmp_path: Path, fault: str, reason: str) -> None:
    table = trained(tmp_path, content(candidate=command(0.6, f"{fault}@2"), pairs=4))
    failed = table[table["failure"] != ""]
    assert failed[["arm", "failure", "test_loss", "diverged"]].values.tolist() == [["candidate", reason, -0.1, True]]
    study = load_study(tmp_path)
    STAGES["compare"](study, in_process)
    STAGES["report"](study, in_process)
    result = read_json(study.results / "compare.json")
    assert result["diverged"] == {"candidate": 1, "baseline": 0} and result["wins"] == 3
    assert [run["failure"] for run in result["failures"]] == [reason]
    assert f"1 of 4 runs of the candidate failed (the first with: {reason})" in result["sentence"]
    assert "1 run failed" in (study.results / "report.md").read_text()


def test_a_command_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    table = trained(tmp_path, content(candidate=command(0.6, "hang@1"), pairs=2, timeout=1.0))
    assert table["failure"].tolist().count("still running after 1 s (train.timeout)") == 1
    assert eventually(lambda: not alive(int((tmp_path / "child").read_text())))


def test_a_command_that_failed_is_tried_again(tmp_path: Path) -> None:
    table = trained(tmp_path, content(candidate=command(0.6, "once@1"), pairs=2, retries=1))
    assert (table["failure"] == "").all() and starts(tmp_path) == 5


def test_nothing_can_be_compared_where_an_arm_fails_always(tmp_path: Path) -> None:
    with pytest.raises(ChildProcessError, match="all 2 runs of the candidate failed.*: exit code 3: no such device"):
        trained(tmp_path, content(candidate=command(0.6, "exit"), pairs=2))
    assert not (tmp_path / "models").exists()


def test_what_ended_well_is_never_run_again(tmp_path: Path) -> None:
    trained(tmp_path, content(candidate=command(0.6, "once@1"), pairs=2))
    assert starts(tmp_path) == 4
    trained(tmp_path, content(candidate=command(0.6, "once@1"), pairs=2))  # nor what failed under the same settings
    assert starts(tmp_path) == 4
    table = trained(tmp_path, content(candidate=command(0.6, "once@1"), pairs=3, timeout=30))
    assert starts(tmp_path) == 7 and (table["failure"] == "").all()  # the one that failed, and the two that are new


def test_a_changed_script_is_run_anew(tmp_path: Path) -> None:
    trained(tmp_path, content(pairs=2))
    study = load_study(tmp_path)
    (tmp_path / "train.py").write_text((tmp_path / "train.py").read_text() + "\n# another\n")
    with pytest.raises(ValueError, match="train.py: not as it was prepared; run the stage prepare"):
        STAGES["train"](study, in_process)
    for stage in ("prepare", "train"):
        STAGES[stage](study, in_process)
    assert starts(tmp_path) == 8


def test_a_stage_that_is_killed_takes_its_commands_along_and_goes_on(tmp_path: Path) -> None:
    study = load_study(write(tmp_path, content(candidate=command(0.6, "hang@1"), pairs=2, timeout=90)))
    STAGES["prepare"](study, in_process)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "INFINITO_WORKERS": "1"}
    stage = subprocess.Popen([sys.executable, "-m", "infinito.flows.stage", "train"], cwd=tmp_path, env=environment)
    assert eventually(lambda: (tmp_path / "child").exists() and (tmp_path / "child").read_text() != "")
    stage.send_signal(signal.SIGKILL)
    stage.wait()
    started = [int(pid) for pid in (tmp_path / "started").read_text().split()]
    assert eventually(lambda: not any(map(alive, [*started, int((tmp_path / "child").read_text())])))
    again = load_study(write(tmp_path, content(candidate=command(0.6, "hang@1"), pairs=2, timeout=1)))
    STAGES["train"](again, in_process)
    assert starts(tmp_path) == 5  # four, and the one that was killed


@pytest.mark.parametrize(
    ("train", "said"),
    [
        ({"candidate": command(0.6, seeds="{sead} 1")}, r"train.candidate.command: found {sead}; allowed: {init_seed}"),
        ({"candidate": command(0.6, seeds="{init_seed} 1")}, "found {init_seed}; allowed: {init_seed} and {data_seed}"),
        ({"candidate": command(0.6, seeds="1 1")}, "found no seed; allowed"),
        ({"candidate": {"command": "true {seed}"}}, "found no {out}; allowed: a command with it"),
        ({"candidate": {"command": "true {seed} {out} | tee log"}}, "found '|'; allowed: one program"),
        ({"candidate": command(0.5)}, "found the same command as train.baseline"),
        ({"values": {"validation": {"stdout": "{value} s"}}}, "train.values.test: found nothing"),
        ({"values": {"test": {"stdout": "accuracy"}}}, "train.values.test.stdout: found 'accuracy'"),
        ({"values": {"test": {"file": "log.json", "key": "x"}}}, "found 'log.json'; allowed: a file below {out}"),
        ({"seed": 268}, "train.seed: found 268; allowed: at most 267"),
        ({"steps": 3}, "train.steps: unknown key"),
        ({"timeout": None}, "train.timeout: "),
    ],
)
def test_bad_settings_are_one_line(tmp_path: Path, train: dict[str, Any], said: str) -> None:
    assert said in refused(tmp_path, content(**train))


def test_the_study_s_own_outputs_are_no_files_of_the_script(tmp_path: Path) -> None:
    sections = content(pairs=2)
    sections["prepare"]["files"] = ["."]
    trained(tmp_path, sections)
    files = read_json(tmp_path / "data/prepared/manifest.json")["files"]
    assert {"./train.py", "./params.yaml"} <= files.keys() and not any("models" in name for name in files)


def test_a_single_seed_has_no_grid(tmp_path: Path) -> None:
    one = {"candidate": command(0.6, seeds="{seed} 1"), "baseline": command(0.5, seeds="{seed} 1")}
    grid = {"inits": 2, "datas": 2, "noises": 1, "reps": 1}
    assert "train.grid: found a grid, and {seed}" in refused(tmp_path, content(**one, grid=grid))
    assert len(trained(tmp_path, content(**one, pairs=2))) == 4


def test_commands_and_networks_do_not_mix(tmp_path: Path) -> None:
    sections = content()
    sections["prepare"] = {"task": "infinito.tasks:Own", "settings": {}, "overlap_allowed": False}
    assert "with commands as arms; allowed: task: command" in refused(tmp_path, sections)


def test_a_program_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"train.candidate.command: found the program 'no-such-program'"):
        trained(tmp_path, content(candidate={"command": "no-such-program {seed} {out}"}))


@pytest.mark.parametrize(
    ("value", "files", "printed", "expected"),
    [
        (params.InFile(file="{out}/m.json", key="test.accuracy"), {"m.json": '{"test": {"accuracy": 0.5}}'}, "", 0.5),
        (params.InFile(file="{out}/m.json", key="a.1"), {"m.json": '{"a": [1, "2.5"]}'}, "", 2.5),
        (params.InFile(file="{out}/log.csv", key="loss"), {"log.csv": "step,loss\n1,3\n2,2.5\n"}, "", 2.5),
        (params.InFile(file="{out}/log.jsonl", key="loss"), {"log.jsonl": '{"loss": 3}\n{"loss": 1e-3}\n'}, "", 0.001),
        (params.InOutput(stdout="loss {value},"), {}, "loss 3, loss 2, x\nloss  -.5, y\nloss 7", -0.5),
        (params.InMlflow(mlflow="acc"), {"mlruns/0/abc/metrics/acc": "1 0.1 0\n2 0.7 1\n"}, "", 0.7),
    ],
)
def test_figures_are_found(
    tmp_path: Path, value: params.Value, files: dict[str, str], printed: str, expected: float
) -> None:
    (tmp_path / "log.txt").write_text(printed)
    for name, text in files.items():
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).write_text(text)
    assert reported.figure(value, tmp_path / "out", tmp_path / "log.txt", tmp_path) == expected


def test_tensorboard_s_last_scalar_counts(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    writer = EventFileWriter(str(tmp_path / "out"))
    for step, number in ((1, 0.5), (2, 0.25)):
        writer.add_event(Event(step=step, summary=Summary(value=[Summary.Value(tag="acc", simple_value=number)])))
    writer.close()
    value = params.InTensorboard(tensorboard="acc")
    assert reported.figure(value, tmp_path / "out", tmp_path / "log.txt", tmp_path) == 0.25
