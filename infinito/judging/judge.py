"""What other people's runs show: every arm against a baseline, per task and metric, honestly.

A verdict on figures that somebody else has is always exploratory: nobody knows what was looked at before.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy import stats

from infinito.judging import folds, unpaired
from infinito.questions.compare import PAIRS_FOR_A_VERDICT, verdict
from infinito.statistics.paired import (
    Array,
    adjust,
    effect_size,
    estimate,
    expected_maximum,
    paired_t,
    pairs_needed,
    probability_of_improvement,
    sign_test,
    tost,
)  # fmt: skip

SCHEMA = "infinito/judge/2"
Pairing = Literal["seed", "fold"] | None


@dataclass(frozen=True)
class Asked:
    """What is asked of the runs.

    Args:
        baseline: the arm that others are compared with; None: all pairs.
        higher: whether a metric is better when it is higher, by name.
        units: of metrics, by name, where they are not in the unit of their values.
        pairing: what makes runs of two arms belong together.
        errors: standard errors over the items of a test set, where an arm has one run.
        smallest_effect: differences below it don't matter, in the unit of the figures; None: nothing is equivalent.
    """

    baseline: str | None
    higher: Mapping[str, bool]
    units: Mapping[str, str]
    pairing: Pairing
    smallest_effect: float | None = None
    errors: Mapping[tuple[str, str, str], float] | None = None  # over items, by arm, task and metric
    alpha: float = 0.05


def judge(runs: pd.DataFrame, asked: Asked) -> dict[str, Any]:
    """All comparisons, with p-values that pay for there being so many.

    Args:
        runs: a run a row: arm, task, metric, run, seed, value (NaN: none), status.

    Returns:
        JSON-ready dict: schema, comparisons, best, arms, remarks (see docs/judge.md).
    """
    runs, remarks = _without_copies(runs)
    arms = list(dict.fromkeys(runs["arm"]))
    pairs = [(arm, asked.baseline) for arm in arms if arm != asked.baseline]
    if asked.baseline is None:
        pairs = [(one, other) for i, one in enumerate(arms) for other in arms[i + 1 :]]
    groups = {key: group for key, group in runs.groupby(["task", "metric"], sort=False)}
    comparisons = [
        found
        for (task, metric), group in groups.items()
        for candidate, baseline in pairs
        if (found := _compare(group, str(task), str(metric), candidate, str(baseline), asked)) is not None
    ]
    tested = [found for found in comparisons if found["p_value"] is not None]
    for found, p in zip(tested, adjust([found["p_value"] for found in tested]) if tested else [], strict=True):
        found["p_adjusted"] = p
    equal = [found for found in tested if found["p_equivalence"] is not None]
    equal_p = adjust([found["p_equivalence"] for found in equal]) if equal else []
    for found, p in zip(equal, equal_p, strict=True):
        found["p_equivalence_adjusted"] = p
    for found in comparisons:
        _decide(found, len(tested), asked)
    return {
        "schema": SCHEMA,
        "status": "exploratory",
        "alpha": asked.alpha,
        "baseline": asked.baseline,
        "hypotheses": len(tested),
        "comparisons": comparisons,
        "best": _best(groups, asked),
        "arms": _arms(groups),
        "remarks": remarks,
    }


def _without_copies(runs: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Metrics that are one another's copy, or the negative of it, are one hypothesis."""
    wide = runs.pivot_table(index=["arm", "task", "run", "seed"], columns="metric", values="value", sort=False)
    names = [name for name in dict.fromkeys(runs["metric"]) if name in wide]
    kept: list[str] = []
    remarks = []
    for name in names:
        for other in kept:
            both = wide[[name, other]].dropna()
            if len(both) < 3 or len(both) < wide[name].notna().sum() or both[name].nunique() < 2:
                continue
            sign = 1 if np.allclose(both[name], both[other], rtol=1e-9, atol=0) else -1
            if sign == 1 or np.allclose(both[name], -both[other], rtol=1e-9, atol=0):
                copy = "the same figures as" if sign == 1 else "the negative of"
                remarks.append(f"{name} is {copy} {other}: one hypothesis, not two.")
                break
        else:
            kept.append(name)
    return runs[runs["metric"].isin(kept)], remarks


def _compare(
    group: pd.DataFrame, task: str, metric: str, candidate: str, baseline: str, asked: Asked
) -> dict[str, Any] | None:
    """One candidate against one baseline; None where neither has a run."""
    sign = 1.0 if asked.higher[metric] else -1.0
    mine, other = (group[group["arm"] == arm] for arm in (candidate, baseline))
    a, b = (sign * rows["value"].dropna().to_numpy() for rows in (mine, other))
    if not len(a) and not len(b):  # a metric that this task does not have, or arms that it does not have
        return None
    remarks = [text for arm, rows in ((candidate, mine), (baseline, other)) if (text := _lost(arm, rows))]
    remarks += _shape(candidate, sign * a, baseline, sign * b)
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
        "remarks": remarks,
    }
    if len(a) == len(b) == 1 and asked.errors:
        _over_items(found, float(a[0] - b[0]), asked)
        return found
    if 2 == min(len(a), len(b)):
        remarks.append("An arm has two runs: they are shown, not tested, and count in no family of tests.")
        return found
    if min(len(a), len(b)) < 2:
        few = candidate if len(a) < 2 else baseline
        count = min(len(a), len(b))
        remarks.append(
            f"{few} has {'one run' if count == 1 else 'no run'}, and so no spread over seeds: this is no "
            f"comparison of two "
            "models."
        )
        return found
    d = _differences(mine, other, sign, candidate, baseline, asked, remarks) if asked.pairing else None
    if d is not None:
        _paired(found, d, mine, other, sign, asked)
    else:
        _unpaired(found, a, b, asked)
    return found


def _bare(a: Array, b: Array) -> dict[str, Any] | None:
    """A difference of means without an interval, where one arm has no spread."""
    if not len(a) or not len(b):
        return None
    return {"value": float(a.mean() - b.mean()), "ci_low": None, "ci_high": None, "n": min(len(a), len(b))}


def _lost(arm: str, rows: pd.DataFrame) -> str | None:
    lost = rows[rows["value"].isna()]
    if lost.empty:
        return None
    status = lost["status"].replace("", "no figure").value_counts()
    which = ", ".join(f"{n} {name}" for name, n in status.items())
    names = ", ".join(filter(None, lost["seed"].where(lost["seed"] != "", lost["run"]).head(4)))
    return f"{arm}: {len(lost)} of {len(rows)} runs have no figure ({which}; {names}) and are not counted."


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
            spread = stats.median_abs_deviation(x, scale="normal")
            far = np.abs(x - middle) > 20 * max(spread, 1e-12 * abs(middle))
            if far.any() and spread > 0:
                said.append(
                    f"{arm}: {int(far.sum())} of {len(x)} runs lie far from all others ({x[far][0]:.4g}; median "
                    f"{middle:.4g}): "
                    f"the mean says little; trimmed mean {stats.trim_mean(x, 0.25):.4g}."
                )
    both = np.concatenate([a, b])
    kinds = len(np.unique(both))
    if 1 < kinds <= max(3, len(both) // 5) and len(both) >= 10:
        said.append(f"Only {kinds} distinct figures in {len(both)} runs: near a ceiling, or rounded too far.")
    return said


def _differences(
    mine: pd.DataFrame,
    other: pd.DataFrame,
    sign: float,
    candidate: str,
    baseline: str,
    asked: Asked,
    remarks: list[str],
) -> Array | None:
    """Of the runs that both arms have; None where fewer than three have a partner."""
    first, second = (rows[rows["seed"] != ""].set_index("seed")["value"] for rows in (mine, other))
    if first.index.has_duplicates or second.index.has_duplicates:
        return None
    for arm, x, y in ((candidate, first, second), (baseline, second, first)):
        alone = [key for key in x.index if key not in y.index]
        if alone:
            remarks.append(
                f"{asked.pairing} {', '.join(alone[:5])}{', ...' if len(alone) > 5 else ''} only in {arm}: left out "
                f"of the "
                "pairs."
            )
    both = pd.concat([first, second], axis=1, join="inner").dropna().to_numpy()
    return sign * (both[:, 0] - both[:, 1]) if len(both) > 2 else None


def _paired(
    found: dict[str, Any], d: Array, mine: pd.DataFrame, other: pd.DataFrame, sign: float, asked: Asked
) -> None:
    """The t-test on differences; of folds with Nadeau and Bengio's correction, for they share training examples."""
    n, alpha, remarks = len(d), asked.alpha, found["remarks"]
    plain = paired_t(d, alpha)
    mean, sd = float(plain.mean), float(plain.sd)
    low, high, p = float(plain.ci_low), float(plain.ci_high), float(plain.p)
    if asked.pairing == "fold":
        k = int(pd.concat([mine, other])["seed"].nunique())
        corrected = folds.corrected_t(d, k, alpha)
        remarks.append(
            f"Folds share training examples: with Nadeau and Bengio's correction p = {corrected.p:.3g}, without it "
            f"{p:.3g}, which is too small."
        )
        low, high, p = float(corrected.ci_low), float(corrected.ci_high), float(corrected.p)
    found |= {
        "paired": asked.pairing,
        "n_pairs": n,
        "wins": int((d > 0).sum()),
        "sign_test_p": sign_test(d),
        "difference": estimate(mean, low, high, n),
        "p_value": p,
        "effect_size": effect_size(d, alpha)[1],
        "probability_of_improvement": probability_of_improvement(d, alpha),
        "more_runs_for_80_percent_power": max(0, math.ceil(pairs_needed(mean / sd, alpha=alpha)) - n)
        if mean and sd
        else None,
    }
    if asked.smallest_effect and asked.pairing == "seed":
        equal = tost(d, asked.smallest_effect, alpha)
        found["p_equivalence"] = float(equal.p)
    if asked.pairing == "seed" and n > 2:
        both = (
            mine.set_index("seed")["value"].to_frame("a").join(other.set_index("seed")["value"].to_frame("b")).dropna()
        )
        if both["a"].std() > 0 and both["b"].std() > 0:
            r = float(both["a"].corr(both["b"]))
            found["correlation_of_arms"] = r
            if r < 0.1:
                remarks.append(
                    f"Paired by seed, which gains nothing here (r = {r:.2f}): a seed does not make arms alike."
                )


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
        found["p_equivalence"] = unpaired.tost(a, b, asked.smallest_effect, asked.alpha).p


def _over_items(found: dict[str, Any], difference: float, asked: Asked) -> None:
    """One run of each: the z-test over items is about these two checkpoints, and about nothing else."""
    assert asked.errors is not None
    keys = ((found[arm], found["task"], found["metric"]) for arm in ("candidate", "baseline"))
    errors = [asked.errors.get(key, math.nan) for key in keys]
    se = math.hypot(*errors)
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
        "One training run an arm: seeds were not varied, so nothing is said of the two recipes. The interval "
        "is over the "
        "items of the test set, unpaired, and about these two checkpoints only."
    )


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
    elif "over" in found:
        how = "over items, one run an arm"
    place = f" on {found['task']}" if found["task"] else ""
    word = {
        "BETTER": "better than", "WORSE": "worse than", "EQUIVALENT": "equivalent to",
        "INCONCLUSIVE": "not shown to be better or worse than",
    }[found["verdict"]]  # fmt: skip
    return (
        f"{found['verdict']} (exploratory): {found['candidate']} is {word} {found['baseline']}{place} in "
        f"{found['metric']} "
        f"({found['direction']} is better): {scale * value:+.4g}{unit} [{scale * low:.4g}, {scale * high:.4g}] "
        f"({100 * (1 - alpha):g}% CI, {how}, p = {found['p_value']:.2g}{holm})."
    )


def _best(groups: Mapping[Any, pd.DataFrame], asked: Asked) -> list[dict[str, Any]]:
    """The best run of every arm beside what luck gives the best of as many equally good ones."""
    found = []
    for (task, metric), group in groups.items():
        sign = 1.0 if asked.higher[str(metric)] else -1.0
        for arm, rows in group.groupby("arm", sort=False):
            known = rows.dropna(subset=["value"])
            n = len(known)
            if n < 3:
                continue
            x = sign * known["value"].to_numpy()
            top, sd = int(x.argmax()), float(x.std(ddof=1))
            if sd == 0:
                continue
            z = (x[top] - x.mean()) / sd
            by_luck = float(x.mean() + expected_maximum(n) * sd)
            run = known.iloc[top]
            found.append(
                {
                    "arm": arm,
                    "task": task,
                    "metric": metric,
                    "run": run["seed"] or run["run"],
                    "value": float(sign * x[top]),
                    "tried": n,
                    "in_sd": float(z),
                    "expected_by_luck": sign * by_luck,
                    "expected_in_sd": expected_maximum(n),
                    "chance_of_as_much": (chance := float(-np.expm1(n * stats.norm.logcdf(z)))),
                    "sentence": "no golden seed: the best of as many equally good runs is as good by luck"
                    if chance > asked.alpha
                    else "better than luck explains: confirm it on fresh seeds, or with fresh data",
                    "elsewhere": _elsewhere(groups, str(task), str(metric), str(arm), run, asked),
                }
            )
    return found


def _elsewhere(
    groups: Mapping[Any, pd.DataFrame], task: str, metric: str, arm: str, run: pd.Series, asked: Asked
) -> list[dict[str, Any]]:
    """Where the best run of one metric stands by the others, and how far the two go together over all runs."""
    key = "seed" if run["seed"] else "run"
    here = groups[task, metric]
    mine = here[here["arm"] == arm].set_index(key)["value"]
    found = []
    for (other_task, other), group in groups.items():
        if other_task != task or other == metric:
            continue
        rows = group[group["arm"] == arm].dropna(subset=["value"]).set_index(key)["value"]
        if rows.index.has_duplicates or run[key] not in rows.index:
            continue
        order = rows.rank(ascending=not asked.higher[str(other)], method="min")
        both = pd.concat([mine, rows], axis=1, join="inner").dropna()
        r = float(np.corrcoef(both.to_numpy().T)[0, 1]) if len(both) > 2 and (both.std() > 0).all() else None
        found.append({"metric": other, "rank": int(order[run[key]]), "of": len(rows), "correlation": r})
    return found


def _arms(groups: Mapping[Any, pd.DataFrame]) -> list[dict[str, Any]]:
    """Runs, mean, spread and median of every arm; never a bare mean."""
    found = []
    for (task, metric), group in groups.items():
        for arm, rows in group.groupby("arm", sort=False):
            x = rows["value"].dropna().to_numpy()
            status = rows[rows["value"].isna()]["status"].str.lower()
            found.append(
                {
                    "arm": arm,
                    "task": task,
                    "metric": metric,
                    "n": len(x),
                    "mean": float(x.mean()) if len(x) else None,
                    "sd": float(x.std(ddof=1)) if len(x) > 1 else None,
                    "median": float(np.median(x)) if len(x) else None,
                    "failed": int(len(status)),
                    "diverged": int((status == "diverged").sum()),
                }
            )
    return found


def names(arms: Sequence[str]) -> str:
    """Arms as a list for people."""
    return ", ".join(arm or "(no name)" for arm in arms)
