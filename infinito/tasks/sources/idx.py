"""The format of MNIST (LeCun et al. 1998): images and labels in two files, plain or compressed by gzip."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from infinito.mistakes import one_line
from infinito.tasks.sources.source import Columns, Source

SUFFIXES = ("-ubyte", "-ubyte.gz")
TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
HEADS = {"train": "train", "test": "t10k"}


def read_idx(path: Path) -> np.ndarray:
    """One file.

    Raises:
        ValueError: missing, not of the format, or of another length than it says.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except FileNotFoundError as error:
        raise ValueError(f"prepare.source: {path}: no such file") from error
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"prepare.source: {path}: not a readable idx file: {one_line(error)}") from error
    head = 4 + 4 * content[3] if len(content) > 3 else 4
    if len(content) < head or content[:2] != b"\0\0" or content[2] not in TYPES:
        raise ValueError(f"prepare.source: {path}: not a readable idx file: found no head of that format")
    kind, shape = np.dtype(TYPES[content[2]]), np.frombuffer(content[4:head], ">u4").tolist()
    if len(content) - head != math.prod(shape) * kind.itemsize:
        raise ValueError(
            f"prepare.source: {path}: found {len(content) - head} bytes of numbers; "
            f"allowed: {math.prod(shape) * kind.itemsize}, as its head says"
        )
    return np.frombuffer(content, kind, offset=head).reshape(shape).astype(kind.newbyteorder("="))


def _columns(images: Path) -> Columns:
    """A file of images, and of the labels beside it."""
    labels = images.with_name(images.name.replace("images-idx3", "labels-idx1"))
    if labels == images:
        raise ValueError(f"prepare.source: {images}: found an idx file; allowed: *images-idx3-ubyte, or their folder")
    return {"images": read_idx(images), "labels": read_idx(labels)}


def pair(path: Path) -> Source:
    """A file of images and the labels beside it, still to be split."""
    return Source(str(path), {"all": _columns(path)}, ["images"], ["labels"])


def train_and_test(folder: Path) -> list[Path]:
    """The files of images in a folder."""
    return [file for file in sorted(folder.glob("*-images*idx3-ubyte*")) if file.name.endswith(SUFFIXES)]


def folder(path: Path) -> Source:
    """train-images-idx3-ubyte and t10k-images-idx3-ubyte, the test split, with their labels."""
    files = {file.name.partition("-")[0]: file for file in train_and_test(path)}
    splits = {split: _columns(files[head]) for split, head in HEADS.items() if head in files}
    if "train" not in splits:
        raise ValueError(f"prepare.source: {path}: found no train-images-idx3-ubyte; needed for the training split")
    return Source(str(path), splits, ["images"], ["labels"])
