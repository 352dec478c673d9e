"""Stacks on a Dask cluster, for more than one machine: one stack, one thread and at most one GPU per worker process.

INFINITO_DASK names the scheduler. Its workers read the prepared data from the study's folder and save finished stacks
there, so all machines must share it under the same path, and have the same code and packages; both are checked before
anything is trained. A stack whose worker is lost is trained again by another worker.

`python -m infinito.flows.dask ADDRESS` starts the workers of one machine.
"""

import argparse
import logging
import os
import pickle
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from infinito.flows.fanout import Cluster, Failure, Job, Run, StackFailed, attempt, die_with_parent, gpus, worker_count

SETTING = "INFINITO_DASK"
SECONDS_TO_ANSWER = 10
# until what one machine has written is there for the others; network file systems remember what was not there
SECONDS_TO_SEE_THE_STUDY, SECONDS_TO_SEE_A_STACK = 5, 60
SECONDS_WITHOUT_WORKERS = 120
SECONDS_BETWEEN_NEWS = 1.0


def cluster(folder: Path) -> Cluster | None:
    """The cluster that INFINITO_DASK names, for the study in `folder`; None where it names none."""
    address = os.environ.get(SETTING)
    return partial(Workers, address, folder.resolve()) if address else None


class Workers:
    """The workers of a Dask cluster; to be entered before use.

    Raises:
        ValueError: on entering: no package distributed, no scheduler, no workers, or workers that can't train this
            study; one line.
    """

    def __init__(self, address: str, folder: Path, run: Run[Any]) -> None:
        self._address = address
        self._folder = folder
        self._run = run
        self._progress: dict[str, Callable[[int], None]] = {}  # of every job by its key
        self._closed = False

    def __enter__(self) -> "Workers":
        try:
            from distributed import Client
        except ModuleNotFoundError as error:
            raise ValueError(
                f"{SETTING}: needs the package {error.name}: pip install 'infinito[cluster]', or unset it"
            ) from error
        logging.getLogger("distributed").setLevel(logging.ERROR)  # a worker that comes or goes is no news here
        try:
            self._client = Client(self._address, timeout=SECONDS_TO_ANSWER, name="infinito", set_as_default=False)
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(
                f"{SETTING}: found {self._address!r}, where no Dask scheduler answers ({reason}); "
                "allowed: an address as `dask scheduler` prints it, tcp://HOST:8786"
            ) from error
        try:
            self._token = _Token.leave(self._folder)
            try:
                self._check()
            except BaseException:
                self._token.remove()
                raise
            self._client.subscribe_topic(self._token.name, self._heard)
        except BaseException:
            self._client.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True  # the threads that still wait are told by an error that their job is cancelled
        self._client.close()
        self._token.remove()

    def _check(self) -> None:
        """All workers that are there can train this study, and give the same numbers."""
        try:
            self._client.wait_for_workers(1, timeout=SECONDS_WITHOUT_WORKERS)
        except TimeoutError as error:
            raise ValueError(
                f"{SETTING}: the scheduler at {self._address} has had no workers for {SECONDS_WITHOUT_WORKERS} s; "
                f"start some on each machine: python -m infinito.flows.dask {self._address}"
            ) from error
        found: dict[str, Any] = self._client.run(_described, self._token)
        for worker, answer in found.items():
            if isinstance(answer, str):
                raise ValueError(f"Dask worker {worker}: {answer}")
        (first, expected), *others = found.items()
        for worker, answer in others:
            for key, value in answer.items():
                if value != expected[key]:
                    raise ValueError(
                        f"Dask workers {first} and {worker} differ in {key}: found {expected[key]!r} and {value!r}; "
                        "allowed: workers that are all alike, or the runs of a pair could not be compared"
                    )

    def _heard(self, event: tuple[float, Any]) -> None:
        key, steps = event[1]
        if key in self._progress:
            self._progress[key](steps)

    def train(self, job: Job, progress: Callable[[int], None]) -> Path:
        """Block until a worker has done `job`."""
        from distributed import KilledWorker

        key = f"stack-{job.name}-{secrets.token_hex(8)}"  # never the same: whether it is done, the scratch folder says
        self._progress[key] = progress
        future = None
        try:
            future = self._client.submit(_work, pickle.dumps((self._run, job)), self._token, key=key, pure=False)
            answer = self._wait(future)
        except KilledWorker as error:
            raise StackFailed(
                f"{error.allowed_failures + 1} Dask workers have died of it, the last one {error.last_worker.address}"
            ) from None
        except (CancelledError, OSError, RuntimeError):  # any of them, depending on what it was waiting for
            reason = "interrupted" if self._closed else f"the Dask scheduler at {self._address} is gone"
            raise StackFailed(reason) from None
        finally:
            del self._progress[key]
            if future is not None and not self._closed:
                future.release()
        if isinstance(answer, Failure):
            raise answer.error(job.name)
        assert isinstance(answer, Path)
        if not _seen(answer, SECONDS_TO_SEE_A_STACK):
            raise StackFailed(f"{answer}: saved by a Dask worker, but not to be seen here")
        return answer

    def _wait(self, future: Any) -> Any:
        without_workers = 0.0
        while True:
            try:
                return future.result(timeout=SECONDS_TO_ANSWER)
            except TimeoutError:
                without_workers = 0.0 if self._client.nthreads() else without_workers + SECONDS_TO_ANSWER
            if without_workers >= SECONDS_WITHOUT_WORKERS:
                raise StackFailed(f"for {SECONDS_WITHOUT_WORKERS} s there has been no Dask worker")


@dataclass(frozen=True)
class _Token:
    """A file in the study's folder: a worker that sees it sees the same folder."""

    file: Path
    name: str

    @classmethod
    def leave(cls, folder: Path) -> "_Token":
        name = f"cluster-{secrets.token_hex(8)}"
        file = folder / ".infinito" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(name)
        return cls(file, name)

    def check(self) -> None:
        """Raises ValueError where the folder is another one, or may only be read."""
        if not _seen(self.file, SECONDS_TO_SEE_THE_STUDY):
            raise ValueError(
                f"{self.file.parent.parent}: not to be seen on {socket.gethostname()}; allowed: a folder that all "
                "machines of the cluster share under the same path"
            )
        try:
            with tempfile.TemporaryFile(dir=self.file.parent):
                pass
        except OSError as error:
            raise ValueError(f"{self.file.parent}: not to be written on {socket.gethostname()}: {error}") from error

    def remove(self) -> None:
        self.file.unlink(missing_ok=True)


def _seen(path: Path, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not path.exists():
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True


# ------------------------------------------------------------------------------------------------ inside the workers


def _described(token: _Token, dask_worker: Any) -> dict[str, str] | str:
    """What must be the same in all workers, for the same seeds to give the same numbers; or why this one can't train.

    `dask_worker` is filled in by Dask.
    """
    import torch

    from infinito.runs.code import code_sha256, library
    from infinito.runs.engine import compiles
    from infinito.runs.provenance import device_class, this_device

    try:
        _check_worker(dask_worker, token)
    except ValueError as error:
        return str(error)
    return {
        "code of infinito": code_sha256(library()),
        "torch": torch.__version__,
        "device": device_class(this_device()),
        "compiled": "yes" if compiles(this_device()) else "no",
    }


def _check_worker(worker: Any, token: _Token) -> None:
    """Raises ValueError where this worker can't train the study."""
    import torch

    threads = worker.state.nthreads
    if threads != 1:
        raise ValueError(f"found {threads} threads; allowed: 1, by dask worker --nthreads 1")
    if torch.cuda.is_available() and torch.cuda.device_count() > 1:
        raise ValueError(
            f"found {torch.cuda.device_count()} GPUs; allowed: 1 per worker, by CUDA_VISIBLE_DEVICES "
            "(python -m infinito.flows.dask sets it)"
        )
    token.check()


def _work(pickled: bytes, token: _Token) -> Path | Failure:
    """A task of the cluster: one job, with its progress told to whoever waits for it.

    Run and job come pickled: the scheduler reads all arguments, and need not know how to train.
    """
    from distributed import get_worker

    run, job = pickle.loads(pickled)

    worker = get_worker()
    key = worker.get_current_task()
    told = 0.0

    def progress(steps: int) -> None:
        nonlocal told
        if time.monotonic() - told < SECONDS_BETWEEN_NEWS:
            return
        told = time.monotonic()
        if worker.state.tasks[key].state == "cancelled":  # nobody waits any more: leave the worker to others
            raise StackFailed("interrupted")
        worker.log_event(token.name, (key, steps))

    def here(job: Any, progress: Callable[[int], None]) -> Path:
        _check_worker(worker, token)  # it may have come later than the others
        return _on_this_machine(run, job, progress)

    return attempt(here, job, progress)


def _on_this_machine(run: Run[Any], job: Any, progress: Callable[[int], None]) -> Path:
    import torch

    from infinito.runs.provenance import this_device
    from infinito.runs.stacks import StackJob

    torch.set_num_threads(1)
    if isinstance(job, StackJob):  # planned on a machine that may have no GPU
        job = replace(job, device=this_device())
    return run(job, progress)


# ----------------------------------------------------------------------------------------------- starting the workers


def start_workers(address: str, count: int, folder: Path) -> list[subprocess.Popen[bytes]]:
    """Start `count` worker processes on this machine, each with a GPU of its own in turn if there are any.

    Each is watched by a process of Dask's, which starts another one when it dies. `folder`: for their temporary files.
    """
    found = gpus()
    command = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--nworkers", "1", "--nthreads", "1"]
    # no limit of memory: Dask would pause and kill workers by what a stack and its compiler take
    command += ["--memory-limit", "0", "--no-dashboard", "--local-directory", str(folder)]
    return [
        subprocess.Popen(
            [*command, "--name", f"{socket.gethostname()}-{os.getpid()}-{number}"],
            env=os.environ | ({"CUDA_VISIBLE_DEVICES": found[number % len(found)]} if found else {}),
            preexec_fn=die_with_parent,
        )
        for number in range(count)
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Start the workers of this machine, and stay until they have ended."""
    parser = argparse.ArgumentParser(
        prog="python -m infinito.flows.dask",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="""\
Start this machine's Dask workers: one per GPU, or else per CPU core, each with one thread and its own GPU.
Run it in a folder from which `infinito` can be imported, on every machine of the cluster.""",
        epilog="""\
examples:
  dask scheduler --no-dashboard                     on one machine; it prints its address
  python -m infinito.flows.dask tcp://HOST:8786              on every machine that trains
  INFINITO_DASK=tcp://HOST:8786 dvc repro           where the study is

All machines need the study's folder under the same path, the same code and the same packages. Whoever can
reach the scheduler can run any code on the workers: use a network of your own, or the tls:// of Dask.

exit code: 0 ended by Ctrl-C or because the scheduler has ended; 2 bad input, said in one line.""",
    )
    parser.add_argument("address", metavar="ADDRESS", help="of the scheduler, as it prints it: tcp://HOST:8786")
    parser.add_argument("--workers", type=int, metavar="N", help="so many processes (default: as described)")
    options = parser.parse_args(arguments)
    try:
        count = worker_count() if options.workers is None else options.workers
        if count < 1:
            raise ValueError(f"--workers: found {count}; allowed: 1 or more")
        if find_spec("distributed") is None:
            raise ValueError("needs the package distributed: pip install 'infinito[cluster]'")
    except ValueError as error:
        print(f"infinito: {error}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with tempfile.TemporaryDirectory(prefix="infinito-dask-") as folder:
        workers = start_workers(options.address, count, Path(folder))
        try:
            for worker in workers:
                worker.wait()
        except KeyboardInterrupt:
            pass
        finally:
            for worker in workers:
                worker.terminate()
            for worker in workers:
                worker.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
