"""What a table of the report is: every cell a text."""

from collections.abc import Sequence
from dataclasses import dataclass

ARMS = ("candidate", "baseline")


@dataclass(frozen=True)
class Table:
    """A head, rows of as many cells, and how each column is aligned: l or r."""

    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    align: str
