"""Is a run table what its stacks recorded when they were trained?

The record of a stack (stack.json) holds the rows of its runs as they were written, and the hash of every file beside
it. A stage that reads the table compares the rows, and what it reads of the files; `faults` compares everything.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from infinito.storage import canonical, file_sha256, read_json, read_table, sha256

Json = dict[str, Any]

# beside stack.json; the curves of all stacks lie in one table
FILES = ("items.parquet", "initial.safetensors", "final.safetensors", "trace.safetensors")
OF_COMMANDS = ("logs.parquet",)  # where the runs were made by commands, which keep their weights to themselves


def files(record: Mapping[str, Any]) -> tuple[str, ...]:
    """What lies beside the record of a stack."""
    return OF_COMMANDS if str(record.get("schema")).startswith("infinito/commands/") else FILES


def rows(table: pd.DataFrame) -> list[Json]:
    """The rows of a run table as JSON has them, numbers to the last bit."""
    return [{str(key): _plain(value) for key, value in row.items()} for row in table.to_dict("records")]


def _plain(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    return None if value is None or isinstance(value, float) and math.isnan(value) else value


def curves_sha256(curves: pd.DataFrame) -> str:
    """Of the learning curves of a stack's runs, rows in any order."""
    return sha256(canonical(sorted(map(canonical, rows(curves.astype({"run_id": str}))))))


def check(folder: Path, table: pd.DataFrame) -> None:
    """Whether the rows of a run table are those that its stacks recorded.

    Raises:
        ValueError: a record that is missing or of an older version; or the first run that differs, with its column.
    """
    for fault in _faults_of_rows(folder, table):
        raise ValueError(f"{fault}; get the right file back (dvc checkout), or train again: dvc repro --force train")


def check_file(file: Path) -> Path:
    """The same file, if it is the one that the record beside it names; raises ValueError otherwise."""
    record = read_json(file.parent / "stack.json")
    for fault in _faults_of_file(file, record):
        raise ValueError(fault)
    return file


def faults(folder: Path) -> Iterator[str]:
    """Everything in which a run table, its curves, and the files of its stacks differ from what was recorded.

    Raises:
        ValueError: a file that can't be read.
    """
    yield from _faults_of_rows(folder, read_table(folder / "runs.parquet").to_pandas())
    curves = read_table(folder / "curves.parquet").to_pandas()
    for file in sorted(folder.glob("stacks/*/stack.json")):
        record = read_json(file)
        for name in files(record):
            if (file.parent / name).is_file():  # the audit names what is missing
                yield from _faults_of_file(file.parent / name, record)
        mine = curves[curves["run_id"].astype(str).isin(set(record.get("runs") or []))]
        if curves_sha256(mine) != record.get("curves_sha256"):
            yield f"{folder / 'curves.parquet'}: not the learning curves that {file.parent.name}/stack.json recorded"


def _faults_of_file(file: Path, record: Json) -> Iterator[str]:
    recorded = (record.get("files") or {}).get(file.name)
    found = file_sha256(file) if file.is_file() else "nothing"
    if recorded is None:
        yield f"{file.parent / 'stack.json'}: files.{file.name} is missing: the record is of an older version"
    elif found != recorded:
        yield f"{file}: found {found[:12]}; allowed: {recorded[:12]}, as stack.json recorded it"


def _faults_of_rows(folder: Path, table: pd.DataFrame) -> Iterator[str]:
    name = folder / "runs.parquet"
    known = {str(stack): mine for stack, mine in table.groupby("stack_id", sort=False)}
    there = {file.parent.name for file in folder.glob("stacks/*/stack.json")}
    for stack in [*known, *sorted(there - set(known))]:
        file = folder / "stacks" / stack / "stack.json"
        if not file.is_file():
            yield f"{file}: missing, with all that is known of its {len(known[stack])} runs"
            continue
        record = read_json(file)
        recorded = record.get("rows") if isinstance(record, dict) else None
        if not isinstance(recorded, list):
            yield f"{file}: rows is missing: the record is of an older version"
            continue
        found = {str(row["run_id"]): row for row in rows(known[stack])} if stack in known else {}
        then = {str(row["run_id"]): row for row in recorded}
        for run in [*then, *(run for run in found if run not in then)]:
            if run not in found:
                yield f"{name}: run {run} is missing, which {stack}/stack.json recorded"
            elif run not in then:
                yield f"{name}: run {run} is not among those that {stack}/stack.json recorded"
            else:
                yield from _faults_of_row(name, stack, found[run], then[run])


def _faults_of_row(name: Path, stack: str, found: Json, then: Json) -> Iterator[str]:
    for column in {**then, **found}:
        if found.get(column) != then.get(column):
            yield (
                f"{name}: run {then['run_id']}: {column}: found {found.get(column)!r}; "
                f"allowed: {then.get(column)!r}, as {stack}/stack.json recorded it"
            )
