"""What `dvc exp show` printed for nine rows: what is an experiment, and what became of it."""

import json
from pathlib import Path

import pytest

from infinito.readers import dvc_experiments
from infinito.readers.results import Options, finished

FILES = Path(__file__).parent / "files"
KINDS = pytest.mark.parametrize("name", ["dvc_exp_show.csv", "dvc_exp_show.json"])


@KINDS
def test_experiments_are_runs_with_the_state_that_they_have(name: str) -> None:
    assert dvc_experiments.is_one(FILES / name)
    found = dvc_experiments.read(FILES / name, Options(metric=("accuracy",)))
    table = found.table.set_index("run")
    assert dict(table["value"].dropna()) == {
        "master": 0.8, "farci-zone": 0.92, "seely-wens": 0.91, "rooky-dawk": 0.8200000000000001, "alike-yolk": 0.81,
        "salic-coal": 0.92,
    }  # fmt: skip
    assert set(table.index) - set(table["value"].dropna().index) == {"still-cyma"}
    # a failed experiment shows the figure of the commit that it began from: its state alone says that it is none
    assert list(table.index[~finished(table["status"])]) == ["still-cyma", "salic-coal"]
    assert list(table.loc["farci-zone", ["arm", "seed"]]) == ["ft", "2"] and found.pairing == "seed"


@KINDS
def test_rows_of_commits_and_of_the_working_tree_are_named(name: str) -> None:
    remarks = dvc_experiments.read(FILES / name, Options(metric=("accuracy",))).remarks
    assert f"{name}: workspace repeats another row; counted once." in remarks
    assert f"{name}: master is no experiment, but a commit or the working tree; counted as a run." in remarks


def test_numbers_that_are_parameters_are_no_metrics() -> None:
    found = dvc_experiments.read(FILES / "dvc_exp_show.json", Options())
    assert set(found.table["metric"]) == {"accuracy"}
    assert found.remarks[-1] == "n: not taken for metrics (--metric says otherwise)."


def test_a_file_that_dvc_could_not_read_is_a_failure(tmp_path: Path) -> None:
    lines = (FILES / "dvc_exp_show.csv").read_text().replace("0.81,3", "!,!")
    (tmp_path / "e.csv").write_text(lines)
    table = dvc_experiments.read(tmp_path / "e.csv", Options(metric=("accuracy",))).table.set_index("run")
    assert table.loc["alike-yolk", "status"] == "failed: DVC could not read it"
    assert table.loc["rooky-dawk", "value"] == 0.8200000000000001


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("e.json", "", "e.json: found an empty file"),
        ("e.json", "{", "e.json: not valid JSON"),
        ("e.json", json.dumps({"workspace": {}}), "e.json: found another form; allowed: .*since DVC 3"),
        ("e.csv", "", "e.csv: found an empty file"),
        ("e.csv", "a,b,c\n1,2,3\n", "e.csv: found the columns a, b, c; allowed: Experiment, rev, typ"),
    ],
)
def test_other_files_are_refused_in_a_line(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    assert not dvc_experiments.is_one(tmp_path / name)
    with pytest.raises(ValueError, match=message) as caught:
        dvc_experiments.read(tmp_path / name, Options())
    assert "\n" not in str(caught.value)
