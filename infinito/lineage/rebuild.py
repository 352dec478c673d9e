"""How to build a result again: the commit that holds all that DVC recorded of it, and the commands from there."""

import hashlib
import io
import shlex
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from infinito.lineage.pipeline import Pipeline, md5_of_list
from infinito.lineage.repository import name_in_repository, repository_root
from infinito.machine import git
from infinito.yaml_reader import parse_yaml

Json = dict[str, Any]

COMMITS = 50  # how far back the one that recorded a result is looked for


def rebuild(pipeline: Pipeline, stage: str, path: str) -> Json:
    """The commit that holds what dvc.lock recorded of a stage and of all before it, and the commands from there."""
    folder, stages = pipeline.folder, pipeline.upstream(stage)
    revision, differs = _recorded_in(pipeline, stages, path)
    root = repository_root(folder)
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
        then = (parse_yaml(lock, f"dvc.lock of {commit}") or {}).get("stages", {}) if lock else {}
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
        name_in_repository(pipeline.folder, name) + ("" if found[name] else " (not in git)")
        for name, expected in recorded.items()
        if found[name] != expected
    ]


def _md5_in(folder: Path, commit: str, path: str) -> str | None:
    """MD5 of a file or folder of a commit, as DVC takes it; None where the commit has none."""
    root, name = repository_root(folder), name_in_repository(folder, path)
    if root is None:
        return None
    done = subprocess.run(["git", "archive", "--format=tar", commit, "--", name], cwd=root, capture_output=True)
    if done.returncode != 0:
        return None
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        files = {entry.name: archive.extractfile(entry) for entry in archive if entry.isfile()}
        found = {file: hashlib.md5(content.read()).hexdigest() for file, content in files.items() if content}
    if name in found:
        return found[name]
    return md5_of_list({file.removeprefix(f"{name}/"): value for file, value in found.items()})
