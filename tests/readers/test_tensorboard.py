"""Folders of TensorBoard: two written by its own writer, one in its old form of a scalar and one in its new one."""

import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest

from infinito.readers import tensorboard
from infinito.readers.results import Options

FILES = Path(__file__).parent / "files" / "tensorboard"
needs_it = pytest.mark.skipif(find_spec("tensorboard") is None, reason="TensorBoard is not installed")


@pytest.fixture
def scalars(monkeypatch: pytest.MonkeyPatch) -> None:
    """Event files in text: lines of tag, step, time, value."""

    def read(file: Path) -> list[tuple[str, float, float, float]]:
        lines = [line.split() for line in file.read_text().splitlines()]
        return [(tag, float(step), float(time), float(value)) for tag, step, time, value in lines]

    monkeypatch.setattr(tensorboard, "scalars", read)


def written(folder: Path, *lines: str, name: str = "events.out.tfevents.1.host") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("\n".join(lines))


@needs_it
def test_what_was_logged_is_what_is_read() -> None:
    found = tensorboard.read(FILES, Options())
    curves = found.table[found.table["metric"] == "val/accuracy"]
    assert list(curves["arm"]) == ["ft"] * 3 + ["mlp"] * 3 and set(curves["seed"]) == {"0"}
    assert list(curves["step"]) == [0, 1, 2] * 2
    assert list(curves["value"]) == pytest.approx([0.9, 0.901, 0.902, 0.8, 0.801, 0.802], abs=1e-7)
    single = found.table[found.table["metric"] == "test/accuracy"]  # no curve
    assert len(single) == 2 and single["step"].isna().all()


@needs_it
@pytest.mark.parametrize("content", [b"", b"no events at all" * 9])
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "events.out.tfevents.1").write_bytes(content)
    with pytest.raises(ValueError, match="events.out.tfevents.1: not a readable event file") as caught:
        tensorboard.read(tmp_path, Options())
    assert "\n" not in str(caught.value)


@needs_it
def test_a_file_that_ends_in_the_middle_keeps_what_was_written(tmp_path: Path) -> None:
    shutil.copytree(FILES, tmp_path, dirs_exist_ok=True)
    file = next((tmp_path / "mlp").rglob("*tfevents*"))
    file.write_bytes(file.read_bytes()[:-20])
    table = tensorboard.read(tmp_path, Options()).table
    assert list(table[table["arm"] == "mlp"]["metric"]) == ["val/accuracy"] * 3


@pytest.mark.skipif(find_spec("tensorboard") is not None, reason="TensorBoard is installed")
def test_what_to_install_is_said() -> None:
    with pytest.raises(ValueError, match="event files need tensorboard; install tensorboard"):
        tensorboard.read(FILES, Options())


def test_arm_and_seed_come_from_the_path_and_a_bare_number_is_no_seed(tmp_path: Path, scalars: None) -> None:
    for name in ("deep/mlp_seed3", "deep/mlp_seed10", "wide/version_0"):
        written(tmp_path / name, "loss 1 5 0.5")
    table = tensorboard.read(tmp_path, Options()).table.set_index("run")
    assert dict(table["arm"]) == {"deep/mlp_seed3": "deep/mlp", "deep/mlp_seed10": "deep/mlp", "wide/version_0": "wide"}
    assert dict(table["seed"]) == {"deep/mlp_seed3": "3", "deep/mlp_seed10": "10", "wide/version_0": ""}
    found = tensorboard.read(tmp_path, Options(pattern="{arm}/*_{seed}"))
    assert list(found.table["seed"]) == ["0", "3", "10"] or set(found.table["arm"]) == {"deep", "wide"}
    assert found.read_as["arm"] == "--pattern {arm}/*_{seed}"


def test_files_of_a_run_are_one_run_and_splits_are_in_the_metric(tmp_path: Path, scalars: None) -> None:
    written(tmp_path / "a/0/train", "loss 1 5 0.5", "loss 2 6 0.4")
    written(tmp_path / "a/0/validation", "loss 1 5 0.7", "loss 2 6 0.6")
    written(tmp_path / "a/0/validation", "loss 2 9 0.3", name="events.out.tfevents.2.host")
    found = tensorboard.read(tmp_path, Options())
    rows = found.table[["arm", "run", "metric", "step", "value"]].values.tolist()
    assert rows == [
        ["a", "a/0", "train/loss", 1, 0.5], ["a", "a/0", "validation/loss", 1, 0.7], ["a", "a/0", "train/loss", 2, 0.4],
        ["a", "a/0", "validation/loss", 2, 0.3],
    ]  # fmt: skip
    assert found.remarks[0].startswith("validation/loss: logged 1 times again for a step; the last figure counts")


def test_no_files_and_no_scalars_are_refused(tmp_path: Path, scalars: None) -> None:
    with pytest.raises(ValueError, match="found no event files"):
        tensorboard.read(tmp_path, Options())
    written(tmp_path / "a")
    with pytest.raises(ValueError, match="found no scalars in 1 event files"):
        tensorboard.read(tmp_path, Options())
