"""What does averaging models bring? Ensembles from the log-probabilities of their members.

The ensemble averages the members' probabilities. For the cross-entropy only the probability of the target token counts,
so a member is given by its target_log_prob [tokens]: natural logarithm of the probability of every target, float32.

By Jensen's inequality the ensemble is never worse than its average member: that is arithmetic, not a result. The
comparison that counts is against the member one would have picked on the validation set. The unit of replication is a
group of members that share nothing with the other groups; overlapping groups are not independent.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from infinito.compare import Estimate, estimate, mean_estimate


def ensemble_loss(target_log_prob: ArrayLike) -> NDArray[np.floating]:
    """Cross-entropy of the probability-averaging ensemble, per token.

    Args:
        target_log_prob: [..., members, tokens], nats.

    Returns:
        [..., tokens], nats: -(logsumexp over members - ln members).
    """
    log_prob = np.asarray(target_log_prob)
    return math.log(log_prob.shape[-2]) - np.logaddexp.reduce(log_prob, axis=-2)


def error_correlation(target_log_prob: ArrayLike) -> float | None:
    """Mean correlation of the per-token losses of two members; the lower, the more an ensemble brings.

    Takes [members, tokens]. None with fewer than 2 members or a member whose loss is constant.
    """
    log_prob = np.asarray(target_log_prob)
    if len(log_prob) < 2 or (np.ptp(log_prob, axis=1) == 0).any():
        return None
    return float(np.corrcoef(log_prob)[np.triu_indices(len(log_prob), 1)].mean())


def all_subsets_loss(target_log_prob: ArrayLike, size: int, alpha: float = 0.05) -> Estimate:
    """Loss of an ensemble of `size` members averaged over all subsets (a U-statistic), interval by the jackknife.

    Uses every member many times, and leaves out one member at a time for the interval (Arvesen 1969): coverage .90 to
    .92 at 95 %, where a t interval over overlapping subsets has .10. The curve of `ensemble_curve` is preferred.

    Args:
        target_log_prob: [members, tokens], nats; members > size.
        size: members of an ensemble.

    Returns:
        Estimate in nats per token, n = members.

    Raises:
        ValueError: size not between 1 and members - 1.
    """
    log_prob = np.asarray(target_log_prob)
    members = len(log_prob)
    if not 1 <= size < members:
        raise ValueError(f"found size {size} and {members} members: the jackknife needs more members than size")
    subsets = np.array(list(itertools.combinations(range(members), size)))
    loss = np.array([ensemble_loss(log_prob[subset]).mean(dtype=float) for subset in subsets])
    without = np.ones((len(subsets), members))
    np.put_along_axis(without, subsets, 0.0, axis=1)
    left_out = loss @ without / without.sum(0)
    se = math.sqrt((members - 1) / members * ((left_out - left_out.mean()) ** 2).sum())
    reach = float(stats.t.isf(alpha / 2, members - 1)) * se
    mean = float(loss.mean())
    return estimate(mean, mean - reach, mean + reach, members)


def ensemble_curve(
    target_log_prob: ArrayLike, validation_loss: ArrayLike, sizes: Sequence[int], *, alpha: float = 0.05
) -> dict[str, Any]:
    """Loss and gains of ensembles of several sizes, from disjoint groups of independently trained members.

    Group g of size m holds members g m .. (g + 1) m - 1 in the given order; members left over are not used.

    Args:
        target_log_prob: [members, tokens] on the test set, nats.
        validation_loss: [members] mean loss on the validation set, nats per token; picks the best member of a group.
        sizes: ensemble sizes, each from 1 to members.

    Returns:
        JSON-ready dict: error_correlation, and curve: one entry per size with size, groups, and estimates in nats per
        token (t interval over groups, None with 1 group): loss; gain_over_average_member (always >= 0);
        gain_over_best_member (best by validation loss, scored on test). Gains: larger = ensemble better.

    Raises:
        ValueError: shapes that do not fit, a value that is not finite, no size, or a size outside 1..members.
    """
    log_prob, validation = np.asarray(target_log_prob), np.asarray(validation_loss, float)
    if log_prob.ndim != 2 or validation.shape != log_prob.shape[:1] or not log_prob.size:
        raise ValueError(f"found shapes {log_prob.shape}, {validation.shape}: needed are [members, tokens], [members]")
    members = len(log_prob)
    wrong = [size for size in sizes if not 1 <= size <= members]
    if wrong or not sizes:
        raise ValueError(f"found ensemble sizes {list(sizes)}: with {members} members each must be 1 to {members}")
    if not (np.isfinite(log_prob).all() and np.isfinite(validation).all()):
        raise ValueError("found a log-probability or validation loss that is not finite: leave diverged members out")
    member_loss = -log_prob.mean(1, dtype=float)
    curve = []
    for size in sizes:
        groups = np.arange(members - members % size).reshape(-1, size)
        loss = np.array([ensemble_loss(log_prob[group]).mean(dtype=float) for group in groups])
        best = groups[np.arange(len(groups)), validation[groups].argmin(1)]
        curve.append(
            {
                "size": int(size),
                "groups": len(groups),
                "loss": mean_estimate(loss, alpha),
                "gain_over_average_member": mean_estimate(member_loss[groups].mean(1) - loss, alpha),
                "gain_over_best_member": mean_estimate(member_loss[best] - loss, alpha),
            }
        )
    return {"error_correlation": error_correlation(log_prob), "curve": curve}
