"""What is read by which reader, told by what it is and not only by its name."""

import io
import sqlite3
import sys
from pathlib import Path

import pytest

from infinito.readers import Options, read

FILES = Path(__file__).with_name("files")
TABLE = "arm,seed,loss\n" + "".join(f"{arm},{seed},{seed / 10}\n" for arm in "ab" for seed in range(3))
JSON = '[{"arm": "a", "seed": 0, "loss": 1.0}, {"arm": "b", "seed": 0, "loss": 2.0}]'
GREP = "".join(
    f"logs/{arm}/{run}.log:12:step:{step} val_loss:{3 - step}\n" for arm in "ab" for run in "xy" for step in (1, 2)
)


class Standard:
    """sys.stdin with bytes behind it."""

    def __init__(self, text: str) -> None:
        self.buffer = io.BytesIO(text.encode())


@pytest.mark.parametrize("text", [TABLE, JSON, TABLE.replace(",", "\t"), GREP])
def test_standard_input_is_told_by_what_is_in_it(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", Standard(text))
    found = read("-", Options())
    assert set(found.table["arm"]) == {"a", "b"} and found.table["value"].notna().all()


def test_what_grep_prints_has_its_arm_and_run_in_the_path(tmp_path: Path) -> None:
    (tmp_path / "found.txt").write_text(GREP)
    table = read(str(tmp_path / "found.txt"), Options()).table
    assert set(table["metric"]) == {"val_loss"} and table.groupby(["arm", "run"]).ngroups == 4
    assert table["step"].tolist() == [1, 2] * 4


def test_a_database_is_told_by_its_tables(tmp_path: Path) -> None:
    file = tmp_path / "runs.csv"  # its name says nothing
    with sqlite3.connect(file) as store:
        store.execute("create table cats (name)")
    store.close()
    with pytest.raises(ValueError, match="found a SQLite file with the tables cats; allowed: those of MLflow or Opt"):
        read(str(file), Options())


def test_experiments_of_dvc_are_told_by_their_header() -> None:
    for name in ("dvc_exp_show.csv", "dvc_exp_show.json"):
        assert "name of the experiment" in read(str(FILES / name), Options()).read_as.values()


@pytest.mark.parametrize("source", ["nowhere.csv", "sqlite:///nowhere.db", "optuna:nowhere.db", "mlflow:nowhere"])
def test_what_is_not_there_is_one_line(source: str) -> None:
    with pytest.raises(ValueError, match="nowhere.*allowed: "):
        read(source, Options())
