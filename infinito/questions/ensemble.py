"""What does averaging models bring? Ensembles from the log-probabilities of their members.

The ensemble averages the members' probabilities. For the cross-entropy only the probability of the target token counts,
so a member is given by its target_log_prob [tokens]: natural logarithm of the probability of every target, float32.

By Jensen's inequality the ensemble is never worse than its average member: that is arithmetic, not a result. The
comparisons that count are against the member one would have picked on the validation set, and against single models
that cost as much. The unit of replication is a group of members that share nothing with the other groups; overlapping
groups are not independent.

How much members differ is given as the correlation of their errors: whether they disagree about the most probable token
cannot be told from the probabilities of the targets alone.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from infinito.statistics.paired import RESAMPLES, Estimate, estimate, mean_estimate, ratio_to_error


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


def _groups(members: int, size: int) -> NDArray[np.intp]:
    """Disjoint groups [groups, size] of consecutive members; those left over belong to none.

    Raises:
        ValueError: size not between 1 and members.
    """
    if not 1 <= size <= members:
        raise ValueError(f"found ensemble size {size}: with {members} members it must be 1 to {members}")
    return np.arange(members - members % size).reshape(-1, size)


def group_losses(target_log_prob: ArrayLike, size: int) -> NDArray[np.float64]:
    """Losses of ensembles of `size` members that share no member: independent, and the unit of every comparison.

    Group g holds members g * size .. (g + 1) * size - 1 in the given order; members left over are not used.

    Args:
        target_log_prob: [members, tokens], nats.
        size: members of an ensemble.

    Returns:
        [groups], nats per token.

    Raises:
        ValueError: size not between 1 and members.
    """
    log_prob = np.asarray(target_log_prob)
    return np.array([ensemble_loss(log_prob[group]).mean(dtype=float) for group in _groups(len(log_prob), size)])


def equal_compute(
    groups_loss: ArrayLike,
    single_loss: ArrayLike,
    *,
    size: int,
    compute: Literal["training", "inference"],
    alpha: float = 0.05,
) -> dict[str, Any]:
    """Is an ensemble better than one model that costs as much? Two independent samples, Welch's t (1947).

    Args:
        groups_loss: losses of disjoint ensembles [G] (`group_losses`), nats per token.
        single_loss: losses of single models [S], trained independently of one another and of the members; each with as
            much compute as a whole ensemble.
        size: members of an ensemble.
        compute: what is equal: that of training (size times the steps) or of inference (a wider network).

    Returns:
        JSON-ready dict: estimate of mean(single) - mean(ensemble) in nats per token, positive = ensemble better,
        n = n_ensembles + n_single; p_value (two-sided), df, n_ensembles, n_single, ensemble_loss and single_loss
        (estimates), and sentence.

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
            f"compute: {found}; the gain is {gain:.3g} [{gain - reach:.3g}, {gain + reach:.3g}] nats per token "
            f"(p = {p:.2g})."
        ),
    }


def paired_document_bootstrap(
    nats_a: ArrayLike, nats_b: ArrayLike, tokens: ArrayLike, *, rng: np.random.Generator, alpha: float = 0.05
) -> Estimate:
    """Loss of a - loss of b for two fixed models or ensembles on the same documents, by the bootstrap (Efron 1987).

    The claim is about these weights on fresh documents, and says nothing about other seeds. Below about 30 documents
    the interval is too narrow.

    Args:
        nats_a, nats_b: summed over every document [N].
        tokens: scored tokens of every document [N].

    Returns:
        Estimate in nats per token, positive = b better, with a BCa interval from 9999 resamples; n = documents. The
        interval is None with 1 document, and a point where all documents agree on the difference per token.

    Raises:
        ValueError: shapes that differ, a document without tokens, or a value that is not finite.
    """
    a, b, tokens = (np.asarray(x, float) for x in (nats_a, nats_b, tokens))
    if a.ndim != 1 or not len(a) or not a.shape == b.shape == tokens.shape:
        raise ValueError(f"found shapes {a.shape}, {b.shape}, {tokens.shape}: needed are [documents] of each")
    difference, n = a - b, len(a)
    if not (np.isfinite(difference).all() and np.isfinite(tokens).all() and (tokens > 0).all()):
        raise ValueError("found nats that are not finite, or a document without tokens: leave such documents out")
    value = float(difference.sum() / tokens.sum())
    if n < 2:
        return estimate(value, math.nan, math.nan, n)
    if np.ptp(difference / tokens) <= 1e-12 * np.abs(difference / tokens).max():
        return estimate(value, value, value, n)
    interval = stats.bootstrap(
        (difference, tokens),
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

    The groups are those of `group_losses`.

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
        groups, loss = _groups(members, size), group_losses(log_prob, size)
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
