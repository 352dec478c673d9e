"""What every source gives."""

from dataclasses import dataclass

import numpy as np

Columns = dict[str, np.ndarray]  # by name, [N, ...] each; numbers, or text as objects
NAMES = {"train": ("train",), "validation": ("validation", "valid", "val"), "test": ("test",)}  # of splits


@dataclass(frozen=True)
class Source:
    """Columns of every split.

    Args:
        where: the source, for messages.
        splits: train, validation, test or some of them; or `all`, which is still to be split.
        inputs, targets: columns that the source itself says are such; None where it says nothing.
    """

    where: str
    splits: dict[str, Columns]
    inputs: list[str] | None = None
    targets: list[str] | None = None


def split_of(name: str) -> str | None:
    """The split that goes by a name."""
    return next((split for split, names in NAMES.items() if name in names), None)
