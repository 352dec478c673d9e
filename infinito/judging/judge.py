"""What other people's runs show: every arm against a baseline, per task and metric, honestly.

A verdict on figures that somebody else has is always exploratory: nobody knows what was looked at before.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from infinito.judging.across import against_baseline, equal_variances
from infinito.judging.asked import Asked
from infinito.judging.best import best
from infinito.judging.comparison import compare
from infinito.judging.sample import Samples, samples
from infinito.judging.tasks import over_tasks
from infinito.statistics.paired import Array, adjust
from infinito.statistics.verdict import PAIRS_FOR_A_VERDICT, verdict

SCHEMA = "infinito/judge/2"


def judge(runs: pd.DataFrame, asked: Asked) -> dict[str, Any]:
    """All comparisons, with p-values that pay for there being so many.

    Args:
        runs: a run a row: arm, task, metric, run, seed, value (NaN: none), status.

    Returns:
        JSON-ready dict: schema, comparisons, best, arms, remarks (see docs/judge.md).
    """
    runs, remarks = _without_copies(runs)
    arms = [str(arm) for arm in runs["arm"].unique()]
    pairs = [(arm, asked.baseline) for arm in arms if arm != asked.baseline]
    if asked.baseline is None:
        pairs = [(one, other) for i, one in enumerate(arms) for other in arms[i + 1 :]]
    groups = samples(runs)
    comparisons = [
        found
        for (task, metric), here in groups.items()
        for candidate, baseline in pairs
        if (found := compare(here, task, metric, candidate, str(baseline), asked)) is not None
    ]
    tested = [found for found in comparisons if found["p_value"] is not None]
    for found, p in zip(tested, adjust([found["p_value"] for found in tested]) if tested else [], strict=True):
        found["p_adjusted"] = p
    equal = [found for found in tested if found["p_equivalence"] is not None]
    equal_p = adjust([found["p_equivalence"] for found in equal]) if equal else []
    for found, p in zip(equal, equal_p, strict=True):
        found["p_equivalence_adjusted"] = p
    _beside_dunnett(comparisons, groups, asked)
    for found in comparisons:
        _decide(found, len(tested), asked)
    return {
        "schema": SCHEMA,
        "status": "exploratory",
        "alpha": asked.alpha,
        "baseline": asked.baseline,
        "hypotheses": len(tested),
        "comparisons": comparisons,
        "best": best(groups, asked),
        "arms": _arms(groups),
        "across_tasks": over_tasks(groups, [(one, str(other)) for one, other in pairs], asked),
        "remarks": remarks,
    }


def _without_copies(runs: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Metrics that are one another's copy, or its negative, or another scale of it, are one hypothesis."""
    wide = runs.pivot_table(index=["arm", "task", "run", "seed"], columns="metric", values="value", sort=False)
    names = [name for name in dict.fromkeys(runs["metric"]) if name in wide]
    kept: list[str] = []
    remarks = []
    for name in names:
        for other in kept:
            both = wide[[name, other]].dropna()
            if len(both) < 3 or len(both) < wide[name].notna().sum() or both[name].nunique() < 2:
                continue
            if copy := _copy(both[name].to_numpy(), both[other].to_numpy()):
                remarks.append(f"{name} is {copy} {other}: one hypothesis, not two.")
                break
        else:
            kept.append(name)
    return runs[runs["metric"].isin(kept)], remarks


def _copy(x: Array, y: Array) -> str | None:
    """What x is of y, where it says nothing else: the same, its negative, or a line through it, as 1 - y or 100 y."""
    if np.allclose(x, y, rtol=1e-9, atol=0):
        return "the same figures as"
    if np.allclose(x, -y, rtol=1e-9, atol=0):
        return "the negative of"
    if len(x) < 4 or len(np.unique(y)) < 4:
        return None
    slope, offset = np.polyfit(y, x, 1)
    if np.abs(x - slope * y - offset).max() > 1e-8 * np.ptp(x):
        return None
    return f"{offset:.4g} {'+' if slope > 0 else '-'} {abs(slope):.4g} times"


def _beside_dunnett(comparisons: list[dict[str, Any]], groups: Samples, asked: Asked) -> None:
    """Where several arms share an unpaired baseline and variances agree, Dunnett's p beside that of Welch and Holm."""
    places: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for found in comparisons:
        if found["p_value"] is not None and found["paired"] is None and "over" not in found:
            places.setdefault((found["task"], found["metric"]), []).append(found)
    for (task, metric), here in places.items():
        if asked.baseline is None or len(here) < 2:
            continue
        sign, arms = asked.sign(metric), groups[task, metric]
        runs = [sign * arms[found["candidate"]].known for found in here]
        baseline = sign * arms[asked.baseline].known
        if equal_variances([*runs, baseline]) > asked.alpha:
            for found, test in zip(here, against_baseline(runs, baseline, asked.alpha), strict=True):
                found["p_dunnett"] = test.p_dunnett


def _decide(found: dict[str, Any], hypotheses: int, asked: Asked) -> None:
    """The verdict and its sentence."""
    n = found.get("n_pairs", min(found["n_candidate"], found["n_baseline"]))
    if found["p_value"] is None:
        found["verdict"] = "INCONCLUSIVE"
        found["sentence"] = f"INCONCLUSIVE: {found['remarks'].pop()}"
        return
    difference = found["difference"]
    equal = found.get("p_equivalence_adjusted", 1.0)
    found["verdict"] = verdict(difference["value"], found["p_adjusted"], equal, n, asked.alpha)
    if n < PAIRS_FOR_A_VERDICT and "over" not in found:
        found["remarks"].append(
            f"{n} {'pairs' if found['paired'] else 'runs in an arm'} are too few for a verdict: at least "
            f"{PAIRS_FOR_A_VERDICT} are needed."
        )
    found["sentence"] = _sentence(found, hypotheses, asked.alpha)


def _sentence(found: dict[str, Any], hypotheses: int, alpha: float) -> str:
    value, low, high = (found["difference"][key] for key in ("value", "ci_low", "ci_high"))
    points = found["unit"] == "percentage points"
    scale, unit = (100, " percentage points") if points else (1, "")
    if not points and found["unit"] != found["metric"]:
        unit = f" {found['unit']}"
    holm = f", Holm over {hypotheses}: {found['p_adjusted']:.2g}" if hypotheses > 1 else ""
    how = f"{found['n_candidate']} and {found['n_baseline']} runs, not paired (Welch)"
    if found["paired"]:
        how = f"{found['n_pairs']} pairs by {found['paired']}"
        if "correlation_of_arms" in found:
            how += f", r = {found['correlation_of_arms']:.2f}"
    elif "over" in found:
        how = "over items, one run an arm"
    place = f" on {found['task']}" if found["task"] else ""
    equal = f"; p of the equivalence {found['p_equivalence_adjusted']:.2g}" if found["verdict"] == "EQUIVALENT" else ""
    lost = "".join(f"; without {n} of {all_of} runs of {arm}" for arm, (n, all_of) in found["without_a_figure"].items())
    word = {
        "BETTER": "better than", "WORSE": "worse than", "EQUIVALENT": "equivalent to",
        "INCONCLUSIVE": "not shown to be better or worse than",
    }[found["verdict"]]  # fmt: skip
    return (
        f"{found['verdict']} (exploratory): {found['candidate']} is {word} {found['baseline']}{place} in "
        f"{found['metric']} "
        f"({found['direction']} is better): {scale * value:+.4g}{unit} [{scale * low:.4g}, {scale * high:.4g}] "
        f"({100 * (1 - alpha):g}% CI, {how}, p = {found['p_value']:.2g}{holm}{equal}){lost}."
    )


def _arms(groups: Samples) -> list[dict[str, Any]]:
    """Runs, mean, spread and median of every arm; never a bare mean."""
    found = []
    for (task, metric), arms in groups.items():
        for arm, sample in arms.items():
            x, lost = sample.known, sample.status[np.isnan(sample.value)]
            found.append(
                {
                    "arm": arm,
                    "task": task,
                    "metric": metric,
                    "n": len(x),
                    "mean": float(x.mean()) if len(x) else None,
                    "sd": float(x.std(ddof=1)) if len(x) > 1 else None,
                    "median": float(np.median(x)) if len(x) else None,
                    "failed": len(lost),
                    "diverged": sum(status.lower() == "diverged" for status in lost),
                }
            )
    return found


def names(arms: Sequence[str]) -> str:
    """Arms as a list for people."""
    return ", ".join(arm or "(no name)" for arm in arms)
