"""What does averaging models bring? Ensembles from what their members say of every part of every example.

A task tells what the members of an ensemble average, and `says` [members, parts], float32, is all that is needed of it:

* probabilities: natural logarithm of the probability of the target, as for the cross-entropy no other one counts. The
  loss of the ensemble is -ln of the mean probability.
* outputs: output - target. The loss of the ensemble is the square of the mean.

By Jensen's inequality the ensemble is never worse than its average member: that is arithmetic, not a result. The
comparisons that count are against the member one would have picked on the validation set, and against single models
that cost as much. The unit of replication is a group of members that share nothing with the other groups; overlapping
groups are not independent.

How much members differ is given as the correlation of their errors: whether they disagree about the most probable
target cannot be told from the probabilities of the targets alone.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from infinito.statistics.paired import RESAMPLES, Estimate, estimate, mean_estimate, ratio_to_error
from infinito.tasks.task import Metric

Averaged = Literal["probabilities", "outputs"]  # by the members of an ensemble


def ensemble_loss(says: ArrayLike, *, averaged: Averaged) -> NDArray[np.floating]:
    """Loss of the ensemble: [..., members, parts] -> [..., parts]."""
    x = np.asarray(says)
    if averaged == "outputs":
        return np.square(x.mean(-2))
    return math.log(x.shape[-2]) - np.logaddexp.reduce(x, axis=-2)


def member_loss(says: ArrayLike, *, averaged: Averaged) -> NDArray[np.floating]:
    """Loss of every member by itself: [..., parts] -> the same shape."""
    x = np.asarray(says)
    return np.square(x) if averaged == "outputs" else -x


def error_correlation(says: ArrayLike) -> float | None:
    """Mean correlation of the errors of two members; the lower, the more an ensemble brings.

    Takes [members, parts]; an error is the log-probability of the target, or the difference of output and target. None
    with fewer than 2 members or a member whose error is constant.
    """
    x = np.asarray(says)
    if len(x) < 2 or (np.ptp(x, axis=1) == 0).any():
        return None
    return float(np.corrcoef(x)[np.triu_indices(len(x), 1)].mean())


def _groups(members: int, size: int) -> NDArray[np.intp]:
    """Disjoint groups [groups, size] of consecutive members; those left over belong to none.

    Raises:
        ValueError: size not between 1 and members.
    """
    if not 1 <= size <= members:
        raise ValueError(f"found ensemble size {size}: with {members} members it must be 1 to {members}")
    return np.arange(members - members % size).reshape(-1, size)


def group_losses(says: ArrayLike, size: int, *, averaged: Averaged) -> NDArray[np.float64]:
    """Losses of ensembles of `size` members that share no member: independent, and the unit of every comparison.

    Group g holds members g * size .. (g + 1) * size - 1 in the given order; members left over are not used.

    Args:
        says: [members, parts].
        size: members of an ensemble.
        averaged: what the members average.

    Returns:
        [groups], mean over the parts.

    Raises:
        ValueError: size not between 1 and members.
    """
    x = np.asarray(says)
    return np.array([ensemble_loss(x[group], averaged=averaged).mean(dtype=float) for group in _groups(len(x), size)])


def equal_compute(
    groups_loss: ArrayLike,
    single_loss: ArrayLike,
    *,
    metric: Metric,
    size: int,
    compute: Literal["training", "inference"],
    alpha: float = 0.05,
) -> dict[str, Any]:
    """Is an ensemble better than one model that costs as much? Two independent samples, Welch's t (1947).

    Args:
        groups_loss: losses of disjoint ensembles [G] (`group_losses`).
        single_loss: losses of single models [S], trained independently of one another and of the members; each with as
            much compute as a whole ensemble.
        metric: what the losses measure, in words.
        size: members of an ensemble.
        compute: what is equal: that of training (size times the steps) or of inference (a wider network).

    Returns:
        JSON-ready dict: estimate of mean(single) - mean(ensemble), positive = ensemble better, n = n_ensembles +
        n_single; p_value (two-sided), df, n_ensembles, n_single, ensemble_loss and single_loss (estimates), and
        sentence.

    Raises:
        ValueError: fewer than 2 on a side, not a list of numbers, or a loss that is not finite.
    """
    ensembles, single = np.asarray(groups_loss, float), np.asarray(single_loss, float)
    for name, loss in ((f"ensembles of {size} members", ensembles), ("single models of equal compute", single)):
        if loss.ndim != 1 or not np.isfinite(loss).all():
            raise ValueError(f"found losses of {name} of shape {loss.shape}: needed are [n] finite ones")
        if len(loss) < 2:
            raise ValueError(f"found {len(loss)} {name}: a comparison needs at least 2, {2 - len(loss)} more")
    error, df_error = [], 0.0
    for loss in (ensembles, single):
        error.append(loss.var(ddof=1) / len(loss))
        df_error += error[-1] ** 2 / (len(loss) - 1)
    se, gain = math.sqrt(sum(error)), float(single.mean() - ensembles.mean())
    df = sum(error) ** 2 / df_error if df_error > 0 else len(ensembles) + len(single) - 2.0
    p = float(2 * stats.t.sf(abs(ratio_to_error(gain, se)), df))
    reach = float(stats.t.isf(alpha / 2, df)) * se
    found = "no difference is shown" if p >= alpha else f"the ensembles are {'better' if gain > 0 else 'worse'}"
    return estimate(gain, gain - reach, gain + reach, len(ensembles) + len(single)) | {
        "p_value": p,
        "df": float(df),
        "n_ensembles": len(ensembles),
        "n_single": len(single),
        "ensemble_loss": mean_estimate(ensembles, alpha),
        "single_loss": mean_estimate(single, alpha),
        "sentence": (
            f"{len(ensembles)} ensembles of {size} members against {len(single)} single models of equal {compute} "
            f"compute: {found}; the gain is {gain:.3g} [{gain - reach:.3g}, {gain + reach:.3g}] {metric.unit} "
            f"(p = {p:.2g})."
        ),
    }


def paired_document_bootstrap(
    losses_a: ArrayLike, losses_b: ArrayLike, weights: ArrayLike, *, rng: np.random.Generator, alpha: float = 0.05
) -> Estimate:
    """Loss of a - loss of b for two fixed models or ensembles on the same documents, by the bootstrap (Efron 1987).

    The claim is about these weights on fresh documents, and says nothing about other seeds. Below about 30 documents
    the interval is too narrow.

    Args:
        losses_a, losses_b: summed over every document [N].
        weights: of every document [N], such as its scored tokens.

    Returns:
        Estimate of the difference per unit of weight, positive = b better, with a BCa interval from 9999 resamples;
        n = documents. The interval is None with 1 document, and a point where all documents agree on that difference.

    Raises:
        ValueError: shapes that differ, a document without weight, or a value that is not finite.
    """
    a, b, weights = (np.asarray(x, float) for x in (losses_a, losses_b, weights))
    if a.ndim != 1 or not len(a) or not a.shape == b.shape == weights.shape:
        raise ValueError(f"found shapes {a.shape}, {b.shape}, {weights.shape}: needed are [documents] of each")
    difference, n = a - b, len(a)
    if not (np.isfinite(difference).all() and np.isfinite(weights).all() and (weights > 0).all()):
        raise ValueError("found losses that are not finite, or a document without weight: leave such documents out")
    value = float(difference.sum() / weights.sum())
    if n < 2:
        return estimate(value, math.nan, math.nan, n)
    if np.ptp(difference / weights) <= 1e-12 * np.abs(difference / weights).max():
        return estimate(value, value, value, n)
    interval = stats.bootstrap(
        (difference, weights),
        lambda x, y, axis: x.sum(axis) / y.sum(axis),
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=max(1, 10_000_000 // n),
        confidence_level=1 - alpha,
        method="BCa",
        rng=rng,
    ).confidence_interval
    return estimate(value, float(interval.low), float(interval.high), n)


def all_subsets_loss(says: ArrayLike, size: int, *, averaged: Averaged, alpha: float = 0.05) -> Estimate:
    """Loss of an ensemble of `size` members averaged over all subsets (a U-statistic), interval by the jackknife.

    Uses every member many times, and leaves out one member at a time for the interval (Arvesen 1969): coverage .90 to
    .92 at 95 %, where a t interval over overlapping subsets has .10. The curve of `ensemble_curve` is preferred.

    Args:
        says: [members, parts]; members > size.
        size: members of an ensemble.
        averaged: what the members average.

    Returns:
        Estimate, n = members.

    Raises:
        ValueError: size not between 1 and members - 1.
    """
    x = np.asarray(says)
    members = len(x)
    if not 1 <= size < members:
        raise ValueError(f"found size {size} and {members} members: the jackknife needs more members than size")
    subsets = np.array(list(itertools.combinations(range(members), size)))
    loss = np.array([ensemble_loss(x[subset], averaged=averaged).mean(dtype=float) for subset in subsets])
    without = np.ones((len(subsets), members))
    np.put_along_axis(without, subsets, 0.0, axis=1)
    left_out = loss @ without / without.sum(0)
    se = math.sqrt((members - 1) / members * ((left_out - left_out.mean()) ** 2).sum())
    reach = float(stats.t.isf(alpha / 2, members - 1)) * se
    mean = float(loss.mean())
    return estimate(mean, mean - reach, mean + reach, members)


def ensemble_curve(
    says: ArrayLike, validation_loss: ArrayLike, sizes: Sequence[int], *, averaged: Averaged, alpha: float = 0.05
) -> dict[str, Any]:
    """Loss and gains of ensembles of several sizes, from disjoint groups of independently trained members.

    The groups are those of `group_losses`.

    Args:
        says: [members, parts] of the test set.
        validation_loss: [members] mean loss on the validation set; picks the best member of a group.
        sizes: ensemble sizes, each from 1 to members.
        averaged: what the members average.

    Returns:
        JSON-ready dict: error_correlation, and curve: one entry per size with size, groups, and estimates (t interval
        over groups, None with 1 group): loss; gain_over_average_member (always >= 0);
        gain_over_best_member (best by validation loss, scored on test). Gains: larger = ensemble better.

    Raises:
        ValueError: shapes that do not fit, a value that is not finite, no size, or a size outside 1..members.
    """
    x, validation = np.asarray(says), np.asarray(validation_loss, float)
    if x.ndim != 2 or validation.shape != x.shape[:1] or not x.size:
        raise ValueError(f"found shapes {x.shape}, {validation.shape}: needed are [members, parts], [members]")
    members = len(x)
    wrong = [size for size in sizes if not 1 <= size <= members]
    if wrong or not sizes:
        raise ValueError(f"found ensemble sizes {list(sizes)}: with {members} members each must be 1 to {members}")
    if not (np.isfinite(x).all() and np.isfinite(validation).all()):
        raise ValueError("found a prediction or validation loss that is not finite: leave diverged members out")
    alone = member_loss(x, averaged=averaged).mean(1, dtype=float)
    curve = []
    for size in sizes:
        groups, loss = _groups(members, size), group_losses(x, size, averaged=averaged)
        best = groups[np.arange(len(groups)), validation[groups].argmin(1)]
        curve.append(
            {
                "size": int(size),
                "groups": len(groups),
                "loss": mean_estimate(loss, alpha),
                "gain_over_average_member": mean_estimate(alone[groups].mean(1) - loss, alpha),
                "gain_over_best_member": mean_estimate(alone[best] - loss, alpha),
            }
        )
    return {"error_correlation": error_correlation(x), "curve": curve}
