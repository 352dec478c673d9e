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
        elif lists and len(lists) == len(found):
            if _are_arms(found):
                return pd.DataFrame([{"arm": arm, "value": one} for arm, values in found.items() for one in values])
            if len({len(value) for value in lists}) == 1:
                return pd.DataFrame(found)
        elif seeds := _by_seed(found):
            return pd.DataFrame(seeds)
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


def _are_arms(lists: dict[str, list[Any]]) -> bool:
    """Whether names stand for arms with a list of figures each, not for columns: none of them is known as one."""
    known = named(lists, (*SEED, *STEP, *RUN, *FOLD, *VALUE, *ARM, *TASK)) or [
        name for name in lists if direction(name)
    ]
    return len(lists) > 1 and not known and all(isinstance(x, int | float) for xs in lists.values() for x in xs)


def _by_seed(found: dict[str, Any]) -> list[dict[str, Any]]:
    """{arm: {seed: figure or figures}} as records; none where it is of another form."""
    if not found or not all(isinstance(runs, dict) and runs for runs in found.values()):
        return []
    if not all(re.fullmatch(r"(seed)?[ _-]?\d+", str(seed)) for runs in found.values() for seed in runs):
        return []
    return [
        {"arm": arm, "seed": int(re.sub(r"\D", "", seed))} | (flat(one) if isinstance(one, dict) else {"value": one})
        for arm, runs in found.items()
        for seed, one in runs.items()
    ]
