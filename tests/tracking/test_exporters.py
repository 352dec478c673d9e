"""TensorBoard and Weights & Biases: written, and read back by the reader of anybody's runs or by their own programs."""

from collections.abc import Callable
from pathlib import Path

import pytest

from infinito.readers import tensorboard as reader
from infinito.readers.results import Options
from infinito.tracking import targets
from infinito.tracking.record import FINISHED, Record


def runs() -> list[Record]:
    curve = [(1.0, 0.75), (2.0, 0.5)]
    return [
        Record(
            id=f"{seed:012x}",
            name="dir/train.py",
            status=FINISHED,
            began="2026-01-01T00:00:00+00:00",
            arm=arm,
            params={"lr": 0.1},
            seeds={"seed": seed},
            metrics={"test_loss": 1 / 3 + seed, "val_loss": 0.625},
            curves={"val_loss": curve},
        )
        for seed in range(2)
        for arm in ("mlp",)
    ]


def test_tensorboard_reads_what_was_written(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    assert targets.send(runs(), f"tensorboard:{tmp_path}").new == 2
    table = reader.read(tmp_path, Options(pattern="{task}/{arm}/seed={seed} {run}")).table
    assert set(table["arm"]) == {"mlp"} and set(table["seed"]) == {"0", "1"}
    curves = table[table["metric"] == "val_loss"]
    assert list(curves["value"]) == [0.75, 0.5] * 2 and list(curves["step"]) == [1, 2] * 2
    assert list(table[table["metric"] == "final/val_loss"]["value"]) == [0.625] * 2
    losses = table[table["metric"] == "test_loss"]["value"]
    assert list(losses) == pytest.approx([1 / 3, 4 / 3], rel=1e-7)
    files = sorted(tmp_path.rglob("*tfevents*"))
    again = targets.send(runs(), f"tensorboard:{tmp_path}")
    assert (again.new, again.known) == (0, 2) and sorted(tmp_path.rglob("*tfevents*")) == files and len(files) == 2


@pytest.mark.slow
def test_wandb_keeps_runs_offline(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    assert targets.send(runs(), f"wandb:{tmp_path}").new == 2
    files = sorted((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))
    assert [file.stem for file in files] == [f"run-{record.id}" for record in runs()]
    assert all(name in files[1].read_bytes() for name in (b"test_loss", b"val_loss", b"seed"))
    again = targets.send(runs(), f"wandb:{tmp_path}")
    assert (again.new, again.known) == (0, 2)


def test_they_are_no_stores(refused: Callable[..., str], tmp_path: Path) -> None:
    for name in (f"tensorboard:{tmp_path}", f"wandb:{tmp_path}"):
        assert "which is only written; allowed: a folder, or http://SERVER" in refused("runs", "--store", name)
