"""Excel: every sheet a table; sheets that hold none are named."""

import dataclasses
import importlib
import zipfile
from pathlib import Path
from typing import Any

import pandas as pd

from infinito.mistakes import one_line
from infinito.readers import frame
from infinito.readers.results import Options, Results, completed

NEW, OLD = (".xlsx", ".xlsm"), (".xls",)
SUFFIXES = NEW + OLD


def read(path: Path, options: Options) -> Results:
    """All sheets. Where no sheet has a column of arms, a sheet is an arm; else, where none has tasks, a task.

    Raises:
        ValueError: see `read_sheets`; no sheet is a table of results.
    """
    found: dict[str, Results] = {}
    remarks, refused = [], []
    for name, sheet in read_sheets(path).items():
        where = f"{path.name}, sheet {name}"
        if sheet.empty:
            refused.append(f"{where}: found no rows; left out.")
            continue
        try:
            found[name] = frame.tidy(sheet, options, where)
        except ValueError as error:
            refused.append(f"{where}: no table of results, left out: {one_line(error)}")
    if not found:
        raise ValueError(refused[0].removesuffix("; left out.").replace(", left out", ""))
    remarks = [remark for one in found.values() for remark in one.remarks] + refused
    first = next(iter(found.values()))
    read_as = {key: said for one in reversed(found.values()) for key, said in one.read_as.items()}
    pieces = [one.table for one in found.values()]
    if len(found) > 1:
        role = next((key for key in ("arm", "task") if not any(key in one.read_as for one in found.values())), None)
        if role:
            pieces = [one.table.assign(**{role: name}) for name, one in found.items()]
            read_as[role] = "the sheet's name"
    pairing = first.pairing if all(one.pairing == first.pairing for one in found.values()) else None
    units = {metric: unit for one in found.values() for metric, unit in one.units.items()}
    return dataclasses.replace(
        first, table=completed(pd.concat(pieces, ignore_index=True), path.name), read_as=read_as,
        remarks=list(dict.fromkeys(remarks)), pairing=pairing, units=units,
    )  # fmt: skip


def read_sheets(path: Path) -> dict[str, pd.DataFrame]:
    """The cells of every sheet as text, missing where they are empty; the header as names of columns.

    Titles above a table are no header; a cell that spans several rows counts for each of them.

    Raises:
        ValueError: what reads Excel is not installed; an empty file, or another one.
    """
    reader = _new if path.suffix.lower() in NEW else _old
    try:
        sheets = reader(path)
    except ImportError as error:
        package = "openpyxl" if reader is _new else "xlrd"
        raise ValueError(f"{path}: Excel files need {package}; install {package}") from error
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such file") from error
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: not a readable Excel file: {one_line(error)}") from error
    except Exception as error:  # a class of the package that may not be installed
        if type(error).__module__.partition(".")[0] not in ("openpyxl", "xlrd"):
            raise
        raise ValueError(f"{path}: not a readable Excel file: {one_line(error)}") from error
    return {name: _table(rows) for name, rows in sheets.items()}


def _new(path: Path) -> dict[str, list[list[Any]]]:
    import openpyxl

    book = openpyxl.load_workbook(path, data_only=True)
    sheets = {}
    for sheet in book.worksheets:
        rows = [list(row) for row in sheet.iter_rows(values_only=True, min_row=1, min_col=1)]
        for span in sheet.merged_cells.ranges:
            for row in rows[span.min_row : span.max_row]:
                row[span.min_col - 1] = rows[span.min_row - 1][span.min_col - 1]
        sheets[sheet.title] = rows
    return sheets


def _old(path: Path) -> dict[str, list[list[Any]]]:
    importlib.import_module("xlrd")  # what pandas reads it by

    sheets = pd.read_excel(path, sheet_name=None, header=None, dtype=object)
    return {
        str(name): sheet.astype(object).where(sheet.notna(), None).values.tolist() for name, sheet in sheets.items()
    }


def _table(rows: list[list[Any]]) -> pd.DataFrame:
    text = [[_text(cell) for cell in row] for row in rows]
    filled = [sum(cell is not None for cell in row) for row in text]
    widest = max(filled, default=0)
    head = next((i for i, number in enumerate(filled) if number and (number > 1 or widest == 1)), None)
    if head is None:
        return pd.DataFrame()
    used = [i for i in range(len(text[head])) if any(row[i] is not None for row in text[head:])]
    names = [text[head][i] or f"unnamed {i + 1}" for i in used]
    return pd.DataFrame([[row[i] for i in used] for row in text[head + 1 :]], columns=names, dtype=object)


def _text(cell: Any) -> str | None:
    if cell is None:
        return None
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)
    return str(cell).strip() or None
