"""The run tables of a study, and what the stacks behind them have in common."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from infinito.lineage.pipeline import Pipeline
from infinito.lineage.repository import name_in_repository
from infinito.storage import read_json, read_table

Json = dict[str, Any]

SEEDS = ("init_seed", "data_seed", "noise_seed", "rep")


def run_tables(folder: Path, path: str) -> list[Path]:
    """The folders of run tables in an output of a stage."""
    return sorted(file.parent for file in (folder / path).rglob("runs.parquet"))


def stack_records(table: Path, stacks: Iterable[str]) -> dict[str, Json | None]:
    """The records of the stacks of a run table; None where one is missing."""
    files = {stack: table / "stacks" / stack / "stack.json" for stack in stacks}
    return {stack: read_json(file) if file.is_file() else None for stack, file in files.items()}


def run_table(folder: Path) -> pd.DataFrame:
    """All runs of a study, of all its run tables, with the columns of the run table and `table`: where it is."""
    pipeline = Pipeline.load(folder)
    paths = [path for stage in pipeline.stages for path in pipeline.outputs(stage)]
    return joined([table for path in paths for table in run_tables(folder, path)])


def joined(tables: Sequence[Path]) -> pd.DataFrame:
    """Run tables below each other, with the column `table`: the folder of each."""
    frames = [read_table(table / "runs.parquet").to_pandas().assign(table=str(table)) for table in tables]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def summary(table: Path) -> Json:
    """Numbers of runs in a run table, and what their stacks have in common."""
    runs = read_table(table / "runs.parquet").to_pandas()
    records = [record for record in stack_records(table, runs["stack_id"].unique()).values() if record]
    numbers = runs.groupby(["design", "arm"], sort=False).size()
    return {
        "table": name_in_repository(table, "."),
        "runs": len(runs),
        "designs": [{"design": design, "arm": arm, "runs": int(n)} for (design, arm), n in numbers.items()],
        "diverged": int(runs["diverged"].sum()),
        **in_common(records),
    }


def in_common(records: Sequence[Json]) -> Json:
    """What stacks have in common: every value that occurs, once."""

    def values(key: str) -> list[Any]:
        return list(dict.fromkeys(record.get(key) for record in records))

    versions: dict[str, list[str | None]] = {}
    for record in records:
        for package, found in record.get("versions", {}).items():
            versions[package] = list(dict.fromkeys([*versions.get(package, []), found]))
    finished = sorted(record["finished"] for record in records if record.get("finished"))
    return {
        "stacks": len(records),
        "wall_seconds": sum(record.get("wall_seconds", 0.0) for record in records),
        "finished": [finished[0], finished[-1]] if finished else [],
        **{key: values(key) for key in ("git_revision", "git_diff_sha256", "code_sha256", "data_sha256")},
        **{key: values(key) for key in ("device", "processor", "compiled")},
        "versions": versions,
    }
