"""A toy study: real git, real DVC, real worker processes, and stacks that fail in the way they are told to.

This file is also the toy study's stage `train`: dvc.yaml runs it as a script.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from infinito.flows import lock, stage

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 120  # until a test gives up waiting for a process


@dataclass(frozen=True)
class Toy:
    """A small job that does what `fault` says on its way."""

    name: str
    folder: Path
    fault: str = ""
    steps: int = 30
    compiled: bool = False
    unit: str = "model-steps"


def train_toy(job: Toy, progress: Callable[[int], None]) -> Path:
    """Count the steps, note each attempt and its process, and leave a result unless one is there."""
    result = job.folder / f"{job.name}.txt"
    if result.exists():
        return result
    with (job.folder / f"{job.name}.attempts").open("a") as file:
        file.write(f"{os.getpid()}\n")
    for step in range(job.steps):
        progress(step)
        time.sleep(0.01)
        if step == 10 and (job.fault == "die" or job.fault == "die once" and attempts(job) == 1):
            os.kill(os.getpid(), signal.SIGKILL)
        if step == 10 and job.fault == "raise":
            raise RuntimeError("out of\nmemory")
        if step == 10 and job.fault == "bad input":
            raise ValueError("params.yaml: train.steps: found 0; allowed: 1 or more")
        while step == 10 and job.fault == "wait" and not (job.folder / "go").exists():
            time.sleep(0.05)
        if step == 10 and job.fault == "hang":
            time.sleep(SECONDS)
    result.write_text(job.name)
    return result


def toy_stage() -> None:
    """The toy study's stage `train`: four stacks, with the faults that the file `faults` names."""
    with lock.hold(Path.cwd()):
        faults = json.loads(Path("faults").read_text())
        scratch = Path("scratch")
        scratch.mkdir(exist_ok=True)
        names = [f"candidate-{i:02d}" for i in range(4)]
        results = stage.fan_out([Toy(name, scratch, faults.get(name, "")) for name in names], train_toy)
        Path("train.txt").write_text(" ".join(result.read_text() for result in results) + json.dumps(faults))


def attempts(job: Toy) -> int:
    return len((job.folder / f"{job.name}.attempts").read_text().split())


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def eventually(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + SECONDS
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def toy_environment(**more: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "INFINITO_WORKERS": "2"} | more


def make_repository(folder: Path) -> None:
    subprocess.run(["git", "init", "-q", folder], check=True)
    (folder / ".dvc").mkdir()
    for name in ("config", ".gitignore"):
        (folder / ".dvc" / name).write_text((ROOT / ".dvc" / name).read_text())


def write_toy(folder: Path) -> None:
    """The toy study, in a git repository of its own, and another study below it."""
    make_repository(folder)
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


def run_flow(folder: Path, url: str, home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "infinito.flows.pipeline", "--study", str(folder)],
        cwd=home,
        # no `python` on the path: the flow has to see to it that the stages find its own
        env=toy_environment(PREFECT_API_URL=url, PREFECT_HOME=str(home), PATH=os.defpath),
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )


def post(url: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=SECONDS) as answer:
        return json.load(answer)


def ask(url: str, kind: str, question: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = post(f"{url}/{kind}/filter", question)
    return found


def flow_runs(url: str, *names: str) -> list[dict[str, Any]]:
    """The flow runs whose state has one of these names, the first due first."""
    question = {"sort": "EXPECTED_START_TIME_ASC", "flow_runs": {"state": {"name": {"any_": list(names)}}}}
    return ask(url, "flow_runs", question)


def latest_flow_run(url: str) -> dict[str, Any]:
    return ask(url, "flow_runs", {"sort": "START_TIME_DESC", "limit": 1})[0]


def task_runs(url: str, count: int) -> dict[str, dict[str, Any]]:
    """The `count` task runs of the latest flow run by name; the server records them a moment after they end."""
    question = {"flow_runs": {"id": {"any_": [latest_flow_run(url)["id"]]}}}
    found: list[dict[str, Any]] = []

    def recorded() -> bool:
        found[:] = ask(url, "task_runs", question)
        ended = [run["state_type"] in ("COMPLETED", "FAILED") or run["state_name"] == "NotReady" for run in found]
        return len(ended) == count and all(ended)

    assert eventually(recorded), [(run["name"], run["state_name"]) for run in found]
    return {run["name"]: run for run in found}


def dvc(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", "dvc", *arguments], cwd=folder, capture_output=True, text=True, check=True
    ).stdout


def processes_of(folder: Path) -> dict[int, str]:
    """The command lines of all living processes that work in `folder` or have it in their environment, by number."""
    found = {}
    for process in psutil.process_iter():
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            where = [process.cwd(), *process.environ().values(), *process.cmdline()]
        except psutil.Error:
            continue
        if process.pid != os.getpid() and any(str(folder) in text for text in where):
            found[process.pid] = " ".join(process.cmdline())
    return found


def serve(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`python -m infinito.flows.serve` in `folder`; writes to files, as what it leaves would keep a pipe open."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        done = subprocess.run(
            [sys.executable, "-m", "infinito.flows.serve", *arguments],
            cwd=folder,
            env=toy_environment(),
            stdout=out,
            stderr=err,
            timeout=3 * SECONDS,
        )
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(done.args, done.returncode, out.read(), err.read())


@contextmanager
def served(folder: Path, *arguments: str) -> Iterator[str]:
    """The address of the API of a service that is up meanwhile."""
    port = free_port()
    up = serve(folder, "up", f"--port={port}", *arguments)
    assert up.returncode == 0, up.stderr
    try:
        yield f"http://127.0.0.1:{port}/api"
    finally:
        assert serve(folder, "down").returncode == 0


def child(folder: Path, what: str) -> int:
    """The number of the one process of `folder` whose command line ends in or has `what` in it."""
    found = [pid for pid, command in processes_of(folder).items() if f"{what} " in f"{command} "]
    assert len(found) == 1, processes_of(folder)
    return found[0]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@contextmanager
def prefect_server(home: Path) -> Iterator[str]:
    """The address of a Prefect server of our own, without pages."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "prefect", "server", "start", "--no-ui"],
        env=toy_environment(PREFECT_HOME=str(home), PREFECT_SERVER_API_PORT=str(port), DO_NOT_TRACK="1"),
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
        assert eventually(answers)
        yield url
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    sys.exit(stage.guarded(toy_stage))
