"""Golden seeds: select an init seed on one grid, confirm it on fresh seeds, and know what luck alone looks like.

Three claims are kept apart: these *weights* are good (a held-out test set shows that, it says nothing about seeds);
this *init seed* is good on new data seeds (the subject of this file); this *cell* of the grid is special (the best of
I x J single runs, which luck always produces). Picking the best of many is a biased estimate of the best, so selection
and confirmation never share a data seed, and a control never serves twice.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import special, stats

from infinito.attribute import f_test, grid, mean_squares, shrinkage
from infinito.compare import Array, estimate, expected_maximum, paired_t

Status = Literal["GOLDEN_CONFIRMED", "GOLDEN_REFUTED", "NOT_CONFIRMED", "INVALID"]

CONFIRMATION_SEEDS = 10


def expected_best(values: ArrayLike, n: int, *, replacement: bool = True) -> float:
    """Expected maximum of n draws from the observed `values` (Dodge et al. 2019; unbiased: Tang et al. 2020).

    Args:
        values: scores [N], larger = better (pass -loss).
        n: size of the sample, 1 <= n <= N; beyond N / 2 it says more about the few best values than about the method.
        replacement: draw with replacement, else without: the unbiased estimate.

    Raises:
        ValueError: n outside 1..N.
    """
    v = np.sort(np.asarray(values, float))
    size = len(v)
    if not 1 <= n <= size:
        raise ValueError(f"found n = {n}: the best of n draws from {size} values needs n from 1 to {size}")
    rank = np.arange(size + 1)
    below = (rank / size) ** n if replacement else special.comb(rank, n) / special.comb(size, n)
    return float(v @ np.diff(below))


def expected_best_curve(values: ArrayLike) -> list[float]:
    """Unbiased `expected_best` of n = 1 .. N // 2 draws from values [N]: what trying n seeds is worth."""
    return [expected_best(values, n, replacement=False) for n in range(1, len(np.asarray(values)) // 2 + 1)]


def naive_gain(y: ArrayLike) -> Array:
    """Gain of every init seed over the mean of all, in nats, larger = better; biased for the seed that is picked.

    Args:
        y: losses of grids [..., I, J, K].

    Returns:
        [..., I].
    """
    row = np.asarray(y, float).mean((-2, -1))
    return row.mean(-1, keepdims=True) - row


def blup_gain(y: ArrayLike) -> Array:
    """`naive_gain` shrunken by its reliability, max(0, 1 - MS_interaction / MS_init): empirical Bayes (Robbins 1956).

    Nearly free of selection bias, and the estimate to report.
    """
    return shrinkage(mean_squares(y))[..., None] * naive_gain(y)


def james_stein_gain(y: ArrayLike) -> Array:
    """`naive_gain` by the positive-part James-Stein estimator (Efron & Morris 1973): shrinks less than BLUP."""
    ms = mean_squares(y)
    less = max(ms.shape[0] - 3, 0) / (ms.shape[0] - 1)
    noise = np.where(ms.init > 0, ms.interaction / np.where(ms.init > 0, ms.init, 1.0), 1.0)
    return np.maximum(1 - less * noise, 0.0)[..., None] * naive_gain(y)


def select(y: ArrayLike) -> dict[str, Any]:
    """Rank the init seeds of a selection grid by their mean loss over data seeds.

    Args:
        y: losses of one arm [I, J] or [I, J, K], nats per token.

    Returns:
        JSON-ready dict:
        ranking: one entry per init seed, best first: index (row of y), mean_loss, naive_gain, blup_gain,
            james_stein_gain (gains over the mean of all init seeds, nats, larger = better).
        best: the first of them, with naive_gain tagged by `naive_gain_is: "selection-biased"`.
        expected_best_by_luck: the naive gain that the best of I init seeds shows on average if init seeds do not
            matter at all: E[max of I] * sqrt(MS_interaction / (J K)).
        F_init, p_init: is there any lasting difference between init seeds to select?
        expected_best_curve: mean loss expected of the best of n = 1 .. I // 2 init seeds on this grid.

    Raises:
        ValueError: as `attribute.grid`.
    """
    y = grid(y)
    ms = mean_squares(y)
    inits, repeats = y.shape[0], y.shape[1] * y.shape[2]
    mean_loss = y.mean((1, 2))
    gains = {"naive_gain": naive_gain(y), "blup_gain": blup_gain(y), "james_stein_gain": james_stein_gain(y)}
    ranking: list[dict[str, Any]] = [
        {"index": int(i), "mean_loss": float(mean_loss[i])} | {name: float(gain[i]) for name, gain in gains.items()}
        for i in np.argsort(mean_loss, kind="stable")
    ]
    f, p = (float(x) for x in f_test(ms)["init"])
    return {
        "ranking": ranking,
        "best": ranking[0] | {"naive_gain_is": "selection-biased"},
        "expected_best_by_luck": expected_maximum(inits) * math.sqrt(ms.interaction / repeats),
        "F_init": f if math.isfinite(f) else None,
        "p_init": p,
        "expected_best_curve": [-x for x in expected_best_curve(-mean_loss)],
    }


def protocol_hash(protocol: dict[str, Any]) -> str:
    """SHA-256 of the canonical JSON of a confirmation protocol: register it before the first confirmation run.

    Raises:
        TypeError, ValueError: the protocol holds what JSON does not.
    """
    text = json.dumps(protocol, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _fault(
    golden_init: int,
    data_seeds: Sequence[int],
    control_inits: Sequence[Sequence[int]],
    selection_inits: Sequence[int],
    selection_data_seeds: Sequence[int],
) -> str | None:
    """Why a confirmation on these seeds proves nothing, or None."""
    controls = [seed for row in control_inits for seed in row]
    reused_data = sorted(set(data_seeds) & set(selection_data_seeds))
    reused_controls = sorted(set(controls) & {golden_init, *selection_inits})
    if len(data_seeds) < CONFIRMATION_SEEDS:
        return f"found {len(data_seeds)} data seeds, a confirmation needs at least {CONFIRMATION_SEEDS}"
    if len(set(data_seeds)) < len(data_seeds):
        return "a data seed occurs twice, the data seeds of a confirmation must all differ"
    if reused_data:
        return f"data seed {reused_data[0]} was used in the selection, a confirmation needs fresh data seeds"
    if reused_controls:
        return f"control init seed {reused_controls[0]} was used in the selection, controls must be fresh"
    if len(set(controls)) < len(controls):
        return "a control init seed occurs twice, every data seed needs its own controls"
    return None


def confirm(
    golden_loss: ArrayLike,
    control_loss: ArrayLike,
    *,
    golden_init: int,
    data_seeds: Sequence[int],
    control_inits: Sequence[Sequence[int]],
    selection_inits: Sequence[int],
    selection_data_seeds: Sequence[int],
    registered: bool,
    margin_useful: float,
    margin: float = 0.0,
    alpha: float = 0.025,
) -> dict[str, Any]:
    """Is the selected init seed better than other init seeds on fresh data seeds?

    At each fresh data seed the golden seed meets m control init seeds that occur nowhere else. Given the golden seed
    the differences d = mean loss of the controls - loss of the golden seed are then independent, the data seed's own
    effect cancels, and the one-sided t-test is exact. Shared controls would confirm 13 % of exactly average seeds at
    a level of 2.5 %.

    Args:
        golden_loss: losses of the golden seed [n_c], nats per token, one per data seed.
        control_loss: losses of the controls [n_c, m], same data seeds.
        golden_init: the selected init seed.
        data_seeds: the n_c data seeds.
        control_inits: the init seeds of the controls [n_c][m].
        selection_inits, selection_data_seeds: all seeds of the selection grid.
        registered: whether `protocol_hash` was written down before the first confirmation run.
        margin_useful: nats per token; the seed is refuted when its gain is shown to be smaller, declared beforehand.
        margin: nats per token; the gain must be shown to be at least this.
        alpha: one-sided level; divide it (Holm) when several seeds are forwarded.

    Returns:
        JSON-ready dict: status, sentence, reason (None unless INVALID), difference (estimate in nats, limits are
        one-sided 1 - alpha bounds), p_value (one-sided), wins, n_data_seeds, controls_per_data_seed, registered,
        margin, margin_useful, alpha. GOLDEN_CONFIRMED: p < alpha, lower bound >= margin and registered.
        GOLDEN_REFUTED: upper bound < margin_useful. INVALID: fewer than 10 data seeds, or seeds used before.

    Raises:
        ValueError: no data seed, shapes that do not fit one another or the seeds, or a loss that is not finite.
    """
    golden, control = np.asarray(golden_loss, float), np.asarray(control_loss, float)
    if golden.ndim != 1 or control.ndim != 2 or not len(golden) or len(golden) != len(control) or not control.shape[1]:
        raise ValueError(f"found losses of shapes {golden.shape} and {control.shape}: needed are [n] and [n, controls]")
    if len(data_seeds) != len(golden) or [len(row) for row in control_inits] != [control.shape[1]] * len(golden):
        raise ValueError(f"found {len(data_seeds)} data seeds for {control.shape} control losses: one seed per run")
    if not (np.isfinite(golden).all() and np.isfinite(control).all()):
        raise ValueError("found a loss that is not finite: score diverged runs at the declared cap")
    d = control.mean(1) - golden
    n = len(d)
    mean, p, low, high = float(d.mean()), math.nan, math.nan, math.nan
    if n >= 2:
        test = paired_t(d, 2 * alpha)
        p, low, high = float(stats.t.sf(test.t, test.df)), float(test.ci_low), float(test.ci_high)
    reason = _fault(golden_init, data_seeds, control_inits, selection_inits, selection_data_seeds)
    facts = (
        f"over {n} fresh data seeds its loss is {abs(mean):.3g} nats per token {'lower' if mean >= 0 else 'higher'} "
        f"than that of {control.size} fresh init seeds "
        f"({100 * (1 - alpha):g}% bounds of the gain {low:.3g} and {high:.3g}, one-sided p = {p:.2g})"
    )
    useless = f"gain is shown to be below the useful {margin_useful:.3g} nats per token"
    status: Status
    if reason is not None:
        status, sentence = "INVALID", f"This confirmation proves nothing: {reason}."
    elif p < alpha and low >= margin and registered:
        but = f", but its {useless}" if high < margin_useful else ""
        status, sentence = "GOLDEN_CONFIRMED", f"Init seed {golden_init} is golden{but}: {facts}."
    elif high < margin_useful:
        status, sentence = "GOLDEN_REFUTED", f"Init seed {golden_init} is not golden, its {useless}: {facts}."
    else:
        unregistered = "" if registered else "; the protocol was not registered before the runs"
        status, sentence = "NOT_CONFIRMED", f"Init seed {golden_init} is not confirmed: {facts}{unregistered}."
    return {
        "status": status,
        "sentence": sentence,
        "reason": reason,
        "difference": estimate(mean, low, high, n),
        "p_value": p if n >= 2 else None,
        "wins": int((d > 0).sum()),
        "n_data_seeds": n,
        "controls_per_data_seed": control.shape[1],
        "registered": registered,
        "margin": margin,
        "margin_useful": margin_useful,
        "alpha": alpha,
    }
