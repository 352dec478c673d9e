"""The runs of one arm on one task by one metric."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from infinito.statistics.paired import Array


@dataclass(frozen=True)
class Sample:
    """In the order of the table; all arrays [n].

    Args:
        value: NaN where a run has no figure.
        seed, run, status: as text, empty where there is none.
        code: a number per seed, the same in all samples of a table; -1 where there is none.
    """

    value: Array
    seed: NDArray[np.object_]
    run: NDArray[np.object_]
    status: NDArray[np.object_]
    code: NDArray[np.intp]

    @property
    def known(self) -> Array:
        """The figures there are."""
        return self.value[~np.isnan(self.value)]

    @property
    def paired(self) -> bool:
        """Whether every seed names one run."""
        codes = self.code[self.code >= 0]
        return len(codes) > 0 and len(np.unique(codes)) == len(codes)

    def name(self, place: int) -> str:
        """Of a run: its seed, or what it is called."""
        return str(self.seed[place] or self.run[place])

    def names(self, places: Sequence[int] | NDArray[np.intp]) -> str:
        """Of several runs, the first four."""
        return ", ".join(filter(None, (self.name(int(place)) for place in places[:4])))


Samples = dict[tuple[str, str], dict[str, Sample]]  # by task and metric, then by arm, in the order of the table


def samples(runs: pd.DataFrame) -> Samples:
    """A table with a run a row (arm, task, metric, run, seed, value, status) by task, metric and arm."""
    code, _ = pd.factorize(runs["seed"].where(runs["seed"] != ""))  # what is missing becomes -1
    columns = {name: runs[name].to_numpy(object) for name in ("seed", "run", "status")}
    value = runs["value"].to_numpy(float)
    found: Samples = {}
    groups: dict[Any, Any] = runs.groupby(["task", "metric", "arm"], sort=False).indices
    for (task, metric, arm), rows in sorted(groups.items(), key=lambda group: int(group[1][0])):
        here = {name: column[rows] for name, column in columns.items()}
        found.setdefault((task, metric), {})[arm] = Sample(value[rows], **here, code=code[rows])
    return found


def in_common(one: Sample, other: Sample) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Places in both of the runs of the same seeds, in the order of the first."""
    _, mine, theirs = np.intersect1d(
        np.where(one.code >= 0, one.code, -2), other.code, assume_unique=False, return_indices=True
    )
    order = np.argsort(mine, kind="stable")
    return mine[order], theirs[order]
