"""Parquet and Arrow files."""

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.feather

from infinito.readers import frame
from infinito.readers.results import Options, Results

SUFFIXES = (".parquet", ".pq", ".arrow", ".feather")


def read(path: Path, options: Options) -> Results:
    """A file; named levels of its index are columns.

    Raises:
        ValueError: it can't be read as one.
    """
    try:
        found = (
            pd.read_parquet(path) if path.suffix.lower() in (".parquet", ".pq") else pyarrow.feather.read_feather(path)
        )
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ValueError(f"{path}: not a readable table: {' '.join(str(error).split())[:200]}") from error
    if any(found.index.names):
        found = found.reset_index()
    for column in found.columns:
        if isinstance(found[column].dtype, pd.CategoricalDtype):
            found[column] = found[column].astype(object)
    return frame.tidy(found, options, path.name)
