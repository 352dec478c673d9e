"""What comes out of training, and runs that were trained one after the other, put side by side."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from infinito.training.evaluation import Evaluation


@dataclass(frozen=True)
class Trained:
    """A finished stack. Curves have C points; `train_curve` is the mean loss of the batches since the last point."""

    initial: dict[str, Tensor]  # [S, ...], names of the module's state_dict
    final: dict[str, Tensor]  # the weights that count
    kept_step: np.ndarray  # [S], after which step they were
    curve_steps: np.ndarray  # [C]
    train_curve: np.ndarray  # [S, C]
    validation_curve: np.ndarray  # [S, C], on the first PROBE examples; on all where the best point is kept
    last_batch_loss: np.ndarray  # [S]
    validation: Evaluation
    test: Evaluation
    diverged: np.ndarray  # bool [S]
    trace: Tensor  # int32 [S, steps], digests of all weights after every step (see `infinito.training.trace`)
    tensor_trace: Tensor  # int32 [S, C, tensors], of every trained tensor at the points of the curves
    tensors: list[str]  # their names
    wall_seconds: float
    compiled: bool


def together(runs: Sequence[Trained]) -> Trained:
    """Runs side by side, as a stack."""
    if len(runs) == 1:
        return runs[0]
    first = runs[0]

    def evaluations(which: str) -> Evaluation:
        parts = [getattr(run, which) for run in runs]
        scores = {
            name: (np.concatenate([part.scores[name][0] for part in parts]), weights)
            for name, (_, weights) in parts[0].scores.items()
        }
        return Evaluation(np.concatenate([part.losses for part in parts]), parts[0].weights, scores)

    def states(which: str) -> dict[str, Tensor]:
        return {name: torch.cat([getattr(run, which)[name] for run in runs]) for name in getattr(first, which)}

    def arrays(which: str) -> np.ndarray:
        return np.concatenate([getattr(run, which) for run in runs])

    return Trained(
        initial=states("initial"),
        final=states("final"),
        kept_step=arrays("kept_step"),
        curve_steps=first.curve_steps,
        train_curve=arrays("train_curve"),
        validation_curve=arrays("validation_curve"),
        last_batch_loss=arrays("last_batch_loss"),
        validation=evaluations("validation"),
        test=evaluations("test"),
        diverged=arrays("diverged"),
        trace=torch.cat([run.trace for run in runs]),
        tensor_trace=torch.cat([run.tensor_trace for run in runs]),
        tensors=first.tensors,
        wall_seconds=sum(run.wall_seconds for run in runs),
        compiled=all(run.compiled for run in runs),
    )
