"""The flow, the stages' processes and the fan-out, with a real Prefect server, real DVC and a toy study."""

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from infinito.flows import fanout, pipeline, stage
from tests import toy
from tests.toy import (
    ROOT,
    SECONDS,
    Toy,
    alive,
    ask,
    attempts,
    dvc,
    eventually,
    latest_flow_run,
    make_repository,
    prefect_server,
    run_flow,
    task_runs,
    toy_environment,
    train_toy,
    write_toy,
)


@pytest.fixture
def toy_study(tmp_path: Path) -> Path:
    folder = tmp_path / "study"
    write_toy(folder)
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with prefect_server(tmp_path_factory.mktemp("prefect")) as url:
        yield url


@pytest.mark.slow
def test_a_flow_run_is_dvc_repro_with_the_stacks_as_tasks(toy_study: Path, server: str, tmp_path: Path) -> None:
    (toy_study / "faults").write_text('{"candidate-02": "die once"}')
    first = run_flow(toy_study, server, tmp_path)
    assert first.returncode == 0, first.stdout + first.stderr
    tasks = task_runs(server, 8)
    stacks = {f"candidate-{i:02d}" for i in range(4)}
    assert tasks.keys() == {"prepare", "train", "compare", "report"} | stacks
    assert {task["state_name"] for task in tasks.values()} == {"Completed"}
    assert {name: task["run_count"] for name, task in tasks.items() if name in stacks} == {
        name: 2 if name == "candidate-02" else 1 for name in stacks
    }
    parents = {parent["id"] for name in stacks for parent in tasks[name]["task_inputs"]["__parents__"]}
    assert parents == {tasks["train"]["id"]}
    assert (toy_study / "train.txt").read_text().startswith(" ".join(sorted(stacks)))

    assert "Running stage 'train'" in first.stderr and "infinito: 4 of 4 stacks" in first.stderr
    assert not [said for said in ("git add", "autostage", "lock file", "dvc push") if said in first.stderr]
    assert "Task run 'candidate-00' - " not in first.stderr  # it has a log of its own
    own = {"logs": {"task_run_id": {"any_": [tasks["candidate-00"]["id"]]}}}
    assert eventually(
        lambda: any("Finished in state Completed" in line["message"] for line in ask(server, "logs", own))
    )

    assert "up to date" in dvc(toy_study, "status", "dvc.yaml")
    assert "Running stage" not in dvc(toy_study, "repro")
    (lineage,) = ask(server, "artifacts", {"artifacts": {"key": {"any_": ["lineage"]}}})
    assert "train --> compare" in lineage["data"]

    second = run_flow(toy_study, server, tmp_path)
    assert second.returncode == 0, second.stdout + second.stderr
    assert {task["state_name"] for task in task_runs(server, 4).values()} == {"UpToDate"}

    (toy_study / "faults").write_text('{"candidate-01": "raise"}')
    for result in (toy_study / "scratch").iterdir():
        result.unlink()
    failed = run_flow(toy_study, server, tmp_path)
    assert failed.returncode == 1
    why = "1 of 4 stacks failed: candidate-01: RuntimeError: out of memory; the other 3 are saved"
    assert failed.stderr.splitlines()[-1] == f"infinito: stage train: {why} (not run: compare, report)"
    assert {name: task["state_name"] for name, task in task_runs(server, 8).items()} == {
        "prepare": "UpToDate",
        "train": "Failed",
        "compare": "NotReady",
        "report": "NotReady",
        "candidate-00": "Completed",
        "candidate-01": "Failed",
        "candidate-02": "Completed",
        "candidate-03": "Completed",
    }
    assert latest_flow_run(server)["state_name"] == "Failed"

    (toy_study / "faults").write_text('{"candidate-02": "die once"}')
    assert run_flow(toy_study, server, tmp_path).returncode == 0
    restored = {"prepare": "UpToDate", "train": "Cached", "compare": "UpToDate", "report": "UpToDate"}
    assert {name: task["state_name"] for name, task in task_runs(server, 4).items()} == restored


@pytest.mark.slow
def test_two_flow_runs_at_once_do_the_work_once(toy_study: Path, server: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "infinito.flows.pipeline", "--study", str(toy_study)]
    environment = toy_environment(PREFECT_API_URL=server, PREFECT_HOME=str(tmp_path))
    runs = [
        subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for _ in range(2)
    ]
    outputs = [run.communicate(timeout=SECONDS)[0].decode() for run in runs]
    assert [run.returncode for run in runs] == [0, 0], outputs
    assert all(len(file.read_text().split()) == 1 for file in (toy_study / "scratch").glob("*.attempts"))
    assert "up to date" in dvc(toy_study, "status", "dvc.yaml")


@pytest.mark.slow
def test_without_a_server_the_flow_runs_all_the_same(toy_study: Path, tmp_path: Path) -> None:
    nobody = "http://127.0.0.1:9/api"
    done = run_flow(toy_study, nobody, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"infinito: no Prefect server at {nobody}; using a temporary one" in done.stderr
    assert "Task run 'train' - infinito: 4 of 4 stacks" in done.stderr
    with closing(sqlite3.connect(tmp_path / "prefect.db")) as database:  # the history stays
        tasks = dict(database.execute("SELECT name, state_name FROM task_run"))
    assert len(tasks) == 8 and tasks["candidate-03"] == "Completed", tasks
    assert "up to date" in dvc(toy_study, "status", "dvc.yaml")


@pytest.mark.slow
def test_a_real_study_gives_the_same_results_as_without_the_flow(
    write_study: Callable[..., Path], finished_study: Path, server: str, tmp_path: Path
) -> None:
    folder = write_study()
    make_repository(folder)
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    for entry in stages.values():  # without the code, which is elsewhere
        entry["deps"] = [path for path in entry["deps"] if path.startswith(("data/", "models/", "results/"))]
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    done = run_flow(folder, server, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr

    plan = {
        "train": ["candidate-pairs", "baseline-pairs", "candidate-grid", "baseline-grid"],
        "golden": ["candidate-confirm", "candidate-controls"],
    }
    tasks = task_runs(server, len(stages) + len(list((folder / ".infinito" / "scratch").iterdir())))
    assert {task["state_name"] for task in tasks.values()} == {"Completed"}
    stacks = {name: task for name, task in tasks.items() if name not in stages}
    for stage_name, designs in plan.items():
        parent = tasks[stage_name]["id"]
        names = {name for name, task in stacks.items() if task["task_inputs"]["__parents__"][0]["id"] == parent}
        assert {name.rpartition("-")[0] for name in names} == set(designs)

    for file in ("compare", "attribute", "golden", "ensemble"):
        found, expected = (json.loads((x / "results" / f"{file}.json").read_text()) for x in (folder, finished_study))
        assert found == expected, file
    kept = {"artifacts": {"flow_run_id": {"any_": [latest_flow_run(server)["id"]]}}}
    assert {artifact["key"] for artifact in ask(server, "artifacts", kept)} == {"lineage", "runs", "verdict", "golden"}
    assert "up to date" in dvc(folder, "status", "dvc.yaml")


def test_a_study_without_a_usable_dvc_yaml_is_one_clear_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = run_flow(tmp_path, "http://127.0.0.1:9/api", tmp_path)
    assert (missing.returncode, missing.stdout) == (2, "")
    assert missing.stderr == (
        f"infinito: {tmp_path}/dvc.yaml: no such file; a study is a folder with a params.yaml and a dvc.yaml\n"
    )
    write_toy(tmp_path / "bad")
    (tmp_path / "bad" / "dvc.yaml").write_text("stages: {train: {comand: python}}")
    assert pipeline.main(["--study", str(tmp_path / "bad")]) == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1
    assert err.startswith(f"infinito: {tmp_path}/bad: ")
    assert "dvc.yaml' validation failed: " in err and "comand" in err


def test_results_come_in_the_order_of_the_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFINITO_WORKERS", "2")
    jobs = [Toy(f"stack-{i}", tmp_path, steps=60 - 10 * i) for i in range(6)]
    (tmp_path / "stack-3.txt").write_text("already trained")
    assert stage.fan_out(jobs, train_toy) == [tmp_path / f"{job.name}.txt" for job in jobs]
    assert not (tmp_path / "stack-3.attempts").exists()
    workers = {file.read_text() for file in tmp_path.glob("*.attempts")}
    assert 1 <= len(workers) <= 2
    assert stage.fan_out([], train_toy) == []


def test_a_killed_worker_takes_only_its_own_stack_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("INFINITO_WORKERS", "2")
    jobs = [Toy(f"stack-{i}", tmp_path, "die once" if i == 1 else "") for i in range(5)]
    assert stage.fan_out(jobs, train_toy) == [tmp_path / f"{job.name}.txt" for job in jobs]
    assert [attempts(job) for job in jobs] == [1, 2, 1, 1, 1]
    assert "stack-1: its worker process ended with exit code -9; trying once more" in capsys.readouterr().err


def test_stacks_that_fail_are_named_and_the_others_are_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("INFINITO_WORKERS", "2")
    jobs = [Toy(f"stack-{i}", tmp_path, {1: "raise", 2: "die", 4: "raise"}.get(i, "")) for i in range(6)]
    with pytest.raises(fanout.FanOutFailed) as failure:
        stage.fan_out(jobs, train_toy)
    assert str(failure.value) == (
        "3 of 6 stacks failed: stack-1, stack-4: RuntimeError: out of memory; "
        "stack-2: its worker process ended with exit code -9; the other 3 are saved"
    )
    assert [attempts(job) for job in jobs] == [1, 1, 2, 1, 1, 1]
    assert {file.stem for file in tmp_path.glob("*.txt")} == {"stack-0", "stack-3", "stack-5"}
    assert "in train_toy\n" in capsys.readouterr().err  # where it happened


def test_bad_input_found_in_a_worker_is_bad_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("INFINITO_WORKERS", "2")
    jobs = [Toy(f"stack-{i}", tmp_path, "bad input") for i in range(2)]

    def work() -> None:
        stage.fan_out(jobs, train_toy)

    monkeypatch.setattr(fanout, "die_with_parent", lambda: None)  # this process is no stage
    assert stage.guarded(work) == 2
    assert capsys.readouterr().err == "infinito: params.yaml: train.steps: found 0; allowed: 1 or more\n"
    monkeypatch.setenv("INFINITO_WORKERS", "many")
    assert stage.guarded(work) == 2
    assert capsys.readouterr().err.startswith("infinito: INFINITO_WORKERS: found 'many'; allowed: ")


def test_a_stage_that_cannot_run_says_why_in_one_line(
    write_study: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fanout, "die_with_parent", lambda: None)
    assert stage.main(["train"]) == 2
    assert capsys.readouterr().err.startswith(f"infinito: {tmp_path}/params.yaml: no such file; ")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.chdir(write_study())
    assert stage.main(["trian"]) == 2
    assert capsys.readouterr().err.startswith("infinito: stage: found 'trian'; allowed: prepare, train, compare, ")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process cannot ask to end with its parent")
def test_the_stage_and_its_workers_end_with_their_parent(toy_study: Path) -> None:
    (toy_study / "faults").write_text('{"candidate-00": "hang", "candidate-01": "hang"}')
    script = "import subprocess, sys; p = subprocess.Popen(sys.argv[1:]); print(p.pid, flush=True); p.wait()"
    parent = subprocess.Popen(
        [sys.executable, "-c", script, sys.executable, toy.__file__],
        cwd=toy_study,
        env=toy_environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    with parent.stdout:
        pids = [int(parent.stdout.readline())]
        started = [toy_study / "scratch" / f"candidate-0{i}.attempts" for i in range(2)]
        assert eventually(lambda: all(file.exists() and file.read_text().endswith("\n") for file in started))
        pids += [int(file.read_text()) for file in started]
        assert all(map(alive, pids))
        parent.kill()
        parent.wait()
        assert eventually(lambda: not any(map(alive, pids)))
