"""Parquet and CSV."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from infinito.mistakes import one_line
from infinito.tasks.sources.source import Columns

INDEX = re.compile(r"__index_level_\d+__")
READERS: dict[str, Callable[[Path], pa.Table]] = {
    ".parquet": pq.read_table,
    ".csv": pyarrow.csv.read_csv,
    ".csv.gz": pyarrow.csv.read_csv,
}


def read(files: Sequence[Path]) -> Columns:
    """All columns of files that are parts of one table.

    Raises:
        ValueError: not readable, parts of several tables, two columns of one name; see `columns`.
    """
    tables = []
    for file in files:
        reader = next(reader for suffix, reader in READERS.items() if file.name.endswith(suffix))
        try:
            tables.append(reader(file))
        except (pa.ArrowException, OSError, UnicodeDecodeError, EOFError) as error:
            kind = "Parquet" if file.suffix == ".parquet" else "CSV"
            raise ValueError(f"prepare.source: {file}: not a readable {kind} file: {one_line(error)}") from error
    try:
        table = pa.concat_tables(tables)
    except pa.ArrowException as error:
        raise ValueError(
            f"prepare.source: {files[-1]}: not of the table of {files[0].name}: {one_line(error)}"
        ) from error
    return columns(table, str(files[0]))


def columns(table: pa.Table, where: str) -> Columns:
    """Columns as arrays [N, ...]: lists of numbers become further axes, images (as the hub stores them) pixels.

    Raises:
        ValueError: a column without a name, two of one name;
            lists of several lengths; images that are not readable or of several sizes.
    """
    # what pandas writes beside the columns: row numbers would be a feature that knows the order of the file
    names = [name for name in table.column_names if not INDEX.fullmatch(name)]
    if "" in names:
        raise ValueError(
            f"prepare.source: {where}: found a column without a name, as pandas writes row numbers; "
            "allowed: names for all"
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"prepare.source: {where}: found two columns {twice[0]!r}; allowed: every name once")
    return {name: array(table.column(name), f"{where}: column {name}") for name in names}


def array(values: pa.ChunkedArray | pa.Array, where: str) -> np.ndarray:
    """One column; missing numbers are NaN, missing text is None."""
    values = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    kind = values.type
    if isinstance(kind, pa.BaseExtensionType):
        return array(values.storage, where)
    if pa.types.is_dictionary(kind):
        return array(values.dictionary_decode(), where)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _lists(values, where)
    if pa.types.is_struct(kind) and {field.name for field in kind} == {"bytes", "path"}:
        from infinito.tasks.sources.images import decoded

        return decoded([(row["bytes"], row["path"]) for row in values.to_pylist()], where)
    if pa.types.is_decimal(kind):
        values = values.cast(pa.float64())
    elif pa.types.is_boolean(kind):
        values = values.cast(pa.uint8())
    return values.to_numpy(zero_copy_only=False)


def _lists(values: pa.Array, where: str) -> np.ndarray:
    lengths = pc.list_value_length(values).to_numpy(zero_copy_only=False)
    other = np.flatnonzero(lengths != lengths[:1])  # a missing list has NaN
    if len(other) or values.null_count:
        row = int(other[0]) if len(other) else 0
        found = "nothing" if np.isnan(lengths[row]) else f"a list of {int(lengths[row])}"
        raise ValueError(f"prepare.source: {where}, row {row}: found {found}; allowed: as long as in row 0")
    inner = array(values.flatten(), where)
    return inner.reshape(len(values), int(lengths[0]) if len(lengths) else 0, *inner.shape[1:])
