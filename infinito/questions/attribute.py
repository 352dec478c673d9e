"""Why do runs differ? What explains how much of the variance in a grid of init seeds x data seeds, and how surely.

A balanced grid is judged by the analysis of variance (`anova`). With missing runs only point estimates are left, by
restricted maximum likelihood (`reml`). What a design does not replicate cannot be told apart and is reported as one
component: with one run per cell that is `interaction_and_residual`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from infinito.statistics.anova import (
    blup,
    components,
    crossed_test,
    f_test,
    grid,
    icc,
    intervals,
    mean_squares,
    share_intervals,
)
from infinito.statistics.paired import Array, Estimate, estimate
from infinito.statistics.reml import reml, unbalanced_reml

RELIABLE_SEEDS = 5  # of both kinds, for the crossed test to hold its level
SOURCES = {
    "init": "initialisation",
    "data": "the data seed",
    "interaction": "the interaction of both",
    "interaction_and_residual": "interaction and residual",
    "residual": "the residual",
    "noise": "the noise seed",
    "nondeterminism": "nondeterminism",
}


def _replicated(y: Array, within: Sequence[str]) -> tuple[Array, list[str], dict[str, int]]:
    """Leaves out what does not replicate anything.

    Args:
        y: [I, J, and an axis for every name of `within`], not a number where a run is missing.

    Returns:
        (y without such axes, the names of those that stay, {name: degrees of freedom} of the axes whose replicates are
        all equal bit for bit: these are known to bring no variance).
    """
    names, constant = list(within), {}
    for axis in range(y.ndim - 1, 1, -1):
        present = np.isfinite(y).any(tuple(range(axis + 1, y.ndim)))
        one = np.fmax.reduce(y, axis=axis)  # a replicate that is there
        if (present.sum(-1) > 1).any():
            innermost = axis == y.ndim - 1
            if not innermost or not (np.isnan(y) | (y == np.expand_dims(one, axis))).all():
                continue
            constant[names[axis - 2]] = int(present.sum() - present.any(-1).sum())
        y = one
        del names[axis - 2]
    return y, names, constant


def _known(x: ArrayLike) -> float | None:
    return float(x) if np.isfinite(x) else None  # type: ignore[arg-type]


def _without_effect(y: Array) -> list[str]:
    """The seeds, init or data, that change no run: for each of the others all runs are equal bit for bit.

    Args:
        y: a grid [I, J, ..], not a number where a run is missing.
    """
    found = []
    for axis, name in enumerate(("init", "data")):
        one = np.fmax.reduce(y, axis=axis, keepdims=True)  # a run that is there
        if (np.isnan(y) | (y == one)).all():
            found.append(name)
    return found


def _balanced(y: Array, within: Sequence[str], alpha: float) -> dict[str, Any]:
    """The result of `attribute` for a complete grid, by analysis of variance."""
    ms = mean_squares(y, within)
    raw, limits, shares, pooled = components(ms), intervals(ms, alpha), share_intervals(ms, alpha), reml(ms)
    parts: dict[str, Estimate] = {}
    for name, stratum in ms.strata.items():
        low, high = (max(float(x), 0.0) for x in limits[name])
        share_low, share_high = (float(x) if math.isfinite(x) else None for x in shares[name])
        parts[name] = estimate(max(float(raw[name]), 0.0), low, high, stratum.df) | {
            "raw": float(raw[name]),
            "reml": pooled[name],
            "share_ci_low": share_low,
            "share_ci_high": share_high,
        }
    tests: dict[str, float | None] = {}
    for name, (f, p) in f_test(ms).items():
        tests |= {f"F_{name}": _known(f), f"p_{name}": _known(p)}
    crossed = crossed_test(ms, alpha)
    more = [
        f"{RELIABLE_SEEDS - n} more {kind} seed{'s' * (RELIABLE_SEEDS - n > 1)}"
        for n, kind in zip(y.shape, ("init", "data"), strict=False)
        if n < RELIABLE_SEEDS
    ]
    return {
        "method": "ANOVA",
        "components": parts,
        **tests,
        "grand_mean": float(ms.grand_mean),
        "crossed": estimate(float(crossed.mean), float(crossed.ci_low), float(crossed.ci_high), y.size)
        | {
            "se": float(crossed.se),
            "t": _known(crossed.t),
            "df": float(crossed.df),
            "p_value": float(crossed.p),
            "reliable": not more,
            "note": f"needs at least {RELIABLE_SEEDS} init and {RELIABLE_SEEDS} data seeds: run {' and '.join(more)}"
            if more
            else None,
        },
        "icc": {name: _known(x) for name, x in icc(ms).items()},
        "blup_init": [float(x) for x in blup(grid(y))],
        "note": None,
    }


def _unbalanced(y: Array, within: Sequence[str]) -> dict[str, Any]:
    """The result of `attribute` for a grid with missing runs: point estimates only."""
    present = np.isfinite(y)
    cells = np.asarray(present.any(tuple(range(2, y.ndim))))
    for axis, name, other in ((1, "init", "data"), (0, "data", "init")):
        several = int((cells.sum(axis) >= 2).sum())
        if several < 2:
            raise ValueError(
                f"found {several} {name} seeds that were run with 2 or more {other} seeds: at least 2 are needed"
            )
    inits, datas = int(cells.any(1).sum()), int(cells.any(0).sum())
    # sets of runs that share all seeds but those further inside; the differences of their number are degrees of freedom
    sets = [int(present.any(tuple(range(depth, y.ndim))).sum()) for depth in range(2, y.ndim + 1)]
    crossed_df = sets[0] - inits - datas + 1
    if crossed_df < 1:
        raise ValueError(
            f"found {sets[0]} cells with runs, of {inits} init and {datas} data seeds: {inits + datas} are needed"
        )
    fitted, mean, converged = unbalanced_reml(y, within)
    df = [inits - 1, datas - 1, crossed_df, *(int(x) for x in np.diff(sets))]
    nothing = {"raw": None, "share_ci_low": None, "share_ci_high": None}
    parts = {
        name: estimate(value, math.nan, math.nan, n) | nothing | {"reml": value}
        for (name, value), n in zip(fitted.items(), df, strict=True)
    }
    return {
        "method": f"REML, unbalanced: {present.sum()} of {y.size} {'runs' if within else 'cells'}",
        "components": parts,
        **{f"{kind}_{name}": None for name in list(fitted)[:-1] for kind in ("F", "p")},
        "grand_mean": mean,
        "crossed": None,
        "icc": None,
        "blup_init": None,
        "note": None if converged else "the REML fit did not converge: take its values as rough",
    }


def _widen(parts: dict[str, Estimate], idle: Sequence[str]) -> None:
    """Take back what components [0, 0] of seeds that change nothing would claim of all other seeds.

    A few seeds that are equal do not show how large the variance over fresh ones is, nor any share of it.
    """
    for name, part in parts.items():
        part |= {"share_ci_low": 0.0, "share_ci_high": 1.0}
        if name in idle or name.startswith("interaction"):
            part |= {"ci_low": None, "ci_high": None}


def _sentence(result: Mapping[str, Any], idle: Sequence[str], alpha: float) -> str:
    """Which source explains how much, in one sentence; a source whose F test says nothing is not said to matter."""
    parts: dict[str, Estimate] = result["components"]
    if not any(part["value"] for part in parts.values()):
        return (
            "All runs are equal: there is no variance to explain, and neither the init seed nor the data seed decides "
            "anything here."
        )

    def share(name: str) -> str:
        part = parts[name]
        middle, low, high = (100 * (part[key] or 0.0) for key in ("share", "share_ci_low", "share_ci_high"))
        return f"{middle:.0f}%" if part["share_ci_low"] is None else f"{middle:.0f}% [{low:.0f}%, {high:.0f}%]"

    ranked = sorted(parts, key=lambda name: -(parts[name]["value"] or 0.0))
    if result["method"] != "ANOVA":
        shares = ", ".join(f"{SOURCES[name]} {share(name)}" for name in ranked)
        return f"Some runs are missing, so no source is shown to matter; estimated shares of the variance: {shares}."
    if idle:
        shares = ", ".join(f"{share(name)} is due to {SOURCES[name]}" for name in ranked if parts[name]["value"])
        nothing = (f"all runs of these {x} seeds are equal: the {x} seed decides nothing here" for x in idle)
        return f"Of the variance between runs {shares}; {'; '.join(nothing)}."
    p = {name: result[f"p_{name}"] for name in parts if result.get(f"p_{name}") is not None}
    # the innermost source has no test, and needs none: it is what is left when nothing else matters
    leading, *others = (name for name in ranked if p.get(name, 0.0) < alpha and parts[name]["value"])
    largest = " (the largest estimated share)" if leading == ranked[0] and others else ""
    due = [f"{share(leading)} is due to {SOURCES[leading]}{largest}", *(f"{share(x)} to {SOURCES[x]}" for x in others)]
    unknown = [f"; {SOURCES[x]} is not shown to matter (F test p = {p[x]:.2g})" for x in p if p[x] >= alpha]
    return f"Of the variance between runs {', '.join(due)}{''.join(unknown)}."


def attribute(
    y: ArrayLike,
    *,
    third: Literal["residual", "noise", "nondeterminism"] = "residual",
    alpha: float = 0.05,
) -> dict[str, Any]:
    """Where does the variance between runs come from?

    Args:
        y: losses or paired differences of a grid [I, J], [I, J, K] or [I, J, N, R]: init seeds, data seeds, noise seeds
            of a cell, reruns of identical seeds. Not a number where a run is missing.
        third: what the third axis of three is: noise seeds, reruns ("nondeterminism"), or not said.
        alpha: 1 - confidence of the intervals, and level of the tests in `sentence`.

    Returns:
        JSON-ready dict:
        method: "ANOVA", or "REML, unbalanced: n of N cells" (runs, where cells are replicated) if some are missing.
        components: init, data, interaction (it holds the noise of a cell, and the nondeterminism, unless these are
            replicated; without any replicates its name is interaction_and_residual), then those of residual, noise and
            nondeterminism that are replicated. Each an estimate of a variance, value and limits clipped at 0,
            n = degrees of freedom, and `raw` (may be negative), `share` (of the sum of the values), `share_ci_low`,
            `share_ci_high` (see `share_intervals`) and `reml`.
        deterministic: are reruns of identical seeds equal bit for bit? None without reruns. Replicates that are all
            equal are none: their component is 0 with limits 0, and all else is computed from one run of each.
        F_init, p_init, F_data, p_data, and the same for every other source but the innermost: does it matter at all?
            None where nothing says how far chance goes: of seeds that change nothing there is no test, their component
            is 0 with limits None, and all shares have the limits 0 and 1.
        grand_mean: mean of all runs.
        crossed: estimate of the grand mean over fresh seeds, n = number of runs, and se, t, df, p_value, `reliable` (at
            least 5 seeds of both kinds), `note` (what to run otherwise, or None).
        icc: {A1, C1, Ck}; blup_init: predicted effect of every init seed, in the unit of y.
        sentence: the answer in plain words.
        note: None, or a warning about the fit.
        With missing runs there are point estimates only: value = reml, and limits, raw, F_, p_, crossed, icc and
        blup_init are None; grand_mean is that of the fitted model.

    Raises:
        ValueError: another number of axes, fewer than 2 init or data seeds (with missing runs: that were run with 2 or
            more of the other, or too few cells in all), an infinite value, and see `unbalanced_reml`.
    """
    y = np.asarray(y, float)
    grid(np.where(np.isnan(y), 0.0, y))
    named = ([], [third], ["noise", "nondeterminism"])[y.ndim - 2]
    y, within, constant = _replicated(y, named)
    result = _balanced(y, within, alpha) if np.isfinite(y).all() else _unbalanced(y, within)
    parts, idle = result["components"], _without_effect(y)
    if constant and not within:  # there is no residual that the interaction could be mixed with
        parts["interaction"] = parts.pop("interaction_and_residual")  # the last one, so the order stays
    for name in named:
        if name in constant:
            parts[name] = estimate(0.0, 0.0, 0.0, constant[name]) | {"raw": 0.0, "reml": 0.0}
            parts[name] |= {"share_ci_low": 0.0, "share_ci_high": 0.0}
    total = sum(part["value"] for part in parts.values())
    for part in parts.values():
        part["share"] = part["value"] / total if total > 0 else None
    if idle and result["method"] == "ANOVA" and total > 0:
        _widen({name: part for name, part in parts.items() if name not in constant}, idle)
        result |= {key: None for key in result if key.startswith(("F_", "p_"))}
    reruns = "nondeterminism" in within or "nondeterminism" in constant
    result["deterministic"] = "nondeterminism" in constant if reruns else None
    result["sentence"] = _sentence(result, idle, alpha)
    return result
