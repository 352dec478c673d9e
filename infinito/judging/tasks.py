"""What holds over all tasks: never one test over pooled tasks, but a task each, and then over them.

Figures of different tasks meet only as ranks, as wins, or in the spread of the runs of each task as the unit.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from infinito.judging import across
from infinito.judging.asked import Asked
from infinito.judging.sample import Samples
from infinito.statistics.paired import Array, adjust

OWN = "each task's own metric"
MOST = 20_000  # runs; drawing more of them anew takes minutes
TAUS = 101  # points of a performance profile

Scores = dict[str, list[Array]]  # by arm: the runs of every task, signed so that larger is better


def over_tasks(samples: Samples, pairs: Sequence[tuple[str, str]], asked: Asked) -> list[dict[str, Any]]:
    """One entry a metric that two tasks or more have; or one for all where every task has a metric of its own.

    Args:
        samples: all runs.
        pairs: candidates and baselines.

    Returns:
        JSON-ready dicts (see docs/judge.md): metric, tasks, comparisons, ranks, arms, profile, remarks.
    """
    if asked.errors:  # over items: one run an arm, of which nothing follows for other runs
        return []
    found = [_over(metric, places, samples, pairs, asked) for metric, places in _metrics(samples).items()]
    for kind in ("wilcoxon_p", "sign_test_p"):
        tested = [one for entry in found for one in entry["comparisons"] if one[kind] is not None]
        for one, p in zip(tested, adjust([one[kind] for one in tested]) if tested else [], strict=True):
            one[f"{kind}_adjusted"] = p
    for entry in found:
        for one in entry["comparisons"]:
            one["sentence"] = _sentence(one, asked.alpha)
    return found


def _metrics(samples: Samples) -> dict[str, list[tuple[str, str]]]:
    """The places (task, metric) that are looked at together."""
    metrics: dict[str, list[tuple[str, str]]] = {}
    for place in samples:
        metrics.setdefault(place[1], []).append(place)
    tasks = {task for task, _ in samples}
    if len(metrics) > 1 and len(tasks) == len(samples):
        metrics = {OWN: list(samples)}
    return {metric: places for metric, places in metrics.items() if len(places) > 1}


def _over(
    metric: str, places: list[tuple[str, str]], samples: Samples, pairs: Sequence[tuple[str, str]], asked: Asked
) -> dict[str, Any]:
    arms = list(dict.fromkeys(arm for pair in pairs for arm in pair))
    scores: dict[tuple[str, str], dict[str, Array]] = {
        place: {arm: asked.sign(place[1]) * x for arm in arms if arm in here and len(x := here[arm].known)}
        for place, here in ((place, samples[place]) for place in places)
    }
    remarks = []
    many = sum(len(x) for here in scores.values() for x in here.values()) > MOST
    if many:
        remarks.append(f"More than {MOST:,} runs: intervals over tasks, ranks and profiles are left out.")
    whole = [place for place in places if len(scores[place]) == len(arms)]
    for place in places:
        lacking = [arm for arm in arms if arm not in scores[place]]
        if lacking and len(lacking) < len(arms):
            remarks.append(f"{place[0]}: no run of {', '.join(lacking)}; left out of what needs all arms.")
    comparisons = [
        found
        for candidate, baseline in pairs
        if (found := _pair(candidate, baseline, scores, metric == OWN, many, asked.alpha, remarks)) is not None
    ]
    return {
        "metric": metric,
        "tasks": [task for task, _ in places],
        "comparisons": comparisons,
        "remarks": list(dict.fromkeys(remarks)),
    } | _all_arms(arms, [] if many else [scores[place] for place in whole], [task for task, _ in whole], asked)


def _pair(
    candidate: str,
    baseline: str,
    scores: dict[tuple[str, str], dict[str, Array]],
    own: bool,
    many: bool,
    alpha: float,
    remarks: list[str],
) -> dict[str, Any] | None:
    """Candidate and baseline over the tasks that both have; None where they share fewer than two.

    Args:
        own: every task has a metric of its own, so that even the sizes of differences meet in a common unit only.
        many: there are too many runs for a bootstrap.
    """
    both = {place: here for place, here in scores.items() if candidate in here and baseline in here}
    if len(both) < 2:
        return None
    a, b = ([here[arm] for here in both.values()] for arm in (candidate, baseline))
    means = [(np.sort(x).mean(), np.sort(y).mean()) for x, y in zip(a, b, strict=True)]
    # in any order of the runs the same, and what differs by rounding only is equal
    differences = np.array([0.0 if math.isclose(x, y, rel_tol=1e-12) else x - y for x, y in means])
    won = across.wins(differences)
    unit = across.spreads([a, b])
    flat = [place[0] for place, one in zip(both, unit, strict=True) if one == 0]
    if flat:
        remarks.append(f"{', '.join(flat)}: no run differs from another, so there is no unit; not in normalised means.")
    usable = [i for i, one in enumerate(unit) if one > 0]
    found: dict[str, Any] = {
        "candidate": candidate,
        "baseline": baseline,
        "tasks": len(both),
        "wins": won.wins,
        "ties": won.ties,
        "losses": won.losses,
        "sign_test_p": won.p,
        "wilcoxon_p": None,
        "difference": None,
        "probability_of_improvement": None if many else across.probability_of_improvement(a, b, alpha),
    }
    if len(usable) > 1:
        a, b, unit = [a[i] for i in usable], [b[i] for i in usable], unit[usable]
        found["difference"] = None if many else across.mean_normalised_difference(a, b, unit, alpha)
        if own:
            differences = across.task_differences(a, b, unit)
    if not own or len(usable) > 1:
        found["wilcoxon_p"] = across.wilcoxon_over_tasks(differences)
    return found


def _sentence(found: dict[str, Any], alpha: float) -> str:
    chance = found["probability_of_improvement"]
    said = [
        f"{found['candidate']} is better than {found['baseline']} on {found['wins']} of {found['tasks']} tasks, worse "
        f"on {found['losses']} (p with Holm's correction: sign test {found['sign_test_p_adjusted']:.2g}"
    ]
    if found["wilcoxon_p"] is not None:
        said[0] += f", Wilcoxon {found['wilcoxon_p_adjusted']:.2g}"
    said[0] += ")"
    if found["difference"] and found["difference"]["ci_low"] is not None:
        value, low, high = (found["difference"][key] for key in ("value", "ci_low", "ci_high"))
        said.append(f"by {value:+.3g} sd of the runs on average [{low:.3g}, {high:.3g}]")
    if chance and chance["ci_low"] is not None:
        said.append(
            f"a run of it beats one of the other with probability {chance['value']:.2f} [{chance['ci_low']:.2f}, "
            f"{chance['ci_high']:.2f}]"
        )
    few = "" if found["tasks"] >= across.LEAST_TASKS else f" {found['tasks']} tasks are too few for a test over tasks."
    return f"{'; '.join(said)} ({100 * (1 - alpha):g}% CI).{few}"


def _all_arms(arms: list[str], scores: list[dict[str, Array]], tasks: list[str], asked: Asked) -> dict[str, Any]:
    """Ranks, interquartile means and performance profiles on the tasks that all arms have."""
    nothing: dict[str, Any] = {"ranks": [], "interquartile_means": [], "profiles": [], "unit": None}
    if len(scores) < 2 or len(arms) < 2:
        return nothing
    ordered = [[here[arm] for here in scores] for arm in arms]
    ranks = across.ranks(ordered, asked.alpha)
    found = nothing | {
        "ranks": [
            {"arm": arm, "mean": mean, "tasks": {task: ranks.tasks[i][place] for i, task in enumerate(tasks)}}
            for place, (arm, mean) in enumerate(zip(arms, ranks.mean, strict=True))
        ]
    }
    unit = across.spreads(ordered)
    usable = np.flatnonzero(unit > 0)
    if len(usable) < 2:
        return found
    # the zero is the baseline's mean, or that of all arms; the unit a standard deviation of the runs of a task
    centre = [
        np.mean([here[arm].mean() for arm in ([asked.baseline] if asked.baseline in here else arms)]) for here in scores
    ]
    normal = [[(one[i] - centre[i]) / unit[i] for i in usable] for one in ordered]
    every = np.concatenate([x for one in normal for x in one])
    low, high = (float(x) for x in np.quantile(every, [0.005, 0.995]))
    tau = np.linspace(low, high, TAUS)
    profiles = [across.performance_profile(one, tau, asked.alpha) for one in normal]
    return found | {
        "unit": "standard deviations of the runs of a task, from "
        + (f"the mean of {asked.baseline}" if asked.baseline is not None else "the mean of all arms"),
        "interquartile_means": [
            {"arm": arm} | across.interquartile_mean(one, asked.alpha) for arm, one in zip(arms, normal, strict=True)
        ],
        "profiles": [
            {"arm": arm, "tau": tau.tolist(), "share": one.share.tolist()}
            | {key: [None if np.isnan(x) else float(x) for x in getattr(one, key)] for key in ("low", "high")}
            for arm, one in zip(arms, profiles, strict=True)
        ],
    }
