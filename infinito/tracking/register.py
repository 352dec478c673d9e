"""Any single run of anybody's script, registered: begun in the store before it starts, and completed when it ends."""

import csv
import getpass
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from infinito.machine import git, git_bytes, nvidia, processor
from infinito.storage import canonical, file_sha256, sha256
from infinito.tracking import store as stores
from infinito.tracking.parameters import CONFIGS, MOST_CONFIG_KEYS, Command, flat, is_seed, of_command, of_config
from infinito.tracking.record import FAILED, FINISHED, KILLED, RUNNING, Curve, Json, Record, Value

LARGEST_HASHED = 20 << 30  # bytes; of larger files, and of more of them, the size must do
MOST_UNTRACKED = 1000
SECONDS_FOR_OUTPUT = 5  # after the script's end: processes that it left behind may hold its output open
STEP = ("step", "global_step", "_step", "epoch", "iteration", "iter")
PACKAGES = """\
import importlib.metadata as m, json, platform
print(json.dumps([platform.python_version(), {str(d.name): d.version for d in m.distributions() if d.name}]))"""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Wanted:
    """What a run is told to keep.

    Args:
        configs: files with settings; one that the script itself writes is read at the end.
        metrics: a JSON, JSON Lines or CSV file that the script writes, with its figures.
        outputs: files and folders of which what the script wrote is listed with its hash.
        seeds: names of parameters that are seeds, beside those whose names say so.
    """

    configs: tuple[Path, ...] = ()
    metrics: Path | None = None
    outputs: tuple[Path, ...] = ()
    seeds: tuple[str, ...] = ()


def track(command: Sequence[str], folder: stores.Folder, wanted: Wanted, say: Say) -> tuple[Record, int]:
    """Run a command here, with its output passed through, and register it.

    Args:
        command: its words.
        folder: the store.
        wanted: see there.
        say: tells people.

    Returns:
        The record, and the command's exit code: 128 and the signal's number, if one killed it.

    Raises:
        ValueError, FileNotFoundError: no such command; a config file that can't be read. Nothing has been run.
        OSError: the store can't be written, before or after the run.
    """
    if shutil.which(command[0]) is None:
        raise ValueError(f"track: found no command {command[0]!r}; allowed: a program, and its arguments, after --")
    here = Path.cwd()
    top = git(here, "rev-parse", "--show-toplevel")
    root = Path(top.rstrip("\n")) if top else here
    parts = of_command(command, root)
    params = _settings(parts, wanted, here, [path for path in wanted.configs if path.exists()])
    tree, difference = _tree(root, folder.path, wanted) if top else (None, b"")
    if tree and difference:
        tree["diff"] = folder.keep(difference, ".diff")
    began = datetime.now(UTC)
    facts: Json = {
        "command": parts.shown,
        "folder": _name(here, root) if top else str(here),
        "git": tree,
        "inputs": _inputs(command, here),
        "process": stores.this(os.getpid()),
    }
    begun = Record(
        id=sha256(canonical([facts, params, began.isoformat(), platform.node(), os.urandom(8).hex()]))[:12],
        name=parts.program,
        status=RUNNING,
        began=began.isoformat(timespec="seconds"),
        params={name: value for name, value in params.items() if not _seed(name, wanted)},
        seeds={name: value for name, value in params.items() if _seed(name, wanted)},
        tags={"user": _user(), "host": platform.node()},
        dirty=_dirty(tree),
        code=_code(tree),
        facts=facts,
    )
    folder.put(begun)
    say(f"run {begun.id} begins, registered in {folder.path}")
    for line in _said_of(tree):
        say(line)
    before = _sizes(wanted.outputs)
    log = folder.log(begun.id)
    with _forwarding() as signals, log.open("ab") as written:
        try:
            process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={"PYTHONUNBUFFERED": "1"} | os.environ,  # through a pipe too every line comes at once
            )
        except OSError as error:
            folder.put(
                replace(begun, status=FAILED, ended=_now(), seconds=0.0, facts=facts | {"remarks": [str(error)]})
            )
            raise
        signals.child = process
        pumps = [_pump(process.stdout, sys.stdout, written), _pump(process.stderr, sys.stderr, written)]
        facts["environment"] = _environment(command)
        folder.put(begun)
        code = process.wait()
        for pump in pumps:
            pump.join(SECONDS_FOR_OUTPUT)
    ended = datetime.now(UTC)
    remarks: list[str] = []
    metrics, curves = _figures(wanted, began, remarks)
    late = [path for path in wanted.configs if path not in {Path(name) for name in facts["inputs"]}]
    params |= _settings(parts, wanted, here, [path for path in late if path.is_file()])
    remarks += [f"{path}: --config: no such file" for path in wanted.configs if not path.is_file()]
    if tree and _tree(root, folder.path, wanted)[0] != {key: value for key, value in tree.items() if key != "diff"}:
        remarks.append("the code in the repository was changed while the run went on")
    killed = code < 0 or (signals.received is not None and code != 0)
    if killed:
        remarks.append(f"ended by {signal.Signals(-code).name if code < 0 else signals.received}")
    facts |= {
        "exit_code": 128 - code if code < 0 else code,
        "outputs": _written(wanted.outputs, before, root),
        "log": f"logs/{log.name}",
        "remarks": remarks,
    }
    done = replace(
        begun,
        status=KILLED if killed else FAILED if code else FINISHED,
        ended=ended.isoformat(timespec="seconds"),
        seconds=round((ended - began).total_seconds(), 3),
        params={name: value for name, value in params.items() if not _seed(name, wanted)},
        seeds={name: value for name, value in params.items() if _seed(name, wanted)},
        metrics=metrics,
        curves=curves,
        facts=facts,
    )
    folder.put(done)
    for line in [*remarks, *_said_of(tree)]:
        say(line)
    return done, facts["exit_code"]


def verified(record: Record, folder: Path) -> list[str]:
    """What of the outputs of a run is not as it was; each in a line. folder: where their paths begin."""
    faults = []
    for path, known in record.facts.get("outputs", {}).items():
        file = folder / path
        if not file.is_file():
            faults.append(f"{path}: not there any more")
        elif file.stat().st_size != known["bytes"] or (known["sha256"] and file_sha256(file) != known["sha256"]):
            faults.append(f"{path}: changed since the run wrote it")
    return faults


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _seed(name: str, wanted: Wanted) -> bool:
    return name in wanted.seeds or name.replace("_", "-") in wanted.seeds or is_seed(name)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container that has no name for the user's number
        return ""


def _name(path: Path, root: Path) -> str:
    """A path as everybody has it: from the root of the repository, if it is in there."""
    place = path.resolve()
    return place.relative_to(root.resolve()).as_posix() if place.is_relative_to(root.resolve()) else str(place)


def _settings(parts: Command, wanted: Wanted, here: Path, configs: Sequence[Path]) -> dict[str, Value]:
    """Of the config files, those named on the command line too, and above all of the command line itself."""
    found: dict[str, Value] = {}
    words = [value for value in parts.params.values() if isinstance(value, str)]
    named = [Path(word) for word in words if word.lower().endswith(CONFIGS) and (here / word).is_file()]
    for path in named:
        try:
            settings = of_config(path)
        except ValueError:  # data, or the file of another program: its hash is kept all the same
            continue
        if len(settings) <= MOST_CONFIG_KEYS:
            found |= settings
    for path in configs:
        found |= of_config(path)
    return found | parts.params


def _inputs(command: Sequence[str], here: Path) -> Json:
    """The files that stand on the command line, with their hashes."""
    words = dict.fromkeys(part for word in command for part in (word, word.partition("=")[2]) if part)
    return {word: _hashed(here / word) for word in words if len(word) < 1000 and (here / word).is_file()}


def _hashed(file: Path) -> Json:
    size = file.stat().st_size
    return {"bytes": size, "sha256": file_sha256(file) if size <= LARGEST_HASHED else None}


def _tree(root: Path, store: Path, wanted: Wanted) -> tuple[Json, bytes]:
    """The revision, and what differs from it, without the store and the outputs of runs; with the difference."""
    left = [path.resolve() for path in (store, *wanted.outputs, *([wanted.metrics] if wanted.metrics else []))]
    out = [f":(exclude,top,literal){_name(path, root)}" for path in left if path.is_relative_to(root.resolve())]
    revision = git(root, "rev-parse", "HEAD")
    difference = b""
    changed: list[str] = []
    if revision:
        difference = git_bytes(root, "diff", "HEAD", "--binary", "--", ":/", *out) or b""
        changed = (git(root, "diff", "HEAD", "--name-only", "-z", "--", ":/", *out) or "").split("\0")[:-1]
    listed = git(root, "ls-files", "--others", "--exclude-standard", "-z", "--", ":/", *out) or ""
    untracked = listed.split("\0")[:-1]
    hashes = {name: _hashed(root / name)["sha256"] for name in untracked[:MOST_UNTRACKED] if (root / name).is_file()}
    branch = git(root, "rev-parse", "--abbrev-ref", "HEAD")
    tree: Json = {
        "revision": revision.strip() if revision else None,
        "branch": branch.strip() if branch else None,
        "changed": changed,
        "diff_sha256": sha256(difference) if difference else None,
        "untracked": hashes,
    }
    if len(untracked) > MOST_UNTRACKED:
        tree["untracked_in_all"] = len(untracked)
    return tree, difference


def _dirty(tree: Json | None) -> bool | None:
    return None if tree is None else bool(tree["revision"] is None or tree["changed"] or tree["untracked"])


def _code(tree: Json | None) -> str:
    """One short text for the state of the code: the revision, and + with a hash of what differs from it."""
    if tree is None:
        return "no git"
    revision = (tree["revision"] or "no commit")[:10]
    if not _dirty(tree):
        return revision
    return f"{revision}+{sha256(canonical([tree['diff_sha256'], tree['untracked']]))[:6]}"


def _said_of(tree: Json | None) -> Iterator[str]:
    if tree is None:
        yield "NO GIT REPOSITORY HERE: which code ran is recorded by the hashes of the files on the command line only"
    elif _dirty(tree):
        revision = f"commit {tree['revision'][:10]}" if tree["revision"] else "any commit: there is none"
        parts = []
        if tree["changed"]:
            parts.append(f"{_files(tree['changed'])} from {revision} (the difference is kept)")
        if tree["untracked"]:
            parts.append(f"{_files(list(tree['untracked']), 'no version')} of any commit (only hashes are kept)")
        found = " and ".join(parts) or f"it differs from {revision}"
        yield f"THE TREE IS DIRTY: {found}; nobody can check this code out"


def _files(names: list[str], what: str = "differ") -> str:
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    many = f"{len(names)} files" if len(names) > 1 else "1 file"
    verb = (
        ("differ" if len(names) > 1 else "differs") if what == "differ" else "are part" if len(names) > 1 else "is part"
    )
    return f"{many} ({shown}) {verb}"


def _environment(command: Sequence[str]) -> Json:
    """Versions, device and host; environment variables, which may hold secrets, are not kept."""
    return {
        **_versions(command),
        "platform": platform.platform(),
        "processor": processor(),
        "cpus": os.cpu_count(),
        "gpus": nvidia("name", "driver_version"),
    }


def _versions(command: Sequence[str]) -> Json:
    """Python and all its packages, as the interpreter of the command has them; {} where it is not Python."""
    program = shutil.which(command[0]) or command[0]
    if not re.match(r"(python|pypy)", Path(program).name):
        with open(program, "rb") as file:
            first = file.readline(500)
        found = re.match(rb"#!\s*(\S*python[\d.]*)\s*$", first)  # as pip writes it into torchrun and the like
        if not found:
            return {}
        program = os.fsdecode(found[1])
    try:
        done = subprocess.run([program, "-c", PACKAGES], capture_output=True, text=True, timeout=60)
        version, packages = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return {}
    return {"python": version, "packages": dict(sorted(packages.items()))}


class _Signals:
    """What came while a child ran."""

    child: subprocess.Popen[bytes] | None = None
    received: str | None = None


@contextmanager
def _forwarding() -> Iterator[_Signals]:
    """Ctrl-C is the child's, which has it from the terminal; other requests to end are passed on to it."""
    state = _Signals()

    def passed_on(number: int, frame: Any) -> None:
        state.received = signal.Signals(number).name
        if number != signal.SIGINT and state.child and state.child.poll() is None:
            state.child.send_signal(number)

    numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
    before = {number: signal.signal(number, passed_on) for number in numbers}
    try:
        yield state
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _pump(source: IO[bytes] | None, screen: Any, log: IO[bytes]) -> threading.Thread:
    """Pass output on as it comes, to the screen and the log."""
    assert source is not None

    def pump() -> None:
        out = screen.buffer
        while part := os.read(source.fileno(), 1 << 16):
            log.write(part)
            log.flush()
            try:
                out.write(part)
                out.flush()
            except (OSError, ValueError):  # whoever read it has gone; the run and its log go on
                pass

    thread = threading.Thread(target=pump, daemon=True)
    thread.start()
    return thread


def _sizes(outputs: Sequence[Path]) -> dict[Path, tuple[int, int]]:
    return {file: (file.stat().st_size, file.stat().st_mtime_ns) for path in outputs for file in _below(path)}


def _below(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())


def _written(outputs: Sequence[Path], before: dict[Path, tuple[int, int]], root: Path) -> Json:
    """The files that are new or changed since, with their hashes."""
    now = _sizes(outputs)
    return {_name(file, root): _hashed(file) for file, state in now.items() if before.get(file) != state}


def _figures(wanted: Wanted, began: datetime, remarks: list[str]) -> tuple[dict[str, float], dict[str, Curve]]:
    """The figures in the metrics file; what is wrong with it is a remark, as the run is over."""
    path = wanted.metrics
    if path is None:
        return {}, {}
    if not path.is_file():
        remarks.append(f"{path}: --metrics: the run has not written it: there are no figures")
        return {}, {}
    if path.stat().st_mtime < began.timestamp() - 2:  # file systems keep time to 2 seconds at worst
        remarks.append(f"{path}: --metrics: older than the run, and so not of it: there are no figures")
        return {}, {}
    try:
        rows = _rows(path)
    except (ValueError, UnicodeDecodeError) as error:
        remarks.append(f"{path}: --metrics: not readable: {' '.join(str(error).split())[:200]}")
        return {}, {}
    numbers = [
        {
            name: float(value)
            for name, value in row.items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        }
        for row in rows
    ]
    final = {name: value for row in numbers for name, value in row.items() if name not in STEP}
    if not final:
        remarks.append(f"{path}: --metrics: found no numbers: there are no figures")
    step = next((name for name in STEP if any(name in row for row in numbers)), None)
    if len(numbers) < 2:
        return final, {}
    curves: dict[str, Curve] = {name: [] for name in final}
    for place, row in enumerate(numbers):
        for name in row.keys() & curves.keys():
            curves[name].append((row.get(step, float(place)) if step else float(place), row[name]))
    return final, curves


def _rows(path: Path) -> list[dict[str, Any]]:
    """JSON: one row; JSON Lines, CSV and TSV: a row a line, of which the last one with a figure counts."""
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix.lower() in (".csv", ".tsv"):
        lines = csv.DictReader(text.splitlines(), delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
        return [{name: _number(value) for name, value in line.items() if name} for line in lines]
    try:
        content = json.loads(text)
    except json.JSONDecodeError:
        content = [json.loads(line) for line in text.splitlines() if line.strip()]
    rows = content if isinstance(content, list) else [content]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("found JSON of another shape; allowed: names with figures, or a list of such")
    return [{name: _number(value) for name, value in flat(row).items()} for row in rows]


def _number(value: Any) -> Any:
    """Text that is a number, as CSV has all, and JSON what is not finite."""
    try:
        return value if isinstance(value, bool) or value is None else float(value)
    except ValueError:
        return value
