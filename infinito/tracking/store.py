"""The store: a folder with one JSON file a run, which any number of processes may write at once.

    runs/<id>.json         the record
    logs/<id>.log          what a script printed
    files/<sha256>.diff    what its code differed by from the revision, named by its content

A record belongs to the process that began it; nobody else writes it, and nothing is ever removed. So the folder may lie
on a shared disk, be copied into another one, or be pushed and pulled by DVC, and no two people are in each other's way.
"""

import json
import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from infinito.machine import git
from infinito.storage import replacing, sha256, write_json
from infinito.tracking.record import DIED, RUNNING, Json, Record

NAME = "register"  # the folder, where nobody names another
VARIABLE = "INFINITO_STORE"


def default() -> str:
    """The store that is meant where none is named: INFINITO_STORE, or the local one."""
    return os.environ.get(VARIABLE) or local()


def local() -> str:
    """The folder `register` in the root of the repository, or else here."""
    root = git(Path.cwd(), "rev-parse", "--show-toplevel")
    return str(Path(root.rstrip("\n")) / NAME if root else Path(NAME))


@dataclass(frozen=True)
class Folder:
    """A store on disk."""

    path: Path

    def put(self, record: Record) -> None:
        """Write a record, in the place of an earlier one of the same run."""
        write_json(self.path / "runs" / f"{record.id}.json", record.to_json())

    def keep(self, content: bytes, suffix: str) -> str:
        """Keep a file by its content; gives its name below the store."""
        name = f"files/{sha256(content)}{suffix}"
        if not (self.path / name).is_file():
            with replacing(self.path / name) as temporary:
                temporary.write_bytes(content)
        return name

    def log(self, run: str) -> Path:
        """Where the output of a run goes."""
        file = self.path / "logs" / f"{run}.log"
        file.parent.mkdir(parents=True, exist_ok=True)
        return file

    def records(self) -> Iterator[Record]:
        """All of them, those that began first first; a run that is not alive any more has DIED.

        Raises:
            FileNotFoundError: there is no store.
            ValueError: a file is no record, or was changed.
        """
        if not (self.path / "runs").is_dir():
            raise FileNotFoundError(
                f"{self.path}: no store of runs; allowed: a folder that infinito track or infinito log has written, "
                f"or http://SERVER of MLflow (--store, or {VARIABLE})"
            )
        found = [parsed(file.read_bytes(), str(file)) for file in (self.path / "runs").glob("*.json")]
        yield from sorted(map(settled, found), key=lambda record: (record.began, record.id))

    def __contains__(self, record: Record) -> bool:
        """Whether it is here, and has come to its end."""
        file = self.path / "runs" / f"{record.id}.json"
        return file.is_file() and parsed(file.read_bytes(), str(file)).status != RUNNING

    def attach(self, record: Record, source: Path) -> None:
        """Copy the log and the difference of code of a run that is registered in another store, where it has them."""
        for name in attachments(record):
            if (source / name).is_file():
                with replacing(self.path / name) as temporary:
                    shutil.copyfile(source / name, temporary)


def attachments(record: Record) -> list[str]:
    """The names below its store of the files that belong to a run."""
    return [name for name in ((record.facts.get("git") or {}).get("diff"), record.facts.get("log")) if name]


def parsed(content: bytes, where: str) -> Record:
    """A record from its file; raises ValueError in one line."""
    try:
        found = json.loads(content)
    except ValueError as error:
        raise ValueError(f"{where}: not valid JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{where}: found {type(found).__name__}; allowed: the record of a run")
    return Record.from_json(found, where)


def settled(record: Record) -> Record:
    """A record of which RUNNING can be believed, as far as this machine can tell."""
    process = record.facts.get("process")
    dead = record.status == RUNNING and process and process["place"] == place() and process != this(process["pid"])
    return replace(record, status=DIED) if dead else record


def chosen(records: list[Record], beginning: str, where: str) -> Record:
    """The run whose id begins so; raises ValueError if there is none, or more than one."""
    found = [record for record in records if record.id.startswith(beginning)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise ValueError(
            f"run: found no {beginning!r} among the {len(records)} runs of {where}; see infinito runs --each"
        )
    raise ValueError(
        f"run: found {len(found)} that begin with {beginning!r}; allowed: one of {', '.join(r.id for r in found[:4])}"
    )


def place() -> str:
    """Where numbers of processes mean the same: this boot of this machine, and this container of it."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux
        return platform.node()


def this(pid: int) -> Json | None:
    """A process that is alive, told from others that got its number later; None: it is not."""
    try:
        # after the name, which may hold anything, the 20th field is the time it started
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if state == "Z" else {"pid": pid, "place": place(), "started": fields[18]}
    except OSError:
        if Path("/proc/self").exists():
            return None
    try:
        os.kill(pid, 0)
    except OSError:
        return None
    return {"pid": pid, "place": place(), "started": ""}
