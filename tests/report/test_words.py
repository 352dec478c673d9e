"""Numbers and estimates as texts."""

import pytest

from infinito.report import words


@pytest.mark.parametrize(
    ("x", "digits", "text"),
    [
        (2.34567, 4, "2.346"),
        (-0.0012345, 3, "−0.00123"),
        (0.0, 3, "0"),
        (1234567.0, 3, "1,234,567"),
        (1.5e-7, 3, "1.50e−07"),
        (None, 3, "–"),
        (float("nan"), 3, "–"),
    ],
)
def test_numbers_are_readable(x: float | None, digits: int, text: str) -> None:
    assert words.number(x, digits) == text


def test_estimates_share_the_decimals_of_their_interval() -> None:
    assert (
        words.estimate({"value": 2.259316, "ci_low": 2.168245, "ci_high": 2.350386, "n": 10}, 4)
        == "2.259 [2.168, 2.350]"
    )
    assert words.estimate({"value": 0.0, "ci_low": 0.0, "ci_high": 0.00798, "n": 4}) == "0 [0, 0.0080]"
    assert words.estimate({"value": -1e-9, "ci_low": -1.0, "ci_high": 1.0, "n": 4}) == "0.000 [−1.000, 1.000]"
    assert words.estimate({"value": 2.1457, "ci_low": None, "ci_high": None, "n": 1}, 4) == "2.146"
    assert words.estimate(None) == words.UNKNOWN
