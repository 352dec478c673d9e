"""`infinito new`: a study of one's own, which runs as it is."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infinito.study import load_study
from infinito.yaml_reader import read_yaml
from tests.conftest import ROOT, Infinito
from tests.recorded import dvc, git


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone of this repository, as far as a study needs one; the library is a link."""
    root = tmp_path / "clone"
    (root / "studies").mkdir(parents=True)
    (root / "infinito").symlink_to(ROOT / "infinito")
    for name in ("dvc.yaml", "params.yaml", "requirements.lock", "plan.json"):
        (root / name).write_bytes((ROOT / name).read_bytes())
    git(root, "init", "-q", ".")
    monkeypatch.chdir(root / "studies")
    return root


def test_a_new_study_is_complete_and_of_its_own(infinito: Infinito, repository: Path) -> None:
    done = infinito("new", "my-study")
    assert done.returncode == 0, done.stderr
    study = repository / "studies" / "my-study"
    params = load_study(study).params
    assert (params.study, params.train.plan, params.title) == ("my-study", None, "Is Mixer better than transformer?")
    assert not list(study.rglob("*plan.json")) and (study / "library").resolve() == ROOT / "infinito"
    mine, root = read_yaml(study / "dvc.yaml")["stages"], read_yaml(ROOT / "dvc.yaml")["stages"]
    assert list(mine) == list(root) == params.stages
    for name, stage in root.items():
        moved = [dep.replace("infinito/", "library/") for dep in stage["deps"]]
        moved = ["../../requirements.lock" if dep == "requirements.lock" else dep for dep in moved]
        own = ["network.py"] if name == "train" else []
        assert sorted(mine[name].pop("deps")) == sorted(moved + own)
        assert mine[name] == {key: value for key, value in stage.items() if key != "deps"}
    for command in done.stdout.split("\n\n")[1].splitlines():
        assert "studies/my-study" in command and command.split()[0] in ("dvc", "infinito")
    checked = infinito("check", "--study", str(study))
    assert checked.returncode == 0, checked.stderr
    assert "candidate: network:Mixer, " in checked.stdout
    assert "prepare" in dvc(study, "status")


@pytest.mark.parametrize("name", ["My", "", "a/b", "../x", "a b", "null", "yes", "<b>", "1", "-x", "é"])
def test_a_name_that_is_no_plain_word_is_refused(infinito: Infinito, repository: Path, name: str) -> None:
    done = infinito("new", "--", name)
    assert done.returncode == 2 and "allowed: a plain word of small letters" in done.stderr
    assert not list((repository / "studies").iterdir())


def test_nothing_that_is_there_is_touched(
    infinito: Infinito, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repository / "studies" / "mine").mkdir()
    done = infinito("new", "mine")
    assert done.returncode == 2 and "is there already; allowed: another name" in done.stderr
    assert not list((repository / "studies" / "mine").iterdir())
    monkeypatch.chdir("/")
    done = infinito("new", "other")
    assert done.returncode == 2 and done.stderr == (
        "infinito: /: found no repository of infinito around it; allowed: a folder in a clone of it\n"
    )


@pytest.mark.parametrize(
    "candidate, baseline, title",
    [
        ("transformer_wide", "transformer", "Is transformer_wide better than transformer?"),
        ("a.b:Wide", "transformer", "Is Wide better than transformer?"),
        ("a.b:Net", "a.c:Net", "Is a.b:Net better than a.c:Net?"),
    ],
)
def test_the_title_is_made_from_the_arms(
    write_study: Callable[..., Path], candidate: str, baseline: str, title: str
) -> None:
    changes: dict[str, Any] = {"train.candidate.network": candidate, "train.baseline.network": baseline}
    assert load_study(write_study(changes | {"report": {}})).params.title == title
    assert load_study(write_study(changes | {"report.title": None, "report": {"title": None}})).params.title == title
    assert load_study(write_study(changes)).params.title == "A tiny study"


def test_the_title_names_what_one_network_has_of_its_own(write_study: Callable[..., Path]) -> None:
    changes: dict[str, Any] = {"report": {}, "train.candidate.network": "transformer", "train.candidate.settings": {}}
    wide = {"train.candidate.train": {"trunk": {"width": 16}, "learning_rate": 0.5}}
    found = load_study(write_study(changes | wide)).params.title
    assert found == "Is transformer with learning_rate 0.5, width 16 better than plain transformer?"


@pytest.mark.slow
def test_a_new_study_runs_as_it_is(infinito: Infinito, repository: Path) -> None:
    assert infinito("new", "mine").returncode == 0
    study = repository / "studies" / "mine"
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "repro"], cwd=study, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    page = (study / "results" / "report.html").read_text()
    assert "Is Mixer better than transformer?" in page and "V5.2" not in page
    assert "exploratory" in infinito("verdict", "--study", str(study)).stdout.lower()
