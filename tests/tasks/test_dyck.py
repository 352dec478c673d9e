from pathlib import Path

import numpy as np
import pytest
import torch

from infinito import params, tasks

SETTINGS = params.Dyck(
    task="dyck", seed=3, pool=3000, validation=300, test=300, kinds=4, min_depth=2, max_depth=5, noise=3, noise_kinds=3
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dyck")
    tasks.prepare(SETTINGS, path, path)
    return path


@pytest.fixture(scope="module")
def data(folder: Path) -> tasks.Data:
    return tasks.load(folder)


def test_every_example_is_brackets_then_noise_and_its_target_closes_them(data: tasks.Data) -> None:
    inputs, targets = data.batch(torch.arange(3000))
    depths = []
    for x, y in zip(inputs.tolist(), targets.tolist(), strict=True):
        opened = [t for t in x if 2 <= t < 6]
        depth = len(opened)
        depths.append(depth)
        assert x[:depth] == opened and all(10 <= t < 13 for t in x[depth : depth + 3]) and not any(x[depth + 3 :])
        assert y[: depth + 1] == [t + 4 for t in reversed(opened)] + [1]
        assert all(t == tasks.IGNORE for t in y[depth + 1 :])
    counts = np.bincount(depths, minlength=6)[2:]
    assert len(counts) == 4 and counts.min() > 600
    assert data.task.vocabulary == 13 and data.task.length == 8


def test_no_example_is_in_two_splits(data: tasks.Data) -> None:
    rows = [data.batch(torch.arange(3000))[0], data.validation.inputs, data.test.inputs]
    sets = [{tuple(x) for x in part.tolist()} for part in rows]
    assert not sets[0] & sets[1] and not sets[0] & sets[2] and not sets[1] & sets[2]


def test_preparing_twice_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    tasks.prepare(SETTINGS, tmp_path, tmp_path)
    for name in ("train.parquet", "validation.parquet", "test.parquet", "manifest.json"):
        assert (folder / name).read_bytes() == (tmp_path / name).read_bytes()
    tasks.prepare(SETTINGS.model_copy(update={"seed": 4}), tmp_path, tmp_path)
    assert (folder / "test.parquet").read_bytes() != (tmp_path / "test.parquet").read_bytes()


def test_the_data_seed_chooses_the_order(data: tasks.Data) -> None:
    a, again, b = data.order(1, 40, 100), data.order(1, 40, 100), data.order(2, 40, 100)
    assert torch.equal(a, again) and not torch.equal(a, b)
    assert sorted(a[:30].flatten().tolist()) == list(range(3000))  # a whole pass before anything comes again
    assert torch.equal(data.order(1, 10, 100), a[:10])


def test_a_missing_or_corrupt_file_is_named(folder: Path, tmp_path: Path) -> None:
    for name in ("train.parquet", "validation.parquet", "test.parquet", "manifest.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "train.parquet").write_bytes(b"PAR1 rubbish")
    with pytest.raises(ValueError, match=r"train.parquet: its contents are not those that manifest.json names"):
        tasks.load(tmp_path)
    (tmp_path / "train.parquet").unlink()
    with pytest.raises(ValueError, match=r"train.parquet: no such file"):
        tasks.load(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match=r"manifest.json: not valid JSON"):
        tasks.load(tmp_path)


def test_too_small_a_language_is_refused(tmp_path: Path) -> None:
    tiny = {"kinds": 1, "min_depth": 1, "max_depth": 1, "noise": 0}
    with pytest.raises(ValueError, match="too few different examples"):
        tasks.prepare(SETTINGS.model_copy(update=tiny), tmp_path, tmp_path)
