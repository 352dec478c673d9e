"""The store of `infinito track` and `infinito log`: a folder with a JSON record a run, sealed by its hash."""

import math
from pathlib import Path
from typing import Any

import pandas as pd

from infinito.readers import json_files
from infinito.readers.results import Options, Results
from infinito.readers.tracked import FIGURES, Run, logged
from infinito.storage import canonical, sha256

SCHEMA = "infinito/run/1"


def is_one(folder: Path) -> bool:
    """Whether such records lie in `folder`/runs."""
    first = next((folder / "runs").glob("*.json"), None)
    try:
        return first is not None and json_files.content(first).get("schema") == SCHEMA
    except (AttributeError, ValueError):
        return False


def read(folder: Path, options: Options) -> Results:
    """All runs: the arm is that of a study, or a parameter whose name and values say so; seeds are parameters too.

    The final figures count; of a metric without one, its curve.

    Raises:
        ValueError: a record of another schema, or one that was changed after it was written; no figures.
    """
    runs: list[Run] = []
    figures: list[tuple[str, str, float, float]] = []
    records = [_record(file) for file in (folder / "runs").glob("*.json")]
    for record in sorted(records, key=lambda one: (one["began"], one["id"])):
        number = str(record["id"])
        arm = {"arm": record["arm"]} if record["arm"] else {}
        params = {key: str(value) for key, value in {**record["params"], **record["seeds"], **arm}.items()}
        runs.append({
            "id": number, "run": number, "status": record["status"], "experiment": record["name"], "params": params,
            "tags": {},
        })  # fmt: skip
        figures += [(number, name, math.nan, float(value)) for name, value in record["metrics"].items()]
        figures += [
            (number, name, step, float(value))
            for name, curve in record["curves"].items()
            if name not in record["metrics"]
            for step, value in curve
        ]
    dirty = sum(record["dirty"] is not False for record in records)
    remarks = [f"{folder}: {dirty} of {len(records)} runs had code that no revision holds."] if dirty else []
    return logged(runs, pd.DataFrame(figures, columns=FIGURES), options, str(folder), remarks)


def _record(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json_files.content(file)
    if found.get("schema") != SCHEMA:
        raise ValueError(f"{file}: found schema {found.get('schema')!r}; allowed: {SCHEMA}")
    content = {key: value for key, value in found.items() if key != "sha256"}
    if sha256(canonical(content)) != found.get("sha256"):
        raise ValueError(f"{file}: the record was changed after it was written: its hash is another one")
    return found
