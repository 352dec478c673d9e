"""Arrays as columns of a Parquet file: an example is a row, whatever its shape."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from infinito.storage import read_table, write_table


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Arrays [N, ...] of numbers by name; a row holds an example flat."""

    def column(values: np.ndarray) -> pa.Array:
        values = np.ascontiguousarray(values)
        if values.ndim == 1:
            return pa.array(values)
        return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), math.prod(values.shape[1:]))

    write_table(path, pa.table({name: column(values) for name, values in arrays.items()}))


def read_arrays(path: Path, shapes: Mapping[str, Sequence[int]]) -> dict[str, np.ndarray]:
    """The arrays [N, ...] of `write_arrays`, given the shapes of one example."""
    table = read_table(path, columns=list(shapes))

    def array(name: str, shape: Sequence[int]) -> np.ndarray:
        column = table.column(name).combine_chunks()
        values = column.flatten() if shape else column
        return np.array(values.to_numpy(zero_copy_only=False)).reshape(-1, *shape)

    return {name: array(name, shape) for name, shape in shapes.items()}
