"""Judge a published claim from its summary figures alone: mean, standard deviation and number of seeds.

The figures are those of differences, one per seed, in any unit (nats per token, per cent), positive = candidate better.
The t-test, its interval and the effect size depend on nothing but these three figures, so they are exact as far as the
printed digits go. Whether the differences were worth averaging is another question, which no summary answers.
"""

import math
from typing import Any

import numpy as np
from scipy import stats

from infinito.statistics.paired import (
    Array,
    effect_size,
    estimate,
    expected_maximum,
    minimal_detectable_effect,
    pairs_needed,
    power,
    sign_test,
)
from infinito.statistics.summary import possible, rounded
from infinito.statistics.verdict import PAIRS_FOR_A_VERDICT, verdict

SCHEMA = "infinito/judge/1"
LARGEST_N = 1_000_000
NO_EFFECT = 1e-6  # mean / sd below which no number of seeds is worth naming


def standard_sample(n: int) -> Array:
    """n numbers with mean 0 and standard deviation 1, n >= 2: shifted and stretched, a sample with given figures."""
    x = np.arange(n) - (n - 1) / 2
    return x / x.std(ddof=1)


def judge(
    mean: float,
    sd: float,
    n: int,
    *,
    wins: int | None = None,
    best: float | None = None,
    seeds_tried: int | None = None,
    p: float | None = None,
    alpha: float = 0.05,
) -> dict[str, Any]:
    """What the summary figures of a seed study show, and what they do not.

    Args:
        mean: mean difference over the seeds, positive = candidate better.
        sd: standard deviation of the differences over the seeds (of single seeds, not of the mean), > 0.
        n: number of seeds, 2 to 1,000,000.
        wins: seeds with a positive difference; the rest count as losses.
        best: difference of the best seed, at least the mean.
        seeds_tried: number of seeds that the best one was chosen from, at least n; None for n.
        p: p-value as printed with the claim, to be checked against the figures.
        alpha: level of the tests; intervals have confidence 1 - alpha.

    Returns:
        JSON-ready dict: schema, verdict (INCONCLUSIVE, BETTER or WORSE; never EQUIVALENT, as no margin is known),
        sentences (list of str), mean, sd, n, alpha, t, df, p_value, difference (estimate), effect_size (dz, estimate),
        power (if the true effect is as observed), pairs_for_80_percent_power (None for a mean of nearly 0),
        minimal_detectable_effect (80 % power), and, each None if its figure is not given,
        win_rate (estimate, interval of Wilson 1927, and wins, sign_test_p),
        best (value, seeds_tried, expected_by_luck, above_luck, chance_by_luck, largest_possible) and
        printed (p_value, agrees). An estimate is {value, ci_low, ci_high, n}.

    Raises:
        ValueError: a figure that is impossible, by itself or beside the others, each within its rounding; the message
            begins with the argument's name.
    """
    _check(mean, sd, n, wins, best, seeds_tried, p, alpha)
    se = sd / math.sqrt(n)
    t = mean / se
    p_value = float(2 * stats.t.sf(abs(t), n - 1))
    reach = float(stats.t.isf(alpha / 2, n - 1)) * se
    result: dict[str, Any] = {
        "schema": SCHEMA,
        "verdict": verdict(mean, p_value, 1.0, n, alpha),
        "sentences": [],
        "mean": mean,
        "sd": sd,
        "n": n,
        "alpha": alpha,
        "t": t,
        "df": n - 1,
        "p_value": p_value,
        "difference": estimate(mean, mean - reach, mean + reach, n),
        "effect_size": effect_size(mean / sd + standard_sample(n), alpha)[0],
        "power": power(mean / sd, n, alpha),
        "pairs_for_80_percent_power": math.ceil(pairs_needed(mean / sd, alpha=alpha))
        if abs(mean / sd) > NO_EFFECT
        else None,
        "minimal_detectable_effect": minimal_detectable_effect(n, sd, alpha=alpha),
        "win_rate": None if wins is None else _win_rate(wins, n, alpha),
        "best": None if best is None else _best(mean, sd, n, best, seeds_tried or n),
        "printed": None,
    }
    if p is not None:
        result["printed"] = {"p_value": p, "agrees": _follows(p, mean, sd, n)}
    result["sentences"] = _sentences(result)
    return result


def _check(
    mean: float,
    sd: float,
    n: int,
    wins: int | None,
    best: float | None,
    seeds_tried: int | None,
    p: float | None,
    alpha: float,
) -> None:
    if not math.isfinite(mean):
        raise ValueError(f"mean: found {mean}; allowed: a finite number")
    if not (math.isfinite(sd) and sd > 0):
        raise ValueError(f"sd: found {sd}; allowed: a finite number above 0")
    if not 2 <= n <= LARGEST_N:
        raise ValueError(f"n: found {n}; allowed: 2 to {LARGEST_N:,} seeds")
    if wins is not None and not 0 <= wins <= n:
        raise ValueError(f"wins: found {wins}; allowed: 0 to {n}, the number of seeds")
    if best is not None and not (math.isfinite(best) and best >= mean):
        raise ValueError(f"best: found {best}; allowed: a finite number that is at least the mean, {mean:g}")
    if seeds_tried is not None and best is None:
        raise ValueError(f"seeds_tried: found {seeds_tried} without the best seed's value; allowed: both or neither")
    if seeds_tried is not None and not n <= seeds_tried <= LARGEST_N:
        raise ValueError(f"seeds_tried: found {seeds_tried}; allowed: {n:,} (all seeds) to {LARGEST_N:,}")
    if p is not None and not 0 <= p <= 1:
        raise ValueError(f"p: found {p}; allowed: 0 to 1")
    if not 0 < alpha < 0.5:
        raise ValueError(f"alpha: found {alpha}; allowed: above 0 and below 0.5")
    _check_together(mean, sd, n, wins, best if seeds_tried in (None, n) else None)


def _check_together(mean: float, sd: float, n: int, wins: int | None, best: float | None) -> None:
    """Whether any n differences have all these figures; best: of these n, if it is known."""
    such = f"with a mean of {mean:g} and a standard deviation of {sd:g} over {n} seeds"
    if wins is not None and not possible(mean, sd, n, positive=wins):
        raise ValueError(f"wins: found {wins} of {n}, which is impossible {such}; allowed: {_wins(mean, sd, n)}")
    if best is not None and not possible(mean, sd, n, largest=best):
        low, high = (m + s * k / math.sqrt(n) for m, s, k in zip(rounded(mean), rounded(sd), (1, n - 1), strict=True))
        raise ValueError(
            f"best: found {best:g}, which is impossible {such}; allowed: {low:.4g} to {high:.4g}, or seeds_tried, if "
            "it is the best of more seeds than these"
        )
    if wins is not None and best is not None and not possible(mean, sd, n, positive=wins, largest=best):
        raise ValueError(f"wins: found {wins} of {n} beside a best of {best:g}, which is impossible {such}")


def _wins(mean: float, sd: float, n: int) -> str:
    """The numbers of wins that are possible: the fewer share a positive sum, the further all lie apart."""
    smallest = min(map(abs, rounded(mean)))
    spread = (n - 1) * rounded(sd)[1] ** 2 / (n * smallest) ** 2 if smallest else math.inf
    least = min(math.ceil(1 / (spread + 1 / n) - 1e-6), n) if spread < math.inf else 1
    most = n if possible(mean, sd, n, positive=n if mean > 0 else 0) else n - 1
    return f"{least} to {most}" if mean > 0 else f"{n - most} to {n - least}"


def _win_rate(wins: int, n: int, alpha: float) -> dict[str, Any]:
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(wins, n, alpha, method="wilson")
    return estimate(wins / n, float(low), float(high), n) | {
        "wins": wins,
        "sign_test_p": sign_test(np.repeat([1.0, -1.0], [wins, n - wins])),
    }


def _best(mean: float, sd: float, n: int, best: float, tried: int) -> dict[str, Any]:
    """The best seed beside what luck alone gives: the best of `tried` draws of Normal(mean, sd^2)."""
    expected = mean + expected_maximum(tried) * sd
    return {
        "value": best,
        "seeds_tried": tried,
        "expected_by_luck": expected,
        "above_luck": best > expected,
        "chance_by_luck": float(-np.expm1(tried * stats.norm.logcdf((best - mean) / sd))),
        # no value of a sample lies further from its mean (Samuelson 1968)
        "largest_possible": mean + sd * (n - 1) / math.sqrt(n) if tried == n else None,
    }


def _follows(p: float, mean: float, sd: float, n: int) -> bool:
    """Whether a printed p can be that of the printed figures, all of them rounded."""
    (low_mean, high_mean), (low_sd, high_sd), (low_p, high_p) = rounded(abs(mean)), rounded(sd), rounded(p)
    smallest = max(low_mean, 0) / high_sd * math.sqrt(n)
    largest = high_mean / low_sd * math.sqrt(n) if low_sd > 0 else math.inf
    low, high = (2 * stats.t.sf(t, n - 1) for t in (largest, smallest))
    return bool(low <= high_p and low_p <= high)


def _sentences(r: dict[str, Any]) -> list[str]:
    """The result in plain words, one thing a sentence."""
    n, low, high = r["n"], r["difference"]["ci_low"], r["difference"]["ci_high"]
    confidence = f"{100 * (1 - r['alpha']):g}% CI"
    reading = {
        "BETTER": "the candidate is better on average over seeds",
        "WORSE": "the candidate is worse on average over seeds",
        "INCONCLUSIVE": "these figures show neither that the candidate is better nor that it is not",
    }
    sentences = [
        f"{r['verdict']}: {reading[r['verdict']]}: a mean of {r['mean']:.4g} with a standard deviation of "
        f"{r['sd']:.4g} over {n} seeds ({confidence} {low:.3g} to {high:.3g}, t = {r['t']:.3f}, "
        f"p = {r['p_value']:.3g})."
    ]
    if n < PAIRS_FOR_A_VERDICT:
        sentences.append(f"{n} seeds are too few for any verdict: at least {PAIRS_FOR_A_VERDICT} are needed.")
    needed = r["pairs_for_80_percent_power"]
    if needed is not None:
        sentences.append(
            f"If the true effect is as large as the one observed, {n} seeds had a chance of {100 * r['power']:.3g}% to "
            f"find it; a chance of 80% takes {needed:,} seeds."
        )
    sentences.append(
        f"With {n} seeds only a mean difference of {r['minimal_detectable_effect']:.3g} would be found 4 times in 5."
    )
    if rate := r["win_rate"]:
        sentences.append(
            f"{rate['wins']} wins of {n}: the win rate lies between {rate['ci_low']:.2f} and {rate['ci_high']:.2f} "
            f"({confidence}); a fair coin falls as unevenly with probability {rate['sign_test_p']:.3g}."
        )
    if best := r["best"]:
        tried, side = best["seeds_tried"], "above" if best["above_luck"] else "not above"
        sentences.append(
            f"The best of {tried} equally good seeds is expected at {best['expected_by_luck']:.3g} by luck alone; the "
            f"claimed best of {best['value']:.4g} is {side} that, and luck gives as much or more in "
            f"{100 * best['chance_by_luck']:.2g}% of such studies."
        )
        if best["above_luck"]:
            sentences.append("A best seed is a good seed only if it wins again on fresh data seeds: confirm it.")
    if r["printed"] and not r["printed"]["agrees"]:
        sentences.append(
            f"The printed p = {r['printed']['p_value']:.3g} does not follow from the printed figures, which give "
            f"p = {r['p_value']:.3g}: another test, another scale, or other runs."
        )
    return sentences
