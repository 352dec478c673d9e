"""The audit of a study: does everything that is there have the record of where it comes from?"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from infinito.lineage.pipeline import Pipeline
from infinito.lineage.records import record_file
from infinito.lineage.repository import name_in_repository
from infinito.lineage.runs import SEEDS, run_tables, stack_records
from infinito.params import Study
from infinito.storage import read_json, read_table

# what the record of a stack must say, so that its runs can be judged and trained again
STACK_RECORD = (
    "schema", "runs", "arm", "train", "data_sha256", "compiled", "wall_seconds", "code_sha256", "git_revision",
    "versions", "device", "processor", "finished",
)  # fmt: skip
ABSENT = {"triton"}  # a package that need not be there: only a GPU has kernels
STAGE_RECORD = ("schema", "outputs", "git_revision", "versions", "device", "processor", "finished", "seconds")


def missing_records(study: Study) -> list[str]:
    """Everything of a study that is there without the record of where it comes from, one line each; [] is good.

    Checked are: that dvc.lock records every output of every stage and that the files are still those; the record of
    every stage, and that it is of these outputs; the record of every stack of runs, with the settings, code, revision,
    versions, hardware, data and time behind it; and that every run has its seeds, its stack, its weights and the data
    that the study has now.

    Raises:
        FileNotFoundError, ValueError: a file that can't be read; the message names it.
    """
    pipeline = Pipeline.load(study.folder)
    faults: list[str] = []
    for stage in pipeline.stages:
        written = [path for path in pipeline.outputs(stage) if pipeline.on_disk(path)]
        if not written:
            continue
        faults += _unrecorded(pipeline, stage, written)
        faults += _without_stage_record(pipeline, stage, written)
        for path in written:
            for table in run_tables(study.folder, path):
                faults += _without_stack_record(table)
    known = {path for stage in pipeline.stages for path in pipeline.outputs(stage)}
    for file in sorted(study.results.rglob("*.json")):
        path = file.relative_to(study.folder).as_posix()
        if not known & {path, *map(str, Path(path).parents)} and file.parent.name != "records":
            faults.append(f"{path}: no stage of dvc.yaml writes it")
    return faults


def _unrecorded(pipeline: Pipeline, stage: str, written: Sequence[str]) -> list[str]:
    recorded = {entry["path"]: entry["md5"] for entry in pipeline.recorded.get(stage, {}).get("outs", [])}
    return [
        f"{path}: " + ("not what dvc.lock records" if path in recorded else "not in dvc.lock; run dvc repro")
        for path in written
        if recorded.get(path) != pipeline.on_disk(path)
    ]


def _without_stage_record(pipeline: Pipeline, stage: str, written: Sequence[str]) -> list[str]:
    file = record_file(pipeline.folder, stage)
    path = file.relative_to(pipeline.folder).as_posix()
    if not file.is_file():
        return [f"{path}: missing, so nothing says when and where stage {stage} ran"]
    record = read_json(file)
    faults = [f"{path}: {key} is missing" for key in STAGE_RECORD if _blank(record.get(key))]
    return faults + [
        f"{path}: of another {output} than there is"
        for output in written
        if output != path and (record.get("outputs") or {}).get(output) != pipeline.on_disk(output)
    ]


def _without_stack_record(table: Path) -> list[str]:
    runs = read_table(table / "runs.parquet").to_pandas()
    name = name_in_repository(table, ".")
    faults = []
    for stack, record in stack_records(table, runs["stack_id"].unique()).items():
        where = f"{name}/stacks/{stack}"
        mine = runs[runs["stack_id"] == stack]
        if record is None:
            faults.append(f"{where}/stack.json: missing, with all that is known of its {len(mine)} runs")
            continue
        faults += [f"{where}/stack.json: {key} is missing" for key in STACK_RECORD if _blank(record.get(key))]
        if "git_diff_sha256" not in record:  # null is an answer: nothing was changed
            faults.append(f"{where}/stack.json: git_diff_sha256 is missing")
        unknown = set(mine["run_id"]) - set(record.get("runs") or [])
        faults += [f"{where}/stack.json: run {run} is missing" for run in sorted(unknown)]
        faults += [
            f"{where}/{weights}.safetensors: missing"
            for weights in ("initial", "final")
            if not (table / "stacks" / stack / f"{weights}.safetensors").is_file()
        ]
    for column in ("run_id", *SEEDS, "weights_sha256", "data_sha256", "wall_seconds"):
        empty = len(runs) if column not in runs else int(runs[column].isna().sum())
        if empty:
            faults.append(f"{name}/runs.parquet: {column} is missing in {empty} of {len(runs)} runs")
    return faults


def _blank(value: Any) -> bool:
    """Whether a record says nothing: a key that is not there, an empty list, or versions of which one is unknown."""
    if isinstance(value, dict):
        unknown = {name for name, part in value.items() if part is None} - ABSENT
        return not value or bool(unknown) and "python" in value
    return value is None or value == [] or value == ""
