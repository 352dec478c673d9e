"""What is asked of other people's runs: which arms, which way each metric is better, what makes pairs real."""

import re
from collections.abc import Sequence
from typing import Any

import pandas as pd

from infinito.judging.asked import Asked
from infinito.judging.judge import judge, names
from infinito.readers.direction import direction
from infinito.readers.figures import figures
from infinito.readers.results import Options, Results

BASELINES = {"baseline", "base", "control", "reference", "ref", "vanilla", "default", "original", "standard", "main"}


def asked_of(results: Results, options: Options, **asked: Any) -> dict[str, Any]:
    """What `judged` finds, without the runs."""
    return judged(results, options, **asked)[0]


def judged(
    results: Results,
    options: Options,
    *,
    baseline: str | None,
    candidates: Sequence[str],
    all_pairs: bool,
    higher: Sequence[str],
    lower: Sequence[str],
    paired: bool | None,
    smallest_effect: float | None,
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Judge what was read.

    Returns:
        The result of `infinito.judging.judge.judge`, to which read_as is added; and the runs, one a row.

    Raises:
        ValueError: an arm or metric that is not there; what can't be told and is to be said by a flag.
    """
    _contradictions(baseline, candidates, all_pairs, higher, lower, smallest_effect)
    runs, remarks = figures(results, options)
    if options.best_by and options.metric and options.best_by not in options.metric:
        runs = runs[runs["metric"] != options.best_by]
    if runs["value"].notna().sum() == 0:
        raise ValueError("found no figure of a finished run; allowed: at least one")
    arms = list(dict.fromkeys(runs["arm"]))
    for flag, wanted in (("baseline", [baseline] if baseline else []), ("candidate", candidates)):
        for arm in wanted:
            if arm not in arms:
                raise ValueError(f"--{flag}: found {arm!r}; allowed: {names(arms)}")
    chosen, said = _baseline(arms, baseline, all_pairs)
    if candidates:
        runs = runs[runs["arm"].isin([*candidates, chosen] if chosen is not None else candidates)]
    ways = {name: _way(name, higher, lower, options.metric) for name in dict.fromkeys(runs["metric"])}
    unknown = [name for name, way in ways.items() if way is None]
    if unknown:
        raise ValueError(
            f"metric {unknown[0]!r}: its name does not say whether higher is better; say it: --higher "
            f"{unknown[0]!r} or "
            f"--lower {unknown[0]!r}"
        )
    if smallest_effect is not None and len(ways) > 1:
        raise ValueError(
            f"--smallest-effect: found it with {len(ways)} metrics ({', '.join(ways)}), each with a unit of its own; "
            "allowed: with one (--metric NAME)"
        )
    _one_unit(runs)
    pairing = results.pairing if paired is None else None
    if paired:
        if (runs["seed"] == "").any():
            raise ValueError("--paired: found runs without a seed; allowed: with a column of seeds (--seed)")
        pairing = results.pairing or "seed"
    errors = None
    if results.errors is not None:
        keys = results.errors[["arm", "task", "metric"]].itertuples(index=False, name=None)
        errors = dict(zip(keys, results.errors["stderr"], strict=True))
    asked = Asked(chosen, {k: bool(v) for k, v in ways.items()}, results.units, pairing, smallest_effect, errors)
    result = judge(runs, asked)
    if not any(found["paired"] for found in result["comparisons"]):
        pairing = None
    counts = (
        runs.dropna(subset=["value"]).drop_duplicates(["arm", "task", "run", "seed"]).groupby("arm", sort=False).size()
    )
    read_as = {
        "arm": results.read_as.get("arm"),
        "seed": results.read_as.get("seed"),
        "metric": list(ways),
        "task": results.read_as.get("task"),
        "direction": {name: "higher" if way else "lower" for name, way in ways.items()},
        "paired": pairing,
        "baseline": chosen,
        "rows": len(results.table),
        "runs": {str(arm): int(n) for arm, n in counts.items()},
    }
    result["read_as"] = read_as | {"sentence": _read_as(read_as, results, said)}
    result["remarks"] = list(dict.fromkeys([*results.remarks, *remarks, *result["remarks"]]))
    if pairing is None and paired is None and len(arms) > 1 and errors is None:
        result["remarks"].append(
            "Nothing says which runs of two arms belong together"
            + (", as seeds of different tables don't" if (runs["seed"] != "").all() else ", for there is no seed")
            + ": not paired; pairs by file name or row order would be invented (--paired where equal seeds mean the "
            "same)."
        )
    if len(arms) == 1:
        result["remarks"].append(
            "There is one arm only: no comparison is possible, only how far its runs spread, and what its best "
            "one is worth."
        )
    return result, runs


def _contradictions(
    baseline: str | None,
    candidates: Sequence[str],
    all_pairs: bool,
    higher: Sequence[str],
    lower: Sequence[str],
    smallest_effect: float | None,
) -> None:
    """Raises ValueError where two flags contradict each other, or one makes no sense."""
    for name in set(higher) & set(lower):
        raise ValueError(f"--higher: found {name!r}, and --lower too; allowed: one of both")
    if all_pairs and baseline is not None:
        raise ValueError(f"--all-pairs: found --baseline {baseline!r} beside it; allowed: one of both")
    if baseline is not None and baseline in candidates:
        raise ValueError(f"--candidate: found {baseline!r}, which is the baseline; allowed: another arm")
    if smallest_effect is not None and not smallest_effect > 0:
        raise ValueError(f"--smallest-effect: found {smallest_effect:g}; allowed: a number above 0")


SHARES = re.compile(r"(?i)(^|[^a-z])(acc|accuracy|f1|auc|auroc|precision|recall|iou|dice|map|genauigkeit)([^a-z]|$)")


def _one_unit(runs: pd.DataFrame) -> None:
    """Raises ValueError where one arm has shares and another one percentages of the same metric."""
    for (metric, task), here in runs.dropna(subset=["value"]).groupby(["metric", "task"], sort=False):
        if not SHARES.search(str(metric)):
            continue
        ends = here.groupby("arm", sort=False)["value"].agg(["min", "max"])
        small, large = ends[ends["max"] <= 1], ends[(ends["min"] > 1) & (ends["max"] <= 100)]
        if len(small) and len(large):
            raise ValueError(
                f"{' '.join(filter(None, map(str, (metric, task))))}: found {small['max'].iloc[0]:g} of "
                f"{small.index[0]} beside {large['max'].iloc[0]:g} of {large.index[0]}: shares beside percentages; "
                "allowed: one unit"
            )


def _baseline(arms: Sequence[str], wanted: str | None, all_pairs: bool) -> tuple[str | None, str]:
    if wanted is not None:
        return wanted, f"baseline = {wanted}"
    if all_pairs or len(arms) == 1:
        return None, "all pairs" if len(arms) > 1 else "one arm"
    known = [arm for arm in arms if arm.lower() in BASELINES]
    if len(known) == 1:
        return known[0], f"baseline = {known[0]} (otherwise --baseline)"
    raise ValueError(
        f"baseline: found the arms {names(arms)}; say which is the baseline: --baseline ARM, or --all-pairs"
    )


def _way(name: str, higher: Sequence[str], lower: Sequence[str], chosen: Sequence[str]) -> bool | None:
    if name in higher:
        return True
    if name in lower:
        return False
    found = direction(name)
    return None if found is None else found == "higher"


def _read_as(read_as: dict[str, Any], results: Results, said: str) -> str:
    """What was taken for what, in one line, with the flags that say otherwise."""
    ways = ", ".join(f"{name} ({way} is better)" for name, way in read_as["direction"].items())
    parts = [f"{key} = {read_as[key]}" for key in ("arm", "task", "seed") if read_as[key]]
    runs = " + ".join(f"{n}" for n in read_as["runs"].values())
    pairs = (
        [f"paired by {read_as['paired']}" if read_as["paired"] else "not paired"] if len(read_as["runs"]) > 1 else []
    )
    flags = " ".join(f"--{key} COLUMN" for key in ("arm", "seed") if read_as[key]) or "--arm COLUMN"
    return f"read as: {', '.join(parts + [f'metric = {ways}', f'{runs} runs', *pairs, said])}; otherwise {flags} ..."
