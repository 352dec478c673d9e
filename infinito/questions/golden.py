"""Golden seeds: select an init seed on one grid, confirm it on fresh seeds, and know what luck alone looks like.

Three claims are kept apart: these *weights* are good (a held-out test set shows that, it says nothing about seeds);
this *init seed* is good on new data seeds (the subject of this file); this *cell* of the grid is special (the best of
I x J single runs, which luck always produces). Picking the best of many is a biased estimate of the best, so selection
and confirmation never share a data seed, and a control never serves twice.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, special, stats

from infinito.statistics.anova import f_test, grid, mean_squares, shrinkage
from infinito.statistics.paired import Array, Estimate, adjust, estimate, expected_maximum, paired_t, ratio_to_error
from infinito.storage import canonical, sha256
from infinito.tasks.measure import levels, moved
from infinito.tasks.task import Metric

Status = Literal["GOLDEN_CONFIRMED", "GOLDEN_REFUTED", "NOT_CONFIRMED", "INVALID"]

CONFIRMATION_SEEDS = 10
CELL_RERUNS = 10  # of a single cell, before anything can be said about it


class Candidate(NamedTuple):
    """What is put forward as golden: an init seed, or initial weights that are no seed's."""

    name: str  # how it was found: "selected", "best of ten", "checkpoint"
    golden_init: int | None  # None: initial weights from a file
    loss: ArrayLike  # [n_c], one per fresh data seed


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
    """Gain of every init seed over the mean of all, larger = better; biased for the seed that is picked.

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


def conditional_gain(y: ArrayLike) -> float:
    """Gain of the best init seed of one grid [I, J, K], given that it beat the runner-up.

    The conditional maximum likelihood estimate, after Zhong & Prentice (2008). Less biased than `naive_gain`,
    but where init seeds do matter it is farther from the truth.
    """
    ms = mean_squares(y)
    second, first = np.sort(naive_gain(y))[-2:]
    se = math.sqrt(ms.interaction / math.prod(ms.shape[1:]))
    if se == 0 or first == 0:
        return float(first)

    def slope(gain: float) -> float:
        z = (gain - second) / se
        return float((first - gain) / se - math.exp(-z * z / 2 - special.log_ndtr(z)) / math.sqrt(2 * math.pi))

    return 0.0 if slope(0.0) <= 0 else float(optimize.brentq(slope, 0.0, first))


def select(y: ArrayLike) -> dict[str, Any]:
    """Rank the init seeds of a selection grid by their mean loss over data seeds.

    Args:
        y: losses of one arm [I, J], [I, J, K] or [I, J, N, R]; all gains are in their unit.

    Returns:
        JSON-ready dict:
        ranking: one entry per init seed, best first: index (row of y), mean_loss, naive_gain, blup_gain,
            james_stein_gain (gains over the mean of all init seeds, larger = better).
        best: the first of them, with conditional_mle_gain, and naive_gain tagged by
            `naive_gain_is: "selection-biased"`.
        expected_best_by_luck: the naive gain that the best of I init seeds shows on average if init seeds do not
            matter at all: E[max of I] * sqrt(MS_interaction / (J K)).
        best_cell: the cell of least loss: index [i, j], gain over the mean of all cells, and expected_best_by_luck, the
            gain that the best of I J equal cells shows on average: E[max of I J] * SD of the cells.
        F_init, p_init: is there any lasting difference between init seeds to select? None where there is nothing to
            measure it by: all runs of a data seed, or of an init seed, are equal.
        note: None, or that there is nothing to select.
        expected_best_curve: mean loss expected of the best of n = 1 .. I // 2 init seeds on this grid.

    Raises:
        ValueError: as `anova.grid`.
    """
    y = grid(y)
    ms = mean_squares(y)
    inits, repeats = y.shape[0], y.shape[1] * y.shape[2]
    mean_loss, cell = y.mean((1, 2)), y.mean(2)
    best_cell = [int(x) for x in np.unravel_index(cell.argmin(), cell.shape)]
    gains = {"naive_gain": naive_gain(y), "blup_gain": blup_gain(y), "james_stein_gain": james_stein_gain(y)}
    ranking: list[dict[str, Any]] = [
        {"index": int(i), "mean_loss": float(mean_loss[i])} | {name: float(gain[i]) for name, gain in gains.items()}
        for i in np.argsort(mean_loss, kind="stable")
    ]
    f, p = (float(x) for x in f_test(ms)["init"])
    return {
        "ranking": ranking,
        "best": ranking[0] | {"conditional_mle_gain": conditional_gain(y), "naive_gain_is": "selection-biased"},
        "expected_best_by_luck": expected_maximum(inits) * math.sqrt(ms.interaction / repeats),
        "best_cell": {
            "index": best_cell,
            "gain": float(cell.mean() - cell.min()),
            "expected_best_by_luck": expected_maximum(cell.size) * float(cell.std(ddof=1)),
        },
        "F_init": f if math.isfinite(f) else None,
        "p_init": p if math.isfinite(p) else None,
        "note": "all runs of these init seeds are equal: the init seed decides nothing here"
        if (y == y[:1]).all()
        else None,
        "expected_best_curve": [-x for x in expected_best_curve(-mean_loss)],
    }


def protocol_hash(protocol: dict[str, Any]) -> str:
    """SHA-256 of the canonical JSON of a confirmation protocol: register it before the first confirmation run.

    Raises:
        TypeError, ValueError: the protocol holds what JSON does not.
    """
    return sha256(canonical(protocol))


def _fault(
    golden_inits: Sequence[int],
    data_seeds: Sequence[int],
    control_inits: Sequence[Sequence[int]],
    selection_inits: Sequence[int],
    selection_data_seeds: Sequence[int],
) -> str | None:
    """Why a confirmation on these seeds proves nothing, or None."""
    controls = [seed for row in control_inits for seed in row]
    reused_data = sorted(set(data_seeds) & set(selection_data_seeds))
    reused_controls = sorted(set(controls) & {*golden_inits, *selection_inits})
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
    candidates: Sequence[Candidate],
    control_loss: ArrayLike,
    *,
    metric: Metric,
    data_seeds: Sequence[int],
    control_inits: Sequence[Sequence[int]],
    selection_inits: Sequence[int],
    selection_data_seeds: Sequence[int],
    registered: bool,
    margin_useful: float,
    margin: float = 0.0,
    alpha: float = 0.025,
) -> list[dict[str, Any]]:
    """Are the candidates better than other init seeds on fresh data seeds? One answer each, for all at once.

    At each fresh data seed the candidate meets m control init seeds that occur nowhere else. Given the candidate the
    differences d = mean loss of the controls - loss of the candidate are then independent, the data seed's own effect
    cancels, and the one-sided t-test is exact. Shared controls would confirm 13 % of exactly average seeds at a level
    of 2.5 %. Several candidates meet the same controls, so their tests depend on one another; Holm's method (1979)
    allows for that: the chance that any useless candidate is confirmed is at most alpha.

    Args:
        candidates: the forwarded init seeds or initial weights, with their losses [n_c] at the data seeds.
        control_loss: losses of the controls [n_c, m], same data seeds.
        metric: what the losses measure, in words.
        data_seeds: the n_c data seeds.
        control_inits: the init seeds of the controls [n_c][m].
        selection_inits, selection_data_seeds: all seeds that took part in finding any of the candidates.
        registered: whether `protocol_hash` was written down before the first confirmation run.
        margin_useful: in the unit of the metric; a candidate is refuted when its gain is shown to be smaller, declared
            beforehand.
        margin: likewise, not negative; the gain must be shown to be more than this.
        alpha: one-sided level of all decisions together.

    Returns:
        JSON-ready dicts in the order of the candidates: name, golden_init_seed, status, sentence, reason (None unless
        INVALID), difference (estimate; limits are one-sided 1 - bound_alpha bounds that hold for all candidates
        at once), p_value (one-sided), p_holm (of "the gain is at most margin", adjusted for the number of candidates),
        wins, n_data_seeds, controls_per_data_seed, forwarded (number of candidates), registered, margin, margin_useful,
        alpha, bound_alpha (alpha / forwarded).
        INVALID: fewer than 10 data seeds, or seeds used before.
        GOLDEN_REFUTED: else, upper bound < margin_useful, however sure it is that the gain is more than margin.
        GOLDEN_CONFIRMED: else, p_holm < alpha and registered; for a single candidate that is: lower bound > margin. Of
        several, a confirmed one may have a lower bound below margin: the bounds pay for all, Holm's steps do not.

    Raises:
        ValueError: no candidate or data seed, a name or init seed twice, shapes that do not fit one another or the
            seeds, or a loss that is not finite.
    """
    names = [candidate.name for candidate in candidates]
    inits = [candidate.golden_init for candidate in candidates if candidate.golden_init is not None]
    if not candidates or len(set(names)) < len(names) or len(set(inits)) < len(inits):
        raise ValueError(f"found candidates {names} with init seeds {inits}: needed is at least one, and none twice")
    control, golden = np.asarray(control_loss, float), [np.asarray(candidate.loss, float) for candidate in candidates]
    shapes = {loss.shape for loss in golden}
    if control.ndim != 2 or not control.size or shapes != {control.shape[:1]}:
        found = ", ".join(map(str, [*sorted(shapes), control.shape]))
        raise ValueError(f"found losses of shapes {found}: needed are [n] of the candidates and [n, controls]")
    if len(data_seeds) != len(control) or [len(row) for row in control_inits] != [control.shape[1]] * len(control):
        raise ValueError(f"found {len(data_seeds)} data seeds for {control.shape} control losses: one seed per run")
    if not (np.isfinite(golden).all() and np.isfinite(control).all()):
        raise ValueError("found a loss that is not finite: score diverged runs at the declared cap")
    d = control.mean(1) - np.array(golden)
    n, several, bound_alpha = len(control), len(candidates) > 1, alpha / len(candidates)
    p = p_holm = low = high = [math.nan] * len(candidates)
    if n >= 2:
        test = paired_t(d, 2 * bound_alpha)
        over_margin = ratio_to_error(test.mean - margin, test.sd / math.sqrt(n))
        p, low, high = stats.t.sf(test.t, test.df).tolist(), test.ci_low.tolist(), test.ci_high.tolist()
        p_holm = stats.t.sf(over_margin, test.df).tolist()
        if several:
            p_holm = adjust(p_holm, "holm")
    reason = _fault(inits, data_seeds, control_inits, selection_inits, selection_data_seeds)
    useless = f"gain is shown to be below the useful {margin_useful:.3g} {metric.unit}"
    results: list[dict[str, Any]] = []
    for k, candidate in enumerate(candidates):
        mean = float(d[k].mean())
        who = f'The initialisation "{candidate.name}"'
        if candidate.golden_init is not None:
            who = f"Init seed {candidate.golden_init} ({candidate.name})"
        facts = (
            f"over {n} fresh data seeds its {metric.name} is {abs(mean):.3g} {metric.unit} "
            f"{moved(metric, mean)} than that of {control.size} fresh init seeds "
            f"({100 * (1 - bound_alpha):.4g}% bounds of the gain {low[k]:.3g} and {high[k]:.3g}, one-sided "
            f"p = {p[k]:.2g}{f', {p_holm[k]:.2g} by Holm for {len(candidates)} candidates' if several else ''})"
        )
        status: Status
        if reason is not None:
            status, sentence = "INVALID", f"This confirmation proves nothing: {reason}."
        elif high[k] < margin_useful:
            though = "for though it is better than other init seeds, " if p_holm[k] < alpha else ""
            status, sentence = "GOLDEN_REFUTED", f"{who} is not golden, {though}its {useless}: {facts}."
        elif p_holm[k] < alpha and registered:
            status, sentence = "GOLDEN_CONFIRMED", f"{who} is golden: {facts}."
        else:
            unregistered = "" if registered else "; the protocol was not registered before the runs"
            status, sentence = "NOT_CONFIRMED", f"{who} is not confirmed: {facts}{unregistered}."
        results.append(
            {
                "name": candidate.name,
                "golden_init_seed": candidate.golden_init,
                "status": status,
                "sentence": sentence,
                "reason": reason,
                "difference": estimate(mean, low[k], high[k], n),
                "p_value": p[k] if n >= 2 else None,
                "p_holm": p_holm[k] if n >= 2 else None,
                "wins": int((d[k] > 0).sum()),
                "n_data_seeds": n,
                "controls_per_data_seed": control.shape[1],
                "forwarded": len(candidates),
                "registered": registered,
                "margin": margin,
                "margin_useful": margin_useful,
                "alpha": alpha,
                "bound_alpha": bound_alpha,
            }
        )
    return results


def checkpoint_loss(losses: ArrayLike, weights: ArrayLike, alpha: float = 0.05) -> Estimate:
    """Loss of one set of weights with a t interval over examples, by the linearised ratio (Cochran 1977).

    Args:
        losses: summed over every example [N].
        weights: of every example [N], such as its scored tokens.

    Returns:
        Estimate, n = examples; the interval is None with 1 example.

    Raises:
        ValueError: shapes that differ, no weight at all, or a value that is not finite.
    """
    losses, weights = np.asarray(losses, float), np.asarray(weights, float)
    if losses.ndim != 1 or losses.shape != weights.shape or not weights.sum() > 0 or not np.isfinite(losses).all():
        found = f"{losses.shape}, {weights.shape}"
        raise ValueError(f"found losses and weights of shapes {found}: needed are finite [examples]")
    n, loss = len(losses), float(losses.sum() / weights.sum())
    if n < 2:
        return estimate(loss, math.nan, math.nan, n)
    error = math.sqrt(n) * float((losses - loss * weights).std(ddof=1) / weights.sum())
    reach = float(stats.t.isf(alpha / 2, n - 1)) * error
    return estimate(loss, loss - reach, loss + reach, n)


def claims(
    examples: tuple[ArrayLike, ArrayLike] | None,
    decisions: Sequence[Mapping[str, Any]],
    best_cell: Mapping[str, Any],
    *,
    metric: Metric,
    cell_seeds: tuple[int, int],
    deterministic: bool | None,
    unit: str = "documents",
    alpha: float = 0.05,
) -> dict[str, dict[str, Any]]:
    """The three claims about golden seeds, each with what it says and what it does not.

    Args:
        examples: losses and weights of the exported checkpoint on every test example [N] each, as in
            `checkpoint_loss`; None: there is no checkpoint.
        decisions: results of `confirm`.
        best_cell: of `select`.
        metric: what the losses measure, in words.
        cell_seeds: init seed and data seed of that cell.
        deterministic: whether reruns of identical seeds are equal bit for bit; None: nobody looked.
        unit: what test examples are called.
        alpha: 1 - confidence of the checkpoint's interval.

    Returns:
        JSON-ready {checkpoint, init_seed, cell}, each with claim ("G1", "G2", "G3") and sentence; checkpoint also with
        test_loss (estimate; None without one).

    Raises:
        ValueError: as `checkpoint_loss`.
    """
    cell = (
        f"The best cell of the grid, init seed {cell_seeds[0]} with data seed {cell_seeds[1]}, is "
        f"{best_cell['gain']:.3g} {metric.unit} better than the average cell; with the same spread luck alone would "
        f"make the best one {best_cell['expected_best_by_luck']:.3g} better."
    )
    needed = f"a claim about the cell needs {CELL_RERUNS} or more fresh reruns of it and of fresh cells"
    what = {
        True: "Reruns are equal bit for bit: the cell is just its weights, and a claim would be one about weights",
        False: f"Reruns differ: {needed}, and none is made",
        None: f"No run was repeated: if a rerun is equal bit for bit, the cell is just its weights, else {needed}",
    }[deterministic]
    return {
        "checkpoint": {"claim": "G1", **_of_weights(examples, metric, unit, alpha)},
        "init_seed": {"claim": "G2", "sentence": " ".join(str(decision["sentence"]) for decision in decisions)},
        "cell": {"claim": "G3", "sentence": f"{cell} {what}."},
    }


def _of_weights(
    examples: tuple[ArrayLike, ArrayLike] | None, metric: Metric, unit: str, alpha: float
) -> dict[str, Any]:
    """The claim about the exported checkpoint."""
    if examples is None:
        return {"sentence": "No weights are kept, and no claim is made about any.", "test_loss": None}
    loss = checkpoint_loss(*examples, alpha)
    shown, over = levels(metric, loss), f"over {loss['n']} test {unit}"
    if loss["ci_low"] is not None:
        over = f"[{shown['ci_low']:.4g}, {shown['ci_high']:.4g}] ({100 * (1 - alpha):g}% interval {over})"
    return {
        "sentence": f"These weights, selected on validation {metric.name}, have a test {metric.name} of "
        f"{shown['value']:.4g} {metric.unit} {over}. This says nothing about seeds.",
        "test_loss": loss,
    }
