"""What is learned. Every task gives integer inputs [.., T] and targets [.., T]; IGNORE marks targets that don't count.

A task module offers `prepare(settings, folder)`, which writes train, validation and test as Parquet with a manifest,
and `load(folder, manifest) -> Data`. `prepare` and `load` here choose the module by name.
"""

from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from infinito import params
from infinito.storage import file_sha256, read_json
from infinito.tasks import dyck, text
from infinito.tasks.split import IGNORE, Split

TASKS = {"dyck": dyck, "text": text}


class Data(Protocol):
    """A prepared task in memory."""

    vocabulary: int
    length: int
    causal: bool  # whether a position may only see itself and earlier ones
    sha256: str  # of the manifest, which holds the hashes of all files
    validation: Split
    test: Split

    def order(self, data_seed: int, steps: int, batch: int) -> Tensor:
        """Which training examples come when: int64 [steps, batch]."""
        ...

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The examples named by `order`: int64 [...] -> inputs, targets, both int64 [..., T]."""
        ...

    def to(self, device: torch.device) -> "Data":
        """The same data on a device."""
        ...


def prepare(settings: params.Dyck | params.Text, folder: Path, study: Path) -> None:
    """Write `folder`/{train,validation,test}.parquet and manifest.json; `study`: where relative sources are."""
    if isinstance(settings, params.Dyck):
        dyck.prepare(settings, folder)
    else:
        text.prepare(settings, folder, study)


def load(folder: Path) -> Data:
    """Read what `prepare` wrote.

    Raises:
        ValueError: a file is missing, corrupt, or not the one the manifest names.
    """
    manifest = read_json(folder / "manifest.json")
    if not isinstance(manifest, dict) or manifest.get("task") not in TASKS or "splits" not in manifest:
        raise ValueError(f"{folder / 'manifest.json'}: not a manifest of prepared data; run the stage prepare again")
    for name, entry in manifest["splits"].items():
        file = folder / f"{name}.parquet"
        if not file.is_file():
            raise ValueError(f"{file}: no such file; run the stage prepare (dvc repro prepare)")
        if file_sha256(file) != entry["sha256"]:
            raise ValueError(
                f"{file}: its contents are not those that manifest.json names; run the stage prepare again"
            )
    return TASKS[manifest["task"]].load(folder, manifest)


__all__ = ["IGNORE", "TASKS", "Data", "Split", "load", "prepare"]
