"""Numbers as people write them: 85,19 %, 1.234,5, 1,234.5, 3e-4, 85993ms; and what stands for a missing one."""

import re
from typing import NamedTuple

import pandas as pd

MISSING = ("", "-", "--", "–", "—", "na", "n/a", "nan", "null", "none", "?", "#n/a", "#div/0!", "nil")
UNITS = {"ms": (1e-3, "seconds"), "s": (1.0, "seconds"), "sec": (1.0, "seconds"), "min": (60.0, "seconds")}
PLAIN = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?inf(inity)?", re.IGNORECASE)
ENGLISH = re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d+)?")
GERMAN = re.compile(r"[+-]?(\d{1,3}(\.\d{3})+|\d+)(,\d+)?")
SHARE = re.compile(r"(.+?)\s*%")
WITH_UNIT = re.compile(rf"([+-]?[\d.,]+(?:[eE][+-]?\d+)?)\s*({'|'.join(UNITS)})")


class Numbers(NamedTuple):
    """A column as numbers: float64 with NaN where one is missing, and their unit if it was written beside them."""

    values: pd.Series
    unit: str | None


def numbers(column: pd.Series) -> Numbers | None:
    """A column as numbers; None if something in it is none. Percentages become shares, times seconds."""
    if pd.api.types.is_bool_dtype(column):
        return None
    if pd.api.types.is_numeric_dtype(column):
        return Numbers(column.astype(float), None)
    text = column.astype(str).str.strip()
    missing = column.isna() | text.str.lower().isin(MISSING)
    kinds = pd.Series(text[~missing].unique(), dtype=object)
    if kinds.empty:
        return None
    unit, scale, written = None, 1.0, list(kinds)
    if all(SHARE.fullmatch(one) for one in written):
        unit, scale, written = "percentage points", 0.01, [SHARE.fullmatch(one)[1] for one in written]  # type: ignore[index]
    elif all(WITH_UNIT.fullmatch(one) for one in written):
        units = {WITH_UNIT.fullmatch(one)[2] for one in written}  # type: ignore[index]
        if len(units) == 1:
            scale, unit = UNITS[units.pop()]
            written = [WITH_UNIT.fullmatch(one)[1] for one in written]  # type: ignore[index]
    found = _parsed(written)
    if found is None:
        shares = [one for one in kinds if (match := SHARE.fullmatch(one)) and _parsed([match[1]])]
        others = [one for one in kinds if one not in shares]
        if shares and _parsed(others):
            raise ValueError(f"{column.name}: found {shares[0]!r} beside {others[0]!r}; allowed: one of both")
        return None
    # shares are divided, not multiplied by 0.01, so that 85.19 % is the number nearest to 0.8519
    known = {k: v / 100 if scale == 0.01 else v * scale for k, v in zip(kinds, found, strict=True)}
    return Numbers(text.map(known).where(~missing).astype(float), unit)


def _parsed(written: list[str]) -> list[float] | None:
    """All by one way of writing them; one comma before three digits alone says nothing, and counts as thousands."""
    if all(PLAIN.fullmatch(one) for one in written):
        return [float(one) for one in written]
    ways = []
    if all(PLAIN.fullmatch(one) or ENGLISH.fullmatch(one) for one in written):
        ways.append([float(one.replace(",", "")) for one in written])
    if all(GERMAN.fullmatch(one) for one in written):
        ways.append([float(one.replace(".", "").replace(",", ".")) for one in written])
    if len(ways) == 2 and ways[0] != ways[1]:
        raise ValueError(f"found {written[0]!r}, which is one number in English and another one in German")
    return ways[0] if ways else None
