"""Stacks on a Dask cluster: a real scheduler and real worker processes, some of which are killed."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("distributed", reason="needs the package distributed: pip install 'infinito[cluster]'")

from infinito import runs, tasks
from infinito.flows import dask, fanout
from infinito.runs import stacks
from infinito.runs.finish import finish
from infinito.storage import read_json, read_table
from infinito.study import load_study
from tests.conftest import ROOT, in_process
from tests.toy import Toy, eventually, train_toy

SECONDS = 60  # until a test gives up waiting for a process


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a scheduler of our own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(
        [*command, "--no-dashboard"],
        cwd=tmp_path_factory.mktemp("scheduler"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def listens() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        assert eventually(listens)
        yield f"tcp://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def address(scheduler: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a cluster of two workers."""
    command = [sys.executable, "-m", "infinito.flows.dask", scheduler, "--workers", "2"]
    with (tmp_path_factory.mktemp("workers") / "output").open("w") as output:
        workers = subprocess.Popen(
            command, cwd=ROOT, stdout=output, stderr=output, env=os.environ | {"PYTHONPATH": str(ROOT)}
        )
    try:
        yield scheduler
    finally:
        workers.terminate()
        assert workers.wait(SECONDS) == 0


def fan_out(jobs: list[Toy], address: str, folder: Path) -> list[Path]:
    return fanout.fan_out(jobs, train_toy, fanout.as_threads, lambda run: dask.Workers(address, folder, run))


def _processes(folder: Path) -> list[set[str]]:
    return [set(file.read_text().split()) for file in sorted(folder.glob("*.attempts"))]


def test_results_come_in_the_order_of_the_jobs_from_several_processes(address: str, tmp_path: Path) -> None:
    jobs = [Toy(f"stack-{i}", tmp_path, steps=100 - 10 * i) for i in range(6)]
    (tmp_path / "stack-3.txt").write_text("already trained")
    assert fan_out(jobs, address, tmp_path) == [tmp_path / f"{job.name}.txt" for job in jobs]
    assert not (tmp_path / "stack-3.attempts").exists()
    used = set.union(*_processes(tmp_path))
    assert len(used) == 2 and str(os.getpid()) not in used
    assert list((tmp_path / ".infinito").iterdir()) == []


def test_the_stack_of_a_killed_worker_is_trained_again(address: str, tmp_path: Path) -> None:
    jobs = [Toy(f"stack-{i}", tmp_path, "hang" if i == 1 else "") for i in range(4)]
    victim = tmp_path / "stack-1.attempts"

    def kill() -> None:
        assert eventually(lambda: victim.exists() and victim.read_text().endswith("\n"))
        (tmp_path / "stack-1.txt").write_text("so that the second attempt ends")
        os.kill(int(victim.read_text()), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    assert fan_out(jobs, address, tmp_path) == [tmp_path / f"{job.name}.txt" for job in jobs]
    killer.join()
    assert [len(used) for used in _processes(tmp_path)] == [1, 1, 1, 1]


@pytest.mark.slow
def test_stacks_that_fail_are_named_and_the_others_are_saved(
    address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = [Toy(f"stack-{i}", tmp_path, {1: "raise", 2: "die", 3: "die once"}.get(i, "")) for i in range(5)]
    with pytest.raises(fanout.FanOutFailed) as failure:
        fan_out(jobs, address, tmp_path)
    reason, died = str(failure.value).split("; stack-2: ")
    assert reason == "2 of 5 stacks failed: stack-1: RuntimeError: out of memory"
    assert died.startswith("4 Dask workers have died of it, the last one tcp://") and died.endswith(
        "; the other 3 are saved"
    )
    assert {file.stem for file in tmp_path.glob("*.txt")} == {"stack-0", "stack-3", "stack-4"}
    assert "in train_toy\n" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"^params.yaml: train.steps: found 0; allowed: 1 or more$"):
        fan_out([Toy("stack-9", tmp_path, "bad input")], address, tmp_path)


def test_whoever_stops_waiting_leaves_the_workers_to_others(address: str, tmp_path: Path) -> None:
    jobs = [Toy(f"endless-{i}", tmp_path, steps=100_000) for i in range(2)]
    with dask.Workers(address, tmp_path, train_toy) as workers:
        threads = [threading.Thread(target=lambda job=job: _fails(workers, job)) for job in jobs]
        for thread in threads:
            thread.start()
        assert eventually(lambda: len(list(tmp_path.glob("*.attempts"))) == 2)
    for thread in threads:
        thread.join(SECONDS)
        assert not thread.is_alive()
    after = Toy("after", tmp_path, steps=10)
    assert fan_out([after], address, tmp_path) == [tmp_path / "after.txt"]


def _fails(workers: dask.Workers, job: Toy) -> None:
    with pytest.raises(fanout.StackFailed, match="^interrupted$"):
        workers.train(job, lambda steps: None)


def test_a_stage_on_a_cluster_gives_the_same_runs(address: str, finished_study: Path) -> None:
    before = runs.RunTable.load(finished_study / "models/runs").table
    study = load_study(finished_study)
    data = tasks.load(study.data)
    wanted = [
        runs.Run(str(row.arm), "pairs", int(row.init_seed), int(row.data_seed))
        for row in before[before["design"] == "pairs"].itertuples()
    ]
    elsewhere = study.folder / "elsewhere" / "scratch"
    jobs = [dask.replace(job, scratch=elsewhere) for job in stacks.plan(study, data, wanted)]
    folders = fanout.fan_out(jobs, finish, fanout.as_threads, lambda run: dask.Workers(address, study.folder, run))
    assert all(folder.parent == elsewhere for folder in folders)
    after = {
        row.run_id: row for folder in folders for row in read_table(folder / "runs.parquet").to_pandas().itertuples()
    }
    assert len(after) == len(wanted)
    for row in before[before["design"] == "pairs"].itertuples():
        assert after[row.run_id].weights_sha256 == row.weights_sha256
    record = read_json(folders[0] / "stack.json")
    assert record["device"] == before["device"].iloc[0]
    assert in_process(stacks.plan(study, data, wanted)) != folders


def test_a_worker_that_does_not_see_the_folder_is_one_line(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "not" / "there"
    monkeypatch.setattr(dask._Token, "leave", lambda folder: dask._Token(elsewhere / ".infinito" / "x", "x"))
    with pytest.raises(ValueError) as error:
        fan_out([Toy("stack", tmp_path)], address, tmp_path)
    assert str(error.value).startswith("Dask worker tcp://127.0.0.1:")
    assert f": {elsewhere}: not to be seen on {socket.gethostname()}; allowed: a folder that all" in str(error.value)


@pytest.mark.slow
def test_a_worker_with_several_threads_is_one_line(address: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads", "2", "--no-nanny"]
    worker = subprocess.Popen(
        [*command, "--no-dashboard"], cwd=ROOT, env=os.environ | {"TMPDIR": str(tmp_path)}, stderr=subprocess.DEVNULL
    )
    try:
        with dask.Workers(address, tmp_path, train_toy) as workers:
            assert eventually(lambda: 2 in workers._client.nthreads().values())
        with pytest.raises(ValueError, match="found 2 threads; allowed: 1, by dask worker --nthreads 1"):
            fan_out([Toy("stack", tmp_path)], address, tmp_path)
    finally:
        worker.terminate()
        worker.wait()


def test_a_cluster_that_is_not_there_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dask, "SECONDS_TO_ANSWER", 1)
    monkeypatch.delenv("INFINITO_DASK", raising=False)
    assert dask.cluster(tmp_path) is None
    for wrong in ("tcp://127.0.0.1:9", "nowhere"):
        monkeypatch.setenv("INFINITO_DASK", wrong)
        cluster = dask.cluster(tmp_path)
        assert cluster is not None
        with pytest.raises(ValueError) as error, cluster(train_toy):
            pass
        assert str(error.value).startswith(f"INFINITO_DASK: found {wrong!r}, where no Dask scheduler answers (")
        assert "\n" not in str(error.value)
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ValueError, match=r"pip install 'infinito\[cluster\]'"), cluster(train_toy):
        pass
    assert dask.main(["tcp://127.0.0.1:9", "--workers", "0"]) == 2
    assert capsys.readouterr().err == "infinito: --workers: found 0; allowed: 1 or more\n"
    assert not (tmp_path / ".infinito").exists()


def test_every_worker_process_gets_a_gpu_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []
    monkeypatch.setattr(dask, "gpus", lambda: ["2", "GPU-3"])
    monkeypatch.setattr(dask.subprocess, "Popen", lambda command, env, **_: started.append(env["CUDA_VISIBLE_DEVICES"]))
    dask.start_workers("tcp://127.0.0.1:9", 3, tmp_path)
    assert started == ["2", "GPU-3", "2"]


@dataclass(frozen=True)
class Look:
    """A job that notes which GPUs its process may see."""

    name: str
    folder: Path
    unit: str = "looks"
    steps: int = 1


def look(job: Look, progress: Callable[[int], None]) -> Path:
    result = job.folder / f"{job.name}.gpu"
    result.write_text(os.environ.get("CUDA_VISIBLE_DEVICES", "all"))
    time.sleep(1)  # so that the other worker gets the other job
    return result


def test_every_process_of_this_machine_sees_one_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFINITO_WORKERS", "2")
    monkeypatch.setattr(fanout, "gpus", lambda: ["2", "GPU-3"])
    jobs = [Look(f"job-{i}", tmp_path) for i in range(2)]
    seen = [file.read_text() for file in fanout.fan_out(jobs, look, fanout.as_threads)]
    assert sorted(seen) == ["2", "GPU-3"] and os.environ.get("CUDA_VISIBLE_DEVICES") is None
