"""What a report of the best of n seeds would claim from the same runs, beside what luck alone would show."""

import numpy as np
from numpy.typing import ArrayLike

from infinito.questions.compare import both_arms
from infinito.statistics.paired import Array, expected_maximum, paired_t


def percent_gain(candidate_loss: ArrayLike, baseline_loss: ArrayLike) -> Array:
    """Gain of the candidate in percent of the baseline's loss, whatever its sign: [n], [n] -> [n]."""
    candidate, baseline = np.asarray(candidate_loss, float), np.asarray(baseline_loss, float)
    return (baseline - candidate) / np.abs(baseline) * 100


def has_percentages(baseline_loss: ArrayLike) -> bool:
    """Whether percentages of these losses mean anything: not where they are 0, or of both signs."""
    baseline = np.asarray(baseline_loss, float)
    return bool((baseline > 0).all() or (baseline < 0).all())


def report_protocol(candidate_last_batch: ArrayLike, baseline_last_batch: ArrayLike) -> dict[str, float | int]:
    """What a best-of-n report would claim from the same runs: percentages of the last training batch.

    The percentage improvement (L_baseline - L_candidate) / |L_baseline| * 100 is asymmetric (-50 % and +100 % average
    to +25 %), one training batch adds noise, and the best seed is picked after the fact. `expected_best_by_luck` is
    what the best of n equally good seeds shows on average: mean + E[max of n] * sd.

    Args:
        candidate_last_batch: loss of the last training batch of the candidate [n].
        baseline_last_batch: the same of the baseline [n].

    Returns:
        mean_percent, sd_percent, wins, n, p_value (paired t on the losses), best_seed (index), best_percent,
        expected_best_by_luck.

    Raises:
        ValueError: fewer than 2 pairs, different shapes, a loss not finite, or a baseline loss that is 0 or of another
            sign than the others (see `has_percentages`).
    """
    candidate, baseline = both_arms(candidate_last_batch, baseline_last_batch)
    if not has_percentages(baseline):
        odd = baseline[np.abs(baseline).argmin()] if (baseline >= 0).all() else baseline.min()
        raise ValueError(f"found baseline loss {odd:g}: a percentage needs losses of one sign, and none that is 0")
    percent = percent_gain(candidate, baseline)
    mean, sd, n = float(percent.mean()), float(percent.std(ddof=1)), len(percent)
    return {
        "mean_percent": mean,
        "sd_percent": sd,
        "wins": int((percent > 0).sum()),
        "n": n,
        "p_value": float(paired_t(baseline - candidate).p),
        "best_seed": int(percent.argmax()),
        "best_percent": float(percent.max()),
        "expected_best_by_luck": mean + expected_maximum(n) * sd,
    }


def report_protocols(
    candidate_last_batch: ArrayLike, baseline_last_batch: ArrayLike, size: int = 10
) -> list[dict[str, float | int]]:
    """What one best-of-n report after another would claim: `report_protocol` of disjoint groups of pairs, in order.

    The original report used 10 seeds. Groups of its size, all of the same two arms, show how much of such a claim is
    the draw of the seeds.

    Args:
        candidate_last_batch: loss of the last training batch of the candidate [n].
        baseline_last_batch: the same of the baseline [n].
        size: pairs per report; what is left over at the end is not used.

    Returns:
        n // size reports, each with first_pair, the index of its first pair; best_seed counts from there.

    Raises:
        ValueError: as `report_protocol`.
    """
    candidate, baseline = both_arms(candidate_last_batch, baseline_last_batch)
    return [
        {"first_pair": start} | report_protocol(candidate[start : start + size], baseline[start : start + size])
        for start in range(0, len(candidate) - size + 1, size)
    ]
