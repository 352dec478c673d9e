"""A manifest of another shape is one line that names it."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from infinito import tasks
from infinito.stages import STAGES
from infinito.study import load_study
from tests.conftest import in_process


@pytest.fixture
def manifest(write_study: Callable[..., Path]) -> Path:
    study = load_study(write_study())
    STAGES["prepare"](study, in_process)
    return study.data / "manifest.json"


def places(content: dict[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in content.items():
        yield (*above, key)
        if isinstance(value, dict):
            yield from places(value, (*above, key))


def test_a_manifest_of_another_shape_is_read_or_is_one_line(manifest: Path) -> None:
    whole = manifest.read_text()
    refused = 0
    for *path, last in places(json.loads(whole)):
        for other in ("nothing", None, [], "text", 3):
            content = section = json.loads(whole)
            for key in path:
                section = section[key]
            section[last] = other
            if other == "nothing":
                del section[last]
            manifest.write_text(json.dumps(content))
            try:
                tasks.load(manifest.parent)  # some of what stands there is for people only
            except ValueError as error:
                refused += 1
                assert "\n" not in str(error) and str(manifest.parent) in str(error)
    assert refused > 20


@pytest.mark.parametrize("content", ["[]", "3", "null", "{}", '{"task": "dyck"}', '{"task": "chess", "splits": {}}'])
def test_what_is_no_manifest_is_named(manifest: Path, content: str) -> None:
    manifest.write_text(content)
    with pytest.raises(ValueError, match="^[^\n]*manifest.json: [^\n]*$"):
        tasks.load(manifest.parent)
