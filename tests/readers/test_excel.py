"""Excel: cells as they are, a table a sheet."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from infinito.readers import excel
from infinito.readers.results import Options

needs_it = pytest.mark.skipif(find_spec("openpyxl") is None, reason="openpyxl is not installed")
HEAD = ["algorithm", "seed", "accuracy"]
ROWS: list[list[Any]] = [["mlp", 0, 0.1234567890123], ["mlp", 1, 0.5], ["ft", 0, None], ["ft", 1, "85,19 %"]]


def book(path: Path, merged: str = "", **sheets: list[list[Any]]) -> Path:
    import openpyxl

    made = openpyxl.Workbook()
    made.remove(made.active)
    for name, rows in sheets.items():
        sheet = made.create_sheet(name)
        for row in rows:
            sheet.append(row)
        if merged:
            sheet.merge_cells(merged)
    made.save(path)
    return path


@needs_it
def test_cells_are_read_as_they_are_below_a_title(tmp_path: Path) -> None:
    path = book(tmp_path / "r.xlsx", results=[["Results of May"], [], HEAD, *ROWS])
    found = excel.read_sheets(path)["results"]
    assert list(found.columns) == HEAD and list(found["seed"]) == ["0", "1", "0", "1"]
    assert float(found["accuracy"][0]) == 0.1234567890123 and found["accuracy"][2] is None
    table = excel.read(book(tmp_path / "s.xlsx", results=[HEAD, *ROWS[:3]]), Options()).table
    assert list(table["arm"]) == ["mlp", "mlp", "ft"] and list(table["value"])[:2] == [0.1234567890123, 0.5]


@needs_it
def test_a_cell_over_several_rows_counts_for_each(tmp_path: Path) -> None:
    path = book(tmp_path / "r.xlsx", "A2:A3", results=[HEAD, ["mlp", 0, 0.5], [None, 1, 0.6], ["ft", 0, 0.7]])
    assert list(excel.read(path, Options()).table["arm"]) == ["mlp", "mlp", "ft"]


@needs_it
def test_sheets_are_arms_or_tasks_and_other_ones_are_named(tmp_path: Path) -> None:
    rows = [["seed", "accuracy"], [0, 0.5], [1, 0.6]]
    path = book(tmp_path / "r.xlsx", mlp=rows, ft=rows, notes=[["see the mail"]], empty=[])
    found = excel.read(path, Options())
    assert list(found.table["arm"]) == ["mlp", "mlp", "ft", "ft"] and found.read_as["arm"] == "the sheet's name"
    assert len(found.remarks) == 2 and "sheet notes" in found.remarks[0] and "sheet empty" in found.remarks[1]
    found = excel.read(book(tmp_path / "t.xlsx", adult=[HEAD, *ROWS[1:3]], higgs=[HEAD, *ROWS[1:3]]), Options())
    assert list(found.table["task"]) == ["adult", "adult", "higgs", "higgs"]


@needs_it
@pytest.mark.parametrize("content", [b"", b"no workbook"])
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "r.xlsx").write_bytes(content)
    with pytest.raises(ValueError, match="r.xlsx: not a readable Excel file") as caught:
        excel.read(tmp_path / "r.xlsx", Options())
    assert "\n" not in str(caught.value)


@needs_it
def test_a_book_without_a_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="r.xlsx, sheet empty: found no rows"):
        excel.read(book(tmp_path / "r.xlsx", empty=[]), Options())


@pytest.mark.skipif(find_spec("openpyxl") is not None, reason="openpyxl is installed")
def test_what_to_install_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="r.xlsx: Excel files need openpyxl; install openpyxl"):
        excel.read(tmp_path / "r.xlsx", Options())
