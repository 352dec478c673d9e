"""JSON and JSON Lines: records, or names with figures; nested keys with dots."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from infinito.readers import frame, lm_eval
from infinito.readers.direction import direction
from infinito.readers.pattern import compiled
from infinito.readers.results import Options, Results
from infinito.readers.roles import ARM, FOLD, RUN, SEED, STEP, TASK, VALUE, named

SUFFIXES = (".json", ".jsonl", ".ndjson")


def read(path: Path, options: Options) -> Results:
    """A list of records, a mapping of lists, or a mapping of names to figures, whose arm and seed --pattern finds.

    Raises:
        ValueError: not JSON; of no such shape.
    """
    found = content(path)
    if lm_eval.is_one(found):
        return lm_eval.read({path: found}, options)
    table = _frame(found, options, path)
    # a mapping's names are what the pattern is of; else it is of columns
    of_names = isinstance(found, dict) and "run" in table
    return frame.tidy(table, replace(options, pattern=None) if of_names else options, path.name)


def content(path: Path) -> Any:
    """What is in a file; JSON Lines as a list.

    Raises:
        ValueError: it is empty, or not JSON; with the line.
    """
    text = path.read_text(encoding="utf-8-sig")
    if not text.strip():
        raise ValueError(f"{path}: found an empty file; allowed: JSON")
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        whole = error
    try:
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    except json.JSONDecodeError:
        raise ValueError(f"{path}: not valid JSON: {whole}") from whole


def flat(content: Any, above: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}; lists are left out."""
    if not isinstance(content, dict):
        return {above: content}
    found: dict[str, Any] = {}
    for key, value in content.items():
        name = f"{above}.{key}" if above else str(key)
        if isinstance(value, dict):
            found |= flat(value, name)
        elif not isinstance(value, list):
            found[name] = value
    return found


def _frame(found: Any, options: Options, path: Path) -> pd.DataFrame:
    if isinstance(found, dict):
        lists = [value for value in found.values() if isinstance(value, list)]
        records = [value for value in lists if value and all(isinstance(entry, dict) for entry in value)]
        if len(records) == 1:
            found = records[0]
        elif nested := _nested(found):
            return pd.DataFrame(nested)
        elif lists and len(lists) == len(found) and len({len(value) for value in lists}) == 1:
            return pd.DataFrame(found)
    if isinstance(found, list) and found and all(isinstance(entry, dict) for entry in found):
        return pd.DataFrame([flat(entry) for entry in found])
    if isinstance(found, dict) and found:
        pattern = compiled(options.pattern) if options.pattern else None
        rows = []
        for name, value in found.items():
            known: dict[str, Any] = {"run": name}
            if pattern:
                match = pattern.fullmatch(name)
                if match is None:
                    raise ValueError(f"--pattern: {options.pattern!r} does not fit the name {name!r} of {path}")
                known |= match.groupdict()
            values = value if isinstance(value, list) else [value]
            rows += [known | (flat(one) if isinstance(one, dict) else {"value": one}) for one in values]
        return pd.DataFrame(rows)
    raise ValueError(f"{path}: found {type(found).__name__}; allowed: a list of records, or names with figures")


SEED_KEY = re.compile(r"(?i)(seed|run|s)?[ _=-]?(\d+)")


def _nested(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Mappings in mappings as records: by arm, and perhaps by task and by seed; none where it is of another form.

    What is innermost is a figure, a mapping of figures, a list of a figure a run, or, as of rliable, a list of runs
    with a figure a task each.
    """
    leaves: list[tuple[tuple[str, ...], Any]] = []

    def walk(node: Any, path: tuple[str, ...]) -> None:
        if isinstance(node, dict) and any(isinstance(value, dict | list) for value in node.values()):
            for key, value in node.items():
                walk(value, (*path, str(key)))
        else:
            leaves.append((path, node))

    walk(found, ())
    depths = {len(path) for path, _ in leaves}
    lists = [isinstance(leaf, list) for _, leaf in leaves]
    if len(depths) > 1 or depths <= {0} or (any(lists) and not all(lists)):
        return []
    seeds = [i for i in range(max(depths)) if all(SEED_KEY.fullmatch(path[i]) for path, _ in leaves)]
    names = [i for i in range(max(depths)) if i not in seeds[-1:]]
    if len(names) not in (1, 2) or not (seeds or all(lists)):
        return []
    if all(lists) and (not all(map(_figures, (leaf for _, leaf in leaves))) or _are_columns(found)):
        return []
    records = []
    for path, leaf in leaves:
        known: dict[str, Any] = dict(zip(("arm", "task"), (path[i] for i in names), strict=False))
        if seeds and (match := SEED_KEY.fullmatch(path[seeds[-1]])):
            known["seed"] = int(match[2])
        if isinstance(leaf, list):
            for run, one in enumerate(leaf):
                tasks = one if isinstance(one, list) else [one]
                several = {"run": f"run {run}"} if isinstance(one, list) else {}
                for task, value in enumerate(tasks):
                    records.append(known | several | ({"task": f"task {task}"} if several else {}) | {"value": value})
        else:
            records.append(known | (flat(leaf) if isinstance(leaf, dict) else {"value": leaf}))
    return records


def _figures(values: list[Any]) -> bool:
    """Whether a list has figures only, or lists of figures of one length."""
    if values and all(isinstance(value, list) for value in values):
        return len({len(value) for value in values}) == 1 and all(_figures(value) for value in values)
    return bool(values) and all(isinstance(value, int | float | None) for value in values)


def _are_columns(lists: dict[str, Any]) -> bool:
    """Whether a mapping of lists is a table: one of its names is known as that of a column."""
    known = named(lists, (*SEED, *STEP, *RUN, *FOLD, *VALUE, *ARM, *TASK)) or [
        name for name in lists if direction(name)
    ]
    return bool(known) or len(lists) < 2
