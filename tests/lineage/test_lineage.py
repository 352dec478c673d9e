"""What went into every stage and what came out: a study that a real DVC has recorded."""

import json
from pathlib import Path
from typing import Any

import pytest

from infinito.lineage.figure import explain
from infinito.lineage.markdown import as_markdown
from infinito.lineage.pipeline import Pipeline
from infinito.lineage.stages import lineage
from tests.recorded import CODE, ROOM, dvc, git


@pytest.fixture
def study(recorded_study: Path) -> Path:
    return recorded_study


def _states(stage: dict[str, Any]) -> dict[str, str]:
    return {entry["name"]: entry["state"] for entry in [*stage["inputs"], *stage["outputs"]]}


def test_lineage_is_what_dvc_recorded_and_what_is_there(study: Path) -> None:
    assert "up to date" in dvc(study, "status")
    found = lineage(study)
    json.dumps(found, allow_nan=False)
    assert found["study"] == "tiny" and found["folder"] == "studies/tiny"
    assert found["git"] == {
        "revision": git(study, "rev-parse", "HEAD"),
        "diff_sha256": None,
        "changed": [],
        "untracked": [],
    }
    stages = found["stages"]
    assert {stage["status"] for stage in stages.values()} == {"up to date"}
    assert stages["compare"]["needs"] == ["prepare", "train"] and stages["prepare"]["needs"] == []
    inputs = {entry["name"]: entry for entry in stages["train"]["inputs"]}
    assert {name: (entry["kind"], entry["of"]) for name, entry in inputs.items()} == {
        "studies/tiny/data/prepared": ("data", "prepare"),
        "infinito/questions/compare.py": ("code", None),
        "requirements.lock": ("environment", None),
    }
    assert inputs["studies/tiny/data/prepared"]["files"] == len(list((study / "data/prepared").iterdir()))
    assert stages["train"]["params"]["train"]["steps"] == 6
    (runs,) = stages["train"]["runs"]
    assert runs["runs"] == 38 and sum(group["runs"] for group in runs["designs"]) == 38
    assert runs["git_revision"] == [git(study, "rev-parse", "HEAD~")] and runs["versions"]["torch"]
    assert stages["compare"]["record"]["seconds"] == 1.5

    text = as_markdown(found, {"train": "Cached"})
    assert "Changed since" not in text
    record = stages["compare"]["record"]
    ran = f"{record['finished'][:16].replace('T', ' ')}, 1.5 s, `{record['git_revision'][:8]}`"
    assert f"| compare |  | up to date | {ran} |" in text
    assert f"\n\n* {', '.join(stages)} ran on {record['device']} ({record['processor']})\n" in text
    assert "    train --> compare\n" in text and "| train | Cached | up to date |" in text
    assert inputs["infinito/questions/compare.py"]["md5"] in text and "| train | train.steps | 6 |" in text


def test_the_caches_of_python_change_nothing(study: Path) -> None:
    """Neither for DVC nor for the lineage: a room is its files, whoever has imported it."""
    cache = study / ROOM / "__pycache__"
    cache.mkdir()
    (cache / "paired.cpython-311.pyc").write_bytes(b"code")
    assert "up to date" in dvc(study, "status")
    assert {stage["status"] for stage in lineage(study)["stages"].values()} == {"up to date"}
    (cache.parent / "new.py").write_text("")
    assert "compare" in dvc(study, "status")
    assert lineage(study)["stages"]["compare"]["changed"] == ["infinito/statistics"]


def test_what_has_changed_is_named(study: Path) -> None:
    (study / CODE).write_text("# the second version\n")
    (study / "params.yaml").write_text(
        (study / "params.yaml").read_text().replace("smallest_effect: 0.01", "smallest_effect: 0.02")
    )
    (study / "results/golden.json").unlink()
    (study.parent.parent / "infinito" / "new.py").write_text("")
    found = lineage(study)
    stages = found["stages"]
    assert found["git"]["changed"] == ["infinito/questions/compare.py", "studies/tiny/params.yaml"]
    assert found["git"]["untracked"] == ["infinito/new.py"] and found["git"]["diff_sha256"]
    assert "\n\nChanged since: `infinito/questions/compare.py`, " in as_markdown(found)
    assert stages["compare"]["status"] == "changed"
    assert stages["compare"]["changed"] == ["infinito/questions/compare.py", "params.yaml: compare.smallest_effect"]
    assert _states(stages["golden"])["studies/tiny/results/golden.json"] == "missing"
    assert stages["attribute"]["status"] == "up to date"
    (study / "dvc.lock").unlink()
    stages = lineage(study)["stages"]
    assert {stage["status"] for stage in stages.values()} == {"not run"}
    assert set(_states(stages["attribute"]).values()) == {"new"}


def test_a_folder_that_is_no_study_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="dvc.yaml: no such file; a study is a folder with"):
        lineage(tmp_path)
    (tmp_path / "dvc.yaml").write_text("stages: [train]")
    with pytest.raises(ValueError, match="dvc.yaml: found no stages; allowed: what `dvc repro` understands"):
        lineage(tmp_path)
    (tmp_path / "dvc.yaml").write_text("stages: {train: {cmd: x, outs: [x]}}")
    with pytest.raises(ValueError, match="results: no results yet; run dvc repro"):
        explain(tmp_path, "compare")
    assert lineage(tmp_path)["git"]["revision"] is None


def test_numbers_are_read_as_dvc_writes_them(tmp_path: Path) -> None:
    """YAML of DVC has 1e-08, which is a text for PyYAML."""
    (tmp_path / "dvc.yaml").write_text("stages: {train: {cmd: a}}")
    lock = "stages: {train: {params: {params.yaml: {a: 1e-08, b: 1E5, c: 3, d: 1.5e-3, e: e5, f: '1e-08', g: 0.1}}}}"
    (tmp_path / "dvc.lock").write_text(lock)
    read = Pipeline.load(tmp_path).recorded["train"]["params"]["params.yaml"]
    assert read == {"a": 1e-8, "b": 1e5, "c": 3, "d": 0.0015, "e": "e5", "f": "1e-08", "g": 0.1}
    assert isinstance(read["c"], int)
