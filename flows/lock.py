"""Who works on a study: one process at a time, with all that it has started.

A file below the study's folder is locked (flock). So it also holds between containers, and machines that share the
folder, where process numbers mean nothing, and the kernel frees it however its holder ends. What stands in the file is
for whoever finds it locked. A `dvc repro` by hand knows nothing of it: its first stage locks the study in its name, and
leaves behind a process that keeps the lock until that `dvc` has ended.
"""

import fcntl
import json
import os
import select
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import IO

import psutil  # type: ignore[import-untyped]

SECONDS_TO_LOOK_AGAIN = 1.0
_OF_DVC = "DVC_STAGE"  # in the environment of whatever DVC runs, and not in its own


class StudyHeld(Exception):
    """Another process works on the study; the message says which, and since when, in one line."""


@dataclass(frozen=True)
class Holder:
    """A process that works on a study; its number is one of its own container, on its own machine."""

    pid: int
    container: str
    boot: str
    host: str
    command: str
    since: str

    @classmethod
    def of(cls, process: psutil.Process) -> "Holder":
        since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
        return cls(process.pid, *_here(), socket.gethostname(), _command(process), since)

    def is_ancestor(self) -> bool:
        """Whether this process is the holder, or was started by it."""
        if (self.container, self.boot) != _here():
            return False
        process = psutil.Process()
        return self.pid in {process.pid, *(parent.pid for parent in process.parents())}

    def __str__(self) -> str:
        container, boot = _here()
        where = (
            f" on {self.host}" if self.boot != boot else " of another container" if self.container != container else ""
        )
        return f"`{self.command}` (process {self.pid}{where}) has been at work since {self.since}"


@contextmanager
def hold(study: Path, waiting: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold `study` while the block runs, and under `dvc repro` until that has ended.

    Whatever the holder has started, a stage of a flow run for instance, holds the study with it.

    Args:
        study: its folder.
        waiting: called once with a line that says who holds the study, which is then waited for.

    Raises:
        StudyHeld: another process holds it, and nothing is to wait.
        ValueError: the folder's file system has no locks.
    """
    path = study.resolve() / ".infinito" / "lock"
    owner = _owner()
    told = False
    while (file := _lock(path)) is None:
        holder = _read(path)
        if holder is None:  # it is about to write, or has ended
            time.sleep(0.01)
            continue
        if holder.is_ancestor():
            yield
            return
        if waiting is None:
            raise StudyHeld(f"{study}: {holder}; repeat this when it has ended")
        if not told:
            waiting(f"{study}: {holder}; waiting until it has ended")
            told = True
        time.sleep(SECONDS_TO_LOOK_AGAIN)
    with file:
        file.truncate(0)
        json.dump(asdict(Holder.of(owner)), file)
        file.flush()
        if owner.pid != os.getpid():
            _leave_keeper(owner.pid, file)
        try:
            yield
        finally:
            if owner.pid == os.getpid():
                _remove(path)


def die_with_dvc() -> None:
    """Let this process, a stage, end when the `dvc` that runs it ends, even by kill -9.

    A shell may stand between the two, which outlives `dvc`: what the kernel does for the child of a process that ends
    (`fanout.die_with_parent`) then does not reach the stage.
    """
    owner = _owner()
    if owner.pid != os.getpid():
        threading.Thread(target=_end_after, args=(owner.pid,), daemon=True).start()


def _end_after(owner: int) -> None:
    _wait_for_end(owner)
    os.kill(os.getpid(), signal.SIGTERM)


def _lock(path: Path) -> IO[str] | None:
    """The file, locked; None if another process has locked it."""
    while True:
        path.parent.mkdir(exist_ok=True)
        try:
            file = path.open("a+")
        except FileNotFoundError:  # a holder that ended has just removed the folder
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and path.stat().st_ino == os.fstat(file.fileno()).st_ino:
                return file
        except BlockingIOError:
            file.close()
            return None
        except FileNotFoundError:
            pass
        except OSError as error:
            file.close()
            raise ValueError(f"{path}: {error.strerror}; allowed: a folder on a file system with locks") from error
        file.close()  # a holder that ended has just removed it


def _remove(path: Path) -> None:
    """Remove the file while it is still locked, and its folder if nothing else is there."""
    path.unlink(missing_ok=True)
    with suppress(OSError):
        path.parent.rmdir()


def _read(path: Path) -> Holder | None:
    try:
        return Holder(**json.loads(path.read_text()))
    except (FileNotFoundError, json.JSONDecodeError, TypeError):
        return None


def _here() -> tuple[str, str]:
    """What tells apart containers of a machine, and machines (empty where the system has no such thing)."""
    try:
        return os.readlink("/proc/self/ns/pid"), Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "", ""


def _owner() -> psutil.Process:
    """The process in whose name the study is to be held: the `dvc` that runs this stage, or else this process."""
    this = psutil.Process()
    if _OF_DVC in os.environ:
        for parent in this.parents():
            try:
                if _OF_DVC not in parent.environ():
                    return parent
            except psutil.Error:
                break
    return this


def _command(process: psutil.Process) -> str:
    """Its command line as people type it: `dvc repro` for /usr/bin/python /usr/bin/dvc repro."""
    program, *arguments = process.cmdline()
    if arguments and Path(program).name.startswith("python") and not arguments[0].startswith("-"):
        program, *arguments = arguments
    return textwrap.shorten(" ".join([Path(program).name, *arguments]), 100)


def _leave_keeper(owner: int, file: IO[str]) -> None:
    """Start what keeps the lock of `file`, which it inherits, until the process `owner` has ended."""
    subprocess.Popen(
        [sys.executable, "-m", "infinito.flows.lock", str(owner), file.name],
        pass_fds=[file.fileno()],
        start_new_session=True,  # Ctrl-C is for the others
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _keep(owner: int, path: Path) -> None:
    os.chdir("/")  # the study's folder may be on a disk that is to be unmounted
    _wait_for_end(owner)
    _remove(path)


def _wait_for_end(process: int) -> None:
    if hasattr(os, "pidfd_open"):
        with suppress(ProcessLookupError):
            select.select([os.pidfd_open(process)], [], [])
    else:
        with suppress(psutil.NoSuchProcess):
            psutil.Process(process).wait()


if __name__ == "__main__":
    _keep(int(sys.argv[1]), Path(sys.argv[2]))
