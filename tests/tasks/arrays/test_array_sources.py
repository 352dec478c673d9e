"""The same arrays from every source give the same examples."""

import gzip
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from infinito import tasks
from infinito.tasks.pool import Pool
from tests.tasks.arrays import given

Image = pytest.importorskip("PIL.Image")

Prepare = Callable[..., Path]
DRAWS = np.random.default_rng(2)
PIXELS, DIGITS = DRAWS.integers(0, 256, (80, 5, 4), dtype=np.uint8), DRAWS.integers(0, 3, 80).astype(np.uint8)


def loaded(folder: Path) -> Pool:
    found = tasks.load(folder)
    assert isinstance(found, Pool)
    return found


def same(a: Pool, b: Pool) -> None:
    for one, other in (
        (a.inputs, b.inputs),
        (a.test.inputs, b.test.inputs),
        (a.validation.inputs, b.validation.inputs),
    ):
        assert torch.equal(one, other)
    assert torch.equal(a.targets, b.targets) and torch.equal(a.test.targets, b.test.targets)


def in_any_order(data: Pool) -> list[Any]:
    return [sorted(zip(x.flatten(1).tolist(), y.tolist(), strict=True)) for x, y in
            ((data.inputs, data.targets), (data.test.inputs, data.test.targets))]  # fmt: skip


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


@pytest.fixture
def images(prepare: Prepare, tmp_path: Path) -> Pool:
    """The images as an NPZ file."""
    np.savez(tmp_path / "images.npz", x=PIXELS, y=DIGITS)
    return loaded(prepare(source="images.npz"))


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_idx(prepare: Prepare, tmp_path: Path, images: Pool, ending: str) -> None:
    pack = gzip.compress if ending else bytes
    for head, part in (("train", slice(0, 50)), ("t10k", slice(50, 80))):
        (tmp_path / f"{head}-images-idx3-ubyte{ending}").write_bytes(pack(idx(PIXELS[part])))
        (tmp_path / f"{head}-labels-idx1-ubyte{ending}").write_bytes(pack(idx(DIGITS[part])))
    parts = {"train_x": PIXELS[:50], "train_y": DIGITS[:50], "test_x": PIXELS[50:], "test_y": DIGITS[50:]}
    np.savez(tmp_path / "parts.npz", **parts)
    same(loaded(prepare(source=".", targets=None)), loaded(prepare(source="parts.npz")))
    for name, array in (("all-images-idx3-ubyte", PIXELS), ("all-labels-idx1-ubyte", DIGITS)):
        (tmp_path / f"{name}{ending}").write_bytes(pack(idx(array)))
    same(loaded(prepare(source=f"all-images-idx3-ubyte{ending}", targets=None)), images)


def test_npz_by_splits(prepare: Prepare, tmp_path: Path) -> None:
    for head in ("{split}_{name}", "{name}_{split}"):
        arrays = {
            head.format(name=name, split=split): array[part]
            for split, part in (("train", slice(0, 50)), ("val", slice(50, 60)), ("test", slice(60, 80)))
            for name, array in (("images", PIXELS), ("labels", DIGITS[:, None]))
        }
        np.savez_compressed(tmp_path / "parts.npz", **arrays)
        data = loaded(prepare(source="parts.npz", inputs=["images"], targets=["labels"], standardise=False))
        assert data.inputs.shape == (50, 1, 5, 4) and len(data.validation.inputs) == 10
        np.testing.assert_array_equal(data.test.inputs[:, 0] * 255, PIXELS[60:])
        assert data.test.targets.tolist() == DIGITS[60:].tolist()


def test_a_folder_of_images(prepare: Prepare, tmp_path: Path, images: Pool) -> None:
    for i, (pixels, digit) in enumerate(zip(PIXELS, DIGITS, strict=True)):
        for root in ("flat", "deep/train" if i < 60 else "deep/test"):
            file = tmp_path / root / f"class {digit}" / f"{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(png(pixels))
    (tmp_path / "flat" / "class 0" / "notes.txt").write_text("no image")
    folder = prepare(source="flat", targets=None)
    assert in_any_order(loaded(folder)) == in_any_order(images)
    assert tasks.load(folder).task.metric.unit == "nats per image"
    data = loaded(prepare(source="deep", targets=None))
    assert len(data.test.inputs) == 20 and len(data.inputs) + len(data.validation.inputs) == 60


def test_one_coloured_image_makes_all_of_them_coloured(prepare: Prepare, tmp_path: Path) -> None:
    for i in range(30):
        pixels = DRAWS.integers(0, 256, (4, 4, 4) if i == 7 else (4, 4), dtype=np.uint8)
        file = tmp_path / "flat" / str(i % 2) / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(pixels))
    assert loaded(prepare(source="flat", targets=None)).inputs.shape[1:] == (3, 4, 4)


def test_parquet_with_lists_and_with_images_as_the_hub_stores_them(
    prepare: Prepare, tmp_path: Path, images: Pool
) -> None:
    pq.write_table(pa.table({"x": PIXELS.tolist(), "y": DIGITS}), tmp_path / "lists.parquet")
    same(loaded(prepare(source="lists.parquet", standardise=False)), _as_float(tmp_path, prepare))
    stored = [{"bytes": png(pixels), "path": None} for pixels in PIXELS]
    (tmp_path / "parts").mkdir()
    for i, part in enumerate((slice(0, 30), slice(30, 80))):
        table = pa.table({"x": stored[part], "y": DIGITS[part]})
        pq.write_table(table, tmp_path / "parts" / f"train-0000{i}-of-00002.parquet")
    same(loaded(prepare(source="parts")), images)


def _as_float(folder: Path, prepare: Prepare) -> Pool:
    """Lists of whole numbers are no images of bytes, so they are not scaled."""
    np.savez(folder / "whole.npz", x=PIXELS.astype(np.int64), y=DIGITS)
    return loaded(prepare(source="whole.npz", standardise=False))


def test_csv_and_parquet(prepare: Prepare, tmp_path: Path) -> None:
    table = pd.DataFrame({"a": np.arange(90) / 8, "b": np.arange(90) % 7, "y": ["no", "yes", "maybe"] * 30})
    table.to_csv(tmp_path / "data.csv", index=False)
    table.to_csv(tmp_path / "data.csv.gz", index=False)
    table.astype({"y": "category"}).to_parquet(tmp_path / "data.parquet")
    found = [loaded(prepare(source=f"data.{kind}")) for kind in ("csv", "csv.gz", "parquet")]
    same(found[0], found[1])
    same(found[0], found[2])


def test_functions(prepare: Prepare) -> None:
    place = given.__name__
    one = loaded(prepare(source=f"{place}:pair", targets=None))
    same(one, loaded(prepare(source=f"{place}:bunch", targets=None)))
    same(one, loaded(prepare(source=f"{place}:bunch", inputs=["data"], targets=["target"])))
    data = loaded(prepare(source=f"{place}:splits", targets=None, standardise=False))
    np.testing.assert_allclose(data.test.inputs, given.X[150:], rtol=1e-6)
    digits = loaded(prepare(source="sklearn.datasets:load_digits", inputs=["images"], targets=["target"]))
    assert digits.inputs.shape[1:] == (1, 8, 8) and digits.task.given["classes"] == 10


def test_the_hub(prepare: Prepare, tmp_path: Path, images: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the hub's own client, which looks into the working folder first; so without a network."""
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["zero", "one", "two"])}
    )
    made = {
        "train": datasets.Dataset.from_dict(
            {"image": [Image.fromarray(x) for x in PIXELS], "label": DIGITS.tolist()}, features=features
        )
    }
    asked: list[Any] = []
    monkeypatch.setattr(datasets, "load_dataset", lambda *a: asked.append(a) or datasets.DatasetDict(made))
    folder = prepare(source="some/digits", config="small", targets=None)
    assert asked == [("some/digits", "small")]
    assert torch.equal(loaded(folder).inputs, images.inputs)
    names = ["one", "two", "zero"]
    assert [names[i] for i in loaded(folder).targets] == [("zero", "one", "two")[i] for i in images.targets]
    made["train"] = datasets.Dataset.from_dict({"text": ["a"], "label": [0.5]})
    with pytest.raises(ValueError, match="prepare.targets: some/digits: found null; allowed: .* text, label"):
        prepare(source="some/digits", targets=None)
    made["test"] = made.pop("train")
    with pytest.raises(ValueError, match="some/digits: found the splits test; needed: train"):
        prepare(source="some/digits", targets=None)
    monkeypatch.setattr(datasets, "load_dataset", _out_of_reach)
    with pytest.raises(ValueError, match="prepare.source: 'some/digits' can't be loaded from the hub: no way"):
        prepare(source="some/digits", targets=None)


def _out_of_reach(*_: Any) -> None:
    raise ConnectionError("no way")


@pytest.mark.skipif("INFINITO_DATA" not in os.environ, reason="INFINITO_DATA: a folder with mnist/")
def test_mnist(prepare: Prepare) -> None:
    data = loaded(prepare(source=str(Path(os.environ["INFINITO_DATA"]) / "mnist"), targets=None, standardise=False))
    assert data.test.inputs.shape == (10_000, 1, 28, 28) and data.test.targets[:5].tolist() == [7, 2, 1, 0, 4]
    assert len(data.inputs) + len(data.validation.inputs) == 60_000
    assert float(torch.cat([data.inputs, data.validation.inputs]).mean()) == pytest.approx(0.1307, abs=1e-4)
