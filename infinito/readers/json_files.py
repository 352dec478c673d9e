"""JSON and JSON Lines: records, or names with figures; nested keys with dots."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from infinito.readers import frame, lm_eval
from infinito.readers.pattern import compiled
from infinito.readers.results import Options, Results

SUFFIXES = (".json", ".jsonl", ".ndjson")


def read(path: Path, options: Options) -> Results:
    """A list of records, a mapping of lists, or a mapping of names to figures, whose arm and seed --pattern finds.

    Raises:
        ValueError: not JSON; of no such shape.
    """
    found = content(path)
    if lm_eval.is_one(found):
        return lm_eval.read({path: found}, options)
    return frame.tidy(_frame(found, options, path), options, path.name)


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
