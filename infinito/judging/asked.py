"""What is asked of other people's runs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Pairing = Literal["seed", "fold"] | None


@dataclass(frozen=True)
class Asked:
    """What is asked of the runs.

    Args:
        baseline: the arm that others are compared with; None: all pairs.
        higher: whether a metric is better when it is higher, by name.
        units: of metrics, by name, where they are not in the unit of their values.
        pairing: what makes runs of two arms belong together.
        errors: standard errors over the items of a test set, where an arm has one run.
        smallest_effect: differences below it don't matter, in the unit of the figures; None: nothing is equivalent.
    """

    baseline: str | None
    higher: Mapping[str, bool]
    units: Mapping[str, str]
    pairing: Pairing
    smallest_effect: float | None = None
    errors: Mapping[tuple[str, str, str], float] | None = None  # over items, by arm, task and metric
    alpha: float = 0.05

    def sign(self, metric: str) -> float:
        """What makes a larger number the better one."""
        return 1.0 if self.higher[metric] else -1.0
