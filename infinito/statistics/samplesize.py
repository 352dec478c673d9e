"""Power and sample size: how many pairs, or seeds of a grid, find a difference with what probability?

For one paired t-test, for two one-sided tests of equivalence, for designs that may stop early, and for a grid of init
seeds x data seeds. Effects and standard deviations are those of the paired difference, in any unit. Simulated
figures have a standard error of at most .005 in power, and are always the same.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from infinito import seeds
from infinito.statistics.anova import MeanSquares, crossed_test
from infinito.statistics.paired import Array, minimal_detectable_effect, over_spread, pairs_needed, power
from infinito.statistics.sequential import FIRST_ANYTIME_LOOK, anytime_level, obrien_fleming

LEAST_PAIRS = 10  # with fewer, a test at the end gives no verdict
LARGEST_PAIRS = seeds.POOL_SIZE - 1
ANYTIME_PAIRS = 5_000  # anytime designs that may get larger are not priced: the simulation looks after every pair
LOOKS = 4
EXPERIMENTS = 20_000
POWER_TABLE = (10, 20, 30, 50, 100)
GRID_SEEDS = range(5, 41)  # a crossed test needs 5 seeds of each kind

Looks = list[int] | Literal["anytime"]


def planned_pairs(sd: float, effect: float, power: float = 0.8, alpha: float = 0.05) -> int | None:
    """Pairs, at least 10, with which a paired t-test finds a mean difference of `effect` with probability `power`.

    None above a million.
    """
    rough = ((stats.norm.isf(alpha / 2) + stats.norm.ppf(power)) * sd / effect) ** 2  # the t-test needs slightly more
    if rough > LARGEST_PAIRS:
        return None
    return max(LEAST_PAIRS, math.ceil(pairs_needed(effect / sd, power, alpha)))


def equivalence_power(sd: float, margin: float, n: int, alpha: float = 0.05) -> float:
    """Chance that n pairs of equally good arms are found equivalent within +-margin by two one-sided t-tests.

    Both tests reject if |mean| < margin - t s / sqrt(n). Given the sample's s that is a normal probability, which is
    averaged over the chi distribution of s: exact (Phillips 1990, there written as Owen's Q function).
    """
    reach, t = margin / sd * math.sqrt(n), stats.t.isf(alpha, n - 1)
    return over_spread(lambda s: 2 * stats.norm.cdf(reach - t * s) - 1, n - 1, reach / t)  # a larger s never rejects


def equivalence_pairs(sd: float, margin: float, power: float = 0.8, alpha: float = 0.05) -> int | None:
    """Fewest pairs, at least 10, for which `equivalence_power` reaches `power`; None above a million."""
    enough = LEAST_PAIRS
    while equivalence_power(sd, margin, enough, alpha) < power:
        enough *= 2
        if enough > LARGEST_PAIRS:
            return None
    too_few = enough // 2
    while enough - too_few > 1:  # the power rises with n
        middle = (enough + too_few) // 2
        reached = equivalence_power(sd, margin, middle, alpha) >= power
        enough, too_few = (middle, too_few) if reached else (enough, middle)
    return max(LEAST_PAIRS, enough)


@dataclass(frozen=True)
class Sequential:
    """A design that may stop early: at most `pairs`; expected pairs if the effect is there, and if there is none."""

    pairs: int
    looks: Looks
    power: float
    expected_effect: float
    expected_null: float


def equal_looks(pairs: int) -> list[int]:
    """Four equally spaced looks, the last at `pairs`."""
    return [math.ceil(pairs * k / LOOKS) for k in range(1, LOOKS + 1)]


def _stops(looks: list[int], shift: float, alpha: float) -> tuple[Array, Array]:
    """20,000 experiments with planned looks: (rejected [R], pairs at the end [R]); true mean / sd = shift."""
    rng = np.random.default_rng(0)
    mean, squares = np.zeros(EXPERIMENTS), np.zeros(EXPERIMENTS)  # squares about the mean
    rejected, end = np.zeros(EXPERIMENTS, bool), np.full(EXPERIMENTS, looks[-1])
    before = 0
    for look, level in zip(looks, obrien_fleming(looks, alpha), strict=True):
        m = look - before
        # mean and sum of squares say all about m normal differences
        step = rng.normal(shift, 1 / math.sqrt(m), EXPERIMENTS) - mean
        squares += step**2 * before * m / look + (rng.chisquare(m - 1, EXPERIMENTS) if m > 1 else 0.0)
        mean += step * m / look
        t = mean / np.sqrt(squares / (look - 1) / look)
        now = ~rejected & (np.abs(t) > stats.t.isf(level / 2, look - 1))
        end[now] = look
        rejected |= now
        before = look
    return rejected, end


def looks_design(sd: float, effect: float, pairs: int, alpha: float = 0.05) -> Sequential:
    """Four looks with the levels of O'Brien & Fleming (`sequential.obrien_fleming`) at `pairs` pairs, by simulation."""
    looks = equal_looks(pairs)
    found, end = _stops(looks, effect / sd, alpha)
    null_end = _stops(looks, 0.0, alpha)[1]
    return Sequential(pairs, looks, float(found.mean()), float(end.mean()), float(null_end.mean()))


def looks_for_power(sd: float, effect: float, power: float = 0.8, alpha: float = 0.05) -> Sequential | None:
    """The smallest `looks_design` (to 1 %) that reaches the power: a little larger than with one test at the end."""
    pairs = planned_pairs(sd, effect, power, alpha)
    if pairs is None:
        return None
    design = looks_design(sd, effect, pairs, alpha)
    while design.power < power:
        pairs += max(1, pairs // 100)
        design = looks_design(sd, effect, pairs, alpha)
    return design


def _anytime_stops(shift: float, alpha: float, pairs: int | None, until: float) -> tuple[Array, int, float] | None:
    """10,000 experiments that stop when the e-value reaches 1 / alpha, looked at after every pair from 5 on.

    They go on to `pairs`, or, where that is None, until a share of `until` has stopped.

    Returns:
        (pairs at the end [R], pairs at most, share that stopped); None where more than ANYTIME_PAIRS are needed.
    """
    rng = np.random.default_rng(0)
    experiments, block = EXPERIMENTS // 2, 50
    total, squares = np.zeros((experiments, 1)), np.zeros((experiments, 1))
    end = np.zeros(experiments, int)  # 0 = goes on
    done, last = 0, pairs or ANYTIME_PAIRS
    while done < last:
        n = np.arange(done + 1, min(done + block, last) + 1)
        z = rng.standard_normal((experiments, len(n)))
        sums, sums_of_squares = total + z.cumsum(1), squares + (z**2).cumsum(1)
        sd = np.sqrt(np.maximum(sums_of_squares - sums**2 / n, 1e-12) / np.maximum(n - 1, 1))
        crossed = np.abs(sums / n + shift) > _anytime_reach(n, alpha) * sd
        first = np.where(crossed.any(1), n[crossed.argmax(1)], 0)
        end = np.where(end > 0, end, first)
        total, squares, done = sums[:, -1:], sums_of_squares[:, -1:], int(n[-1])
        if pairs is None and (end > 0).mean() >= until:
            last = max(LEAST_PAIRS, int(np.sort(end[end > 0])[math.ceil(until * experiments) - 1]))
            break
    else:
        if pairs is None:
            return None
    stopped = (end > 0) & (end <= last)
    return np.where(stopped, end, last), last, float(stopped.mean())


def _anytime_reach(n: NDArray[np.int64], alpha: float) -> Array:
    """Half-width of the anytime interval after n pairs [N], in standard deviations; huge where nothing rejects."""
    level = np.array([anytime_level(int(k), alpha=alpha) if k >= FIRST_ANYTIME_LOOK else 0.0 for k in n])
    return np.where(level > 0, stats.t.isf(level / 2, np.maximum(n - 1, 1)), 1e300) / np.sqrt(n)


def anytime_design(
    sd: float, effect: float, power: float = 0.8, alpha: float = 0.05, pairs: int | None = None
) -> Sequential | None:
    """A look after every pair from 5 on, by the e-value of `sequential.log_e_value`, by simulation.

    Args:
        pairs: stop there at the latest; None: where the power is reached.

    Returns:
        The design; None where it would take more than 5,000 pairs.
    """
    if pairs is not None and pairs > ANYTIME_PAIRS:
        return None
    with_effect = _anytime_stops(effect / sd, alpha, pairs, power)
    if with_effect is None:
        return None
    end, most, reached = with_effect
    without = _anytime_stops(0.0, alpha, most, power)
    assert without is not None
    return Sequential(most, "anytime", reached, float(end.mean()), float(without[0].mean()))


def crossed_power(effect: float, variances: tuple[float, float, float], n: int, alpha: float = 0.05) -> float:
    """Power of `anova.crossed_test` on n init seeds x n data seeds, one run of each arm per cell, by simulation.

    The mean squares of a balanced normal grid are independent chi-squared variables beside an independent normal mean,
    so these are drawn instead of the cells.

    Args:
        effect: true mean difference.
        variances: of the difference, in its squared unit: init seed, data seed, interaction with residual.
        n: seeds of each kind, at least 2.
    """
    rng = np.random.default_rng(0)
    init, data, rest = variances
    df = (n - 1) ** 2
    ms = MeanSquares(
        init=(rest + n * init) * rng.chisquare(n - 1, EXPERIMENTS) / (n - 1),
        data=(rest + n * data) * rng.chisquare(n - 1, EXPERIMENTS) / (n - 1),
        interaction=rest * rng.chisquare(df, EXPERIMENTS) / df,
        within={},
        grand_mean=rng.normal(effect, math.sqrt(init / n + data / n + rest / n**2), EXPERIMENTS),
        shape=(n, n),
    )
    return float((crossed_test(ms, alpha).p < alpha).mean())


def crossed_seeds(
    effect: float, variances: tuple[float, float, float], power: float = 0.8, alpha: float = 0.05
) -> int | None:
    """Fewest seeds of each kind, 5 to 40, with which `crossed_power` reaches `power`; None if 40 x 40 do not."""
    return next((n for n in GRID_SEEDS if crossed_power(effect, variances, n, alpha) >= power), None)


def power_table(
    sd: float, effect: float, margin: float, pairs: int, target: float = 0.8, alpha: float = 0.05
) -> list[dict[str, Any]]:
    """Rows {pairs, power (to find `effect`), equivalence_power (of equal arms), minimal_detectable_effect}."""
    return [
        {
            "pairs": n,
            "power": power(effect / sd, n, alpha),
            "equivalence_power": equivalence_power(sd, margin, n, alpha),
            "minimal_detectable_effect": minimal_detectable_effect(n, sd, target, alpha),
        }
        for n in sorted({*POWER_TABLE, pairs})
    ]
