"""Tasks of a user's own: a whole one, and what can be wrong with one."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from infinito.tasks import Metric

DRAWS = np.random.default_rng(3)


class Waves:
    """Which of two signals comes first, as integers; the least that a task can be."""

    def __init__(self, n: int = 12, length: int = 6) -> None:
        self.n, self.length = n, length
        self.given, self.output = {"length": length}, (length, 2)
        self.metric = Metric("loss", "nats per place", "lower", guess=math.log(2))

    def examples(self) -> dict[str, Any]:
        def some(n: int) -> tuple[np.ndarray, np.ndarray]:
            x = DRAWS.integers(0, 9, (n, self.length))
            return x.astype(np.uint8), x > 4

        return {"train": some(self.n), "validation": some(4), "test": some(5)}

    def losses(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        nats = torch.logsumexp(outputs, -1) - torch.where(targets > 0, outputs[..., 1], outputs[..., 0])
        return nats, torch.ones_like(nats)


class Scored(Waves):
    averaged = "probabilities"
    scores = {"right": Metric("right", "share of places", "higher", 0.0, (0, 1))}

    def measure(self, outputs: Tensor, targets: Tensor) -> dict[str, Any]:
        right = (outputs.argmax(-1) == targets).float()
        return {"right": (right, torch.ones_like(right))}

    def smoothed(self, outputs: Tensor, targets: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
        return self.losses(outputs, targets)


class Unscored(Scored):
    scores: dict[str, Metric] = {}


class Absolute(Waves):
    """Averages outputs, with a loss that is not their squared error."""

    averaged = "outputs"

    def losses(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        off = (outputs[..., 0] - targets.float()).abs()
        return off, torch.ones_like(off)


class Weighted(Scored):
    def losses(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        nats, weights = super().losses(outputs, targets)
        return nats, 0.5 * weights


class Strange(Scored):
    averaged = "medians"


class Unmeasured(Waves):
    def __init__(self) -> None:
        super().__init__()
        self.metric = "nats"  # type: ignore[assignment]


class Lossless:
    given, output, metric = {"length": 6}, (6, 2), Metric("loss", "nats", "lower", 0.7)

    def examples(self) -> dict[str, Any]:
        return {}


class Formless(Waves):
    def __init__(self) -> None:
        super().__init__()
        self.output = 3  # type: ignore[assignment]


class Scalar(Waves):
    def losses(self, outputs: Tensor, targets: Tensor) -> Any:
        return super().losses(outputs, targets)[0].mean()


class Short(Waves):
    def losses(self, outputs: Tensor, targets: Tensor) -> Any:
        return super().losses(outputs, targets)[0], torch.ones(len(targets))


class Failing(Waves):
    def losses(self, outputs: Tensor, targets: Tensor) -> Any:
        raise RuntimeError("no\nlosses")


class Raising(Waves):
    def examples(self) -> Any:
        raise OSError("no file")


class Changed(Waves):
    """Its examples after a change: {split: (inputs, targets)}."""

    def __init__(self, change: str) -> None:
        super().__init__()
        self.change = change

    def examples(self) -> Any:
        found: dict[str, Any] = super().examples()
        x, y = found["train"]
        if self.change == "no test":
            del found["test"]
        elif self.change == "unequal":
            found["train"] = x, y[:-1]
        elif self.change == "nan":
            found["train"] = np.where(np.arange(len(x))[:, None] == 3, np.nan, x), y
        elif self.change == "text":
            found["train"] = x, np.array(["a"] * len(x))
        elif self.change == "single":
            found["train"] = x
        elif self.change == "shape":
            found["test"] = found["test"][0][:, :2], found["test"][1]
        elif self.change == "none":
            found["test"] = x[:0], y[:0]
        else:
            return 7
        return found


number = 7
