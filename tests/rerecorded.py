"""Run tables changed by a test, with records that say the same: as if the runs had come out so."""

from pathlib import Path

import pandas as pd

from infinito.runs import integrity
from infinito.storage import file_sha256, read_json, read_table, write_json, write_table


def rerecord(folder: Path, table: pd.DataFrame | None = None) -> None:
    """Write `table` as the run table of a folder, if given, and make all records of its stacks those of its files."""
    if table is not None:
        write_table(folder / "runs.parquet", table)
    runs = read_table(folder / "runs.parquet").to_pandas()
    curves = read_table(folder / "curves.parquet").to_pandas()
    for file in folder.glob("stacks/*/stack.json"):
        mine = runs[runs["stack_id"] == file.parent.name]
        ids = mine["run_id"].tolist()
        record = read_json(file) | {
            "runs": ids,
            "rows": integrity.rows(mine),
            "files": {name: file_sha256(file.parent / name) for name in integrity.FILES},
            "curves_sha256": integrity.curves_sha256(curves[curves["run_id"].astype(str).isin(ids)]),
        }
        write_json(file, record)
