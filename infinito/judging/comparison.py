"""One candidate against one baseline, on one task by one metric."""

import math
from typing import Any

import numpy as np
from scipy import stats

from infinito.judging import folds, unpaired
from infinito.judging.asked import Asked
from infinito.judging.sample import Sample, in_common
from infinito.statistics import paired
from infinito.statistics.paired import Array, estimate

LEAST_PAIRS = 3
MANY = 1000  # pairs; of so many t is normal, to a hundredth of a pair
# what guessing scores, where that does not depend on the data: then a failed run can count as a guess
GUESSES = {"auc": 0.5, "auroc": 0.5, "roc_auc": 0.5, "rocauc": 0.5}


def compare(
    arms: dict[str, Sample], task: str, metric: str, candidate: str, baseline: str, asked: Asked
) -> dict[str, Any] | None:
    """All figures and remarks but the verdict, which depends on all other comparisons.

    Args:
        arms: the runs on this task by this metric.

    Returns:
        JSON-ready dict (see docs/judge.md); None where neither arm has a figure.
    """
    sign = asked.sign(metric)
    mine, other = arms.get(candidate, NOTHING), arms.get(baseline, NOTHING)
    a, b = sign * mine.known, sign * other.known
    if not len(a) and not len(b):
        return None
    remarks = [text for arm, sample in ((candidate, mine), (baseline, other)) if (text := _lost(arm, sample))]
    remarks += _shape(candidate, sign * a, baseline, sign * b)
    lost = {arm: [int(np.isnan(x.value).sum()), len(x.value)] for arm, x in ((candidate, mine), (baseline, other))}
    found: dict[str, Any] = {
        "candidate": candidate,
        "baseline": baseline,
        "task": task,
        "metric": metric,
        "unit": asked.units.get(metric, metric),
        "direction": "higher" if sign > 0 else "lower",
        "paired": None,
        "n_candidate": len(a),
        "n_baseline": len(b),
        "mean_candidate": float(np.mean(sign * a)) if len(a) else None,
        "mean_baseline": float(np.mean(sign * b)) if len(b) else None,
        "difference": _bare(a, b),
        "p_value": None,
        "p_adjusted": None,
        "p_equivalence": None,
        "effect_size": None,
        "probability_of_improvement": None,
        "more_runs_for_80_percent_power": None,
        "without_a_figure": {arm: counts for arm, counts in lost.items() if counts[0]},  # of how many runs
        "remarks": remarks,
    }
    few = min(len(a), len(b))
    if len(a) == len(b) == 1 and asked.errors:
        _over_items(found, float(a[0] - b[0]), asked)
    elif few == 2:
        remarks.append("An arm has two runs: they are shown, not tested, and count in no family of tests.")
    elif few < 2:
        arm = candidate if len(a) < 2 else baseline
        remarks.append(
            f"{arm} has {'one run' if few else 'no run'}, and so no spread over seeds: this is no comparison of two "
            "models."
        )
    elif asked.pairing and (both := _pairs(mine, other, candidate, baseline, asked, remarks)) is not None:
        _paired(found, both, mine, other, asked)
    else:
        _unpaired(found, a, b, asked)
    return found


def _bare(a: Array, b: Array) -> dict[str, Any] | None:
    """A difference of means without an interval, where one arm has no spread."""
    if not len(a) or not len(b):
        return None
    return {"value": float(a.mean() - b.mean()), "ci_low": None, "ci_high": None, "n": min(len(a), len(b))}


def _lost(arm: str, sample: Sample) -> str | None:
    lost = np.flatnonzero(np.isnan(sample.value))
    if not len(lost):
        return None
    kinds, counts = np.unique([status or "no figure" for status in sample.status[lost]], return_counts=True)
    which = ", ".join(f"{n} {kind}" for kind, n in zip(kinds, counts, strict=True))
    return (
        f"{arm}: {len(lost)} of {len(sample.value)} runs have no figure ({which}; {sample.names(lost)}) and are not "
        "counted."
    )


def _shape(candidate: str, a: Array, baseline: str, b: Array) -> list[str]:
    """What of the figures themselves makes a mean a poor summary."""
    said = []
    for arm, x in ((candidate, a), (baseline, b)):
        if len(x) > 2 and np.ptp(x) == 0:
            said.append(
                f"{arm}: all {len(x)} runs have the same figure: the seed decides nothing there, or is not used."
            )
        elif len(x) > 4:
            middle = np.median(x)
            away = np.abs(x - middle)
            spread = np.median(away) / stats.norm.ppf(0.75)
            far = away > 20 * max(spread, 1e-12 * abs(middle))
            if far.any() and spread > 0:
                said.append(
                    f"{arm}: {int(far.sum())} of {len(x)} runs lie far from all others ({x[far][0]:.4g}; median "
                    f"{middle:.4g}): the mean says little; trimmed mean {stats.trim_mean(x, 0.25):.4g}."
                )
    both = np.concatenate([a, b])
    kinds = len(np.unique(both))
    if 1 < kinds <= max(3, len(both) // 5) and len(both) >= 10:
        said.append(f"Only {kinds} distinct figures in {len(both)} runs: near a ceiling, or rounded too far.")
    return said


def _pairs(
    mine: Sample, other: Sample, candidate: str, baseline: str, asked: Asked, remarks: list[str]
) -> tuple[Array, Array] | None:
    """Figures of the runs that both arms have; None where fewer than three have a partner."""
    if not (mine.paired and other.paired):
        return None
    here, there = in_common(mine, other)
    whole = ~np.isnan(mine.value[here]) & ~np.isnan(other.value[there])
    if whole.sum() < LEAST_PAIRS:
        remarks.append(f"{int(whole.sum())} {asked.pairing}s are in both arms: too few for pairs, so not paired.")
        return None
    for arm, sample, known in ((candidate, mine, here), (baseline, other, there)):
        alone = np.setdiff1d(np.flatnonzero(sample.code >= 0), known)
        if len(alone):
            more = ", ..." if len(alone) > 4 else ""
            remarks.append(f"{asked.pairing} {sample.names(alone)}{more} only in {arm}: left out of the pairs.")
    return mine.value[here][whole], other.value[there][whole]


def _paired(found: dict[str, Any], both: tuple[Array, Array], mine: Sample, other: Sample, asked: Asked) -> None:
    """The t-test on differences; of folds with Nadeau and Bengio's correction, for they share training examples."""
    d: Array = asked.sign(found["metric"]) * (both[0] - both[1])
    n, alpha, remarks = len(d), asked.alpha, found["remarks"]
    test = paired.paired_t(d, alpha)
    mean, sd, p = float(test.mean), float(test.sd), float(test.p)
    if asked.pairing == "fold":
        k = len(np.union1d(mine.code[mine.code >= 0], other.code[other.code >= 0]))
        test = folds.corrected_t(d, k, alpha)
        remarks.append(
            f"Folds share training examples: with Nadeau and Bengio's correction p = {float(test.p):.3g}, without it "
            f"{p:.3g}, which is too small."
        )
    if np.ptp(d) == 0:
        remarks.append(
            "Both arms have the same figure in every pair: the same runs under two names?"
            if d[0] == 0
            else "All pairs differ by the same amount, so there is no spread to test against: are these runs?"
        )
    remarks += _guessed(found["metric"], mine, other, asked)
    found |= {
        "paired": asked.pairing,
        "n_pairs": n,
        "wins": int((d > 0).sum()),
        "sign_test_p": paired.sign_test(d),
        "difference": estimate(mean, float(test.ci_low), float(test.ci_high), n),
        "p_value": float(test.p),
        "effect_size": paired.effect_size(d, alpha)[1],
        "probability_of_improvement": paired.probability_of_improvement(d, alpha),
        "more_runs_for_80_percent_power": _further_pairs(mean, sd, n, alpha),
    }
    if asked.pairing == "fold":
        found["more_runs_for_80_percent_power"] = None  # more folds would share more, and count for less
        if asked.smallest_effect:
            remarks.append("Equivalence is not tested over folds.")
        return
    if asked.smallest_effect:
        found["p_equivalence"] = float(paired.tost(d, _margin(found, asked), alpha).p)
    if min(np.ptp(both[0]), np.ptp(both[1])) > 0:
        r = float(np.corrcoef(*both).item(1))
        found["correlation_of_arms"] = r
        if r < 0.1:
            remarks.append(f"Paired by seed, which gains nothing here (r = {r:.2f}): a seed does not make arms alike.")


def _guessed(metric: str, mine: Sample, other: Sample, asked: Asked) -> list[str]:
    """The difference with failed runs counted as guessing, where it is known what that scores."""
    guess = GUESSES.get(metric.rpartition(".")[2].lower())
    here, there = in_common(mine, other)
    a, b = mine.value[here], other.value[there]
    failed = np.isnan(a) != np.isnan(b)
    if guess is None or not failed.any() or np.nanmax(np.concatenate([a, b])) > 1:
        return []
    filled = asked.sign(metric) * (np.where(np.isnan(a), guess, a) - np.where(np.isnan(b), guess, b))
    difference = filled[~(np.isnan(a) & np.isnan(b))].mean()
    return [f"With what failed counted as guessing ({metric} {guess:g}) the mean difference is {difference:+.3f}."]


def _margin(found: dict[str, Any], asked: Asked) -> float:
    """The smallest effect in the unit of the figures, which are shares where people speak of percentage points."""
    assert asked.smallest_effect is not None
    return asked.smallest_effect / 100 if found["unit"] == "percentage points" else asked.smallest_effect


def _further_pairs(mean: float, sd: float, n: int, alpha: float) -> int | None:
    if mean == 0 or sd == 0:
        return None
    effect, z = mean / sd, stats.norm.isf(alpha / 2)
    needed = ((z + stats.norm.ppf(0.8)) / effect) ** 2 + z**2 / 2
    if needed >= MANY:
        return max(0, math.ceil(needed) - n)
    if needed + 5 < n:  # the normal approximation is short by less than that
        return 0
    pairs = max(2, math.floor(needed) - 4)
    while paired.power(effect, pairs, alpha) < 0.8:
        pairs += 1
    return max(0, pairs - n)


def _unpaired(found: dict[str, Any], a: Array, b: Array, asked: Asked) -> None:
    """Welch's test."""
    test = unpaired.welch(a, b, asked.alpha)
    found |= {
        "difference": estimate(test.mean, test.ci_low, test.ci_high, min(len(a), len(b))),
        "t": test.t,
        "df": test.df,
        "p_value": test.p,
        "mann_whitney_p": unpaired.mann_whitney(a, b),
        "effect_size": unpaired.effect_size(a, b, asked.alpha)[1],
        "probability_of_improvement": unpaired.probability_of_improvement(a, b, asked.alpha),
        "more_runs_for_80_percent_power": unpaired.further_runs(a, b, alpha=asked.alpha),
    }
    if asked.smallest_effect:
        found["p_equivalence"] = unpaired.tost(a, b, _margin(found, asked), asked.alpha).p


def _over_items(found: dict[str, Any], difference: float, asked: Asked) -> None:
    """One run of each: the z-test over items is about these two checkpoints, and about nothing else."""
    assert asked.errors is not None
    keys = ((found[arm], found["task"], found["metric"]) for arm in ("candidate", "baseline"))
    se = math.hypot(*(asked.errors.get(key, math.nan) for key in keys))
    if not se > 0:
        found["remarks"].append("One training run an arm, and no error over items: nothing can be said.")
        return
    reach = float(stats.norm.isf(asked.alpha / 2)) * se
    found |= {
        "over": "items",
        "difference": estimate(difference, difference - reach, difference + reach, 1),
        "p_value": float(2 * stats.norm.sf(abs(difference) / se)),
    }
    found["remarks"].append(
        "One training run an arm: seeds were not varied, so nothing is said of the two recipes. The interval is over "
        "the items of the test set, unpaired, and about these two checkpoints only."
    )


_NONE = np.zeros(0, object)
NOTHING = Sample(np.zeros(0), _NONE, _NONE, _NONE, np.zeros(0, np.intp))  # an arm that a task does not have
