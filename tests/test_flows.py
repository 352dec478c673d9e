"""The flow, the stages' processes and the fan-out, with a real Prefect server, real DVC and a toy study.

This file is also the toy study's stage `train`: dvc.yaml runs it as a script.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows import fanout, stage

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 300  # until a test gives up waiting for a process


@dataclass(frozen=True)
class Toy:
    """A small job that does what `fault` says on its way."""

    name: str
    folder: Path
    fault: str = ""
    steps: int = 30


def train_toy(job: Toy, progress: Callable[[int], None]) -> Path:
    """Count the steps, note each attempt and its process, and leave a result unless one is there."""
    result = job.folder / f"{job.name}.txt"
    if result.exists():
        return result
    with (job.folder / f"{job.name}.attempts").open("a") as attempts:
        attempts.write(f"{os.getpid()}\n")
    for step in range(job.steps):
        progress(step)
        time.sleep(0.01)
        if step == 10 and (job.fault == "die" or job.fault == "die once" and _attempts(job) == 1):
            os.kill(os.getpid(), signal.SIGKILL)
        if step == 10 and job.fault == "raise":
            raise RuntimeError("out of\nmemory")
        if step == 10 and job.fault == "bad input":
            raise ValueError("params.yaml: train.steps: found 0; allowed: 1 or more")
        if step == 10 and job.fault == "hang":
            time.sleep(SECONDS)
    result.write_text(job.name)
    return result


def toy_stage() -> None:
    """The toy study's stage `train`: four stacks, with the faults that the file `faults` names."""
    faults = json.loads(Path("faults").read_text())
    scratch = Path("scratch")
    scratch.mkdir(exist_ok=True)
    names = [f"candidate-{i:02d}" for i in range(4)]
    results = stage.fan_out([Toy(name, scratch, faults.get(name, "")) for name in names], train_toy)
    Path("train.txt").write_text(" ".join(result.read_text() for result in results) + json.dumps(faults))


def _attempts(job: Toy) -> int:
    return len((job.folder / f"{job.name}.attempts").read_text().split())


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _eventually(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + SECONDS
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def _environment(**more: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "INFINITO_WORKERS": "2"} | more


def _make_repository(folder: Path) -> None:
    subprocess.run(["git", "init", "-q", folder], check=True)
    (folder / ".dvc").mkdir()
    for name in ("config", ".gitignore"):
        (folder / ".dvc" / name).write_text((ROOT / ".dvc" / name).read_text())


def _write_toy(folder: Path) -> None:
    """The toy study, in a git repository of its own, and another study below it."""
    _make_repository(folder)
    stages = {
        "prepare": {"cmd": "python -c \"open('data.txt', 'w').write('1')\"", "outs": ["data.txt"]},
        "train": {"cmd": f"python {__file__}", "deps": ["data.txt", "faults"], "outs": ["train.txt"]},
        "compare": {
            "cmd": "python -c \"open('compare.txt', 'w').write(open('train.txt').read()[:3])\"",
            "deps": ["train.txt"],
            "outs": ["compare.txt"],
        },
        "report": {
            "cmd": "python -c \"open('report.txt', 'w').write('1')\"",
            "deps": ["compare.txt"],
            "outs": ["report.txt"],
        },
    }
    (folder / "dvc.yaml").write_text(json.dumps({"stages": stages}))  # JSON is YAML
    (folder / "faults").write_text("{}")
    other = folder / "studies" / "other"
    other.mkdir(parents=True)
    (other / "dvc.yaml").write_text(json.dumps({"stages": {"other": {"cmd": "false", "outs": ["x"]}}}))


@pytest.fixture
def toy_study(tmp_path: Path) -> Path:
    folder = tmp_path / "study"
    _write_toy(folder)
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Prefect server of our own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home = tmp_path_factory.mktemp("prefect")
    process = subprocess.Popen(
        [sys.executable, "-m", "prefect", "server", "start", "--no-ui"],
        env=_environment(PREFECT_HOME=str(home), PREFECT_SERVER_API_PORT=str(port), DO_NOT_TRACK="1"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}/api"

    def answers() -> bool:
        try:
            urllib.request.urlopen(f"{url}/health").close()
        except OSError:
            return False
        return True

    try:
        assert _eventually(answers)
        yield url
    finally:
        process.terminate()
        process.wait()


def _run_flow(folder: Path, url: str, home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "flows.pipeline", "--study", str(folder)],
        cwd=home,
        # no `python` on the path: the flow has to see to it that the stages find its own
        env=_environment(PREFECT_API_URL=url, PREFECT_HOME=str(home), PATH=os.defpath),
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )


def _ask(url: str, kind: str, question: dict[str, Any]) -> list[dict[str, Any]]:
    request = urllib.request.Request(
        f"{url}/{kind}/filter", json.dumps(question).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def _latest_flow_run(url: str) -> dict[str, Any]:
    return _ask(url, "flow_runs", {"sort": "START_TIME_DESC", "limit": 1})[0]


def _tasks(url: str, count: int) -> dict[str, dict[str, Any]]:
    """The `count` task runs of the latest flow run by name; the server records them a moment after they end."""
    question = {"flow_runs": {"id": {"any_": [_latest_flow_run(url)["id"]]}}}
    found: list[dict[str, Any]] = []

    def recorded() -> bool:
        found[:] = _ask(url, "task_runs", question)
        ended = [run["state_type"] in ("COMPLETED", "FAILED") or run["state_name"] == "NotReady" for run in found]
        return len(ended) == count and all(ended)

    assert _eventually(recorded), [(run["name"], run["state_name"]) for run in found]
    return {run["name"]: run for run in found}


def _dvc(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", "dvc", *arguments], cwd=folder, capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.slow
def test_a_flow_run_is_dvc_repro_with_the_stacks_as_tasks(toy_study: Path, server: str, tmp_path: Path) -> None:
    (toy_study / "faults").write_text('{"candidate-02": "die once"}')
    first = _run_flow(toy_study, server, tmp_path)
    assert first.returncode == 0, first.stdout + first.stderr
    tasks = _tasks(server, 8)
    stacks = {f"candidate-{i:02d}" for i in range(4)}
    assert tasks.keys() == {"prepare", "train", "compare", "report"} | stacks
    assert {task["state_name"] for task in tasks.values()} == {"Completed"}
    assert {name: task["run_count"] for name, task in tasks.items() if name in stacks} == {
        name: 2 if name == "candidate-02" else 1 for name in stacks
    }
    parents = {parent["id"] for name in stacks for parent in tasks[name]["task_inputs"]["__parents__"]}
    assert parents == {tasks["train"]["id"]}
    assert (toy_study / "train.txt").read_text().startswith(" ".join(sorted(stacks)))

    assert "up to date" in _dvc(toy_study, "status", "dvc.yaml")
    assert "Running stage" not in _dvc(toy_study, "repro")
    lineage = _ask(server, "artifacts", {"sort": "CREATED_DESC", "limit": 1})[0]
    assert lineage["key"] == "lineage" and "train --> compare" in lineage["data"]

    second = _run_flow(toy_study, server, tmp_path)
    assert second.returncode == 0, second.stdout + second.stderr
    assert {task["state_name"] for task in _tasks(server, 4).values()} == {"UpToDate"}

    (toy_study / "faults").write_text('{"candidate-01": "raise"}')
    for result in (toy_study / "scratch").iterdir():
        result.unlink()
    failed = _run_flow(toy_study, server, tmp_path)
    assert failed.returncode == 1
    why = "1 of 4 stacks failed: candidate-01: RuntimeError: out of memory; the other 3 are saved"
    assert failed.stderr.splitlines()[-1] == f"infinito: stage train: {why} (not run: compare, report)"
    assert {name: task["state_name"] for name, task in _tasks(server, 8).items()} == {
        "prepare": "UpToDate",
        "train": "Failed",
        "compare": "NotReady",
        "report": "NotReady",
        "candidate-00": "Completed",
        "candidate-01": "Failed",
        "candidate-02": "Completed",
        "candidate-03": "Completed",
    }
    assert _latest_flow_run(server)["state_name"] == "Failed"

    (toy_study / "faults").write_text('{"candidate-02": "die once"}')
    assert _run_flow(toy_study, server, tmp_path).returncode == 0
    restored = {"prepare": "UpToDate", "train": "Cached", "compare": "UpToDate", "report": "UpToDate"}
    assert {name: task["state_name"] for name, task in _tasks(server, 4).items()} == restored


@pytest.mark.slow
def test_two_flow_runs_at_once_do_the_work_once(toy_study: Path, server: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "flows.pipeline", "--study", str(toy_study)]
    environment = _environment(PREFECT_API_URL=server, PREFECT_HOME=str(tmp_path))
    runs = [
        subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for _ in range(2)
    ]
    outputs = [run.communicate(timeout=SECONDS)[0].decode() for run in runs]
    assert [run.returncode for run in runs] == [0, 0], outputs
    assert all(len(file.read_text().split()) == 1 for file in (toy_study / "scratch").glob("*.attempts"))
    assert "up to date" in _dvc(toy_study, "status", "dvc.yaml")


@pytest.mark.slow
def test_without_a_server_the_flow_runs_all_the_same(toy_study: Path, tmp_path: Path) -> None:
    nobody = "http://127.0.0.1:9/api"
    done = _run_flow(toy_study, nobody, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"infinito: no Prefect server at {nobody}; using a temporary one" in done.stderr
    assert "Task run 'candidate-03' - Finished in state Completed()" in done.stderr
    assert "up to date" in _dvc(toy_study, "status", "dvc.yaml")


@pytest.mark.slow
def test_a_real_study_gives_the_same_results_as_without_the_flow(
    write_study: Callable[..., Path], finished_study: Path, server: str, tmp_path: Path
) -> None:
    folder = write_study()
    _make_repository(folder)
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    for entry in stages.values():  # without the code, which is elsewhere
        entry["deps"] = [path for path in entry["deps"] if path.startswith(("data/", "models/", "results/"))]
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    done = _run_flow(folder, server, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr

    plan = {
        "train": ["candidate-pairs", "baseline-pairs", "candidate-grid", "baseline-grid"],
        "golden": ["candidate-confirm", "candidate-controls"],
    }
    tasks = _tasks(server, len(stages) + len(list((folder / ".infinito" / "scratch").iterdir())))
    assert {task["state_name"] for task in tasks.values()} == {"Completed"}
    stacks = {name: task for name, task in tasks.items() if name not in stages}
    for stage_name, designs in plan.items():
        parent = tasks[stage_name]["id"]
        names = {name for name, task in stacks.items() if task["task_inputs"]["__parents__"][0]["id"] == parent}
        assert {name.rpartition("-")[0] for name in names} == set(designs)

    for file in ("compare", "attribute", "golden", "ensemble"):
        found, expected = (json.loads((x / "results" / f"{file}.json").read_text()) for x in (folder, finished_study))
        assert found == expected, file
    assert {artifact["key"] for artifact in _ask(server, "artifacts", {"sort": "CREATED_DESC", "limit": 2})} == {
        "lineage",
        "verdict",
    }
    assert "up to date" in _dvc(folder, "status", "dvc.yaml")


def test_a_study_without_a_usable_dvc_yaml_is_one_clear_line(tmp_path: Path) -> None:
    missing = _run_flow(tmp_path, "http://127.0.0.1:9/api", tmp_path)
    assert (missing.returncode, missing.stdout) == (2, "")
    assert missing.stderr == (
        f"infinito: {tmp_path}/dvc.yaml: no such file; a study is a folder with a params.yaml and a dvc.yaml\n"
    )
    _write_toy(tmp_path / "bad")
    (tmp_path / "bad" / "dvc.yaml").write_text("stages: {train: {comand: python}}")
    bad = _run_flow(tmp_path / "bad", "http://127.0.0.1:9/api", tmp_path)
    assert (bad.returncode, bad.stdout, len(bad.stderr.splitlines())) == (2, "", 1)
    assert bad.stderr.startswith(f"infinito: {tmp_path}/bad: ")
    assert "dvc.yaml' validation failed: " in bad.stderr and "comand" in bad.stderr


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
    assert [_attempts(job) for job in jobs] == [1, 2, 1, 1, 1]
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
    assert [_attempts(job) for job in jobs] == [1, 1, 2, 1, 1, 1]
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
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fanout, "die_with_parent", lambda: None)
    assert stage.main(["trian"]) == 2
    assert capsys.readouterr().err.startswith("infinito: stage: found 'trian'; allowed: prepare, train, compare, ")
    assert stage.main(["train"]) == 2
    assert capsys.readouterr().err.startswith(f"infinito: {tmp_path}/params.yaml: no such file; ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process cannot ask to end with its parent")
def test_the_stage_and_its_workers_end_with_their_parent(toy_study: Path) -> None:
    (toy_study / "faults").write_text('{"candidate-00": "hang", "candidate-01": "hang"}')
    script = "import subprocess, sys; p = subprocess.Popen(sys.argv[1:]); print(p.pid, flush=True); p.wait()"
    parent = subprocess.Popen(
        [sys.executable, "-c", script, sys.executable, __file__],
        cwd=toy_study,
        env=_environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    with parent.stdout:
        pids = [int(parent.stdout.readline())]
        started = [toy_study / "scratch" / f"candidate-0{i}.attempts" for i in range(2)]
        assert _eventually(lambda: all(file.exists() and file.read_text().endswith("\n") for file in started))
        pids += [int(file.read_text()) for file in started]
        assert all(map(_alive, pids))
        parent.kill()
        parent.wait()
        assert _eventually(lambda: not any(map(_alive, pids)))


if __name__ == "__main__":
    sys.exit(stage.guarded(toy_stage))
