"""The records of stages and stacks, and the audit that misses none."""

from collections.abc import Callable
from pathlib import Path

import pytest

from infinito.lineage.audit import audit
from infinito.lineage.records import write_record
from infinito.params import load_study
from infinito.storage import read_table, write_json, write_table
from tests.recorded import edit


@pytest.fixture
def study(recorded_study: Path) -> Path:
    return recorded_study


def test_a_complete_study_lacks_no_record(study: Path) -> None:
    assert audit(load_study(study)) == []


def _first_stack(study: Path) -> Path:
    return sorted((study / "models/runs/stacks").iterdir())[0]


def _drop_seeds(study: Path) -> None:
    file = study / "models/runs/runs.parquet"
    write_table(file, read_table(file).to_pandas().drop(columns="noise_seed"))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda study: (study / "dvc.lock").unlink(), "results/compare.json: not in dvc.lock; run dvc repro"),
        (lambda study: edit(study / "results/compare.json", wins=99), "compare.json: not what dvc.lock records"),
        (
            lambda study: edit(study / "results/compare.json", wins=99),
            "results/records/compare.json: of another results/compare.json than there is",
        ),
        (lambda study: write_json(study / "results/new.json", {}), "results/new.json: no stage of dvc.yaml writes it"),
        (lambda study: (study / "results/records/golden.json").unlink(), "not on this machine; dvc pull"),
        (lambda study: edit(study / "results/records/train.json", git_revision=None), "git_revision is missing"),
        (lambda study: (_first_stack(study) / "stack.json").unlink(), "stack.json: missing, with all that"),
        (lambda study: edit(_first_stack(study) / "stack.json", processor=""), "stack.json: processor is missing"),
        (lambda study: edit(_first_stack(study) / "stack.json", runs=[]), "stack.json: runs is missing"),
        (
            lambda study: edit(_first_stack(study) / "stack.json", versions={"python": "3", "torch": None}),
            "stack.json: versions is missing",
        ),
        (lambda study: (_first_stack(study) / "final.safetensors").unlink(), "/final.safetensors: missing"),
        (_drop_seeds, "models/runs/runs.parquet: noise_seed is missing in 38 of 38 runs"),
    ],
)  # fmt: skip
def test_what_lacks_its_record_is_named(study: Path, harm: Callable[[Path], object], message: str) -> None:
    harm(study)
    findings = audit(load_study(study))
    assert any(message in finding.said for finding in findings if not finding.reserve), findings


def test_a_stage_that_has_written_nothing_gets_no_record(study: Path) -> None:
    with pytest.raises(ValueError, match="no stage 'comparison'; allowed: prepare, train, compare, "):
        write_record(load_study(study), "comparison", 1.0)
    (study / "results/compare.json").unlink()
    with pytest.raises(ValueError, match="compare.json: stage compare has not written it"):
        write_record(load_study(study), "compare", 1.0)
