"""Where a number comes from: what every stage read and wrote, the runs behind a figure, and how to build it again.

All of it is read from what is there anyway: dvc.yaml and dvc.lock (as YAML, without DVC), the run tables, the records
of all stacks and stages, and git.
"""

import functools
import hashlib
import json
import shlex
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from infinito.params import Study
from infinito.provenance import environment, git, working_tree
from infinito.storage import read_json, read_table, write_json

Json = dict[str, Any]

SCHEMA = "infinito/lineage/1"
CODE = (".py", ".j2", ".css")
ENVIRONMENT = "requirements.lock"
COMMITS = 50  # how far back the one that recorded a result is looked for
LISTED = 3
# what the record of a stack must say, so that its runs can be judged and trained again
STACK_RECORD = (
    "schema", "runs", "arm", "train", "data_sha256", "compiled", "wall_seconds", "code_sha256", "git_revision",
    "versions", "device", "processor", "finished",
)  # fmt: skip
STAGE_RECORD = ("schema", "outputs", "git_revision", "versions", "device", "processor", "finished", "seconds")
SEEDS = ("init_seed", "data_seed", "noise_seed", "rep")

# The runs behind a figure: designs and arms, of the longest prefix that fits. No arms: those that the figure's path
# names, or else candidate and baseline. A stage that is not here rests on all runs that it reads or writes.
BEHIND: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "compare": (("pairs",), ()),
    "compare.pilot": (("pilot",), ()),
    "attribute": (("grid",), ()),
    "golden": (("grid", "confirm", "controls"), ("candidate",)),
    "golden.selection": (("grid",), ("candidate",)),
    "golden_protocol": (("grid",), ("candidate",)),
    "ensemble": (("pairs",), ()),
    "ensemble.equal_compute": (("pairs", "longer", "wider"), ("candidate",)),
    "ensemble.equal_compute.longer": (("pairs", "longer"), ("candidate",)),
    "ensemble.equal_compute.wider": (("pairs", "wider"), ("candidate",)),
}


# ------------------------------------------------------------------------------------------------ what DVC has recorded


@dataclass(frozen=True)
class Pipeline:
    """dvc.yaml and dvc.lock of a study."""

    folder: Path
    stages: Json  # as dvc.yaml has them
    recorded: Json  # as dvc.lock has them; {} where nothing was run by DVC
    _hashes: dict[Path, str | None] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path) -> "Pipeline":
        """Raises FileNotFoundError without a dvc.yaml, ValueError if it or dvc.lock can't be read."""
        file = folder / "dvc.yaml"
        if not file.is_file():
            raise FileNotFoundError(f"{file}: no such file; a study is a folder with a params.yaml and a dvc.yaml")
        lock = folder / "dvc.lock"
        return cls(folder, _stages(file), _stages(lock) if lock.is_file() else {})

    def outputs(self, stage: str) -> list[str]:
        entry = self.stages[stage]
        return [path for kind in ("outs", "metrics", "plots") for path in _paths(entry.get(kind, []))]

    def inputs(self, stage: str) -> list[str]:
        return list(_paths(self.stages[stage].get("deps", [])))

    def writer(self, path: str) -> str | None:
        """The stage that writes `path`, relative to the study, or a folder around it."""
        inside = {path, *map(str, Path(path).parents)}
        return next((stage for stage in self.stages if inside & set(self.outputs(stage))), None)

    def upstream(self, stage: str) -> list[str]:
        """`stage` and all stages that it needs, in the order of dvc.yaml."""
        found, ahead = set(), [stage]
        while ahead:
            name = ahead.pop()
            if name not in found:
                found.add(name)
                ahead += [writer for path in self.inputs(name) if (writer := self.writer(path))]
        return [name for name in self.stages if name in found]

    def on_disk(self, path: str) -> str | None:
        """MD5 of a file or folder, as DVC takes it; None where there is nothing."""
        place = self.folder / path
        if place not in self._hashes:
            self._hashes[place] = md5(place)
        return self._hashes[place]


def _yaml(file: Path) -> Any:
    try:
        return yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: not valid YAML: {' '.join(str(error).split())}") from error


def _stages(file: Path) -> Json:
    content = _yaml(file)
    stages = content.get("stages") if isinstance(content, dict) else None
    if not isinstance(stages, dict) or not all(isinstance(entry, dict) for entry in stages.values()):
        raise ValueError(f"{file}: found no stages; allowed: what `dvc repro` understands")
    return stages


def _paths(entries: Iterable[Any]) -> Iterator[str]:
    for entry in entries:
        yield next(iter(entry)) if isinstance(entry, dict) else entry


def md5(path: Path) -> str | None:
    """MD5 of a file, or of a folder's list of files with ".dir" at its end, as DVC takes it; None: there is nothing."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "md5").hexdigest()
    if not path.is_dir():
        return None
    files = sorted((file.relative_to(path).as_posix(), file) for file in path.rglob("*") if file.is_file())
    listed = [{"md5": md5(file), "relpath": name} for name, file in files]
    return hashlib.md5(json.dumps(listed, sort_keys=True).encode()).hexdigest() + ".dir"


# -------------------------------------------------------------------------------------------------------------- lineage


def lineage(folder: Path) -> Json:
    """What went into every stage of a study and what came out, and whether the files on disk are still those.

    Returns:
        JSON-ready dict: study, git (see `working_tree`), and stages by name, each with

        command, needs (stages), params as recorded;
        status ("up to date", "changed", "not run") and changed (what, if so);
        inputs and outputs: path from the study, name from the repository's root, kind (data, code, environment), of
        (the stage that writes it), md5 as recorded, size in bytes, files, state ("same", "changed", "missing", or
        "new": there, but not recorded);
        record: when and where it ran, see `write_record`; None where that was not recorded;
        runs: of every run table it wrote, the numbers of runs, their hardware, versions, revisions and time.

    Raises:
        FileNotFoundError: no dvc.yaml.
        ValueError: a file that can't be read; the message names it.
    """
    pipeline = Pipeline.load(folder)
    params = _params(folder)
    return {
        "schema": SCHEMA,
        "study": params.get("study", folder.resolve().name),
        "folder": _name(folder, "."),
        "git": working_tree(folder),
        "stages": {stage: _stage(pipeline, stage, params) for stage in pipeline.stages},
    }


def _stage(pipeline: Pipeline, stage: str, params: Json) -> Json:
    recorded = pipeline.recorded.get(stage)
    inputs = [_file(pipeline, entry) for entry in _entries(recorded, "deps", pipeline.inputs(stage))]
    outputs = [_file(pipeline, entry) for entry in _entries(recorded, "outs", pipeline.outputs(stage))]
    then: Json = (recorded or {}).get("params", {}).get("params.yaml", {})
    changed = [entry["name"] for entry in [*inputs, *outputs] if entry["state"] != "same"]
    changed += [f"params.yaml: {key}" for key in _differing(then, {key: _value(params, key) for key in then})]
    command = pipeline.stages[stage].get("cmd")
    if recorded and recorded["cmd"] != command:
        changed.append("its command")
    record = _record_file(pipeline.folder, stage)
    return {
        "command": command,
        "status": "not run" if recorded is None else "changed" if changed else "up to date",
        "changed": changed if recorded else [],
        "needs": [name for name in pipeline.upstream(stage) if name in {pipeline.writer(x["path"]) for x in inputs}],
        "params": then,
        "inputs": inputs,
        "outputs": outputs,
        "record": read_json(record) if record.is_file() else None,
        "runs": [_summary(table) for path in pipeline.outputs(stage) for table in _tables(pipeline.folder, path)],
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
    suffix = Path(path).suffix
    kind = "environment" if Path(path).name == ENVIRONMENT else "code" if suffix in CODE and not writer else "data"
    return {
        "path": path,
        "name": _name(pipeline.folder, path),
        "kind": kind,
        "of": writer,
        "md5": then,
        "size": entry.get("size"),
        "files": entry.get("nfiles"),
        "state": "missing" if now is None else "new" if then is None else "same" if now == then else "changed",
    }


def _name(folder: Path, path: str) -> str:
    """A path as people know it: from the root of the repository."""
    place, root = (folder / path).resolve(), _root(folder)
    return place.relative_to(root).as_posix() if root and place.is_relative_to(root) else path


def _params(folder: Path) -> Json:
    file = folder / "params.yaml"
    if not file.is_file():
        return {}
    content = _yaml(file)
    if not isinstance(content, dict):
        raise ValueError(f"{file}: found {type(content).__name__}; allowed: a mapping with one section per stage")
    return content


def _value(content: Any, key: str) -> Any:
    for part in key.split("."):
        content = content.get(part) if isinstance(content, dict) else None
    return content


def _differing(then: Json, now: Json) -> list[str]:
    """The keys whose values differ, dotted, as deep as they go."""
    first, second = dict(flat(then)), dict(flat(now))
    return [key for key in first | second if first.get(key, ...) != second.get(key, ...)]


def flat(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and the values at the ends of nested mappings."""
    for key, value in content.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


# ------------------------------------------------------------------------------------------------------------------ git


@functools.cache
def _root(folder: Path) -> Path | None:
    found = git(folder, "rev-parse", "--show-toplevel")
    return Path(found.rstrip("\n")) if found else None


# ----------------------------------------------------------------------------------------------------------------- runs


def _tables(folder: Path, path: str) -> list[Path]:
    """The folders of run tables in an output of a stage."""
    return sorted(file.parent for file in (folder / path).rglob("runs.parquet"))


def _records(table: Path, stacks: Iterable[str]) -> dict[str, Json | None]:
    files = {stack: table / "stacks" / stack / "stack.json" for stack in stacks}
    return {stack: read_json(file) if file.is_file() else None for stack, file in files.items()}


def run_table(folder: Path) -> pd.DataFrame:
    """All runs of a study, of all its run tables, with the columns of the run table and `table`: where it is."""
    pipeline = Pipeline.load(folder)
    paths = [path for stage in pipeline.stages for path in pipeline.outputs(stage)]
    return _joined([table for path in paths for table in _tables(folder, path)])


def _joined(tables: Sequence[Path]) -> pd.DataFrame:
    frames = [read_table(table / "runs.parquet").to_pandas().assign(table=str(table)) for table in tables]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def _summary(table: Path) -> Json:
    runs = read_table(table / "runs.parquet").to_pandas()
    records = [record for record in _records(table, runs["stack_id"].unique()).values() if record]
    numbers = runs.groupby(["design", "arm"], sort=False).size()
    return {
        "table": _name(table, "."),
        "runs": len(runs),
        "designs": [{"design": design, "arm": arm, "runs": int(n)} for (design, arm), n in numbers.items()],
        "diverged": int(runs["diverged"].sum()),
        **_alike(records),
    }


def _alike(records: Sequence[Json]) -> Json:
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


# -------------------------------------------------------------------------------------------------------------- explain


def explain(folder: Path, figure: str) -> Json:
    """Everything behind a figure of a study, and the commands that build it again.

    Args:
        folder: the study.
        figure: name of a results/*.json and the keys in it, dotted: "compare.difference.value", "golden.status",
            "ensemble.candidate.curve.2.loss" (entries of a list by their number, from 0), or just "compare".

    Returns:
        JSON-ready dict: figure, value, entries (what the numbered entries on the way are), file, stage (see `lineage`),
        runs (groups by table, design and arm, with all run_ids and seeds), stacks (the records of their stacks),
        hardware (what these have in common) and rebuild (revision, exact: whether it holds all that dvc.lock
        recorded, differs: what it doesn't, and commands).

    Raises:
        FileNotFoundError: no dvc.yaml.
        ValueError: no such figure; the message lists what is allowed at the place where it was not found.
    """
    pipeline, params = Pipeline.load(folder), _params(folder)
    name, *keys = figure.split(".")
    file = _result_file(folder, name)
    path = file.relative_to(folder).as_posix()
    value, steps = _follow(read_json(file), figure, path, keys)
    stage = pipeline.writer(path)
    if stage is None:
        raise ValueError(f"{path}: no stage of {folder / 'dvc.yaml'} writes it, so nothing is known of it")
    groups, stacks = _runs_behind(pipeline, stage, [name, *keys], steps, params)
    return {
        "schema": "infinito/explain/1",
        "figure": figure,
        "value": value,
        "entries": _numbered(keys, steps),
        "study": params.get("study", folder.resolve().name),
        "file": _name(folder, path),
        "stage": {"name": stage} | _stage(pipeline, stage, params),
        "runs": groups,
        "stacks": stacks,
        "hardware": _alike([stack for stack in stacks if "schema" in stack]),
        "rebuild": _rebuild(pipeline, stage, path),
    }


def _result_file(folder: Path, name: str) -> Path:
    files = {file.stem: file for file in sorted((folder / "results").glob("*.json"))}
    if not files:
        raise ValueError(f"{folder / 'results'}: no results yet; run dvc repro")
    if name not in files:
        raise ValueError(f"figure: found {name!r}; allowed: {', '.join(files)}, and keys in them after a dot")
    return files[name]


def _follow(content: Any, figure: str, path: str, keys: Sequence[str]) -> tuple[Any, list[Any]]:
    """What lies at the end of the keys, and everything on the way to it, the whole file first."""
    steps = [content]
    for place, key in enumerate(keys):
        where = ".".join([path, *keys[:place]])
        if isinstance(content, dict) and key in content:
            content = content[key]
        elif isinstance(content, list) and key.isdecimal() and int(key) < len(content):
            content = content[int(key)]
        elif isinstance(content, dict) and content:
            raise ValueError(f"figure {figure}: found {key!r} in {where}; allowed: {', '.join(content)}")
        elif isinstance(content, list) and content:
            raise ValueError(f"figure {figure}: found {key!r} in {where}; allowed: 0 to {len(content) - 1}")
        else:
            raise ValueError(
                f"figure {figure}: found {key!r} in {where}, which is {json.dumps(content)}; allowed: no key"
            )
        steps.append(content)
    return content, steps


def _numbered(keys: Sequence[str], steps: Sequence[Any]) -> Json:
    """What the numbered entries on the way are: {"candidate.curve.2": {"size": 4, "groups": 5}}."""
    return {
        ".".join(keys[: place + 1]): {
            key: value for key, value in steps[place + 1].items() if isinstance(value, str | int)
        }
        for place in range(len(keys))
        if isinstance(steps[place], list) and isinstance(steps[place + 1], dict)
    }


def _runs_behind(
    pipeline: Pipeline, stage: str, keys: list[str], steps: Sequence[Any], params: Json
) -> tuple[list[Json], list[Json]]:
    paths = [*pipeline.inputs(stage), *pipeline.outputs(stage)]
    tables = [table for path in paths for table in _tables(pipeline.folder, path)]
    runs = _joined(tables)
    if runs.empty:
        return [], []
    runs = runs[_are_behind(runs, keys, steps, params)]
    groups = [
        {
            "table": _name(Path(str(table)), "."),
            "design": design,
            "arm": arm,
            "count": len(group),
            "run_ids": group["run_id"].tolist(),
            "seeds": {seed: group[seed].tolist() for seed in SEEDS if seed in group},
        }
        for (table, design, arm), group in runs.groupby(["table", "design", "arm"], sort=False)
    ]
    stacks = []
    for place, group in runs.groupby("table", sort=False):
        table, numbers = Path(str(place)), group["stack_id"].value_counts(sort=False)
        for stack, record in _records(table, numbers.index).items():
            stacks.append((record or {}) | {"stack_id": stack, "table": _name(table, "."), "runs": int(numbers[stack])})
    return groups, stacks


def _are_behind(runs: pd.DataFrame, keys: list[str], steps: Sequence[Any], params: Json) -> pd.Series:
    """Which rows of the run table a figure rests on."""
    named = [step["run_id"] for step in steps if isinstance(step, dict) and isinstance(step.get("run_id"), str)]
    if named:  # a figure of one run
        return runs["run_id"].isin(named[-1:])
    prefixes = [".".join(keys[:end]) for end in range(len(keys), 0, -1)]
    designs, arms = next((BEHIND[prefix] for prefix in prefixes if prefix in BEHIND), ((), ()))
    if keys[0] == "golden" and _value(params, "golden.forward") not in (None, ["selected"]):
        designs, arms = (*designs, "pairs", "pilot"), ("candidate", "baseline")  # the other ways look at both arms
    if keys[:2] == ["compare", "report_protocol"] and (runs["design"] == "pilot").any():
        designs = ("pilot",)
    chosen = runs["design"].isin(designs) if designs else pd.Series(True, runs.index)
    return chosen & runs["arm"].isin(arms or _arms(keys, steps, set(runs["arm"])))


def _arms(keys: list[str], steps: Sequence[Any], known: set[str]) -> set[str]:
    """The arms that a figure is about, by the names on its path."""
    about = {"candidate", "baseline"}
    first = "candidate"  # what `candidate` means: an ablation's own figures use that word for the ablation
    for key, step in zip(keys, steps, strict=True):
        arm = step.get("arm") if isinstance(step, dict) else None
        if key in known - {"candidate", "baseline"} or arm in known:
            first = arm if arm in known else key
            about = {first, "baseline"}
        elif key == "candidate":
            about = {first}
        elif key == "baseline":
            about = {"baseline"}
        elif key in ("family", "ablations", "networks"):
            about = set(known)
    return about


# -------------------------------------------------------------------------------------------------------------- rebuild


def _rebuild(pipeline: Pipeline, stage: str, path: str) -> Json:
    """The commit that holds what dvc.lock recorded of a stage and of all before it, and the commands from there."""
    folder, stages = pipeline.folder, pipeline.upstream(stage)
    revision, differs = _recorded_in(pipeline, stages, path)
    root = _root(folder)
    inside = root is not None and folder.resolve() != root
    dvc = f"dvc --cd {shlex.quote(folder.resolve().relative_to(root).as_posix())}" if inside and root else "dvc"
    commands = {f"git checkout {revision}": "code, params.yaml, dvc.lock and results as they were"} if revision else {}
    commands |= {
        f"{dvc} checkout --with-deps {stage}": "data and models, from the cache of this machine",
        f"{dvc} pull --with-deps {stage}": "or from the remote storage, if there is one",
        f"{dvc} repro {stage}": "run what is missing or out of date",
        f"{dvc} repro --force {stage}": "or run it and all before it again; stacks in .infinito/scratch are finished",
    }
    return {
        "revision": revision,
        "exact": revision is not None and not differs,
        "differs": differs,
        "stages": stages,
        "commands": [{"command": command, "what": what} for command, what in commands.items()],
    }


def _recorded_in(pipeline: Pipeline, stages: Sequence[str], path: str) -> tuple[str | None, list[str]]:
    """The newest commit with the same dvc.lock and inputs, or else with the same dvc.lock, and what differs in it."""
    folder = pipeline.folder
    wanted = {stage: pipeline.recorded[stage] for stage in stages if stage in pipeline.recorded}
    if len(wanted) < len(stages):
        return None, [f"dvc.lock: nothing recorded of stage {stage}" for stage in stages if stage not in wanted]
    commits = (git(folder, "log", f"-{COMMITS}", "--format=%H", "--", "dvc.lock") or "").split()
    head = (git(folder, "rev-parse", "HEAD") or "").split()
    best: tuple[str | None, list[str]] = None, ["dvc.lock: not committed, so nobody can go back to it by git"]
    for commit in dict.fromkeys([*head, *commits]):
        lock = git(folder, "show", f"{commit}:./dvc.lock")
        then = (yaml.safe_load(lock) or {}).get("stages", {}) if lock else {}
        if any(then.get(stage) != entry for stage, entry in wanted.items()):
            continue
        differs = _differing_files(pipeline, wanted, path, commit)
        if not differs:
            return commit, []
        best = (commit, differs) if best[0] is None else best
    return best


def _differing_files(pipeline: Pipeline, wanted: Json, path: str, commit: str) -> list[str]:
    """Files of a commit that are not those that dvc.lock recorded: what no stage writes, and the result itself."""
    recorded = {
        entry["path"]: entry["md5"]
        for stage in wanted.values()
        for entry in [*stage.get("deps", []), *stage.get("outs", [])]
        if pipeline.writer(entry["path"]) is None or entry["path"] == path
    }
    found = {name: _md5_in(pipeline.folder, commit, name) for name in recorded}
    return [
        _name(pipeline.folder, name) + ("" if found[name] else " (not in git)")
        for name, expected in recorded.items()
        if found[name] != expected
    ]


def _md5_in(folder: Path, commit: str, path: str) -> str | None:
    relative = path if path.startswith("../") else f"./{path}"
    done = subprocess.run(["git", "show", f"{commit}:{relative}"], cwd=folder, capture_output=True)
    return hashlib.md5(done.stdout).hexdigest() if done.returncode == 0 else None


# -------------------------------------------------------------------------------------------------------------- records


def _record_file(folder: Path, stage: str) -> Path:
    return folder / "results" / "records" / f"{stage}.json"


def write_record(study: Study, stage: str, seconds: float) -> None:
    """Write results/records/<stage>.json: the code, the versions, the hardware and the time behind a stage's outputs.

    To be called when the stage has written them. It stands beside the results, not in them: they stay the same to the
    byte when nothing but the time or the machine is another.

    Args:
        study: in which the stage has run.
        stage: its name in dvc.yaml.
        seconds: how long it took.

    Raises:
        FileNotFoundError: no dvc.yaml.
        ValueError: dvc.yaml has no such stage, or an output of it is missing.
    """
    import torch

    pipeline = Pipeline.load(study.folder)
    if stage not in pipeline.stages:
        raise ValueError(f"{study.folder / 'dvc.yaml'}: no stage {stage!r}; allowed: {', '.join(pipeline.stages)}")
    file = _record_file(study.folder, stage)
    own = file.relative_to(study.folder).as_posix()
    outputs = {path: pipeline.on_disk(path) for path in pipeline.outputs(stage) if path != own}
    for path, found in outputs.items():
        if found is None:
            raise ValueError(f"{study.folder / path}: stage {stage} has not written it")
    tree = working_tree(study.folder)
    write_json(
        file,
        {
            "schema": "infinito/record/1",
            "study": study.params.study,
            "stage": stage,
            "outputs": outputs,
            "git_revision": tree["revision"],
            "git_diff_sha256": tree["diff_sha256"],
            "git_untracked": tree["untracked"],
            "seconds": round(seconds, 3),
            **environment("cuda" if torch.cuda.is_available() else "cpu"),
        },
    )


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
            for table in _tables(study.folder, path):
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
    file = _record_file(pipeline.folder, stage)
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
    name = _name(table, ".")
    faults = []
    for stack, record in _records(table, runs["stack_id"].unique()).items():
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
        return not value or any(part is None for part in value.values()) and "python" in value
    return value is None or value == [] or value == ""


# ----------------------------------------------------------------------------------------------------------- for people


def as_text(found: Json) -> str:
    """What `explain` found, as lines for a terminal."""
    stage, rebuild, hardware = found["stage"], found["rebuild"], found["hardware"]
    lines = [f"{found['figure']} = {_shown(found['value'])}"]
    lines += [f"  {place}: {_pairs(entry)}" for place, entry in found["entries"].items() if entry]
    lines += ["", f"{found['file']}, written by stage {stage['name']} of study {found['study']}: {stage['status']}"]
    lines += [f"  changed since: {', '.join(stage['changed'])}"] if stage["changed"] else []
    if stage["record"]:
        lines.append(f"  {_ran(stage['record'])}")
    lines += ["", f"Runs behind it: {sum(group['count'] for group in found['runs']):,}"]
    for group in found["runs"]:
        seeds = "; ".join(f"{name} {_span(values)}" for name, values in group["seeds"].items() if any(values))
        lines.append(f"  {group['count']:,} of the {group['arm']}, {group['design']}, in {group['table']}: {seeds}")
    if found["runs"]:
        lines.append(f"  every run and stack by name: infinito explain {found['figure']} --json")
        lines += ["", f"Trained in {len(found['stacks']):,} stacks, {hardware['wall_seconds']:,.0f} s together"]
        lines += [f"  {line}" for line in _hardware(hardware)]
    lines += ["", "Parameters"] + [f"  {key}: {_shown(value)}" for key, value in flat(stage["params"])]
    lines += ["", "Inputs"] + [
        f"  {x['name']}  {x['md5'] or ''}" + ("" if x["state"] == "same" else f"  ({x['state']})")
        for x in stage["inputs"]
    ]
    lines += ["", "To build it again, in the root of the repository"]
    if not rebuild["exact"]:
        lines.append(f"  not exactly: {'; '.join(rebuild['differs'])}")
    width = max(len(step["command"]) for step in rebuild["commands"])
    lines += [f"  {step['command']:{width}}  # {step['what']}" for step in rebuild["commands"]]
    return "\n".join(lines) + "\n"


def _shown(value: Any) -> str:
    if isinstance(value, dict) and "value" in value and value.get("ci_low") is not None:
        return f"{value['value']} [{value['ci_low']}, {value['ci_high']}]"
    if isinstance(value, dict) and value:
        return ", ".join(value)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)


def _pairs(entry: Json) -> str:
    return ", ".join(f"{key} {value}" for key, value in entry.items())


def _span(values: Sequence[int]) -> str:
    different = sorted(set(values))
    if len(different) <= LISTED:
        return ", ".join(map(str, different))
    return f"{different[0]} to {different[-1]} ({len(different):,})"


def _ran(record: Json) -> str:
    return (
        f"ran {record['seconds']:,.1f} s until {record['finished']} on {record['device']} ({record['processor']}), "
        f"revision {_revision(record['git_revision'], record['git_diff_sha256'])}"
    )


def _revision(revision: str | None, difference: str | None) -> str:
    changes = f" with changes {difference[:12]}" if difference else ""
    return (revision[:12] if revision else "unknown") + changes


def _hardware(common: Json) -> list[str]:
    versions = common["versions"]
    return [
        "revisions " + ", ".join(_revision(revision, None) for revision in common["git_revision"])
        + (", with uncommitted changes" if any(common["git_diff_sha256"]) else ""),
        "code " + ", ".join(str(code)[:12] for code in common["code_sha256"]),
        "data " + ", ".join(str(data)[:12] for data in common["data_sha256"]),
        "on " + ", ".join(map(str, common["device"])) + " (" + ", ".join(map(str, common["processor"])) + ")",
        "with " + ", ".join(f"{name} {' / '.join(map(str, found))}" for name, found in versions.items()),
    ] + ([f"between {common['finished'][0]} and {common['finished'][1]}"] if common["finished"] else [])  # fmt: skip


def as_markdown(found: Json, states: Mapping[str, str] | None = None) -> str:
    """A `lineage` as Markdown: the stages, the files they read and wrote, their runs and parameters.

    `states`: what became of the stages in a flow run.
    """
    stages, tree = found["stages"], found["git"]
    dirty = [*tree["changed"], *tree["untracked"]]
    lines = ["```mermaid", "graph TD", *[f"    {name}" for name in stages]]
    lines += [f"    {need} --> {name}" for name, stage in stages.items() for need in stage["needs"]]
    lines += ["```", "", f"Study **{found['study']}**, git revision `{tree['revision'] or 'none'}`"]
    lines += [f"Changed since: {', '.join(f'`{name}`' for name in dirty)}"] if dirty else []
    lines += _table(
        ("stage", "in this flow run", "files and parameters", "ran"),
        [
            (
                name,
                (states or {}).get(name, ""),
                stage["status"] + (": " if stage["changed"] else "") + ", ".join(stage["changed"]),
                _ran(stage["record"]) if stage["record"] else "not recorded",
            )
            for name, stage in stages.items()
        ],
    )
    tables = [table for stage in stages.values() for table in stage["runs"]]
    for table in tables:
        numbers = ", ".join(f"{x['runs']:,} {x['design']} of the {x['arm']}" for x in table["designs"])
        lines += ["", f"**Runs in `{table['table']}`**: {numbers}", ""]
        lines.append(f"* {table['stacks']:,} stacks, {table['wall_seconds']:,.0f} s together")
        lines += [f"* {line}" for line in _hardware(table)]
    lines += _table(("file", "kind", "MD5", "bytes", "state", "written by", "read by"), _files(stages))
    lines += _table(
        ("stage", "parameter", "value"),
        [(name, key, str(value)) for name, stage in stages.items() for key, value in flat(stage["params"])],
    )
    return "\n".join(lines) + "\n"


def _files(stages: Json) -> list[tuple[str, ...]]:
    """All files that the stages read or wrote, one row for every content."""
    readers: dict[tuple[str, str], list[str]] = {}
    entries: dict[tuple[str, str], Json] = {}
    for stage, content in stages.items():
        for entry in [*content["outputs"], *content["inputs"]]:
            key = entry["name"], entry["md5"] or ""
            entries.setdefault(key, entry)
            readers.setdefault(key, [])
        for entry in content["inputs"]:
            readers[entry["name"], entry["md5"] or ""].append(stage)
    return [
        (
            f"`{name}`",
            entry["kind"],
            f"`{md5}`" if md5 else "",
            "" if entry["size"] is None else f"{entry['size']:,}",
            entry["state"],
            entry["of"] or "",
            ", ".join(readers[name, md5]),
        )
        for (name, md5), entry in entries.items()
    ]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in [head, *rows]]
    lines = [f"| {' | '.join(row)} |" for row in cells]
    return ["", lines[0], "|" + "---|" * len(head), *lines[1:]]
