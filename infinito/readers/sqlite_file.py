"""A SQLite file that some program keeps its runs in, only ever read."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from infinito.mistakes import one_line

MAGIC = b"SQLite format 3\0"


def is_one(path: Path) -> bool:
    """Whether a file is of this kind, by its first bytes."""
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def tables(path: Path) -> list[str]:
    """The tables of a SQLite file; none if it is another one."""
    try:
        with closing(connected(path)) as store:
            return [name for (name,) in store.execute("select name from sqlite_master where type = 'table'")]
    except sqlite3.Error:
        return []


def connected(path: Path) -> sqlite3.Connection:
    """A SQLite file, only to be read."""
    return sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True)


def selected(path: Path, needed: tuple[str, ...], of: str, queries: dict[str, str]) -> dict[str, list[tuple[Any, ...]]]:
    """What queries find in a SQLite file.

    Raises:
        ValueError: it is no such file; one without the needed tables, or of another version.
    """
    try:
        with closing(connected(path)) as store:
            known = {name for (name,) in store.execute("select name from sqlite_master where type = 'table'")}
            lacking = [name for name in needed if name not in known]
            if lacking:
                found = f"no table {lacking[0]}" if known else "an empty file"
                raise ValueError(f"{path}: found {found}; allowed: a SQLite store of {of}")
            return {name: store.execute(query).fetchall() for name, query in queries.items()}
    except sqlite3.Error as error:
        raise ValueError(f"{path}: not a readable SQLite store of {of}: {one_line(error)}") from error
