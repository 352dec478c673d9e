"""An evaluation set in memory, and the manifest that all tasks write beside their Parquet files."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from infinito.storage import file_sha256, write_json

IGNORE = -100  # a target that is not scored
OUTPUTS_AT_ONCE = 2**20  # of one run; bounds the memory of an evaluation


@dataclass(frozen=True)
class Split:
    """Fixed examples: inputs and targets [N, ...], and how many numbers a network gives for one of them.

    words, bytes: of the text behind them, where there is one.
    """

    inputs: Tensor
    targets: Tensor
    outputs: int
    words: int | None = None
    bytes: int | None = None

    def chunks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs and targets, a few examples at a time, so that what a network gives for them stays small."""
        size = max(1, min(256, OUTPUTS_AT_ONCE // self.outputs))
        return zip(self.inputs.split(size), self.targets.split(size), strict=True)

    def first(self, examples: int) -> "Split":
        """The split cut to its first examples; words and bytes are then unknown."""
        return Split(self.inputs[:examples], self.targets[:examples], self.outputs)

    def to(self, device: torch.device) -> "Split":
        return replace(self, inputs=self.inputs.to(device), targets=self.targets.to(device))


def write_manifest(
    folder: Path, task: str, settings: dict[str, Any], counts: dict[str, dict[str, Any]], **more: Any
) -> None:
    """manifest.json: the task, its settings, and for every split its counts and the hash of its file.

    Args:
        folder: where the splits lie, as `<split>.parquet`.
        task: name of the task.
        settings: what it was prepared with.
        counts: for every split, the figures to state (rows, tokens, ...).
        more: facts of the whole data set (vocabulary, length, ...).
    """
    splits = {
        name: entry | {"file": f"{name}.parquet", "sha256": file_sha256(folder / f"{name}.parquet")}
        for name, entry in counts.items()
    }
    write_json(
        folder / "manifest.json",
        {"schema": "infinito/data/1", "task": task, **more, "settings": settings, "splits": splits},
    )
