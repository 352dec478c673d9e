"""params.yaml as it is, whether valid or not, to be held against what dvc.lock recorded of it."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from infinito.yaml_reader import read_yaml

Json = dict[str, Any]


def read_params(folder: Path) -> Json:
    """The content of a study's params.yaml; {} without one."""
    file = folder / "params.yaml"
    if not file.is_file():
        return {}
    content = read_yaml(file)
    if not isinstance(content, dict):
        raise ValueError(f"{file}: found {type(content).__name__}; allowed: a mapping with one section per stage")
    return content


def value_at(content: Any, key: str) -> Any:
    """What lies at a dotted key; None: nothing."""
    for part in key.split("."):
        content = content.get(part) if isinstance(content, dict) else None
    return content


def differing(then: Json, now: Json) -> list[str]:
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
