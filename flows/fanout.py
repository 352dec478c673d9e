"""Where a stage's stacks are trained: one single-threaded process per GPU, or else per CPU core, of this machine.

Each worker process has a pipe of its own and shares no lock with the others, so a worker that is killed takes only its
own stack with it. That stack is tried once more; every finished stack is already saved, whatever happens to the rest.
"""

import ctypes
import multiprocessing
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from infinito.disk import NO_ROOM, refusal


class Job(Protocol):
    """One stack to train; it is pickled and sent to a worker process."""

    @property
    def name(self) -> str:
        """What people read: `candidate-pairs-00`."""

    @property
    def steps(self) -> int:
        """The size of the job, in the unit that is counted by its progress callback."""

    @property
    def unit(self) -> str:
        """What that is: `model-steps`."""

    @property
    def compiled(self) -> bool:
        """Whether its first step may wait for a compiler."""


J = TypeVar("J", bound=Job)
# does a job, calls back with the steps done, with 0 when it begins; returns its result
Run = Callable[[J, Callable[[int], None]], Path]
Wait = Callable[[], Path]  # blocks until something is done; returns its result or raises
Submit = Callable[[str, Callable[[], Path]], Wait]  # starts to do something that has a name


class Workers(Protocol):
    """What does jobs in other processes."""

    def train(self, job: Job, progress: Callable[[int], None]) -> Path:
        """Block until `job` is done; raises StackFailed or WorkerDied."""


Cluster = Callable[[Run[Any]], AbstractContextManager[Workers]]  # workers elsewhere, found when they are needed

SECONDS_BETWEEN_LINES = 15
WAITING = 64  # stacks handed to a cluster at once, which has a queue of its own
_CONTEXT = multiprocessing.get_context("spawn")  # a forked copy of a process that runs threads can deadlock
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None  # loaded here: not between a fork and an exec


class StackFailed(Exception):
    """A stack could not be trained; the message says why in one line."""

    bad_input = False


class WorkerDied(StackFailed):
    """The process that trained the stack is gone."""


class FanOutFailed(Exception):
    """Some stacks could not be trained; the message names them all in one line."""


def die_with_parent() -> None:
    """Let the kernel end this process when the one that started it ends, even by kill -9 (Linux only)."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def worker_count() -> int:
    """One a GPU, or else one a CPU core that this process may use; INFINITO_WORKERS overrides both.

    Raises:
        ValueError: INFINITO_WORKERS is not a positive whole number.
    """
    found = os.environ.get("INFINITO_WORKERS")
    if found is None:
        import torch  # not above: whoever only waits for the workers needs no torch

        if torch.cuda.is_available():
            return torch.cuda.device_count()
        return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    if not found.isdecimal() or int(found) < 1:
        raise ValueError(f"INFINITO_WORKERS: found {found!r}; allowed: a whole number of processes, 1 or more")
    return int(found)


def gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; none: []."""
    import torch

    if not torch.cuda.is_available():
        return []
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return [name.strip() for name in named.split(",")] if named else list(map(str, range(torch.cuda.device_count())))


def fan_out(
    jobs: Sequence[J],
    run: Run[J],
    submitter: Callable[[int], AbstractContextManager[Submit]],
    cluster: Cluster | None = None,
) -> list[Path]:
    """Do all `jobs` by `run` in worker processes, and return the results in the order of the jobs.

    Args:
        jobs: what to do; `run` and the jobs must be importable and picklable.
        run: called in a worker as `run(job, progress)`.
        submitter: what waits for the workers, so many at once: `as_threads` or `as_tasks`.
        cluster: where the workers are, if not on this machine.

    Raises:
        ValueError: all that went wrong is bad input.
        FanOutFailed: some jobs failed. All others have been done nevertheless.
    """
    if not jobs:
        return []
    size = min(WAITING if cluster else worker_count(), len(jobs))
    failed: dict[str, list[str]] = {}  # reason: names
    errors: list[Exception] = []
    results: list[Path] = []
    # Leaving in the reverse order matters: the pool ends its workers, and only so the submitter's threads, if any
    # still wait for them, come to an end.
    with (
        submitter(size) as submit,
        cluster(run) if cluster else _Pool(run, size) as workers,
        _Report(jobs) as report,
    ):

        def train(job: J) -> Path:
            result = workers.train(job, lambda steps: report.progress(job, steps))
            report.finished(job)
            return result

        waits = [submit(job.name, partial(train, job)) for job in jobs]
        for job, wait in zip(jobs, waits, strict=True):
            try:
                results.append(wait())
            except Exception as error:
                errors.append(error)
                failed.setdefault(str(error), []).append(job.name)
    if not failed:
        return results
    reasons = "; ".join(f"{_some(names)}: {reason}" for reason, names in failed.items())
    if all(isinstance(error, StackFailed) and error.bad_input for error in errors):
        raise ValueError(next(iter(failed)) if len(failed) == 1 else reasons)
    kept = f"; the other {len(results)} are saved" if results else ""
    raise FanOutFailed(f"{len(errors)} of {len(jobs)} stacks failed: {reasons}{kept}") from errors[0]


@contextmanager
def as_threads(size: int) -> Iterator[Submit]:
    """Plain threads wait for the workers."""

    def twice(name: str, train: Callable[[], Path]) -> Path:
        try:
            return train()
        except WorkerDied as died:
            _say(f"{name}: {died}; trying once more")
            return train()

    with ThreadPoolExecutor(size) as threads:
        yield lambda name, train: threads.submit(twice, name, train).result


@contextmanager
def as_tasks(size: int) -> Iterator[Submit]:
    """Prefect tasks wait for the workers, one a stack, in the flow run whose context is active."""
    from prefect import task
    from prefect.cache_policies import NO_CACHE
    from prefect.client.schemas.objects import State
    from prefect.task_runners import ThreadPoolTaskRunner

    def worker_died(_task: Any, _run: Any, state: State[Any]) -> bool:
        return isinstance(state.result(raise_on_failure=False), WorkerDied)

    runner: Any  # Prefect's types allow only coroutines
    with ThreadPoolTaskRunner(max_workers=size) as runner:

        def submit(name: str, train: Callable[[], Path]) -> Wait:
            # no parameters: Prefect would draw an arrow from any task that returned the same small object
            @task(name="stack", task_run_name=name, retries=1, retry_condition_fn=worker_died, cache_policy=NO_CACHE)
            def stack() -> Path:
                return train()

            return runner.submit(stack, {}).result

        yield submit


@dataclass(frozen=True)
class Failure:
    """What a worker sends back instead of a result."""

    reason: str
    bad_input: bool
    trace: str | None  # where it went wrong; None where the reason says all

    def error(self, name: str) -> StackFailed:
        """What to raise for the job of that name; where it went wrong is said here."""
        if not self.bad_input and self.trace:
            _say(f"{name} failed:\n{self.trace}")
        error = StackFailed(self.reason)
        error.bad_input = self.bad_input
        return error


class _Pool:
    """Worker processes, kept from one job to the next because importing and compiling take long."""

    def __init__(self, run: Run[J], size: int) -> None:
        found: list[str | None] = [*gpus()] or [None]
        self._workers = [_Worker(run, found[number % len(found)]) for number in range(size)]
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        for worker in self._workers:
            self._idle.put(worker)

    def __enter__(self) -> "_Pool":
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.close()

    def train(self, job: Job, progress: Callable[[int], None]) -> Path:
        """Block until a worker is free and has done `job`."""
        worker = self._idle.get()
        try:
            return worker.train(job, progress)
        finally:
            self._idle.put(worker)


class _Worker:
    """One worker process, and this end of the pipe to it; a new process takes over where one has died."""

    def __init__(self, run: Run[Any], gpu: str | None) -> None:
        self._run = run
        self._gpu = gpu
        self._closed = False
        self._start()

    def _start(self) -> None:
        self._pipe, theirs = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(target=_work, args=(theirs, self._run, self._gpu), daemon=True)
        self._process.start()
        theirs.close()  # or the end of the worker would go unnoticed here

    def train(self, job: Job, progress: Callable[[int], None]) -> Path:
        if self._closed:
            raise StackFailed("interrupted")
        try:
            self._pipe.send(job)
            while isinstance(answer := self._pipe.recv(), int):
                progress(answer)
        except (EOFError, OSError):
            if self._closed:
                raise StackFailed("interrupted") from None
            self._process.join()
            code = self._process.exitcode
            self._pipe.close()
            self._start()
            raise WorkerDied(f"its worker process ended with exit code {code}") from None
        if isinstance(answer, Failure):
            raise answer.error(job.name)
        assert isinstance(answer, Path)
        return answer

    def close(self) -> None:
        self._closed = True
        self._process.kill()
        self._process.join()


def _work(pipe: Connection, run: Run[Any], gpu: str | None) -> None:
    """A worker process: does jobs until nobody is left to send any. It sees one GPU, if there are any."""
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # heard, for nothing has asked for a GPU in this process
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then ends this process
    with suppress(ImportError):
        from tqdm import tqdm  # of torch's compiler, whose lock between processes a worker that is killed would leak

        tqdm.set_lock(threading.RLock())
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    while True:
        try:
            job = pipe.recv()
        except EOFError:
            return
        pipe.send(attempt(run, job, pipe.send))


def attempt(run: Run[J], job: J, progress: Callable[[int], None]) -> Path | Failure:
    """Do a job in a worker; what goes wrong becomes a plain record that any process can read."""
    try:
        return run(job, progress)
    except Exception as error:
        message = " ".join(str(error).split())
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            return Failure(refusal(error), False, None)
        bad_input = isinstance(error, (ValueError, FileNotFoundError))
        return Failure(
            message if bad_input else f"{type(error).__name__}: {message}", bad_input, traceback.format_exc()
        )


def _leave_with_parent() -> None:
    # Not die_with_parent: there the parent is the *thread* that started this process, which may end earlier.
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


@dataclass
class _Pace:
    """A job that has begun: when, and what it has done since its first steps, which wait for a compiler."""

    compiled: bool
    began: float
    first: tuple[float, int] | None = None  # when the first steps were reported, and how many
    last: tuple[float, int] = (0.0, 0)

    def report(self, steps: int) -> None:
        if steps > 0:
            self.last = time.monotonic(), steps
            self.first = self.first or self.last


class _Report:
    """How far all jobs are: a bar on a terminal, otherwise a line now and then."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._jobs = jobs
        self._total = sum(job.steps for job in jobs)
        self._unit = jobs[0].unit
        self._done: dict[str, int] = {}  # steps of each job
        self._paces: dict[str, _Pace] = {}  # of each job that was not found finished
        self._at_work: set[str] = set()
        self._finished = 0
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._bar: Progress | None = None

    def __enter__(self) -> "_Report":
        console = Console(stderr=True)
        if console.is_terminal:
            self._bar = Progress(BarColumn(), TextColumn("{task.description}"), console=console)
            self._bar.add_task(self._line(), total=self._total)
            self._bar.start()
        self._ticker = threading.Thread(target=self._tick, daemon=True)
        self._ticker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._ticker.join()
        if self._bar is not None or self._finished == len(self._jobs):
            self._show()
        if self._bar is not None:
            self._bar.stop()

    def progress(self, job: Job, steps: int) -> None:
        with self._lock:
            if steps == 0:  # it begins, perhaps for the second time
                self._paces[job.name] = _Pace(job.compiled, time.monotonic())
                self._at_work.add(job.name)
            elif job.name in self._paces:
                self._paces[job.name].report(steps)
            self._done[job.name] = steps

    def finished(self, job: Job) -> None:
        self.progress(job, job.steps)
        with self._lock:
            self._finished += 1
            self._at_work.discard(job.name)

    def _tick(self) -> None:
        while not self._end.wait(SECONDS_BETWEEN_LINES if self._bar is None else 0.5):
            self._show()

    def _show(self) -> None:
        with self._lock:
            line = self._line()
            if self._bar is None:
                _say(line)
            else:
                self._bar.update(self._bar.task_ids[0], description=line, completed=sum(self._done.values()))

    def _line(self) -> str:
        done, now = sum(self._done.values()), time.monotonic()
        line = f"{self._finished} of {len(self._jobs)} stacks, {done:,} of {self._total:,} {self._unit}"
        if self._finished == len(self._jobs):
            trained = sum(pace.last[1] for pace in self._paces.values())
            seconds = now - self._began
            return line + (f", {_number(trained / seconds)} {self._unit}/s, {_duration(seconds)}" if trained else "")
        rate = self._rate()
        if rate:
            line += f", {_number(rate)} {self._unit}/s, {_duration((self._total - done) / rate)} left"
        waiting = [pace for name, pace in self._paces.items() if name in self._at_work and pace.first is None]
        if waiting:
            since = _duration(now - min(pace.began for pace in waiting))
            what = "compiling" if any(pace.compiled for pace in waiting) else "beginning"
            line += f", {what} {len(waiting)} of them for {since}" if rate else f", {what} for {since}"
        elif not self._paces and not done:
            line += f", starting for {_duration(now - self._began)}"
        return line

    def _rate(self) -> float:
        """Model-steps a second of all that are at work, from what each has done since its first steps."""
        spans = [
            (pace.last[0] - pace.first[0], pace.last[1] - pace.first[1]) for pace in self._paces.values() if pace.first
        ]
        seconds, steps = sum(span[0] for span in spans), sum(span[1] for span in spans)
        return max(1, len(self._at_work)) * steps / seconds if seconds > 0 else 0.0


def _say(line: str) -> None:
    print(f"infinito: {line}", file=sys.stderr, flush=True)


def _number(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"


def _some(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 5 else f"{', '.join(names[:4])} and {len(names) - 4} more"
