"""What goes wrong in a month, done on purpose: what people see, what is lost (nothing), how it goes on.

The same as the table in docs/operations.md. Cancelling, power cuts and sleep are in test_serve.py, killed workers in
test_flows.py.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from infinito.flows import repro
from tests import toy
from tests.toy import ROOT, attempts, child, dvc, eventually, flow_runs, post, served, task_runs, write_toy

LOCKED_BY_US = {"pid": os.getpid(), "cmd": "pytest"}


@pytest.fixture
def study(tmp_path: Path) -> Path:
    folder = tmp_path / "study"
    write_toy(folder)
    return folder


@pytest.fixture
def plain_study(tmp_path: Path) -> Path:
    """A study of one file and one folder, made, and without worker processes."""
    folder = tmp_path / "plain"
    toy.make_repository(folder)
    stages = {
        "data": {"cmd": "echo 1 > a", "outs": ["a"]},
        "runs": {"cmd": "mkdir b; cat a > b/c; cat a a > b/d", "params": ["size"], "deps": ["a"], "outs": ["b"]},
    }
    (folder / "dvc.yaml").write_text(json.dumps({"stages": stages}))
    (folder / "params.yaml").write_text("size: 1")
    dvc(folder, "repro", "-q")
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with toy.prefect_server(tmp_path_factory.mktemp("prefect")) as url:
        yield url


def spoil(file: Path) -> None:
    """Change a byte as a bad disk does: neither size nor time nor mode tell."""
    before, content = file.stat(), file.read_bytes()
    file.chmod(0o644)
    file.write_bytes(b"X" + content[1:])
    file.chmod(before.st_mode)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def cached(folder: Path, path: str) -> Path:
    """Where DVC keeps its copy of a file."""
    md5 = repro._md5(folder / path)
    return folder / ".dvc" / "cache" / "files" / "md5" / md5[:2] / md5[2:]


def attempts_of_all(folder: Path) -> list[int]:
    return [attempts(toy.Toy(f"candidate-{i:02d}", folder / "scratch")) for i in range(4)]


def training(folder: Path) -> bool:
    """Whether all stacks but the one that waits are trained, and that one has begun."""
    return len(list((folder / "scratch").glob("*.txt"))) == 3 and (folder / "scratch/candidate-01.attempts").exists()


def test_what_has_changed_is_said_in_words(plain_study: Path) -> None:
    assert repro.read_changes(plain_study, "runs") == []
    (plain_study / "params.yaml").write_text("size: 2")
    (plain_study / "a").write_text("2")
    (plain_study / "b" / "c").unlink()
    assert repro.read_changes(plain_study, "runs") == ["a modified", "params.yaml size modified", "b modified"]
    assert repro.read_changes(plain_study, "data") == ["a modified"]


def test_locks_of_processes_that_are_gone_are_removed(plain_study: Path) -> None:
    file = plain_study / ".dvc" / "tmp" / "rwlock"
    gone = {"pid": 2**22 + 1, "cmd": "dvc repro"}
    reused = {"pid": os.getpid(), "cmd": "/usr/lib/dvc/__main__.py --wait-for-lock repro --single-item runs"}
    a, b, c, d = (str(plain_study / name) for name in "abcd")
    held = {
        "write": {b: reused, c: LOCKED_BY_US, "/other/study": gone},
        "read": {a: [gone, LOCKED_BY_US], d: [reused], "/other/study": [gone]},
    }
    file.write_text(json.dumps(held))
    repro.mend(plain_study)
    assert json.loads(file.read_text()) == {
        "write": {c: LOCKED_BY_US, "/other/study": gone},
        "read": {a: [LOCKED_BY_US], "/other/study": [gone]},
    }
    file.write_text("")  # what a full disk leaves
    repro.mend(plain_study)
    assert not file.exists()
    repro.mend(plain_study)


@pytest.mark.parametrize("spoiled", ["a", "b/d"])
def test_a_corrupt_file_in_the_cache_is_found_and_removed(plain_study: Path, spoiled: str) -> None:
    stage, out = ("data", "a") if spoiled == "a" else ("runs", "b")
    assert repro.discard_corrupt(plain_study, stage) == []
    file = cached(plain_study, spoiled)
    spoil(file)
    (plain_study / spoiled).unlink()
    dvc(plain_study, "checkout", "-q")
    assert (plain_study / spoiled).read_text().startswith("X")  # DVC does not notice
    assert repro.read_changes(plain_study, stage) == []
    assert repro.discard_corrupt(plain_study, stage) == [out]
    assert not file.exists() and not (plain_study / out).exists()
    dvc(plain_study, "repro", "-q")
    assert (plain_study / spoiled).read_text() in ("1\n", "1\n1\n")
    assert "up to date" in dvc(plain_study, "status")


@pytest.mark.slow
def test_a_corrupt_cache_file_costs_only_its_stage(study: Path, server: str, tmp_path: Path) -> None:
    assert toy.run_flow(study, server, tmp_path).returncode == 0
    spoil(cached(study, "train.txt"))
    (study / "train.txt").unlink()
    assert toy.run_flow(study, server, tmp_path).returncode == 0
    tasks = task_runs(server, 8)
    assert tasks["train"]["state"]["message"] == "ran; changed: corrupt in the cache: train.txt"
    assert tasks["compare"]["state_name"] == "UpToDate"
    assert attempts_of_all(study) == [1, 1, 1, 1]  # the scratch folder has them
    assert (study / "train.txt").read_text().startswith("candidate-00 ")
    assert "up to date" in dvc(study, "status", "dvc.yaml")


@pytest.mark.slow
def test_a_stage_that_raises_says_why_and_the_others_are_kept(study: Path, server: str, tmp_path: Path) -> None:
    stages = yaml.safe_load((study / "dvc.yaml").read_text())
    command = stages["stages"]["compare"]["cmd"]
    stages["stages"]["compare"]["cmd"] = "python -c \"raise RuntimeError('no pairs')\""
    (study / "dvc.yaml").write_text(json.dumps(stages))
    failed = toy.run_flow(study, server, tmp_path)
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1] == "infinito: stage compare: RuntimeError: no pairs (not run: report)"
    assert toy.latest_flow_run(server)["state"]["message"] == "stage compare: RuntimeError: no pairs (not run: report)"
    stages["stages"]["compare"]["cmd"] = command
    (study / "dvc.yaml").write_text(json.dumps(stages))
    assert toy.run_flow(study, server, tmp_path).returncode == 0
    states = {name: task["state_name"] for name, task in task_runs(server, 4).items()}
    assert states == {"prepare": "UpToDate", "train": "UpToDate", "compare": "Completed", "report": "Completed"}


@pytest.mark.slow
def test_a_failed_stack_is_trained_again_without_the_others(study: Path, server: str, tmp_path: Path) -> None:
    (study / "faults").write_text('{"candidate-01": "raise"}')
    assert toy.run_flow(study, server, tmp_path).returncode == 1
    tasks = task_runs(server, 8)
    logs = {
        name: [log["message"] for log in toy.ask(server, "logs", {"logs": {"task_run_id": {"any_": [task["id"]]}}})]
        for name, task in tasks.items()
    }
    assert any("StackFailed: RuntimeError: out of memory" in line for line in logs["candidate-01"])
    assert any("in train_toy" in line for line in logs["train"])  # where it happened
    assert any("Finished in state Completed" in line for line in logs["candidate-00"])
    (study / "faults").write_text("{}")
    assert toy.run_flow(study, server, tmp_path).returncode == 0
    assert attempts_of_all(study) == [1, 2, 1, 1]


@pytest.mark.slow
def test_a_lost_dvc_lock_is_restored_from_the_run_cache(study: Path, server: str, tmp_path: Path) -> None:
    assert toy.run_flow(study, server, tmp_path).returncode == 0
    before = (study / "dvc.lock").read_text()
    (study / "dvc.lock").write_text(before[: before.index("deps:") + 4])  # the power went while DVC wrote it
    failed = toy.run_flow(study, server, tmp_path)
    assert (failed.returncode, len(failed.stderr.splitlines())) == (2, 1), failed.stderr
    assert "dvc.lock'" in failed.stderr and "get it back from git or remove it" in failed.stderr
    (study / "dvc.lock").unlink()
    assert toy.run_flow(study, server, tmp_path).returncode == 0
    states = {name: task["state_name"] for name, task in task_runs(server, 4).items()}
    # prepare has no dependencies, and of such stages DVC keeps no run cache
    assert states == {"prepare": "Completed", "train": "Cached", "compare": "Cached", "report": "Cached"}
    assert yaml.safe_load((study / "dvc.lock").read_text()) == yaml.safe_load(before)


@pytest.mark.slow
def test_dvc_repro_by_hand_during_a_flow_run(study: Path, server: str, tmp_path: Path) -> None:
    (study / "faults").write_text('{"candidate-01": "wait"}')
    flow = start_flow(study, server, tmp_path)
    assert eventually(lambda: training(study))
    by_hand = subprocess.run([sys.executable, "-m", "dvc", "repro"], cwd=study, capture_output=True, text=True)
    assert by_hand.returncode != 0
    assert "is busy, it is being blocked by" in by_hand.stderr and "repro --single-item train" in by_hand.stderr
    (study / "scratch" / "go").touch()
    assert flow.wait(toy.SECONDS) == 0
    assert attempts_of_all(study) == [1, 1, 1, 1]
    assert "up to date" in dvc(study, "status", "dvc.yaml")


@pytest.mark.slow
def test_a_flow_run_during_dvc_repro_by_hand_waits(study: Path, server: str, tmp_path: Path) -> None:
    (study / "faults").write_text('{"candidate-01": "wait"}')
    by_hand = subprocess.Popen([sys.executable, "-m", "dvc", "repro", "-q"], cwd=study, env=toy.toy_environment())
    assert eventually(lambda: training(study))
    flow = start_flow(study, server, tmp_path)

    def waits() -> bool:
        lines = [log["message"] for log in toy.ask(server, "logs", {"sort": "TIMESTAMP_DESC"})]
        return any("dvc repro -q` (process " in line and "; waiting until it has ended" in line for line in lines)

    assert eventually(waits)
    (study / "scratch" / "go").touch()
    assert by_hand.wait(toy.SECONDS) == 0
    assert flow.wait(toy.SECONDS) == 0
    assert toy.latest_flow_run(server)["state_name"] == "UpToDate"
    assert attempts_of_all(study) == [1, 1, 1, 1]


def start_flow(study: Path, server: str, home: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "infinito.flows.pipeline", "--study", str(study)],
        cwd=home,
        env=toy.toy_environment(PREFECT_API_URL=server, PREFECT_HOME=str(home)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


@contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[list[str]]:
    """A disk of its own at `folder`, for commands that begin with what is given; skips the test where none may be."""
    folder.mkdir()
    mount = f"mount -t tmpfs -o size={kilobytes}k tmpfs {folder} && echo mounted && exec sleep {5 * toy.SECONDS}"
    if shutil.which("unshare") is None or shutil.which("nsenter") is None:
        pytest.skip("needs Linux namespaces")
    holder = subprocess.Popen(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", mount], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert holder.stdout is not None
    with holder.stdout:
        mounted = holder.stdout.readline() == b"mounted\n"
    try:
        if not mounted:
            pytest.skip("needs the right to mount in a namespace")
        yield ["nsenter", f"--target={holder.pid}", "--user", "--mount", "--preserve-credentials"]
    finally:
        holder.kill()
        holder.wait()


@pytest.mark.slow
def test_a_full_disk_loses_nothing(server: str, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    study = disk / "study"
    with small_disk(disk, 400) as inside:

        def do(*command: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [*inside, *command],
                cwd=tmp_path,
                env=toy.toy_environment(PREFECT_API_URL=server, PREFECT_HOME=str(tmp_path)),
                capture_output=True,
                text=True,
            )

        flow = (sys.executable, "-m", "infinito.flows.pipeline", "--study", str(study))
        assert do(sys.executable, "-c", f"from tests.toy import *; write_toy(Path('{study}'))").returncode == 0
        assert do(*flow).returncode == 0
        fill = "free=$(df -k --output=avail . | tail -1); dd if=/dev/zero of=../fill bs=1k count=$((free - $0))"
        again = f"cd {study}; rm -f ../fill scratch/*; echo '{{\"candidate-00\": \"'$0'\"}}' > faults; {fill}"
        said = {}
        for free in (12, 40):  # too little for the stacks; too little for DVC
            assert do("sh", "-c", again, str(free)).returncode == 0
            failed = do(*flow)
            assert failed.returncode == 1, failed.stderr
            said[free] = failed.stderr.splitlines()[-1]
            assert do("rm", str(disk / "fill")).returncode == 0
            assert do(*flow).returncode == 0
            assert "up to date" in do(sys.executable, "-m", "dvc", "--cd", str(study), "status", "dvc.yaml").stdout
    assert "stacks failed: candidate-0" in said[12] and "No space left on device" in said[12]
    assert "No space left on device" in said[40]


@pytest.mark.slow
def test_a_server_that_is_killed_during_a_run_comes_back_and_the_run_goes_on(study: Path) -> None:
    (study / "faults").write_text('{"candidate-01": "wait"}')
    with served(study) as url:
        run = start(url)
        assert eventually(lambda: training(study))
        os.kill(child(study, "prefect server start"), signal.SIGKILL)
        assert eventually(lambda: answers(url))
        (study / "scratch" / "go").touch()
        assert eventually(lambda: state(url, run)["type"] in ("COMPLETED", "FAILED", "CRASHED"))
        assert state(url, run)["name"] == "Completed", state(url, run)
        assert {task["state_name"] for task in task_runs(url, 8).values()} == {"Completed"}
    assert attempts_of_all(study) == [1, 1, 1, 1]
    assert "server ended with exit code -9; starts again in 1 s" in keeper_log(study)


@pytest.mark.slow
def test_a_runner_that_is_killed_takes_the_run_with_it_and_is_started_again(study: Path) -> None:
    (study / "faults").write_text('{"candidate-01": "wait"}')
    with served(study) as url:
        run = start(url)
        assert eventually(lambda: training(study))
        os.kill(child(study, f"work --study={study}"), signal.SIGKILL)
        ours = ("dvc", "toy.py", "spawn_main")
        assert eventually(lambda: not any(x in line for line in toy.processes_of(study).values() for x in ours))
        assert eventually(lambda: state(url, run)["name"] == "Crashed")
        (study / "scratch" / "go").touch()
        run = start(url)
        assert eventually(lambda: state(url, run)["name"] == "Completed")
    assert attempts_of_all(study) == [1, 2, 1, 1]


@pytest.mark.slow
def test_runs_that_are_started_at_once_run_one_after_the_other(study: Path) -> None:
    with served(study) as url:
        runs = [start(url) for _ in range(3)]
        assert eventually(lambda: len(flow_runs(url, "Completed", "UpToDate")) == 3)
        names = sorted(state(url, run)["name"] for run in runs)
        assert names == ["Completed", "UpToDate", "UpToDate"]
        times = sorted((run["start_time"], run["end_time"]) for run in flow_runs(url, "Completed", "UpToDate"))
        assert all(end <= begin for (_, end), (begin, _) in zip(times, times[1:], strict=False))
    assert attempts_of_all(study) == [1, 1, 1, 1]


def start(url: str) -> str:
    with urllib.request.urlopen(f"{url}/deployments/name/infinito/study") as answer:
        deployment = json.load(answer)["id"]
    run: str = post(f"{url}/deployments/{deployment}/create_flow_run", {})["id"]
    return run


def state(url: str, run: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{url}/flow_runs/{run}") as answer:
        found: dict[str, Any] = json.load(answer)["state"]
    return found


def answers(url: str) -> bool:
    try:
        urllib.request.urlopen(f"{url}/health").close()
    except OSError:
        return False
    return True


def keeper_log(study: Path) -> str:
    return (study / ".infinito" / "prefect" / "keeper.log").read_text()


def test_the_table_of_faults_names_tests_that_exist() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "operations.md").read_text()))
    files = [ROOT / "tests" / "flows" / f"test_{name}.py" for name in ("faults", "flows", "lock", "serve")]
    defined = {name for file in files for name in re.findall(r"^def (test_\w+)", file.read_text(), re.MULTILINE)}
    assert named and named <= defined, named - defined
