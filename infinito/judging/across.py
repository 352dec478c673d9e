"""Statistics over several tasks and several arms, as pure functions.

The scores of an arm are one array of runs [n_t] for every task, in the same order of tasks for every arm, signed such
that a larger number is better. Runs are independent; arms may have other numbers of runs, and tasks too: each task
counts the same.

Intervals are those of a percentile bootstrap with 2000 draws (Efron & Tibshirani 1993), too narrow below some 10 runs.
In a stratified one the tasks are those there are, and runs are drawn within each task: what would other runs have given
(Agarwal et al. 2021)? In a hierarchical one tasks are drawn first: what would other tasks have given? The seed is set:
the same scores give the same bits, whatever the order of the runs. The n of an estimate is the number of tasks.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special, stats

from infinito.judging import unpaired
from infinito.statistics.paired import (
    Array,
    Estimate,
    adjust,
    estimate,
    over_spread,
    ratio_to_error,
    sign_test,
    wilcoxon,
)

DRAWS = 2000
SEED = 2021
BASELINE_NODES = 100  # for the mean of the baseline, from 0 to REACH standard errors
REACH = 8.5
LEAST_TASKS = 6  # signed ranks of 5 tasks cannot have p below .0625

Scores = Sequence[ArrayLike]


class Ranks(NamedTuple):
    """Ranks of the arms, 1 for the best; equal arms share the mean of their ranks."""

    mean: list[Estimate]  # [arm], over the tasks
    tasks: list[list[Estimate]]  # [task][arm]


class Profile(NamedTuple):
    """Share of the runs above every tau with a pointwise band, arrays [K]; the band is not a number with one run."""

    tau: Array
    share: Array
    low: Array
    high: Array


class Wins(NamedTuple):
    """Tasks on which the candidate is better, equal or worse, and p of the sign test."""

    wins: int
    ties: int
    losses: int
    p: float


class Against(NamedTuple):
    """One arm against the baseline: Welch's test, its p adjusted by Holm, and Dunnett's test with its interval."""

    difference: Estimate
    p: float
    p_holm: float
    p_dunnett: float
    dunnett_low: float
    dunnett_high: float


def _tasks(*arms: Scores) -> list[list[Array]]:
    """The runs of every arm and task in order of size, [arm][task]; at least one run each, all finite."""
    found = [[np.sort(np.asarray(runs, float)) for runs in arm] for arm in arms]
    if not found or not found[0] or any(len(arm) != len(found[0]) for arm in found):
        raise ValueError(
            f"found {', '.join(str(len(arm)) for arm in found)} tasks: every arm needs the same, 1 or more"
        )
    for arm in found:
        for task, runs in enumerate(arm):
            if runs.ndim != 1 or not len(runs) or not np.isfinite(runs).all():
                raise ValueError(f"found runs of task {task} of shape {runs.shape}: at least 1 needed, all finite")
    return found


def _one_run(*arms: list[Array]) -> bool:
    return any(len(runs) < 2 for arm in arms for runs in arm)


def _counts(n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """How often each of n runs is drawn, [DRAWS, n]."""
    drawn = rng.integers(n, size=(DRAWS, n)) + n * np.arange(DRAWS)[:, None]
    return np.bincount(drawn.ravel(), minlength=n * DRAWS).reshape(DRAWS, n).astype(float)


def _sums(counts: Array, x: Array) -> Array:
    """counts [DRAWS, n] times x [n, ...]; not by the threads of a matrix product, which may change the last bits."""
    return np.einsum("bn,n...->b...", counts, x)


def _interval(draws: Array, alpha: float) -> tuple[Array, Array]:
    low, high = np.quantile(draws, [alpha / 2, 1 - alpha / 2], axis=0)
    return low, high


def _certain(arms: Sequence[list[Array]], alpha: float) -> float:
    """What a mean of probabilities over tasks is at least, where all trials came out so.

    k trials of each of T tasks come out so with probability at most mean^(k T), for a geometric mean is no larger.
    """
    return float((alpha / 2) ** (1 / (len(arms[0]) * min(len(runs) for arm in arms for runs in arm))))


def interquartile_mean(scores: Scores, alpha: float = 0.05) -> Estimate:
    """Mean of the middle half of all runs of all tasks, with a stratified bootstrap (Agarwal et al. 2021).

    floor(N / 4) of N runs are cut off at each end. Where tasks have other numbers of runs, a run counts 1 / n_t, and
    the same share is cut off. Scores of different tasks must be normalised, so that they mean the same.

    Args:
        scores: of one arm, [task][run].

    Returns:
        estimate; with one run in a task the interval is None.
    """
    (arm,) = _tasks(scores)
    runs = np.concatenate(arm)
    order = np.argsort(runs, kind="stable")
    runs, cut = runs[order], len(runs) // 4 / len(runs)

    def of(weights: Array) -> Array:
        inside = np.clip(np.cumsum(weights[..., order], -1), cut, 1 - cut)  # of the weights up to here
        return (np.diff(inside, axis=-1, prepend=cut) * runs).sum(-1) / (1 - 2 * cut)

    value = float(of(np.concatenate([np.full(len(x), 1 / len(x) / len(arm)) for x in arm])))
    if _one_run(arm):
        return estimate(value, math.nan, math.nan, len(arm))
    rng = np.random.default_rng(SEED)
    draws = of(np.concatenate([_counts(len(x), rng) / len(x) / len(arm) for x in arm], axis=-1))
    low, high = _interval(draws, alpha)
    return estimate(value, float(low), float(high), len(arm))


def probability_of_improvement(candidate: Scores, baseline: Scores, alpha: float = 0.05) -> Estimate:
    """P(A > B) + P(A = B) / 2 of a run of each, averaged over tasks, with a stratified bootstrap (Agarwal et al. 2021).

    Nothing is drawn but what was seen, so arms that overlap nowhere would be certain: no limit is nearer to the end
    than that of Clopper & Pearson for as many disjoint pairs of runs, all won (see `unpaired`).

    Args:
        candidate, baseline: [task][run].

    Returns:
        estimate; with one run in a task the interval is None.
    """
    a, b = _tasks(candidate, baseline)
    won = [(1 + np.sign(x[:, None] - y)) / 2 for x, y in zip(a, b, strict=True)]
    value = float(np.mean([x.mean() for x in won]))
    if _one_run(a, b):
        return estimate(value, math.nan, math.nan, len(a))
    rng, draws = np.random.default_rng(SEED), np.zeros(DRAWS)
    for x in won:
        n, m = x.shape
        draws += (_sums(_counts(n, rng), x) * _counts(m, rng)).sum(-1) / (n * m * len(won))
    low, high = (float(x) for x in _interval(draws, alpha))
    certain = _certain([a, b], alpha)
    return estimate(value, max(0.0, min(low, certain)), min(1.0, max(high, 1 - certain)), len(a))


def spreads(arms: Sequence[Scores]) -> Array:
    """Root of the mean variance of the runs within the arms, one per task [T]: a unit that tasks can share.

    0 where no arm has a spread.

    Args:
        arms: [arm][task][run]; an arm with one run of a task says nothing about its spread.
    """
    found = _tasks(*arms)
    squares = [[x.var(ddof=1) for x in runs if len(x) > 1 and np.ptp(x) > 0] for runs in zip(*found, strict=True)]
    several = [sum(len(x) > 1 for x in runs) for runs in zip(*found, strict=True)]
    return np.sqrt([sum(square) / n if n else 0.0 for square, n in zip(squares, several, strict=True)])


def task_differences(candidate: Scores, baseline: Scores, scale: ArrayLike | None = None) -> Array:
    """Difference of the means of both arms in units of `scale`, one per task [T].

    Args:
        candidate, baseline: [task][run].
        scale: unit of every task [T], > 0; left out, the `spreads` of the two arms.

    Raises:
        ValueError: a task has no spread, so that its unit must be told.
    """
    a, b = _tasks(candidate, baseline)
    unit = spreads([candidate, baseline]) if scale is None else np.asarray(scale, float)
    if unit.shape != (len(a),) or not (np.isfinite(unit) & (unit > 0)).all():
        raise ValueError(f"found units {unit.tolist()} of {len(a)} tasks: one positive number each needed")
    return np.array([x.mean() - y.mean() for x, y in zip(a, b, strict=True)]) / unit


def mean_normalised_difference(
    candidate: Scores, baseline: Scores, scale: ArrayLike | None = None, alpha: float = 0.05
) -> Estimate:
    """Mean of `task_differences`, with a hierarchical bootstrap: tasks first, then runs (Davison & Hinkley 1997, 3.8).

    It is about tasks like these, and too narrow below about 10 of them. The units are taken as known.

    Returns:
        estimate; with one task the interval is None.
    """
    a, b = _tasks(candidate, baseline)
    value = float(task_differences(candidate, baseline, scale).mean())
    if len(a) < 2:
        return estimate(value, math.nan, math.nan, len(a))
    unit = spreads([candidate, baseline]) if scale is None else np.asarray(scale, float)
    rng = np.random.default_rng(SEED)
    task = rng.integers(len(a), size=(DRAWS, len(a)))
    draws = ((_drawn_means(a, task, rng) - _drawn_means(b, task, rng)) / unit[task]).mean(-1)
    low, high = _interval(draws, alpha)
    return estimate(value, float(low), float(high), len(a))


def _drawn_means(arm: list[Array], task: NDArray[np.int64], rng: np.random.Generator) -> Array:
    """Means of runs drawn anew for every drawn task; both arrays [DRAWS, T]."""
    n = np.array([len(x) for x in arm])
    runs = np.zeros((len(arm), n.max()))
    for row, x in zip(runs, arm, strict=True):
        row[: len(x)] = x
    many = n[task][..., None]
    drawn = runs[task[..., None], (rng.random((*task.shape, n.max())) * many).astype(int)]
    return np.where(np.arange(n.max()) < many, drawn, 0.0).sum(-1) / n[task]


def ranks(arms: Sequence[Scores], alpha: float = 0.05) -> Ranks:
    """Ranks of the arms by their mean on each task, and their mean over tasks, with a stratified bootstrap.

    Drawn anew, arms that are close change places: their ranks move to the middle. Every interval holds its estimate.

    Args:
        arms: [arm][task][run].

    Returns:
        Ranks; with one run in a task the intervals are None.
    """
    found = _tasks(*arms)
    count = len(found[0])
    seen = _ranked(np.array([[x.mean() for x in arm] for arm in found]))  # [arm, task]
    low, high = np.full((2, *seen.shape), math.nan)
    low_mean, high_mean = np.full((2, len(found)), math.nan)
    if not _one_run(*found):
        rng = np.random.default_rng(SEED)
        means = [[_sums(_counts(len(x), rng), x) / len(x) for x in arm] for arm in found]
        drawn = _ranked(np.array(means))  # [arm, task, DRAWS]
        low = np.minimum(seen, np.quantile(drawn, alpha / 2, axis=-1, method="lower"))
        high = np.maximum(seen, np.quantile(drawn, 1 - alpha / 2, axis=-1, method="higher"))
        low_mean, high_mean = _interval(drawn.mean(1).T, alpha)
        low_mean, high_mean = np.minimum(low_mean, seen.mean(1)), np.maximum(high_mean, seen.mean(1))
    mean = [estimate(*x, count) for x in zip(seen.mean(1), low_mean, high_mean, strict=True)]
    tasks = [
        [estimate(*x, 1) for x in zip(seen[:, task], low[:, task], high[:, task], strict=True)] for task in range(count)
    ]
    return Ranks(mean, tasks)


def _ranked(means: Array) -> Array:
    """Ranks along the first axis, 1 for the largest; ties share. Counting is faster than sorting for a few arms."""
    above = np.zeros(means.shape)
    for other in means:
        above += (1 + np.sign(other - means)) / 2
    return above + 0.5


def performance_profile(scores: Scores, tau: ArrayLike, alpha: float = 0.05) -> Profile:
    """Share of the runs above tau, averaged over tasks, with a pointwise stratified bootstrap (Agarwal et al. 2021).

    Args:
        scores: of one arm, normalised, [task][run].
        tau: [K].

    Returns:
        Profile; where all or none of the runs are above tau, the band is that of Clopper & Pearson for so many runs.
    """
    (arm,) = _tasks(scores)
    tau = np.atleast_1d(np.asarray(tau, float))
    above = [(x[:, None] > tau).astype(float) for x in arm]
    share = np.mean([x.mean(0) for x in above], axis=0)
    if _one_run(arm):
        return Profile(tau, share, np.full(len(tau), math.nan), np.full(len(tau), math.nan))
    rng, draws = np.random.default_rng(SEED), np.zeros((DRAWS, len(tau)))
    for x in above:
        draws += _sums(_counts(len(x), rng), x) / (len(x) * len(above))
    low, high = _interval(draws, alpha)
    certain = _certain([arm], alpha)
    return Profile(
        tau, share, np.clip(np.minimum(low, certain), 0, share), np.clip(np.maximum(high, 1 - certain), share, 1)
    )


def wins(differences: ArrayLike) -> Wins:
    """Wins, ties and losses of `task_differences` [T], and the sign test over tasks (Demsar 2006, section 3.1.4)."""
    d = np.asarray(differences, float)
    return Wins(int((d > 0).sum()), int((d == 0).sum()), int((d < 0).sum()), sign_test(d))


def wilcoxon_over_tasks(differences: ArrayLike) -> float | None:
    """Two-sided p of Wilcoxon's test of `task_differences` [T] (Demsar 2006, section 3.1.3); None below 6 tasks."""
    d = np.asarray(differences, float)
    return wilcoxon(d)[2] if len(d) >= LEAST_TASKS else None


def against_baseline(candidates: Sequence[ArrayLike], baseline: ArrayLike, alpha: float = 0.05) -> list[Against]:
    """Several arms against one baseline on one task: Welch with Holm (1979), and beside it Dunnett (1955).

    Dunnett's test uses that the arms share their baseline, but also one variance for all: see `equal_variances`.

    Args:
        candidates: runs of every arm, [arm][run], at least 2 each.
        baseline: runs [m], m >= 2.

    Returns:
        one Against per candidate. No spread anywhere: p = 1 where means are equal, else p = 0.
    """
    tests = [unpaired.welch(x, baseline, alpha) for x in candidates]
    arms = [np.sort(np.asarray(x, float)) for x in (*candidates, baseline)]
    n, m = np.array([len(x) for x in arms[:-1]]), len(arms[-1])
    df = sum(len(x) - 1 for x in arms)
    sd = math.sqrt(sum((len(x) - 1) * x.var(ddof=1) for x in arms if np.ptp(x) > 0) / df)
    mean, se = np.array([x.mean for x in tests]), sd * np.sqrt(1 / n + 1 / m)
    p = [_beyond(abs(float(t)), n / (n + m), df) for t in ratio_to_error(mean, se)]
    reach = _dunnett_critical(n / (n + m), df, alpha) * se
    holm = adjust([x.p for x in tests])
    return [
        Against(estimate(x.mean, x.ci_low, x.ci_high, min(len(arm), m)), x.p, *(float(y) for y in rest))
        for x, arm, *rest in zip(tests, arms[:-1], holm, p, mean - reach, mean + reach, strict=True)
    ]


def _beyond(t: float, shared: Array, df: int) -> float:
    """Chance that some of k t statistics, which share their baseline, is beyond +-t (Dunnett 1955).

    Given the mean of the baseline and the standard deviation they are independent; over both by quadrature.

    Args:
        shared: squared correlation of every statistic with the mean of the baseline [k].
    """
    if t in (0.0, math.inf):
        return float(t == 0)
    z, weights = _baseline_nodes()

    def beyond(s: Array) -> Array:
        inside = np.ones((len(s), len(z)))
        for share, times in zip(*np.unique(shared, return_counts=True), strict=True):
            own = math.sqrt(1 - share)
            middle, edge = math.sqrt(share) / own * z, t / own * s[:, None]
            inside *= (special.ndtr(middle + edge) - special.ndtr(middle - edge)) ** times
        return ((1 - inside) * weights).sum(-1)

    return min(1.0, over_spread(beyond, df))


@functools.cache
def _baseline_nodes() -> tuple[Array, Array]:
    nodes, weights = np.polynomial.legendre.leggauss(BASELINE_NODES)
    z = REACH * (nodes + 1) / 2
    return z, REACH * weights * stats.norm.pdf(z)  # both halves: the sign of z does not matter


def _dunnett_critical(shared: Array, df: int, alpha: float) -> float:
    """The t beyond which some statistic is with probability alpha: between that of one test and Bonferroni's."""
    one, all_of_them = (float(stats.t.isf(alpha / 2 / k, df)) for k in (1, len(shared)))
    return float(optimize.brentq(lambda t: _beyond(t, shared, df) - alpha, 0.999 * one, 1.001 * all_of_them))


def equal_variances(arms: Sequence[ArrayLike]) -> float:
    """p of "all arms have the same variance", by distances from the medians (Brown & Forsythe 1974).

    Args:
        arms: [arm][run], at least 3 runs each: 2 are always as far from their median.

    Returns:
        p; 1 where all distances are equal.

    Raises:
        ValueError: an arm has fewer than 3 runs.
    """
    runs = [np.sort(np.asarray(x, float)) for x in arms]
    least = min(len(x) for x in runs)
    if least < 3:
        raise ValueError(f"found an arm of {least} runs: at least 3 needed")
    distances = [np.abs(x - np.median(x)) for x in runs]
    if np.ptp(np.concatenate(distances)) == 0:
        return 1.0
    if not any(np.ptp(x) for x in distances):
        return 0.0
    return float(stats.levene(*runs, center="median").pvalue)
