"""Arrays that can't be prepared are refused in one clear line."""

import gzip
import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.tasks.arrays import given
from tests.tasks.arrays.test_array_sources import idx, png

Prepare = Callable[..., Path]
N = 100
GOOD: dict[str, Any] = {"a": np.linspace(0, 1, N), "b": np.arange(N) % 7, "y": np.arange(N) % 2}


def with_row(column: str, row: int, value: Any) -> dict[str, Any]:
    values = list(GOOD[column])
    values[row] = value
    return GOOD | {column: values}


def refused(prepare: Prepare, message: str, **changes: Any) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        prepare(**changes)
    assert "\n" not in str(caught.value) and str(caught.value).startswith("prepare.")


@pytest.mark.parametrize(
    ("columns", "changes", "message"),
    [
        (with_row("a", 7, float("nan")), {}, "inputs: .*data.parquet: column a, row 7: found nan; allowed: finite"),
        (with_row("a", 7, float("inf")), {}, "column a, row 7: found inf"),
        (with_row("b", 9, None), {}, "column b, row 9: found nan"),
        (with_row("y", 3, None), {}, "targets: .*data.parquet: column y, row 3: found nan"),
        (GOOD | {"y": ["no", None] + ["yes"] * (N - 2)}, {}, "column y, row 1: found None; allowed: text or a whole"),
        (with_row("a", 3, float("nan")), {"kind": "values", "targets": ["a"]}, "column a, row 3: found nan"),
        (GOOD | {"y": np.linspace(0, 1, N)}, {}, "column y, row 1: found 0.01.*; allowed: text or a whole number"),
        (GOOD | {"y": np.ones(N)}, {}, "targets: .*: found one class, 1; allowed: two or more"),
        (GOOD, {"kind": "labels", "targets": ["y", "b"]}, "row 2: found 2; allowed: 0 or 1, with kind: labels"),
        (GOOD | {"z": np.zeros(N)}, {"kind": "labels", "targets": ["y", "z"]}, "column z: found 0 in every training"),
        (GOOD | {"y": np.ones(N)}, {"kind": "values"}, "column y: found 1.0 in every training example"),
        (GOOD | {"city": ["Paris"] * N}, {}, r"inputs: .*: column city: found text \('Paris'\); allowed: numbers"),
        (GOOD | {"day": pd.date_range("2026-01-01", periods=N)}, {}, "column day: found datetime64"),
        (GOOD | {"y": ["x"] * N}, {"kind": "values"}, "targets: .*: column y: found text"),
        (GOOD, {"targets": ["z"]}, "targets: .*: found the columns a, b, y; needed: z"),
        (GOOD, {"inputs": ["a", "c"]}, "inputs: .*: found the columns a, b, y; needed: c"),
        (GOOD, {"inputs": ["a", "y"]}, "inputs: found y, which is a target"),
        (GOOD, {"targets": None}, "targets: .*: found null; allowed: one or more of the columns, which are a, b, y"),
        (GOOD, {"targets": ["y", "b"]}, "targets: .*: found 2 columns; allowed: one, with kind: classes"),
        ({"y": GOOD["y"]}, {}, "inputs: .*: found the columns y; needed: at least one"),
        ({"a": [], "y": []}, {}, "found no examples; allowed: at least one"),
        ({"a": [1.0, 2.0], "y": [0, 1]}, {}, "found 2 examples, so that the .* split is empty; allowed: more"),
        (GOOD | {"x": [[1.0]] * 5 + [[1.0, 2.0]] * (N - 5)}, {}, "column x, row 5: found a list of 2"),
        (GOOD | {"x": [[1.0]] * 5 + [None] * (N - 5)}, {}, "column x, row 5: found nothing; allowed: as long"),
        (GOOD | {"x": [[[1.0]]] * N}, {}, r"found a \(\), b \(\), x \(1, 1\); allowed: one array, or"),
    ],
)  # fmt: skip
def test_a_bad_table(
    prepare: Prepare, tmp_path: Path, columns: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    pq.write_table(pa.table(columns), tmp_path / "data.parquet")
    refused(prepare, message, **changes)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("data.parquet", b"PAR1 no", "data.parquet: not a readable Parquet file"),
        ("data.csv", b"a,y\n1,2,3\n1\n", "data.csv: not a readable CSV file"),
        ("data.csv", b"", "data.csv: not a readable CSV file"),
        ("data.csv.gz", b"a,y\n1,2\n", "data.csv.gz: not a readable CSV file"),
        ("data.csv", b",a,y\n0,1,2\n", "found a column without a name, as pandas writes row numbers"),
        ("data.csv", b"a,a,y\n0,1,2\n", "found two columns 'a'"),
        ("data.npz", b"PK no", "data.npz: not a readable NPZ file"),
        ("data.npz", b"", "data.npz: not a readable NPZ file"),
        ("all-images-idx3-ubyte", b"\0\0", "all-images-idx3-ubyte: not a readable idx file: found no head"),
        ("all-images-idx3-ubyte", b"\1\0\10\1\0\0\0\0", "not a readable idx file: found no head"),
        ("all-images-idx3-ubyte", idx(np.zeros((2, 2), np.uint8))[:-1], "found 3 bytes of numbers; allowed: 4"),
        ("all-images-idx3-ubyte", idx(np.zeros((2, 2, 2), np.uint8)), "all-labels-idx1-ubyte: no such file"),
        ("all-images-idx3-ubyte.gz", gzip.compress(b"\0" * 999)[:20], "not a readable idx file"),
        ("all-images-idx3-ubyte.gz", b"\0", "not a readable idx file"),
        ("data.xlsx", b"", "data.xlsx: found a file of another kind; allowed: a file .parquet, .csv"),
    ],
)
def test_a_corrupt_file(prepare: Prepare, tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    refused(prepare, message, source=name)


def test_npz_that_holds_objects_or_is_cut(prepare: Prepare, tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=np.array([None, {}]), y=np.arange(2))
    refused(prepare, "data.npz: not a readable NPZ file: Object arrays", source="data.npz")
    np.savez_compressed(tmp_path / "data.npz", x=np.arange(999), y=np.arange(999))
    content = bytearray((tmp_path / "data.npz").read_bytes())
    content[60:200] = bytes(140)
    (tmp_path / "data.npz").write_bytes(content)
    refused(prepare, "data.npz: not a readable NPZ file", source="data.npz")
    np.savez(tmp_path / "data.npz", x=np.arange(99), y=np.arange(98))
    refused(prepare, "found 99 inputs, 98 targets", source="data.npz")
    np.savez(tmp_path / "data.npz", x=np.arange(99), z=np.arange(98), y=np.arange(99) % 2)
    refused(prepare, "found 99 examples in x, 98 in z", source="data.npz")
    np.savez(tmp_path / "data.npz", test_x=np.arange(9), test_y=np.arange(9) % 2)
    refused(prepare, "found the splits test; needed: train", source="data.npz")
    shapes = {"train_x": np.arange(80).reshape(40, 2), "test_x": np.zeros((9, 3))}
    np.savez(tmp_path / "data.npz", **shapes, train_y=np.arange(40) % 2, test_y=np.arange(9) % 2)
    refused(prepare, r"found examples of shape \(2,\) in train, \(3,\) in test", source="data.npz")
    with zipfile.ZipFile(tmp_path / "data.npz", "w") as archive:
        archive.writestr("x.npy", "no array")
    refused(prepare, "data.npz: column x: found bytes", source="data.npz")


def test_a_class_that_is_missing_from_the_training_split(prepare: Prepare, tmp_path: Path) -> None:
    for split, names in (("train", ["no", "yes"]), ("test", ["no", "yes", "maybe"])):
        pd.DataFrame({"a": range(60), "y": (names * 30)[:60]}).to_csv(tmp_path / f"{split}.csv", index=False)
    refused(prepare, "targets: .*: found no example of maybe in the training split; allowed: at least one", source=".")


def test_missing_sources(prepare: Prepare, tmp_path: Path) -> None:
    refused(prepare, "prepare.source: .*data.parquet: no such file or folder")
    (tmp_path / "empty").mkdir()
    refused(prepare, "empty: found no folders and no file of a split; allowed: a file .parquet", source="empty")
    pd.DataFrame(GOOD).to_csv(tmp_path / "empty" / "test.csv", index=False)
    refused(prepare, "empty: found the splits test; needed: train", source="empty")
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "t10k-images-idx3-ubyte").write_bytes(idx(np.zeros((2, 2, 2), np.uint8)))
    (tmp_path / "mnist" / "t10k-labels-idx1-ubyte").write_bytes(idx(np.zeros(2, np.uint8)))
    refused(prepare, "mnist: found no train-images-idx3-ubyte", source="mnist")


def image(folder: Path, name: str, size: tuple[int, int] = (4, 4)) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(png(np.zeros(size, np.uint8)))


def test_bad_folders_of_images(prepare: Prepare, tmp_path: Path) -> None:
    image(tmp_path, "flat/cat/1.png")
    (tmp_path / "flat" / "dog").mkdir()
    refused(prepare, "flat/dog: found a class without images; allowed: .png", source="flat", targets=None)
    image(tmp_path, "flat/dog/1.png", (4, 6))
    refused(
        prepare,
        "several sizes: .*flat/cat/1.png has 4 x 4 pixels, .*flat/dog/1.png 6 x 4; allowed: one size",
        source="flat",
        targets=None,
    )
    (tmp_path / "flat" / "dog" / "1.png").write_bytes(b"no image")
    refused(prepare, "flat/dog/1.png: not a readable image", source="flat", targets=None)
    (tmp_path / "flat" / "dog" / "1.png").write_bytes(png(np.zeros((4, 4), np.uint16)))
    refused(prepare, "flat/dog/1.png: found an image of mode I;16; allowed: 8 bits", source="flat", targets=None)
    image(tmp_path, "deep/train/cat/1.png")
    (tmp_path / "deep" / "test").mkdir()
    refused(prepare, "deep/test: found no folders; allowed: a folder of images for", source="deep", targets=None)
    for i in range(20):
        image(tmp_path, f"one/cat/{i}.png")
    refused(prepare, "found 20 examples, so that the .* split is empty", source="one", targets=None)  # all the same


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("no.such.module:f", "'no.such.module:f' can't be imported: ModuleNotFoundError"),
        (f"{given.__name__}:no", "can't be imported: AttributeError"),
        (f"{given.__name__}:number", "is a int; allowed: a function"),
        (f"{given.__name__}:broken", "raises RuntimeError: no luck"),
        (f"{given.__name__}:nothing", "gives a int; allowed: a mapping of arrays, a pair"),
    ],
)
def test_bad_functions(prepare: Prepare, function: str, message: str) -> None:
    refused(prepare, message, source=function)


def test_an_image_of_the_hub_that_is_broken(prepare: Prepare, tmp_path: Path) -> None:
    stored = [{"bytes": png(np.zeros((4, 4), np.uint8)), "path": None}, {"bytes": b"no", "path": None}]
    pq.write_table(pa.table({"x": stored, "y": [0, 1]}), tmp_path / "data.parquet")
    refused(prepare, "data.parquet: column x, row 1: not a readable image")
    buffer = io.BytesIO()
    pq.write_table(pa.table(GOOD), buffer)
    (tmp_path / "data.parquet").write_bytes(buffer.getvalue()[:-100])
    refused(prepare, "data.parquet: not a readable Parquet file")
