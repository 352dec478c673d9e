"""What every target of runs has in common: it is told how far it is, and says how much was new to it."""

from collections.abc import Callable
from dataclasses import dataclass

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Sent:
    """How many runs were new to a target, and how many it had."""

    new: int
    known: int
