"""The figures of a design are simulated once."""

import functools
from collections.abc import Iterator

import pytest

from infinito.planning import plan

DESIGNS = ("looks_for_power", "anytime_design", "equivalence_pairs", "crossed_seeds", "crossed_power")


@pytest.fixture(scope="session", autouse=True)
def _simulated_once() -> Iterator[None]:
    """They are functions of a few numbers alone, which are those of the one finished study again and again."""
    with pytest.MonkeyPatch.context() as patch:
        for name in DESIGNS:
            patch.setattr(plan, name, functools.cache(getattr(plan, name)))
        yield
