"""Files and folders that are written whole or not at all."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from infinito.stages import STAGES
from infinito.storage import read_json, replacing
from infinito.study import load_study
from tests.conftest import in_process


@pytest.mark.parametrize("first_wins", [False, True])
def test_many_writers_of_one_folder_all_succeed_and_leave_one_whole_folder(tmp_path: Path, first_wins: bool) -> None:
    target = tmp_path / "folder"

    def write(writer: int) -> None:
        for _ in range(50):
            with replacing(target, first_wins=first_wins) as temporary:
                temporary.mkdir()
                for name in "ab":
                    (temporary / name).write_text(str(writer))

    with ThreadPoolExecutor(8) as pool:
        assert not any(pool.map(write, range(8)))
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    assert (target / "a").read_text() == (target / "b").read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere two names can't change places in one step")
def test_a_folder_that_is_replaced_is_never_missing(tmp_path: Path) -> None:
    target, done = tmp_path / "folder", threading.Event()

    def write() -> None:
        while True:
            with replacing(target) as temporary:
                temporary.mkdir()
                (temporary / "a").touch()
            if done.is_set():
                return

    with ThreadPoolExecutor(1) as pool:
        writer = pool.submit(write)
        try:
            while not target.exists() and not writer.done():
                pass
            missing = sum(not (target / "a").exists() for _ in range(3_000))
        finally:
            done.set()
        writer.result()
    assert not missing


def test_a_full_disk_leaves_nothing_half_written(finished_study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = read_json(finished_study / "results/compare.json")

    def full(self: Path, *args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        STAGES["compare"](load_study(finished_study), in_process)
    monkeypatch.undo()
    assert read_json(finished_study / "results/compare.json") == before
    assert not [path for path in (finished_study / "results").iterdir() if path.name.startswith(".")]


def test_a_file_that_lacks_a_key_is_named(tmp_path: Path) -> None:
    file = tmp_path / "compare.json"
    file.write_text('{"difference": {"value": 1}}')
    content = read_json(file)
    assert content == {"difference": {"value": 1}} and content.get("wins") is None
    for look in (lambda: content["wins"], lambda: content["difference"]["ci_low"]):
        with pytest.raises(ValueError, match="compare.json: found no '(wins|ci_low)'; run the stage") as error:
            look()
        assert isinstance(error.value, KeyError)  # so that who asks whether it is there goes on


@pytest.mark.parametrize("content", ["[1]", "null", '"text"'])
def test_what_is_no_mapping_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(ValueError, match="a.json: found (list|NoneType|str); allowed: a mapping"):
        read_json(tmp_path / "a.json")
