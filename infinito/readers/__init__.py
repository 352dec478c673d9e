"""Other people's results: one format a file, all of them to one tidy table."""

from pathlib import Path

from infinito.readers import delimited, folder, json_files, logs, parquet
from infinito.readers.results import Options, Results

ALLOWED = "CSV, TSV, JSON, JSON Lines, Parquet, Arrow, Excel, a log, or a folder of such"


def read(source: str, options: Options) -> Results:
    """What stands behind a path or URI.

    Raises:
        ValueError: it is not there; of no known kind; no figures. In one line.
    """
    path = Path(source)
    if path.is_dir():
        return folder.read(path, options)
    if not path.is_file():
        raise ValueError(f"{source}: no such file or folder; allowed: {ALLOWED}")
    suffix = path.suffix.lower()
    if suffix in json_files.SUFFIXES:
        return json_files.read(path, options)
    if suffix in parquet.SUFFIXES:
        return parquet.read(path, options)
    if suffix in logs.SUFFIXES and (options.match or suffix != ".txt" or _is_log(path)):
        return logs.read(path, options)
    return delimited.read(path, options)


def _is_log(path: Path) -> bool:
    with path.open(encoding="utf-8", errors="replace") as file:
        first = [next(file, "") for _ in range(20)]
    return sum(bool(logs.FIGURE.search(line)) for line in first) > len([line for line in first if line]) / 2


__all__ = ["Options", "Results", "read"]
