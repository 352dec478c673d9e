"""The lineage of one figure: the runs behind it, the stage that wrote it, and the commands that build it again."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from infinito.lineage.pipeline import Pipeline
from infinito.lineage.rebuild import rebuild
from infinito.lineage.repository import name_in_repository
from infinito.lineage.runs import SEEDS, in_common, joined, run_tables, stack_records
from infinito.lineage.settings import read_params, value_at
from infinito.lineage.stages import stage_lineage
from infinito.storage import read_json

Json = dict[str, Any]

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
    pipeline, params = Pipeline.load(folder), read_params(folder)
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
        "file": name_in_repository(folder, path),
        "stage": {"name": stage} | stage_lineage(pipeline, stage, params),
        "runs": groups,
        "stacks": stacks,
        "hardware": in_common([stack for stack in stacks if "schema" in stack]),
        "rebuild": rebuild(pipeline, stage, path),
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
    tables = [table for path in paths for table in run_tables(pipeline.folder, path)]
    runs = joined(tables)
    if runs.empty:
        return [], []
    runs = runs[_are_behind(runs, keys, steps, params)]
    groups = [
        {
            "table": name_in_repository(Path(str(table)), "."),
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
        for stack, record in stack_records(table, numbers.index).items():
            stacks.append(
                (record or {})
                | {"stack_id": stack, "table": name_in_repository(table, "."), "runs": int(numbers[stack])}
            )
    return groups, stacks


def _are_behind(runs: pd.DataFrame, keys: list[str], steps: Sequence[Any], params: Json) -> pd.Series:
    """Which rows of the run table a figure rests on."""
    named = [step["run_id"] for step in steps if isinstance(step, dict) and isinstance(step.get("run_id"), str)]
    if named:  # a figure of one run
        return runs["run_id"].isin(named[-1:])
    prefixes = [".".join(keys[:end]) for end in range(len(keys), 0, -1)]
    designs, arms = next((BEHIND[prefix] for prefix in prefixes if prefix in BEHIND), ((), ()))
    if keys[0] == "golden" and value_at(params, "golden.forward") not in (None, ["selected"]):
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
