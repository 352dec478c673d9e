"""What Sacred's FileStorageObserver writes: a folder a run, with run.json, config.json and metrics.json."""

from pathlib import Path
from typing import Any

import pandas as pd

from infinito.readers import json_files
from infinito.readers.results import Options, Results
from infinito.readers.tracked import FIGURES, Run, logged


def read(folder: Path, options: Options) -> Results:
    """All runs below a folder.

    The arm is an entry of the configuration whose name and values say so, else the folder above the runs where there
    are several, else the experiment; the run is its folder, the seed an entry of the configuration.

    Raises:
        ValueError: no runs; a file that is no JSON of that form; no figures.
    """
    files = sorted(folder.rglob("run.json"), key=lambda path: (path.parent.parent, len(path.parent.name), path))
    if not files:
        raise ValueError(f"{folder}: found no run.json; allowed: folders of Sacred, each with run.json and config.json")
    several = len({file.parent.parent for file in files}) > 1
    runs: list[Run] = []
    figures: list[tuple[Any, ...]] = []
    for file in files:
        head = _mapping(file)
        name = file.parent.relative_to(folder).as_posix() if file.parent != folder else folder.name
        config = file.with_name("config.json")
        given = {
            key: value
            for key, value in json_files.flat(_mapping(config) if config.is_file() else {}).items()
            if value is not None and not key.startswith("__")
        }
        above = file.parent.parent.relative_to(folder).as_posix() if several else ""
        experiment = head.get("experiment")
        runs.append({
            "id": name, "run": name, "status": str(head.get("status", "")),
            "experiment": above or str(experiment.get("name", "") if isinstance(experiment, dict) else ""),
            "params": {key: str(value) for key, value in given.items()}, "tags": {},
        })  # fmt: skip
        figures += [(name, *figure) for figure in _figures(file, head)]
    return logged(runs, pd.DataFrame(figures, columns=FIGURES), options, str(folder), [])


def is_one(folder: Path) -> bool:
    """Whether runs of Sacred lie in a folder, or in those below it."""
    return any(file.with_name("config.json").is_file() for file in folder.glob("*/run.json")) or any(
        file.with_name("config.json").is_file() for file in folder.glob("*/*/run.json")
    )


def _mapping(path: Path) -> dict[str, Any]:
    found = json_files.content(path)
    if not isinstance(found, dict):
        raise ValueError(f"{path}: found {type(found).__name__}; allowed: a mapping, as Sacred writes it")
    return found


def _figures(file: Path, head: dict[str, Any]) -> list[tuple[str, float, float]]:
    """metric, step, value: the curves of metrics.json, and the result of the run where it is numbers."""
    path = file.with_name("metrics.json")
    found = []
    for metric, curve in (_mapping(path) if path.is_file() else {}).items():
        try:
            pairs = zip(curve["steps"], map(_number, curve["values"]), strict=True)
            found += [(metric, float(step), value) for step, value in pairs]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: {metric}: found no equally long steps and values of numbers") from error
    result = json_files.flat(head["result"], "result") if head.get("result") is not None else {}
    for name, value in result.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            metric = name.removeprefix("result.")
            found.append((name if any(metric == other for other, _, _ in found) else metric, 0.0, float(value)))
    return found


def _number(value: Any) -> float:
    """A number, also one of NumPy's as Sacred writes it; null where it was none."""
    if isinstance(value, dict):
        value = value["value"]
    return float("nan") if value is None else float(value)
