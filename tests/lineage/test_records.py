"""The records of stages and stacks, and the audit that misses none."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from infinito.lineage.audit import audit
from infinito.lineage.records import write_record
from infinito.storage import read_table, write_json, write_table
from infinito.study import load_study
from tests.conftest import Infinito
from tests.plans import change
from tests.recorded import CODE, dvc, edit, git


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


def said(study: Path, *, reserve: bool = False) -> list[str]:
    return [str(finding) for finding in audit(load_study(study)) if finding.reserve == reserve]


def test_what_should_be_there_is_named_and_what_dvc_can_bring_is_told_apart(study: Path) -> None:
    for path in ("models/runs", "models/golden"):
        shutil.move(study / path, study.parent / Path(path).name)
    (study / "results/attribute.json").unlink()
    assert said(study) == [
        "stages: models/runs: not on this machine; dvc pull brings it, or dvc checkout from this machine's cache",
        "stages: results/attribute.json: missing, and dvc.lock records it; git checkout or dvc repro attribute brings "
        "it back",
        "stages: models/golden: not on this machine; dvc pull brings it, or dvc checkout from this machine's cache",
    ]
    (study / "dvc.lock").unlink()
    found = said(study)
    assert "stages: models/runs: missing, though stage train has left results/records/train.json" in found
    assert "stages: results/attribute.json: missing, though stage attribute has left" in "".join(found)


def test_a_clone_lacks_the_runs_until_dvc_brings_them(study: Path, infinito: Infinito) -> None:
    dvc(study, "push", "--quiet")
    clone = study.parent / "clone"
    git(study.parent, "clone", "-q", str(study.parents[1]), str(clone))
    there = clone / "studies" / "tiny"
    done = infinito("audit", "--study", str(there))
    assert done.returncode == 1 and done.stdout.startswith("study tiny: the chain does not hold; first at stages\n")
    assert "models/runs: not on this machine; dvc pull brings it" in done.stdout
    dvc(there, "pull", "--quiet")
    done = infinito("audit", "--study", str(there), "--strict")
    assert done.returncode == 0, done


def test_reserves_count_in_strict_only(study: Path, infinito: Infinito) -> None:
    (study / CODE).write_text("# the second version\n")
    change(study, {"train.steps": 7})
    reserves = said(study, reserve=True)
    for expected in (
        "git: studies/tiny/params.yaml: not committed as it is",
        "stages: stage train: params.yaml: train.steps is not as dvc.lock records it; run dvc repro",
        f"stages: stage compare: {CODE} is not as dvc.lock records it; run dvc repro",
    ):
        assert expected in reserves
    assert said(study) == []
    done = infinito("audit", "--study", str(study))
    assert done.returncode == 0 and "the chain holds" in done.stdout and f"reserve: {reserves[0]}\n" in done.stdout
    done = infinito("audit", "--study", str(study), "--strict")
    assert done.returncode == 1 and "does not hold; first at git" in done.stdout


def test_what_git_cannot_tell_is_a_reserve(study: Path) -> None:
    clone = study.parent / "shallow"
    git(study.parent, "clone", "-q", "--depth", "1", f"file://{study.parents[1]}", str(clone))
    assert any("git: a shallow clone" in reserve for reserve in said(clone / "studies/tiny", reserve=True))
    alone = study.parents[2] / "alone"
    shutil.copytree(study, alone, symlinks=True)
    assert any("in no git repository" in reserve for reserve in said(alone, reserve=True))
    first = sorted((study / "models/runs/stacks").iterdir())[0]
    edit(first / "stack.json", git_diff_sha256="a" * 64)
    assert any("1 stacks were trained with changes to revision" in reserve for reserve in said(study, reserve=True))
