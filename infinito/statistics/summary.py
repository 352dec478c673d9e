"""Can there be numbers with these summary figures? Mean, standard deviation, how many are positive, the largest.

All numbers with a given sum, sign by sign and below a given largest one, are a convex set, so their sum of squared
deviations takes every value between its least and its greatest. The least is where all are as equal as they may be, the
greatest at a corner of the set (Samuelson 1968 is the case of one number against all others).
"""

import math
from collections.abc import Iterator
from decimal import Decimal

import numpy as np

EXACT = 1e-6  # relative: rounding errors of figures that were never rounded
Range = tuple[float, float]
Group = tuple[int, float, float]  # so many numbers, each between these bounds


def rounded(x: float) -> Range:
    """What a printed number may have been: half a unit of its last decimal below and above."""
    exponent = Decimal(repr(float(x))).normalize().as_tuple().exponent
    half = 0.5 * 10.0 ** min(int(exponent), 0)
    return x - half, x + half


def possible(mean: float, sd: float, n: int, *, positive: int | None = None, largest: float | None = None) -> bool:
    """Whether n numbers have these figures, each within its rounding.

    Args:
        mean, sd: of all of them; sd with n - 1.
        positive: how many are above 0; the rest are at most 0.
        largest: the largest of them.
    """
    low_sd, high_sd = rounded(sd)
    low, high = (n - 1) * max(low_sd, 0.0) ** 2, (n - 1) * high_sd**2
    means = sorted(
        {*np.linspace(*rounded(mean), 41), *(x for x in (0.0,) if rounded(mean)[0] <= x <= rounded(mean)[1])}
    )
    tops = [math.inf] if largest is None else list(np.linspace(*rounded(largest), 9))
    scale = EXACT * n * (mean**2 + high_sd**2)
    return any(
        least - scale <= high and greatest + scale >= low
        for top in tops
        for m in means
        for least, greatest in _deviations(m, n, positive, top)
    )


def _deviations(mean: float, n: int, positive: int | None, top: float) -> Iterator[Range]:
    """The least and greatest sum of squared deviations of n such numbers; nothing where there are none."""
    groups: list[Group] = [(n, -math.inf, top)]
    if positive is not None:
        groups = [(positive, 0.0, top), (n - positive, -math.inf, min(top, 0.0))]
    total, squares = n * mean, -n * mean**2
    if top < math.inf:  # one of them is the largest
        place = 0 if positive is None or top > 0 else 1
        count, low, high = groups[place]
        groups[place] = (count - 1, low, high)
        total, squares = total - top, squares + top**2
    groups = [group for group in groups if group[0]]
    if any(count < 0 or low > high for count, low, high in groups):
        return
    least = _least(groups, total)
    if least is not None:
        yield max(squares + least, 0.0), squares + _greatest(groups, total)


def _least(groups: list[Group], total: float) -> float | None:
    """Least sum of squares of numbers with this sum: all at one level, as far as their bounds allow; None: no such."""

    def at(level: float) -> list[tuple[int, float]]:
        return [(count, min(max(level, low), high)) for count, low, high in groups]

    def gap(level: float) -> float:
        return sum(count * x for count, x in at(level)) - total

    low, high, slack = -abs(total) - 1, abs(total) + 1, EXACT * (1 + abs(total))
    if gap(low) > slack or gap(high) < -slack:
        return None
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (low, middle) if gap(middle) > 0 else (middle, high)
    return sum(count * x**2 for count, x in at(high))


def _greatest(groups: list[Group], total: float) -> float:
    """Greatest sum of squares of numbers with this sum, of which there are some: all but one at a bound."""
    falling = sum(count for count, low, _ in groups if low == -math.inf)
    rising = sum(count for count, _, high in groups if high == math.inf)
    if falling and rising and sum(count for count, _, _ in groups) > 1:
        return math.inf
    if rising:  # all positive: one of them is the sum
        return total**2
    if falling:  # all at their upper bounds but one
        one = next(high for _, low, high in groups if low == -math.inf)
        rest = sum(count * high for count, _, high in groups) - one
        return sum(count * high**2 for count, _, high in groups) - one**2 + (total - rest) ** 2
    if not groups or not groups[0][2]:
        return 0.0
    top = groups[0][2]  # all between 0 and this
    whole = math.floor(total / top + EXACT)
    return whole * top**2 + (total - whole * top) ** 2
