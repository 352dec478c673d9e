"""The lineage of a study, stage by stage: what went in, what came out, and whether the files are still those."""

from pathlib import Path
from typing import Any

from infinito.lineage.pipeline import Pipeline
from infinito.lineage.records import record_file
from infinito.lineage.repository import name_in_repository
from infinito.lineage.runs import run_tables, summary
from infinito.lineage.settings import differing, read_params, value_at
from infinito.runs.provenance import working_tree
from infinito.storage import read_json

Json = dict[str, Any]

SCHEMA = "infinito/lineage/1"
CODE = (".py", ".j2", ".css")
LIBRARY = "infinito"
ENVIRONMENT = "requirements.lock"
NOT_HERE = "not on this machine"  # what DVC keeps elsewhere, as in a fresh clone: `dvc pull` brings it


def lineage(folder: Path) -> Json:
    """What went into every stage of a study and what came out, and whether the files on disk are still those.

    Returns:
        JSON-ready dict: study, git (see `working_tree`), and stages by name, each with

        command, needs (stages), params as recorded;
        status ("up to date", "changed", "not run", "not on this machine"), changed (what, if so) and absent (what DVC
        has recorded and keeps elsewhere);
        inputs and outputs: path from the study, name from the repository's root, kind (data, code, environment), of
        (the stage that writes it), md5 as recorded, size in bytes, files, state ("same", "changed", "missing",
        "not on this machine", or "new": there, but not recorded);
        record: when and where it ran, see `write_record`; None where that was not recorded;
        runs: of every run table it wrote, the numbers of runs, their hardware, versions, revisions and time.

    Raises:
        FileNotFoundError: no dvc.yaml.
        ValueError: a file that can't be read; the message names it.
    """
    pipeline = Pipeline.load(folder)
    params = read_params(folder)
    return {
        "schema": SCHEMA,
        "study": params.get("study", folder.resolve().name),
        "folder": name_in_repository(folder, "."),
        "git": working_tree(folder),
        "stages": {stage: stage_lineage(pipeline, stage, params) for stage in pipeline.stages},
    }


def stage_lineage(pipeline: Pipeline, stage: str, params: Json) -> Json:
    """One stage of `lineage`; `params`: the content of params.yaml now."""
    recorded = pipeline.recorded.get(stage)
    inputs = [_file(pipeline, entry) for entry in _entries(recorded, "deps", pipeline.inputs(stage))]
    outputs = [_file(pipeline, entry) for entry in _entries(recorded, "outs", pipeline.outputs(stage))]
    then: Json = (recorded or {}).get("params", {}).get("params.yaml", {})
    files = [*inputs, *outputs]
    absent = [entry["name"] for entry in files if entry["state"] == NOT_HERE]
    changed = [entry["name"] for entry in files if entry["state"] not in ("same", NOT_HERE)]
    changed += [f"params.yaml: {key}" for key in differing(then, {key: value_at(params, key) for key in then})]
    command = pipeline.stages[stage].get("cmd")
    if recorded and recorded["cmd"] != command:
        changed.append("its command")
    record = record_file(pipeline.folder, stage)
    return {
        "command": command,
        "status": "not run" if not recorded else "changed" if changed else NOT_HERE if absent else "up to date",
        "changed": changed if recorded else [],
        "absent": absent,
        "needs": [name for name in pipeline.upstream(stage) if name in {pipeline.writer(x["path"]) for x in inputs}],
        "params": then,
        "inputs": inputs,
        "outputs": outputs,
        "record": read_json(record) if record.is_file() else None,
        "runs": [summary(table) for path in pipeline.outputs(stage) for table in run_tables(pipeline.folder, path)],
    }


def _entries(recorded: Json | None, kind: str, declared: list[str]) -> list[Json]:
    """What dvc.lock has of a stage's files, and what only dvc.yaml has."""
    found = list((recorded or {}).get(kind, []))
    known = {entry["path"] for entry in found}
    return found + [{"path": path} for path in declared if path not in known]


def _file(pipeline: Pipeline, entry: Json) -> Json:
    path, then = entry["path"], entry.get("md5")
    now = pipeline.on_disk(path)
    writer = pipeline.writer(path)
    name = name_in_repository(pipeline.folder, path)
    code = Path(path).suffix in CODE or Path(name).parts[0] == LIBRARY
    kind = "environment" if Path(path).name == ENVIRONMENT else "code" if code and not writer else "data"
    return {
        "path": path,
        "name": name,
        "kind": kind,
        "of": writer,
        "md5": then,
        "size": entry.get("size"),
        "files": entry.get("nfiles"),
        "state": _state(pipeline, path, then, now),
    }


def _state(pipeline: Pipeline, path: str, then: str | None, now: str | None) -> str:
    if now is None:
        return NOT_HERE if then and pipeline.in_storage(path) else "missing"
    return "new" if then is None else "same" if now == then else "changed"
