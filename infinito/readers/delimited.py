"""CSV, TSV and what spreadsheets make of them: any delimiter and encoding."""

import csv
import io
import warnings
from pathlib import Path

import pandas as pd

from infinito.readers import frame
from infinito.readers.numbers import MISSING
from infinito.readers.results import Options, Results

SUFFIXES = (".csv", ".tsv", ".tab", ".txt")
DELIMITERS = ",;\t|"


def read(path: Path, options: Options) -> Results:
    """A file, or what comes from standard input as one."""
    return frame.tidy(read_frame(path), options, path.name)


def read_frame(path: Path) -> pd.DataFrame:
    """Its columns, numbers where all of one is written as pandas reads them, else text.

    Raises:
        ValueError: an empty file, no table, bytes that are no text.
    """
    with path.open("rb") as file:
        head = file.read(100_000)
    if not head.strip():
        raise ValueError(f"{path}: found an empty file; allowed: a table with a header")
    if b"\0" in head and not head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ValueError(f"{path}: found bytes that are no text; allowed: CSV, TSV or another table in text")
    encoding = _encoding(path, head)
    text = head.decode(encoding, errors="ignore")
    skipped = len(text) - len(text.lstrip("\n\r"))
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    delimiter = _delimiter(lines[:50])
    header = [name.strip() for name in next(csv.reader(lines[:1], delimiter=delimiter), [])]
    twice = [name for name in header if name and header.count(name) > 1]
    if twice:
        raise ValueError(f"{path}: found two columns {twice[0]!r}; allowed: a name once")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # a row longer than the header would be cut
            return pd.read_csv(
                path, sep=delimiter, encoding=encoding, comment="#" if text[skipped:].startswith("#") else None,
                na_values=[*MISSING, "NaN", "NA", "N/A", "None"], keep_default_na=False, low_memory=False,
                skipinitialspace=True, index_col=False,
            )  # fmt: skip
    except (
        pd.errors.ParserError,
        pd.errors.ParserWarning,
        pd.errors.EmptyDataError,
        UnicodeDecodeError,
        csv.Error,
    ) as error:
        found = " ".join(str(error).removeprefix("Error tokenizing data. C error: ").split())
        raise ValueError(f"{path}: not a readable table: {found}; allowed: as many cells in a row as names") from error


def _encoding(path: Path, head: bytes) -> str:
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    try:
        io.TextIOWrapper(io.BytesIO(path.read_bytes()), encoding="utf-8-sig").read()
    except UnicodeDecodeError:
        return "cp1252"  # of old spreadsheets
    return "utf-8-sig"


def _delimiter(lines: list[str]) -> str:
    """The one that splits all lines alike, into the most parts; a comma beside another one is a decimal comma."""
    best, most = ",", 0
    for delimiter in DELIMITERS:
        counts = [len(row) for row in csv.reader(lines, delimiter=delimiter)]
        alike = max(set(counts), key=counts.count)
        share = counts.count(alike) / len(counts)
        if alike > 1 and share >= 0.8 and (alike > most or (best == "," and delimiter != "," and counts[0] == alike)):
            best, most = delimiter, alike
    return best
