"""What Optuna keeps of its searches: a SQLite file, read without Optuna."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pandas as pd

from infinito.readers import frame
from infinito.readers.results import Options, Results
from infinito.readers.sqlite_file import selected, tables

TABLES = ("studies", "study_directions", "trials", "trial_values", "trial_params", "trial_user_attributes")
INFINITE = {"INF_POS": float("inf"), "INF_NEG": float("-inf")}
OWN = ("arm", "run", "status", "metric", "value")


def read(source: Path | str, options: Options) -> Results:
    """All trials of all studies: the arm is the study, the run the number of the trial.

    The seed is a user attribute or a parameter of that name, if there is one; --arm, --seed and so on name others.

    Args:
        source: the file, or sqlite:///FILE.
        options: what the user says of it.

    Raises:
        ValueError: no such file; another one; no trials.
    """
    path = Path(str(source).removeprefix("sqlite:///"))
    if not path.is_file():
        raise ValueError(f"{source}: no such file; allowed: a SQLite storage of Optuna")
    found = selected(path, TABLES, "Optuna", {
        "studies": "select study_id, study_name from studies order by study_id",
        "directions": "select study_id, objective, direction from study_directions order by study_id, objective",
        "names": "select study_id, value_json from study_system_attributes where key = 'study:metric_names'",
        "trials": "select trial_id, study_id, number, state from trials order by study_id, number",
        "values": "select trial_id, objective, value, value_type from trial_values",
        "params": "select trial_id, param_name, param_value, distribution_json from trial_params",
        "attributes": "select trial_id, key, value_json from trial_user_attributes",
        "curves": "select count(*) from trial_intermediate_values",
    })  # fmt: skip
    if not found["trials"]:
        raise ValueError(f"{path}: found no trials; allowed: at least one")
    studies = dict(found["studies"])
    metrics = _metrics(found)
    given: dict[int, dict[str, Any]] = {}
    attributes = {name for _, name, _ in found["attributes"]}
    for trial, name, value, distribution in found["params"]:
        column = f"params.{name}" if name in OWN or name in attributes else name
        given.setdefault(trial, {})[column] = _parameter(value, json.loads(distribution))
    for trial, name, text in found["attributes"]:
        given.setdefault(trial, {})[f"attributes.{name}" if name in OWN else name] = _plain(json.loads(text))
    values = {(trial, number): INFINITE.get(kind, value) for trial, number, value, kind in found["values"]}
    table = pd.DataFrame([
        {"arm": studies[study], "run": number, "status": state, "metric": metric, "value": values.get((trial, place))}
        | given.get(trial, {})
        for trial, study, number, state in found["trials"]
        for (of, place), metric in metrics.items()
        if of == study
    ])  # fmt: skip
    table["value"] = table["value"].astype(float)
    results = frame.tidy(table, dataclasses.replace(options, arm=options.arm or "arm"), str(path))
    words = {"column arm": "study", "column run": "number of the trial", "column status": "state of the trial"}
    read_as = {key: words.get(taken, taken) for key, taken in results.read_as.items() if key != "value"}
    remarks = [*results.remarks, *_remarks(found, metrics, studies)]
    searches = results.table.loc[results.table["seed"] == "", "arm"].unique()
    if len(searches):
        remarks.insert(0, (
            f"{', '.join(searches[:4])}: trials of a search are no runs over seeds: each has parameters of its own, "
            "and later ones follow from earlier ones; their spread is not that of seeds, and the best is chosen."
        ))  # fmt: skip
    return dataclasses.replace(results, read_as=read_as | {"metric": "objectives"}, remarks=remarks)


def is_one(path: Path) -> bool:
    """Whether a file is such a storage."""
    return set(TABLES) <= set(tables(path))


def _metrics(found: dict[str, list[tuple[Any, ...]]]) -> dict[tuple[int, int], str]:
    """The name of every objective of every study, "value" where it has none."""
    names = {study: json.loads(text) for study, text in found["names"]}
    count: dict[int, int] = {}
    for study, _, _ in found["directions"]:
        count[study] = count.get(study, 0) + 1
    return {
        (study, place): names[study][place] if study in names else f"value {place}" if count[study] > 1 else "value"
        for study, place, _ in found["directions"]
    }


def _parameter(value: float, distribution: dict[str, Any]) -> Any:
    """As it was suggested: of categories their number is stored."""
    attributes = distribution.get("attributes", {})
    if "choices" in attributes:
        return _plain(attributes["choices"][int(value)])
    return int(value) if distribution.get("name", "").startswith("Int") else value


def _remarks(
    found: dict[str, list[tuple[Any, ...]]], metrics: dict[tuple[int, int], str], studies: dict[int, str]
) -> list[str]:
    ways = {(study, place): way for study, place, way in found["directions"]}
    said: dict[str, list[str]] = {}
    for key, metric in metrics.items():
        way = {"MINIMIZE": "lower", "MAXIMIZE": "higher"}.get(ways[key], "not said which way")
        said.setdefault(f"{metric} is better when it is {way}", []).append(studies[key[0]])
    remarks = [f"As the studies say, {what} ({', '.join(of[:4])})." for what, of in said.items()]
    if found["curves"][0][0]:
        remarks.append("Intermediate values of the trials are not read.")
    return remarks


def _plain(value: Any) -> str | int | float:
    return value if isinstance(value, str | int | float) else json.dumps(value)
