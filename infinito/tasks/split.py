"""An evaluation set in memory, and the manifest that all tasks write beside their Parquet files."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from infinito import params
from infinito.storage import file_sha256, sha256, write_json
from infinito.tasks.overlap import Overlap

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
    folder: Path, settings: params.Prepare, counts: dict[str, dict[str, Any]], overlap: Overlap, **more: Any
) -> None:
    """manifest.json: the task, its settings, and for every split its counts and the hash of its file.

    Args:
        folder: where the splits lie, as `<split>.parquet`.
        settings: what it was prepared with.
        counts: for every split, the figures to state (rows, tokens, ...).
        overlap: of the splits.
        more: facts of the whole data set (vocabulary, length, ...).
    """
    splits = {
        name: entry | {"file": f"{name}.parquet", "sha256": file_sha256(folder / f"{name}.parquet")}
        for name, entry in counts.items()
    }
    task = "own" if isinstance(settings, params.Own) else settings.task
    known = {"schema": "infinito/data/1", "task": task, **more, "settings": used_settings(settings), "splits": splits}
    write_json(folder / "manifest.json", known | {"overlap": overlap})


def used_settings(settings: params.Prepare) -> dict[str, Any]:
    """The settings that the prepared data depend on."""
    return settings.model_dump(exclude={"overlap_allowed"})


def identity(manifest: Mapping[str, Any]) -> str:
    """The hash that prepared data go by: of their manifest, less what only says something about them."""
    known = {key: value for key, value in manifest.items() if key not in ("overlap", "changed")}
    return sha256(json.dumps(known, indent=2, ensure_ascii=False) + "\n")
