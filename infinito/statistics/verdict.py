"""The verdict on a comparison: one of four words."""

from typing import Literal

Verdict = Literal["BETTER", "WORSE", "EQUIVALENT", "INCONCLUSIVE"]
PAIRS_FOR_A_VERDICT = 10


def verdict(mean: float, p: float, p_equivalence: float, n: int, alpha: float = 0.05) -> Verdict:
    """The verdict on n pairs.

    EQUIVALENT comes before BETTER and WORSE: a difference that is real, but shown to be smaller than the smallest that
    matters, must not read as a win. What is not shown is INCONCLUSIVE; there is no "no difference". Below 10 pairs
    every verdict is INCONCLUSIVE.

    Args:
        mean: mean difference, positive = candidate better.
        p: of the two-sided paired t-test.
        p_equivalence: of the two one-sided tests.
    """
    if n < PAIRS_FOR_A_VERDICT:
        return "INCONCLUSIVE"
    if p_equivalence < alpha:
        return "EQUIVALENT"
    if p < alpha:
        return "BETTER" if mean > 0 else "WORSE"
    return "INCONCLUSIVE"
