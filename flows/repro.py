"""What the flow asks of DVC: which stages there are, what has changed around one, and to run one.

All of it works on any study's folder, from several threads, and cleans up after a DVC that was killed.
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
from dvc.exceptions import DvcException
from dvc.lock import LockError, make_lock
from dvc.repo import Repo, lock_repo
from dvc.repo.index import Index

from infinito.flows.fanout import die_with_parent

# what `dvc repro` advises after every stage, with all that goes with it
ADVICE = (
    "Generating lock file ", "Updating lock file ", "To track the changes with git, run:", "\tgit add ",
    "To enable auto staging, run:", "\tdvc config core.autostage true", "Use `dvc push` to send your updates",
)  # fmt: skip
SECONDS_TO_STOP = 10  # of the 30 that Prefect gives a flow run that is cancelled

Process = subprocess.Popen[str]
_guard = threading.Lock()
_running: set[Process] = set()
_stopped = threading.Event()


def read_stages(study: Path) -> dict[str, set[str]]:
    """The stages of `study`/dvc.yaml, each with those it needs, in an order in which they can run.

    Raises:
        FileNotFoundError: no dvc.yaml.
        ValueError: DVC does not understand it, or the params.yaml beside it.
    """
    with _graph(study) as graph:
        needs = {stage.name: {other.name for other in graph.successors(stage)} for stage in graph}
    return {name: needs[name] for name in TopologicalSorter(needs).static_order()}


def read_changes(study: Path, name: str) -> list[str]:
    """What DVC finds changed around a stage since it last ran; empty when there is nothing to do.

    Raises:
        LockError: another process writes the same files.
        FileNotFoundError, ValueError: as `read_stages`.
    """
    with _graph(study) as graph:
        found = next(stage for stage in graph if stage.name == name).status()
    changes = []
    for entry in (entry for entries in found.values() for entry in entries):
        if isinstance(entry, str):  # "changed command", "always changed"
            changes.append(entry)
            continue
        for path, change in next(iter(entry.values())).items():
            keys = change.items() if isinstance(change, dict) else [("", change)]  # of params.yaml, each by itself
            changes += [f"{path}{' ' + key if key else ''} {how}" for key, how in keys]
    return changes


def is_advice(line: str) -> bool:
    """Whether a line of `dvc repro` says nothing about the stage."""
    return line.startswith(ADVICE)


def discard_corrupt(study: Path, name: str) -> list[str]:
    """Remove the outputs of a stage, here and in the cache, whose bytes are not those that dvc.lock records.

    DVC takes a file in its cache for good as long as size, time and mode are; a bad disk changes none of them.

    Returns:
        The paths of the outputs, relative to the study.
    """
    corrupt = []
    with _graph(study) as graph:
        for out in next(stage for stage in graph if stage.name == name).outs:
            if not out.use_cache or out.hash_info.name != "md5":  # the other kind is of DVC 2
                continue
            path, cached = Path(out.fs_path), out.cache.oid_to_path
            files = [(path, out.hash_info.value)]
            if out.hash_info.isdir:
                files = [(path.joinpath(*key), hash_info.value) for key, _meta, hash_info in out.get_obj()]
                files.append((Path(cached(out.hash_info.value)), out.hash_info.value))  # the list of the folder's files
            bad = [value for file, value in files if not file.is_file() or _md5(file) != value.removesuffix(".dir")]
            if bad:
                for value in bad:
                    Path(cached(value)).unlink(missing_ok=True)
                out.remove()
                corrupt.append(out.def_path)
    return corrupt


def _md5(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "md5").hexdigest()


@contextmanager
def _graph(study: Path) -> Iterator[Any]:
    """The stages of `study`/dvc.yaml as DVC's graph, with what dvc.lock records of them."""
    file = study.resolve() / "dvc.yaml"
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file; a study is a folder with a params.yaml and a dvc.yaml")
    try:
        # locked, or dvc.lock might be read half written
        with Repo(str(file.parent), _wait_for_lock=True) as repo, lock_repo(repo):
            yield Index.from_file(repo, str(file)).graph  # of this file: the index of `repo` holds all studies
    except LockError:
        raise
    except DvcException as error:
        detail = f": {error.__cause__}" if error.__cause__ else ""
        said = " ".join(f"{error}{detail}".split())
        if "dvc.lock" in said:  # DVC does not write it in one go
            said += "; get it back from git or remove it: results come from DVC's cache, and are not made again"
        raise ValueError(f"{file.parent}: {said}") from error


@contextmanager
def start(command: Sequence[str], study: Path, environment: dict[str, str]) -> Iterator[Process]:
    """A process in `study` and in a process group of its own, with its output in a pipe; waits for its end.

    Raises:
        InterruptedError: `stop` was called before.
    """
    with _guard:
        if _stopped.is_set():
            raise InterruptedError("interrupted before it started")
        process = subprocess.Popen(
            command,
            cwd=study,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            process_group=0,  # so that it can be interrupted together with the stage that it runs
            preexec_fn=die_with_parent,
        )
        _running.add(process)
    try:
        yield process
        process.wait()
    finally:
        with _guard:
            _running.discard(process)


def stop() -> None:
    """Interrupt all that `start` started, as Ctrl-C would, and start no more; for a process that is about to end.

    Stages keep what is finished and DVC removes its locks. Whoever takes too long is killed.
    """
    with _guard:
        _stopped.set()
        running = list(_running)
    for process in running:
        _signal(process, signal.SIGINT)
    latest = time.monotonic() + SECONDS_TO_STOP
    for process in running:
        try:
            process.wait(max(0, latest - time.monotonic()))
        except subprocess.TimeoutExpired:
            _signal(process, signal.SIGKILL)


def _signal(process: Process, number: signal.Signals) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        pass


def mend(study: Path) -> None:
    """Remove entries of DVC's lock file for `study`, held by us, that no DVC process holds; the file if it is no JSON.

    DVC removes the entry of a dead process by itself, but takes any process that got the same number since, which
    is likely after a reboot or in a container, for the old one. A disk that was full leaves the file empty. Entries of
    other studies of the repository stay: their processes may be in another container, where they can't be seen.
    """
    folder = Path(Repo.find_root(str(study))) / ".dvc" / "tmp"
    file = folder / "rwlock"
    if not file.is_file():
        return
    with make_lock(str(folder / "rwlock.lock"), tmp_dir=str(folder), wait=True):
        try:
            held = json.loads(file.read_text(encoding="utf-8"))

            def keep(path: str, entry: dict[str, Any]) -> bool:
                return not Path(path).is_relative_to(study.resolve()) or _is_held(entry)

            kept = {
                "write": {path: entry for path, entry in held.get("write", {}).items() if keep(path, entry)},
                "read": {
                    path: entries
                    for path, found in held.get("read", {}).items()
                    if (entries := [entry for entry in found if keep(path, entry)])
                },
            }
        except (json.JSONDecodeError, AttributeError):
            print(f"infinito: {file}: unreadable, as left by a full disk; removed", file=sys.stderr)
            file.unlink()
            return
        if kept != {"write": held.get("write", {}), "read": held.get("read", {})}:
            file.write_text(json.dumps(kept), encoding="utf-8")


def _is_held(entry: dict[str, Any]) -> bool:
    """Whether the process with the entry's number is the one that made the entry."""
    try:
        running = " ".join(psutil.Process(int(entry["pid"])).cmdline())
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True
    _script, _, arguments = entry["cmd"].partition(" ")  # sys.argv: the script's path in full, where ps says -m dvc
    return running.endswith(arguments)
