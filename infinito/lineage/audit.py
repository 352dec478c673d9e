"""The audit of a study: does the chain from its plan to its results hold, and does everything have its record?"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infinito import tasks
from infinito.lineage.pipeline import Pipeline
from infinito.lineage.records import record_file
from infinito.lineage.repository import repository_root
from infinito.lineage.runs import SEEDS, run_tables, stack_records
from infinito.lineage.settings import differing, read_params, value_at
from infinito.machine import git
from infinito.params import Script
from infinito.planning.ledger import Ledger, history_faults
from infinito.planning.preregistration import in_words, registered
from infinito.runs import RunTable, integrity
from infinito.runs.code import code_of, task_name
from infinito.storage import file_sha256, read_json, read_table
from infinito.study import Study
from infinito.tasks import command

# what the record of a stack must say, so that its runs can be judged and trained again
STACK_RECORD = (
    "schema", "runs", "arm", "train", "data_sha256", "compiled", "wall_seconds", "code_sha256", "git_revision",
    "versions", "device", "processor", "finished",
)  # fmt: skip
ABSENT = {"triton"}  # a package that need not be there: only a GPU has kernels
STAGE_RECORD = ("schema", "outputs", "git_revision", "versions", "device", "processor", "finished", "seconds")
COMMITTED = ("plans.jsonl", "plan.json", "params.yaml", "dvc.yaml", "dvc.lock", "results")


@dataclass(frozen=True)
class Finding:
    """What does not hold, and in which link of the chain; a reserve says only what can't be known here, or not yet."""

    link: str
    said: str
    reserve: bool = False

    def __str__(self) -> str:
        return f"{self.link}: {self.said}"


def audit(study: Study) -> list[Finding]:
    """Everything that does not hold, link by link from the plan to the results; [] is good.

    The links: git (its history has no line of the ledger that is gone or changed), ledger (every line follows the one
    before), plan (it is the registered one), data (the files that the manifest names), stages (dvc.lock records every
    output, the files are there and still those, and every stage has its record), runs (every stack has its record;
    rows, curves, losses and weights are those that it recorded; of the data that are there), results (the verdict is
    the one that the ledger has).

    A file that can't be read is a finding.

    Raises:
        FileNotFoundError, ValueError: no dvc.yaml, or none that can be read.
    """
    pipeline = Pipeline.load(study.folder)
    links = {
        "git": _git(study),
        "ledger": _ledger(study),
        "plan": _plan(study),
        "data": _data(study),
        "stages": _stages(pipeline),
        "runs": _runs(study, pipeline),
        "results": _results(study, pipeline),
    }
    return [finding for link, found in links.items() for finding in _readable(link, found)] + _reserves(study, pipeline)


def _readable(link: str, found: Iterator[str]) -> Iterator[Finding]:
    try:
        for said in found:
            yield Finding(link, said)
    except (ValueError, FileNotFoundError) as error:
        yield Finding(link, str(error))


def _git(study: Study) -> Iterator[str]:
    yield from history_faults(study.ledger)


def _ledger(study: Study) -> Iterator[str]:
    Ledger.read(study.ledger)
    yield from ()


def _plan(study: Study) -> Iterator[str]:
    found = registered(study)
    if found and Ledger.read(study.ledger).number(found[1]) is None:
        yield f"{study.plan}: is no plan that {study.ledger.name} has; infinito plan registers plans"


def _data(study: Study) -> Iterator[str]:
    if study.data.is_dir():
        tasks.load(study.data)
    yield from ()


def _stages(pipeline: Pipeline) -> Iterator[str]:
    for stage in pipeline.stages:
        outputs = pipeline.outputs(stage)
        recorded = {entry["path"]: entry["md5"] for entry in pipeline.recorded.get(stage, {}).get("outs", [])}
        written = [path for path in outputs if pipeline.on_disk(path)]
        for path in outputs:
            if path in written:
                if recorded.get(path) != pipeline.on_disk(path):
                    lacking = "not in dvc.lock; run dvc repro"
                    yield f"{path}: " + ("not what dvc.lock records" if path in recorded else lacking)
            elif path in recorded and pipeline.in_git(path):
                yield f"{path}: missing, and dvc.lock records it; git checkout or dvc repro {stage} brings it back"
            elif path in recorded:
                yield f"{path}: not on this machine; dvc pull brings it, or dvc checkout from this machine's cache"
            elif written and path != record_file(Path(), stage).as_posix():
                yield f"{path}: missing, though stage {stage} has left {written[0]}"
        if written:
            yield from _without_stage_record(pipeline, stage, written)


def _without_stage_record(pipeline: Pipeline, stage: str, written: Sequence[str]) -> Iterator[str]:
    file = record_file(pipeline.folder, stage)
    path = file.relative_to(pipeline.folder).as_posix()
    if not file.is_file():
        if path not in {entry["path"] for entry in pipeline.recorded.get(stage, {}).get("outs", [])}:
            yield f"{path}: missing, so nothing says when and where stage {stage} ran"
        return
    record = read_json(file)
    yield from (f"{path}: {key} is missing" for key in STAGE_RECORD if _blank(record.get(key)))
    for output in written:
        if output != path and (record.get("outputs") or {}).get(output) != pipeline.on_disk(output):
            yield f"{path}: of another {output} than there is"


def _runs(study: Study, pipeline: Pipeline) -> Iterator[str]:
    for stage in pipeline.stages:
        for path in pipeline.outputs(stage):
            for table in run_tables(study.folder, path):
                yield from _without_stack_record(table)
                yield from integrity.faults(table)
                if study.data.is_dir():
                    RunTable.of(study, table)


def _without_stack_record(table: Path) -> Iterator[str]:
    runs = read_table(table / "runs.parquet").to_pandas()
    for stack, record in stack_records(table, runs["stack_id"].unique()).items():
        where = table / "stacks" / stack
        if record is None:
            continue  # `integrity.faults` says so
        yield from (f"{where}/stack.json: {key} is missing" for key in STACK_RECORD if _blank(record.get(key)))
        if "git_diff_sha256" not in record:  # null is an answer: nothing was changed
            yield f"{where}/stack.json: git_diff_sha256 is missing"
        unknown = set(runs.loc[runs["stack_id"] == stack, "run_id"]) - set(record.get("runs") or [])
        yield from (f"{where}/stack.json: run {run} is missing" for run in sorted(unknown))
        yield from (f"{where}/{name}: missing" for name in integrity.files(record) if not (where / name).is_file())
    for column in ("run_id", *SEEDS, "weights_sha256", "data_sha256", "wall_seconds"):
        empty = len(runs) if column not in runs else int(runs[column].isna().sum())
        if empty:
            yield f"{table / 'runs.parquet'}: {column} is missing in {empty} of {len(runs)} runs"


def _results(study: Study, pipeline: Pipeline) -> Iterator[str]:
    known = {path for stage in pipeline.stages for path in pipeline.outputs(stage)}
    for file in sorted(study.results.rglob("*.json")):
        path = file.relative_to(study.folder).as_posix()
        if not known & {path, *map(str, Path(path).parents)} and file.parent.name != "records":
            yield f"{path}: no stage of dvc.yaml writes it"
    file = study.results / "compare.json"
    found = registered(study)
    if found is None or not file.is_file():
        return
    said, result = Ledger.read(study.ledger).of("verdict", found[1])[-1:], read_json(file)
    here = {key: result[key] for key in ("verdict", "n_pairs")}
    here |= {"status": result["plan"]["status"], "difference": result["difference"]["value"]}
    table = study.runs / "runs.parquet"
    if table.is_file():
        here["runs_sha256"] = file_sha256(table)
    for key, value in here.items():
        if not said:
            yield f"{file}: no verdict of this plan is in {study.ledger.name}"
            return
        if said[0].get(key) != value:
            yield f"{file}: {key}: found {value}; the last verdict in {study.ledger.name} has {said[0].get(key)}"


def _reserves(study: Study, pipeline: Pipeline) -> list[Finding]:
    """What can't be known here, or does not hold yet."""
    found: list[tuple[str, str]] = []
    if repository_root(study.folder) is None:
        found.append(("git", f"{study.folder}: in no git repository, so nothing keeps what was planned"))
    else:
        if (git(study.folder, "rev-parse", "--is-shallow-repository") or "").strip() == "true":
            found.append(("git", "a shallow clone: its history can't be seen as a whole (git fetch --unshallow)"))
        changed = git(study.folder, "status", "--porcelain", "--", *COMMITTED) or ""
        found += [("git", f"{line[3:]}: not committed as it is") for line in changed.splitlines()]
    params = read_params(study.folder)
    for stage, declared in pipeline.stages.items():
        recorded = pipeline.recorded.get(stage)
        if recorded is None:
            found.append(("stages", f"stage {stage}: not in dvc.lock: DVC has not run it"))
            continue
        then = recorded.get("params", {}).get("params.yaml", {})
        other = [f"params.yaml: {key}" for key in differing(then, {key: value_at(params, key) for key in then})]
        other += [x["path"] for x in recorded.get("deps", []) if pipeline.on_disk(x["path"]) not in (x["md5"], None)]
        other += ["its command"] if recorded["cmd"] != declared.get("cmd") else []
        found += [("stages", f"stage {stage}: {what} is not as dvc.lock records it; run dvc repro") for what in other]
    dirty: dict[str, int] = {}
    changed_code: set[str] = set()
    for file in study.runs.glob("stacks/*/stack.json"):
        record = read_json(file)
        changed_code |= _changed_code(study, record)
        if record.get("git_diff_sha256"):
            dirty[record["git_revision"]] = dirty.get(record["git_revision"], 0) + 1
    found += [
        ("runs", f"{n} stacks were trained with changes to revision {str(revision)[:12]} that git does not have")
        for revision, n in dirty.items()
    ]
    if changed_code:
        found.append(("runs", f"{in_words(changed_code)} changed since the runs were trained; run dvc repro"))
    return [Finding(link, said, reserve=True) for link, said in found]


def _changed_code(study: Study, record: Any) -> set[str]:
    """The files of a stack's code that are others now, of those that can be found from here."""
    if not study.data.is_dir() or not isinstance(record, dict) or not isinstance(record.get("code"), dict):
        return set()
    settings = study.params.prepare
    if isinstance(settings, Script):
        now: Mapping[str, str] = command.hashes(settings.files, study.folder)
    else:
        now = code_of(record["arm"]["network"], task_name(study.data))
    return {file for file, digest in record["code"].items() if now.get(file, digest) != digest}


def _blank(value: Any) -> bool:
    """Whether a record says nothing: a key that is not there, an empty list, or versions of which one is unknown."""
    if isinstance(value, dict):
        unknown = {name for name, part in value.items() if part is None} - ABSENT
        return not value or bool(unknown) and "python" in value
    return value is None or value == [] or value == ""
