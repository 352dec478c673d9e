"""Other people's results: one format a file, all of them to one tidy table."""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from infinito.readers import (
    delimited,
    dvc_experiments,
    excel,
    folder,
    grep,
    json_files,
    logs,
    mlflow_store,
    optuna_storage,
    parquet,
    register,
    sacred,
    sqlite_file,
    tensorboard,
)
from infinito.readers.results import Options, Results

ALLOWED = (
    "CSV, TSV, JSON, JSON Lines, Parquet, Arrow, Excel, a log, a SQLite store of MLflow or Optuna, a folder of such "
    "or of runs of MLflow, Sacred, TensorBoard or infinito track, mlflow:URI, or - for standard input"
)
TRACKERS = (register, mlflow_store, sacred, tensorboard)  # whose runs are folders
SERVERS = ("mlflow:", "http://", "https://", "databricks")


def read(source: str, options: Options) -> Results:
    """What stands behind a path or URI.

    Raises:
        ValueError: it is not there; of no known kind; no figures. In one line.
    """
    if options.best_by and options.metric:  # read too; what is judged is told later
        options = replace(options, metric=(*options.metric, options.best_by))
    if source == "-":
        return _standard_input(options)
    if source.startswith(SERVERS):
        return mlflow_store.read(source, options)
    path = Path(source.removeprefix("optuna:").removeprefix("sqlite:///"))
    if path.is_dir():
        tracker = next((tracker for tracker in TRACKERS if tracker.is_one(path)), None)
        return tracker.read(path, options) if tracker else folder.read(path, options)
    if not path.is_file():
        raise ValueError(f"{source}: no such file or folder; allowed: {ALLOWED}")
    return _file(path, options)


def _file(path: Path, options: Options) -> Results:
    suffix = path.suffix.lower()
    if sqlite_file.is_one(path):
        store = next((store for store in (mlflow_store, optuna_storage) if store.is_one(path)), None)
        if store is None:
            found = ", ".join(sqlite_file.tables(path)) or "none"
            raise ValueError(f"{path}: found a SQLite file with the tables {found}; allowed: those of MLflow or Optuna")
        return store.read(path, options)
    if suffix in excel.SUFFIXES:
        return excel.read(path, options)
    if suffix in parquet.SUFFIXES:
        return parquet.read(path, options)
    if dvc_experiments.is_one(path):
        return dvc_experiments.read(path, options)
    if suffix in json_files.SUFFIXES or (suffix not in delimited.SUFFIXES and _begins(path, "[{")):
        return json_files.read(path, options)
    if suffix not in delimited.SUFFIXES[:3] and grep.is_one(path):
        return grep.read(path, options)
    if suffix not in delimited.SUFFIXES[:3] and (options.match or suffix in logs.SURE or _is_log(path)):
        return logs.read(path, options)
    return delimited.read(path, options)


def _standard_input(options: Options) -> Results:
    """As a file without an ending, which is told by what is in it."""
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "standard input"
        file.write_bytes(sys.stdin.buffer.read())
        try:
            return _file(file, options)
        except ValueError as error:
            raise ValueError(str(error).replace(str(file), "standard input")) from error


def _begins(path: Path, marks: str) -> bool:
    with path.open("rb") as file:
        return file.read(200).lstrip(b"\xef\xbb\xbf \t\r\n")[:1].decode("latin-1") in tuple(marks)


def _is_log(path: Path) -> bool:
    with path.open(encoding="utf-8", errors="replace") as file:
        first = [line for line in (next(file, "") for _ in range(20)) if line.strip()]
    return sum(bool(logs.FIGURE.search(line)) for line in first) > len(first) / 2


__all__ = ["Options", "Results", "read"]
