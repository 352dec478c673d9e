"""Is the candidate better than the baseline? The verdict on paired losses, in numbers and in words.

The primary test is the two-sided paired t-test; all other tests stand beside it as secondary and never decide.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from infinito.statistics.paired import (
    Array,
    adjust,
    bayes_rope,
    bootstrap_t,
    effect_size,
    estimate,
    max_t,
    mean_estimate,
    minimal_detectable_effect,
    paired_t,
    pairs_needed,
    probability_of_improvement,
    sign_flip,
    sign_test,
    skewness,
    tost,
    wilcoxon,
)
from infinito.statistics.sequential import Look, anytime_level
from infinito.statistics.verdict import PAIRS_FOR_A_VERDICT, Verdict, verdict
from infinito.tasks.measure import levels, moved
from infinito.tasks.task import Metric

MEANINGFUL_IMPROVEMENT = 0.75  # probability of improvement (Bouthillier et al. 2021)


# tests in `secondary` whose level holds for a number of pairs that was fixed beforehand
FIXED_SAMPLE = ("sign_flip_p", "wilcoxon_p", "sign_test_p", "log_ratio_p", "bootstrap_t")


class Family(NamedTuple):
    """The place of one hypothesis in a family: all arms and metrics that are tested against the same baseline."""

    size: int
    p: float  # of the primary test, adjusted by Holm
    p_equivalence: float  # of the two one-sided tests, adjusted by Holm


def both_arms(candidate: ArrayLike, baseline: ArrayLike) -> tuple[Array, Array]:
    """Both arms as float arrays [n], n >= 2, or one clear error."""
    arms = {"candidate": np.asarray(candidate, float), "baseline": np.asarray(baseline, float)}
    shapes = [x.shape for x in arms.values()]
    if shapes[0] != shapes[1] or len(shapes[0]) != 1:
        mine, other = (" x ".join(map(str, shape)) for shape in shapes)
        raise ValueError(
            f"found {mine} losses of the candidate, {other} of the baseline: both arms need one loss per pair"
        )
    if shapes[0][0] < 2:
        raise ValueError(f"found {shapes[0][0]} pairs: a comparison needs at least 2, a verdict needs 10")
    for name, loss in arms.items():
        if not np.isfinite(loss).all():
            bad = int(np.flatnonzero(~np.isfinite(loss))[0])
            raise ValueError(f"found {loss[bad]} as {name} loss of pair {bad}: losses must be finite (cap divergence)")
    return arms["candidate"], arms["baseline"]


def _verdict_of_look(mean: float, look: Look, smallest_effect: float) -> Verdict:
    """The verdict of a sequential design: what the interval of the look excludes, and nothing before the look decides.

    10 pairs are not asked for: with few pairs a look has a stricter level of its own.
    """
    if not look.stop and look.n < look.planned:
        return "INCONCLUSIVE"
    low, high = look.ci_low, look.ci_high
    if low is not None and high is not None and -smallest_effect < low and high < smallest_effect:
        return "EQUIVALENT"
    if look.stop:
        return "BETTER" if mean > 0 else "WORSE"
    return "INCONCLUSIVE"


def _refusals(n: int, alpha: float, look: Look | None) -> list[str]:
    """What n pairs cannot support, and how many more would."""
    said = []
    if look is None:
        if n < PAIRS_FOR_A_VERDICT:
            more = PAIRS_FOR_A_VERDICT - n
            said.append(f"With {n} pairs there is no verdict, {PAIRS_FOR_A_VERDICT} are needed: run {more} more.")
        needed = math.floor(1 - math.log2(alpha)) + 1  # the smallest p of these tests is 2^(1 - n)
        if n < needed:
            said.append(
                f"With {n} pairs no sign-flip, Wilcoxon or sign test can reach p < {alpha:g}, and no probability of "
                f"improvement can be shown to be above one half: run {needed - n} more."
            )
    elif not look.stop and n < look.planned:
        more = look.planned - n
        said.append(
            f"{n} of {look.planned} planned pairs do not decide: there is no verdict yet, run up to {more} more."
        )
    if n < 3:
        said.append(f"With {n} pairs there is neither a skewness nor a Hedges' g: run {3 - n} more.")
    return said


def _p(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def _limits(x: Mapping[str, Any], joined: str) -> str:
    low, high = x["ci_low"], x["ci_high"]
    return "without limits" if low is None or high is None else f"{low:.3g} {joined} {high:.3g}"


def _place(look: Look) -> str:
    """Where in its plan a sequential design is."""
    pairs = f"{look.n} of at most {look.planned} pairs"
    where = f"after {pairs}" if look.number is None else f"at look {look.number} of {look.looks} ({pairs})"
    return f"{'stopped' if look.stop else 'not stopped'} {where}"


def _sentence(result: dict[str, Any], sd: float, alpha: float, look: Look | None, metric: Metric) -> str:
    """The verdict in plain words, with its numbers."""
    n, difference, equivalence, family = (result[key] for key in ("n_pairs", "difference", "equivalence", "hypotheses"))
    mean, interval = difference["value"], result.get("difference_simultaneous", difference)
    confidence, confidence_equal = f"{100 * (1 - alpha):g}% CI", f"{100 * (1 - 2 * alpha):g}% CI"
    test, rejected = _p(result["p_adjusted"]), result["p_adjusted"] < alpha
    holm = f", Holm-adjusted for {family} hypotheses" if family > 1 else ""
    if look is not None:
        rejected = look.stop
        if look.level is None:
            confidence, test = f"{confidence} for any stop", f"e = {look.e_value:.3g}"
        else:
            confidence, test = (
                f"{100 * (1 - look.level):.6g}% CI",
                f"p = {look.p_value:.2g} against {look.level:.2g} at this look",
            )
        confidence_equal = confidence
    evidence = (
        f"over {n} pairs of fresh seeds its test {metric.name} is {abs(mean):.3g} {metric.unit} "
        f"{moved(metric, mean)} on average ({confidence} of the gain"
        f"{', simultaneous for all,' if family > 1 else ''} {_limits(interval, 'to')}, {test}{holm}), "
        f"and it wins {result['wins']} of {n}"
    )
    smallest_effect = equivalence["smallest_effect"]
    margin, needed = f"{smallest_effect:.3g}", result["pairs_for_80_percent_power"]
    if look is None and n < PAIRS_FOR_A_VERDICT:
        text = (
            f"Inconclusive: {n} pairs are too few for a verdict, at least {PAIRS_FOR_A_VERDICT} are needed: "
            f"run {PAIRS_FOR_A_VERDICT - n} more."
        )
    elif look is not None and not look.stop and n < look.planned:
        text = f"Inconclusive so far: {evidence}; {_place(look)}: run on."
    elif result["verdict"] == "EQUIVALENT":
        adjusted = f", {_p(equivalence['p_adjusted'])} after Holm" if family > 1 else ""
        text = (
            f"{'Different but negligible' if rejected else 'Equivalent'}: the candidate's mean gain lies between "
            f"{_limits(equivalence, 'and')} {metric.unit} ({confidence_equal}, {n} pairs{adjusted}), "
            f"inside the ±{margin} declared too small to matter."
        )
        if family > 1:
            text += f" The difference itself has {test}{holm}."
    elif result["verdict"] == "INCONCLUSIVE":
        detectable = result["minimal_detectable_effect"]
        found = (
            f"; with {n} pairs only a difference of {detectable:.3g} would be found 4 times in 5" if detectable else ""
        )
        plan = f"; if the true effect is as large as this, about {needed} pairs are needed" if needed else ""
        text = f"Inconclusive: the candidate is neither shown better nor worse nor equivalent: {evidence}{found}{plan}."
    else:
        low, high = interval["ci_low"], interval["ci_high"]
        sure = low >= smallest_effect if mean > 0 else high <= -smallest_effect
        word = result["verdict"].lower()
        claim = f"{'by' if sure else 'though not surely by'} at least the {margin} {metric.unit} declared to matter"
        text = f"The candidate is {word}, {claim}: {evidence}."
    if look is not None and (look.stop or n == look.planned):
        text += f" The experiment was {_place(look)}."
    if sd == 0:
        text += " All differences are identical: check that the seeds reach the training."
    if abs(result["skewness"] or 0) > 1:
        too = ": look at the bootstrap-t interval too" if result["secondary"]["bootstrap_t"] else ""
        text += f" The differences are skewed ({result['skewness']:.2g}){too}."
    return text


def compare(
    candidate_loss: ArrayLike,
    baseline_loss: ArrayLike,
    *,
    metric: Metric,
    smallest_effect: float,
    alpha: float = 0.05,
    family: Family | None = None,
    look: Look | None = None,
) -> dict[str, Any]:
    """Is the candidate better than the baseline? Everything a report needs, in plain numbers.

    The result depends neither on the order of the pairs nor on which arm comes first, but for the sign. (In a
    sequential design their order has decided before, by `sequential.stopped`, which pairs count.)

    In a family of several hypotheses the Holm-adjusted p-values decide. In a sequential design the look decides, by its
    own interval. No interval of a fixed number of pairs is given then: those of means are the look's, so is, nearly,
    that of the probability of improvement; the effect size has none; the detectable effect is that of the look's level;
    p-values of a fixed number of pairs (secondary, equivalence) are None.

    Args:
        candidate_loss: mean held-out loss of the candidate [n], one entry per pair of seeds; where a metric is better
            when higher, its loss is the negative of it.
        baseline_loss: the same of the baseline [n], in the same order.
        metric: what the losses measure, in words.
        smallest_effect: the smallest difference that matters, in the unit of the metric, declared before the runs, > 0.
        alpha: level of the tests; intervals have confidence 1 - alpha, the equivalence interval 1 - 2 alpha.
        family: the adjusted p-values of this comparison, where more hypotheses are tested (see `family`).
        look: the look of a sequential design at exactly these pairs (see `sequential.stopped`).

    Returns:
        JSON-ready dict: verdict, sentence, difference, p_value, p_adjusted (p_value outside a family), hypotheses (size
        of the family), effect_size (Hedges' gz), probability_of_improvement, wins, n_pairs, minimal_detectable_effect
        (80 % power; None if no effect is), pairs_for_80_percent_power (at the observed effect, with one test at the
        end), equivalence, candidate and baseline (means of the metric, in its own direction), relative_difference (mean
        ln(L_baseline / L_candidate); None if a loss is not positive), skewness, secondary, refusals (sentences: what n
        pairs cannot support, and how many more would). An estimate is {value, ci_low, ci_high, n}. In a family of
        several also difference_simultaneous (confidence 1 - alpha / size, Bonferroni), which decides on "by at least";
        with a look also sequential, its fields: p_value is to be compared with its level, or, for anytime, with alpha.

    Raises:
        ValueError: fewer than 2 pairs, different shapes, a loss that is not finite, smallest_effect not positive, a
            look at other pairs or another level, or a look within a family of several.
    """
    candidate, baseline = both_arms(candidate_loss, baseline_loss)
    if not smallest_effect > 0:
        raise ValueError(f"found smallest_effect {smallest_effect}: it must be positive")
    d = baseline - candidate
    n = len(d)
    test, equal = paired_t(d, alpha), tost(d, smallest_effect, alpha)
    mean, sd = float(test.mean), float(test.sd)
    family = family or Family(1, float(test.p), float(equal.p))
    level = alpha
    if look is not None:
        if family.size > 1:
            raise ValueError(f"found a look within a family of {family.size}: allowed is one hypothesis")
        if (look.n, look.alpha) != (n, alpha):
            found = f"{look.n} pairs with alpha {look.alpha:g} for {n} pairs with alpha {alpha:g}"
            raise ValueError(f"found a look at {found}: allowed is a look at these pairs")
        level = anytime_level(n, alpha=alpha) if look.level is None else look.level
        family = Family(1, look.p_value, math.nan)
        decision = _verdict_of_look(mean, look, smallest_effect)
    else:
        decision = verdict(mean, family.p, family.p_equivalence, n, alpha)
    skew = skewness(d)
    rng = np.random.default_rng(0)  # Monte Carlo error only: the same data must give the same report
    log_ratio = np.log(baseline / candidate) if min(candidate.min(), baseline.min()) > 0 else None
    p_rope, p_better = bayes_rope(d, smallest_effect)
    skewed = skew is not None and abs(skew) > 1
    improvement = probability_of_improvement(d, level)
    chance, chance_low = improvement["value"], improvement["ci_low"]
    assert chance is not None and chance_low is not None
    result: dict[str, Any] = {
        "verdict": decision,
        "difference": mean_estimate(d, level),
        "p_value": float(test.p) if look is None else look.p_value,
        "p_adjusted": family.p,
        "hypotheses": family.size,
        "effect_size": effect_size(d, alpha)[1],
        "probability_of_improvement": improvement,
        "wins": int((d > 0).sum()),
        "n_pairs": n,
        "minimal_detectable_effect": minimal_detectable_effect(n, sd, alpha=level) if level > 0 else None,
        "pairs_for_80_percent_power": math.ceil(pairs_needed(mean / sd, alpha=alpha)) if mean and sd else None,
        "equivalence": {
            "smallest_effect": float(smallest_effect),
            "p_value": float(equal.p),
            "p_adjusted": family.p_equivalence,
            "ci_low": float(equal.ci_low),
            "ci_high": float(equal.ci_high),
        },
        "candidate": levels(metric, mean_estimate(candidate, level)),
        "baseline": levels(metric, mean_estimate(baseline, level)),
        "relative_difference": None if log_ratio is None else mean_estimate(log_ratio, level),
        "skewness": skew,
        "secondary": {
            "role": "secondary, never decide",
            "sign_flip_p": float(sign_flip(d, rng=rng)),
            "wilcoxon_p": wilcoxon(d)[2],
            "sign_test_p": sign_test(d),
            "log_ratio_p": None if log_ratio is None else float(paired_t(log_ratio).p),
            "bootstrap_t": estimate(mean, *bootstrap_t(d, rng=rng, alpha=alpha), n) if skewed else None,
            "probability_equivalent": float(p_rope),
            "probability_better": float(p_better),
            "meaningfully_better": chance_low > 0.5 and chance >= MEANINGFUL_IMPROVEMENT,
        },
        "refusals": _refusals(n, alpha, look),
    }
    if family.size > 1:
        result["difference_simultaneous"] = mean_estimate(d, alpha / family.size)
    if look is not None:
        limits = {"ci_low": look.ci_low, "ci_high": look.ci_high}
        result["difference"] |= limits
        result["equivalence"] |= limits | {"p_value": None, "p_adjusted": None}
        result["effect_size"] |= {"ci_low": None, "ci_high": None}  # its inversion is unreliable at levels this small
        result["secondary"] |= dict.fromkeys(FIXED_SAMPLE)
        result["sequential"] = look._asdict()
    return {"verdict": decision, "sentence": _sentence(result, sd, alpha, look, metric)} | result


def family(
    differences: Mapping[str, Mapping[str, ArrayLike]], *, smallest_effect: float, alpha: float = 0.05
) -> list[dict[str, Any]]:
    """All hypotheses that are tested against one baseline, with p-values that pay for testing so many.

    Args:
        differences: for each arm and each metric (the same metrics, in the order of the first arm) the differences to
            the baseline [n] of the same n pairs, signed so that positive = the arm is better. The first metric is that
            of the task, its loss.
        smallest_effect: as in `compare`; for the first metric only.
        alpha: 1 - confidence of each interval by itself.

    Returns:
        One JSON-ready dict per hypothesis, all metrics of the first arm first: arm, metric, primary (first arm on the
        first metric), difference (estimate, in the unit of the metric), p_value, p_holm (Holm over all hypotheses).
        On the first metric, else None: p_max_t (over the arms, by the same sign flips; needs no worst case, so it is
        the more powerful one, shown beside Holm), p_equivalence, p_equivalence_holm (Holm over the arms).

    Raises:
        ValueError: no arm or metric, an arm with other metrics or other numbers of pairs, fewer than 2 pairs, or a
            difference that is not finite.
    """
    arms = list(differences)
    metrics = list(differences[arms[0]]) if arms else []
    if not metrics:
        raise ValueError("found no arm or no metric: a family needs at least one hypothesis")
    for arm in arms:
        if differences[arm].keys() != differences[arms[0]].keys():
            raise ValueError(f"found metrics {', '.join(differences[arm])} of {arm}: allowed are {', '.join(metrics)}")
    d = {}
    for metric in metrics:
        rows = [np.asarray(differences[arm][metric], float) for arm in arms]
        shapes = sorted({row.shape for row in rows})
        if len(shapes) > 1 or len(shapes[0]) != 1 or shapes[0][0] < 2 or not np.isfinite(rows).all():
            counts = " and ".join(" x ".join(map(str, shape)) for shape in shapes)
            raise ValueError(
                f"found {counts} differences of {metric}: allowed is one finite number a pair, 2 pairs or more"
            )
        d[metric] = np.array(rows)
    p = {metric: paired_t(rows).p for metric, rows in d.items()}
    holm = iter(adjust([float(p[metric][i]) for i in range(len(arms)) for metric in metrics]))
    first = metrics[0]
    most = max_t(d[first], rng=np.random.default_rng(0))  # Monte Carlo error only, as in `compare`
    equal = tost(d[first], smallest_effect, alpha).p
    equal_holm = adjust(list(equal))
    return [
        {
            "arm": arm,
            "metric": metric,
            "primary": i == 0 and metric == first,
            "difference": mean_estimate(d[metric][i], alpha),
            "p_value": float(p[metric][i]),
            "p_holm": next(holm),
            "p_max_t": float(most[i]) if metric == first else None,
            "p_equivalence": float(equal[i]) if metric == first else None,
            "p_equivalence_holm": equal_holm[i] if metric == first else None,
        }
        for i, arm in enumerate(arms)
        for metric in metrics
    ]
