"""Every YAML file that is read: a key twice is an error, wherever it stands; numbers are those of YAML 1.2."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infinito.lineage.pipeline import Pipeline
from infinito.lineage.settings import read_params
from infinito.study import load_study
from infinito.yaml_reader import parse_yaml, read_yaml


@pytest.mark.parametrize(
    "text, key, first, second",
    [
        ("a: 1\na: 2\n", "a", 1, 2),
        ("a:\n  b: 1\n  c: 2\n  b: 1\n", "b", 2, 4),
        ("a:\n  - {b: 1}\n  - {c: 1,\n     d: 2, c: 3}\n", "c", 3, 4),
        ("a:\n  - - x: 1\n      x: 1\n", "x", 2, 3),
        ('a: 1\n"a": 2\n', "a", 1, 2),
        ("? a\n: 1\na: 2\n", "a", 1, 3),
        ("1: a\n0x1: b\n", "0x1", 1, 2),
        ("x: &x {a: 1}\ny:\n  <<: *x\n  b: 1\n  b: 2\n", "b", 4, 5),
        ("y:\n  <<: {a: 1}\n  <<: {b: 1}\n", "<<", 2, 3),
    ],
)
def test_a_key_twice_is_one_line_with_both_places(tmp_path: Path, text: str, key: str, first: int, second: int) -> None:
    (tmp_path / "some.yaml").write_text(text)
    with pytest.raises(ValueError) as error:
        read_yaml(tmp_path / "some.yaml")
    where = f"stands in line {first} and again in line {second}"
    assert str(error.value) == f"{tmp_path / 'some.yaml'}: key {key!r} {where}"


def test_merged_keys_may_be_overridden_and_anchors_used_again() -> None:
    text = "base: &base {a: 1, b: 2}\none: &one\n  <<: *base\n  b: 3\ntwo:\n  <<: [*one, *base]\n  a: 4\nthree: *one\n"
    assert parse_yaml(text, "x") == {
        "base": {"a": 1, "b": 2},
        "one": {"a": 1, "b": 3},
        "two": {"a": 4, "b": 3},
        "three": {"a": 1, "b": 3},
    }


@pytest.mark.parametrize("text", ["a: [1", "a: 2024-99-99", "a: !!python/object:os.system {}", "a: *b", "\x00"])
def test_what_is_no_yaml_is_one_line(text: str) -> None:
    with pytest.raises(ValueError, match="^some.yaml: not valid YAML: ") as error:
        parse_yaml(text, "some.yaml")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["1e-06", "1E3", "-1e3", "+1e+3", "1.0e3", ".5e-3", "1.e5"])
def test_scientific_notation_is_a_number_and_in_quotes_text(text: str) -> None:
    assert parse_yaml(f"a: {text}", "x") == {"a": float(text)}
    assert parse_yaml(f"a: '{text}'", "x") == {"a": text}


@pytest.mark.parametrize("text", ["e3", "1e", "1e3x", "x1e3", "1_0e", "1.2.3e4", "ffe3"])
def test_other_text_stays_text(text: str) -> None:
    assert parse_yaml(f"a: {text}", "x") == {"a": text}


def test_params_and_pipelines_are_read_so(write_study: Callable[..., Path]) -> None:
    folder = write_study()
    readers: dict[str, Callable[[Path], Any]] = {"params.yaml": load_study, "dvc.yaml": Pipeline.load}
    for name, reader in readers.items():
        before = (folder / name).read_text()
        (folder / name).write_text(before + before.splitlines()[-1].replace("tiny", "x") + "\n")
        with pytest.raises(ValueError, match=f"{name}: .*stands in line"):
            reader(folder)
        if name == "params.yaml":
            with pytest.raises(ValueError, match=f"{name}: .*stands in line"):
                read_params(folder)
        (folder / name).write_text(before)
