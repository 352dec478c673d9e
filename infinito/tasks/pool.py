"""A pool of training examples, given in whole passes, each in a fresh order."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from infinito.seeds import stream
from infinito.tasks.split import Split
from infinito.tasks.task import Task


@dataclass(frozen=True)
class Pool:
    """Prepared examples; see `infinito.tasks.Data`. Whole numbers may be kept small: a batch has them as int64."""

    task: Task
    sha256: str
    inputs: Tensor  # of training [N, ...]
    targets: Tensor
    validation: Split
    test: Split

    def order(self, data_seed: int, steps: int, batch: int) -> Tensor:
        """Whole passes over the pool, each in a fresh order: int64 [steps, batch]."""
        draws, n = stream(data_seed, "order"), len(self.inputs)
        passes = -(-steps * batch // n)
        rows = np.concatenate([draws.permutation(n) for _ in range(passes)])
        return torch.from_numpy(rows[: steps * batch].reshape(steps, batch))

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        return _wide(self.inputs[rows]), _wide(self.targets[rows])

    def to(self, device: torch.device) -> "Pool":
        return replace(
            self,
            inputs=self.inputs.to(device),
            targets=self.targets.to(device),
            validation=self.validation.to(device),
            test=self.test.to(device),
        )


def _wide(values: Tensor) -> Tensor:
    return values if values.is_floating_point() else values.long()
