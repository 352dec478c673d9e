"""Files on disk: written whole or not at all, and read with errors that name the file.

Everything is written under a temporary name beside its place and then renamed, so a kill or a full disk leaves the old
file, or none, but never half of one. Only tables and weights need libraries that take seconds to import.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import itertools
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infinito.disk import no_room

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from torch import Tensor


@contextmanager
def replacing(path: Path, *, first_wins: bool = False) -> Iterator[Path]:
    """A temporary name beside `path` that takes its place when the block ends well, and vanishes otherwise.

    Several processes may write the same path at once, and none of them fails: the last one to end wins, or with
    `first_wins` the first one, for a folder whose name says what is in it and that others may be reading already.

    Raises:
        OSError: there is no room; with the path, whatever library found it out.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield temporary / path.name
        for attempt in itertools.count():
            try:
                os.replace(temporary / path.name, path)
                break
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            if first_wins or _exchanged(temporary / path.name, path):
                break
            # elsewhere a folder can't be replaced in one step: the old one steps aside first
            with suppress(FileNotFoundError):  # another process was faster
                os.replace(path, temporary / f"{path.name}.{attempt}")
    except Exception as error:
        if refused := no_room(error, path):
            raise refused from error
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _exchanged(one: Path, other: Path) -> bool:
    """Let two names change places in one step, so that neither is ever missing; False where that can't be."""
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None) if sys.platform == "linux" else None
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE of <linux/fs.h>
    return renameat2 is not None and renameat2(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0


def canonical(content: Any) -> str:
    """JSON with one spelling: sorted keys, no spaces, no NaN. Hashes are taken of it."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def sha256(content: bytes | str) -> str:
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def pretty(content: Any) -> str:
    """JSON as it stands in files, for people and for `diff`."""
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(path: Path, content: Any) -> None:
    write_text(path, pretty(content))


class Lacking(KeyError, ValueError):
    """A key that a file should have; the message names both."""

    def __str__(self) -> str:
        return str(self.args[0])


class Content(dict[str, Any]):
    """A mapping of a JSON file: whoever looks a missing key up in it learns which file lacks it."""

    file: Path

    def __missing__(self, key: str) -> Any:
        raise Lacking(f"{self.file}: found no {key!r}; run the stage that writes it again (dvc repro)")


def read_json(path: Path) -> Any:
    """The mapping in a file.

    Raises ValueError if the file is missing, not JSON or no mapping, and later for a key that is looked up and missing.
    """

    def content(found: dict[str, Any]) -> Content:
        mapping = Content(found)
        mapping.file = path
        return mapping

    try:
        found = json.loads(path.read_text(encoding="utf-8"), object_hook=content)
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such file; run the stage that writes it (dvc repro)") from error
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(
            f"{path}: found {type(found).__name__}; allowed: a mapping, as the stage that writes it has it"
        )
    return found


def write_table(path: Path, table: pa.Table | pd.DataFrame) -> None:
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    if isinstance(table, pd.DataFrame):
        table = pa.Table.from_pandas(table, preserve_index=False)
    with replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read_table(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Raises ValueError if the file is missing, corrupt, or lacks a column."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path, columns=columns)
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such file; run the stage that writes it (dvc repro)") from error
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path}: not a readable Parquet file: {' '.join(str(error).split())[:200]}") from error


def write_weights(path: Path, weights: dict[str, Tensor]) -> None:
    from safetensors.torch import save_file

    with replacing(path) as temporary:
        save_file({name: tensor.contiguous().cpu() for name, tensor in weights.items()}, temporary)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Raises ValueError if the file is missing or corrupt."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such file; run the stage that writes it (dvc repro)") from error
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: not a readable safetensors file: {error}") from error
