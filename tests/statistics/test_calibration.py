"""The statistics keep their promises where the truth is known; popular wrong methods are seen to break theirs."""

import pytest

from benchmarks.calibration import CHECKS, run

WRONG_METHODS = {"C5", "C8", "C9", "C16", "C17", "C19", "C20", "C22"}


@pytest.mark.parametrize("name", CHECKS)
def test_calibration(name):
    rows = run(name)
    assert rows
    assert not [row for row in rows if not row.passed]
    assert any(row.test.startswith("must fail") for row in rows) == (name in WRONG_METHODS)


def test_every_check_is_there():
    assert list(CHECKS) == [f"C{number}" for number in range(1, 25)]
