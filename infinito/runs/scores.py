"""Other faces of the same runs: further scores, perplexities, and whether the test set is large enough for them."""

from typing import Any

import numpy as np
import pandas as pd

from infinito.runs.table import RunTable
from infinito.statistics.paired import mean_estimate
from infinito.tasks import Measures
from infinito.tasks.measure import clipped


def scores(arms: dict[str, pd.DataFrame], task: Measures, splits: dict[str, Any], alpha: float) -> dict[str, Any]:
    """Per arm: the scores of the task, and for text the perplexities of the mean loss, all as estimates over runs.

    Args:
        arms: runs of each arm.
        task: whose scores they have.
        splits: of the manifest of the prepared data.
        alpha: 1 - confidence.
    """
    found: dict[str, Any] = {}
    for arm, frame in arms.items():
        found[arm] = {name: clipped(score, mean_estimate(frame[name], alpha)) for name, score in task.scores.items()}
        for split, column in (("validation", "val_loss"), ("test", "test_loss")):
            if not splits.get(split, {}).get("words"):
                continue
            loss = mean_estimate(frame[column], alpha)
            tokens = splits[split]["scored_tokens"]
            for name, unit in (("token", tokens), ("word", splits[split]["words"])):
                found[arm][f"{split}_perplexity_per_{name}"] = {
                    key: float(np.exp(value * tokens / unit)) if key != "n" else value for key, value in loss.items()
                }
            found[arm][f"{split}_bits_per_byte"] = {
                key: value * tokens / splits[split]["bytes"] / float(np.log(2)) if key != "n" else value
                for key, value in loss.items()
            }
    return found


def evaluation_noise(
    table: RunTable, candidate: pd.DataFrame, baseline: pd.DataFrame, difference: np.ndarray
) -> dict[str, float | None]:
    """Is the test set large enough? Standard error of a pair's difference over examples, against its SD over seeds.

    Args:
        table: where the losses per example are.
        candidate, baseline: paired runs, row by row.
        difference: of their test losses [n].

    Returns:
        standard_error, sd_over_seeds, ratio (should be 0.1 or less); None where fewer than 2 pairs are finite, or no
        losses per example are kept.
    """
    finite = ~(candidate["diverged"] | baseline["diverged"]).to_numpy()  # a diverged run has no loss per example
    candidate, baseline, difference = candidate[finite], baseline[finite], difference[finite]
    if len(difference) < 2 or not table.has_items:
        return {"standard_error": None, "sd_over_seeds": None, "ratio": None}
    losses, weights = table.items([*candidate["run_id"], *baseline["run_id"]])
    per_example = losses[len(candidate) :] - losses[: len(candidate)]  # [pairs, examples], summed over its parts
    residual = per_example - difference[:, None] * weights  # a ratio estimate: losses over weights
    error = float(np.median(np.sqrt(len(weights)) * residual.std(1, ddof=1) / weights.sum()))
    spread = float(difference.std(ddof=1))
    return {"standard_error": error, "sd_over_seeds": spread, "ratio": error / spread if spread > 0 else None}
