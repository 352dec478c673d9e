"""The statistics keep their promises where the truth is known; popular wrong methods are seen to break theirs."""

import pytest

from benchmarks.calibration import CHECKS, run

SLOW = {"C2", "C6", "C17", "C20", "C21", "C22", "C23", "C24"}
WRONG_METHODS = {"C5", "C8", "C9", "C16", "C17", "C19", "C20", "C22"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in CHECKS]
)
def test_calibration(name):
    rows = run(name)
    assert rows
    assert not [row for row in rows if not row.passed]
    assert any(row.test.startswith("must fail") for row in rows) == (name in WRONG_METHODS)


def test_every_check_is_there():
    assert list(CHECKS) == [f"C{number}" for number in range(1, 25)]
