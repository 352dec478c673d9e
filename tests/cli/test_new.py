"""`infinito new`: a study of one's own, which runs as it is."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infinito import library
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
        assert " my-study " in command and command.split()[0] in ("dvc", "infinito")  # as seen from studies/
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
        "infinito: /: in no git repository; a study needs one, as its plan and results do: git init\n"
    )


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Somebody's repository, with a network and a text of their own; the current folder."""
    root = tmp_path / "theirs"
    (root / "nets").mkdir(parents=True)
    (root / "nets" / "wide.py").write_text("from nets.parts import part\n\nclass Wide:\n    pass\n")
    (root / "nets" / "parts.py").write_text("part = 1\n")
    (root / "texts").mkdir()
    for split in ("train", "valid", "test"):
        (root / "texts" / f"{split}.txt").write_text(f"The {split} text has words enough.\n" * 300)
    git(root, "init", "-q", ".")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "theirs")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(root)
    return root


def deps(study: Path, stage: str) -> list[str]:
    found: list[str] = read_yaml(study / "dvc.yaml")["stages"][stage]["deps"]
    return found


def test_a_study_stands_in_any_git_repository(infinito: Infinito, elsewhere: Path) -> None:
    done = infinito("new", "mine")
    assert done.returncode == 0 and "dvc --cd mine repro" in done.stdout, done.stderr
    study, root = elsewhere / "mine", read_yaml(ROOT / "dvc.yaml")["stages"]
    assert (study / "library").readlink() == ROOT / "infinito"
    own = ["dvc.yaml", "network.py", "params.yaml", ".dvcignore", ".gitignore", ".dvc/config", ".dvc/.gitignore"]
    assert sorted(git(elsewhere, "status", "--short", "-uall").split("\n")) == sorted(f"?? mine/{path}" for path in own)
    for name, stage in read_yaml(study / "dvc.yaml")["stages"].items():
        moved = [dep.replace("infinito/", "library/") for dep in root[name]["deps"] if dep != "requirements.lock"]
        assert stage == root[name] | {"deps": ["network.py"] * (name == "train") + moved}
    assert "up to date" not in dvc(study, "status") and load_study(study).params.study == "mine"


def test_a_dvc_that_is_there_is_used(infinito: Infinito, elsewhere: Path) -> None:
    dvc(elsewhere, "init", "--quiet")
    assert infinito("new", "mine").returncode == 0
    assert not (elsewhere / "mine" / ".dvc").exists()
    assert "prepare" in dvc(elsewhere / "mine", "status")


def test_a_text_and_a_network_of_ones_own(infinito: Infinito, elsewhere: Path) -> None:
    done = infinito("new", "mine", "--task", "text", "--source", "texts", "--network", "nets/wide.py:Wide")
    assert done.returncode == 0, done.stderr
    study, params = elsewhere / "mine", load_study(elsewhere / "mine").params
    assert params.train.candidate.identity == {"network": "nets.wide:Wide", "settings": {}}
    assert params.prepare.model_dump()["source"] == "../texts" and not (study / "network.py").exists()
    assert deps(study, "prepare")[0] == "../texts"
    # what it imports is read too
    assert set(deps(study, "train")[:2]) == {"../nets/wide.py", "../nets/parts.py"}


def test_the_sample_learns_a_text_without_looking_ahead(infinito: Infinito, elsewhere: Path) -> None:
    assert infinito("new", "mine", "--task", "text", "--source", "texts").returncode == 0
    file = elsewhere / "mine" / "params.yaml"
    text = file.read_text().replace("vocabulary: 512", "vocabulary: 300").replace("length: 32", "length: 8")
    file.write_text(text)
    done = infinito("check", "--study", "mine")
    assert done.returncode == 0 and "candidate: network:Mixer" in done.stdout, done.stderr


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--task", "text"], "--source: found none, with --task text"),
        (["--source", "texts"], "--source: found 'texts', with --task dyck"),
        (["--task", "text", "--source", "nets"], "--source: found 'nets', which has no train text"),
        (["--task", "images"], "'images' is not one of 'dyck', 'text'"),
        (["--network", "nets/wide.py"], "--network: found 'nets/wide.py'; allowed: FILE.py:CLASS"),
        (["--network", "nets/none.py:Wide"], "--network: found 'nets/none.py:Wide'; allowed: FILE.py:CLASS"),
        (["--network", "nets/wide.py:Wid"], "--network: found 'Wid'; nets/wide.py has Wide"),
        (["--network", "nets/parts.py:Wide"], "nets/parts.py has no class at all"),
        (["--network", "/usr/lib/python3/a.py:B"], "allowed: FILE.py:CLASS"),
        (["--network", "a-b.py:A"], "which Python can't import from"),
        (["--network", "torch.py:A"], "rename one of them"),
        (["--network", "half.py:A"], "--network: "),
    ],
)
def test_what_can_not_be_used_is_refused(
    refused: Callable[..., str], elsewhere: Path, arguments: list[str], said: str
) -> None:
    for name, text in {"a-b": "class A: ...", "torch": "class A: ...", "half": "class A("}.items():
        (elsewhere / f"{name}.py").write_text(text)
    assert said in refused("new", "mine", *arguments)
    assert not (elsewhere / "mine").exists()


def test_a_clone_gets_its_link_to_the_code(infinito: Infinito, refused: Callable[..., str], elsewhere: Path) -> None:
    assert infinito("new", "mine").returncode == 0
    link = elsewhere / "mine" / "library"
    link.unlink()
    missing = refused("check", "--study", "mine")
    assert "mine/library: no such folder; allowed: a link to" in missing and "infinito link --study mine" in missing
    assert infinito("link", "--study", "mine").stdout.startswith(
        f"mine/library: leads to {ROOT / 'infinito'}, infinito "
    )
    link.unlink()
    link.symlink_to("/nowhere")
    assert "mine/library: leads to /nowhere; allowed:" in refused("check", "--study", "mine")
    assert infinito("link", "--study", "mine").returncode == 0 and link.resolve() == ROOT / "infinito"
    assert "led already" in infinito("link", "--study", "mine").stdout
    link.unlink()
    shutil.copytree(ROOT / "infinito", link)  # as `dvc exp run --temp --copy-paths library` does
    library.check_link(elsewhere / "mine")
    (link / "seeds.py").write_text("# another version\n")
    assert "mine/library: other code; allowed: a link to" in refused("check", "--study", "mine")
    assert "mine/library: found what is no link" in refused("link", "--study", "mine")
    assert "params.yaml: no such file" in refused("link")


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


SCRIPT = """
import random, sys
random.seed(int(sys.argv[1]) + 1000 * (sys.argv[2] == "wide"))
print("epoch 1, accuracy: 0.1")
print(f"epoch 2, accuracy: {random.gauss(0.8 if sys.argv[2] == 'wide' else 0.6, 0.02)}")
"""
TWO_COMMANDS = (
    "--command", "python src/fit.py {seed} wide", "--against", "python src/fit.py {seed} narrow", "--value",
    "accuracy: {value}", "--guess", "0.1",
)  # fmt: skip


@pytest.fixture
def scripted(elsewhere: Path) -> Path:
    (elsewhere / "src").mkdir(exist_ok=True)
    (elsewhere / "src/fit.py").write_text(SCRIPT)
    return elsewhere


def test_two_commands_are_a_study(infinito: Infinito, scripted: Path) -> None:
    done = infinito("new", "widths", *TWO_COMMANDS)
    assert done.returncode == 0, done.stderr
    study = scripted / "widths"
    params = load_study(study).params
    assert params.stages == ["prepare", "train", "compare", "report"] == list(read_yaml(study / "dvc.yaml")["stages"])
    assert params.train.candidate.command == "python ../src/fit.py {seed} wide"  # type: ignore[union-attr]
    assert params.prepare.metric.direction == "higher" and params.prepare.files == ["../src/fit.py"]  # type: ignore[union-attr]
    assert "../src/fit.py" in read_yaml(study / "dvc.yaml")["stages"]["prepare"]["deps"]


@pytest.mark.parametrize(
    "left_out, said",
    [
        ("--against", "--against: found none"),
        ("--value", "--value: found None; allowed: what the command prints"),
        ("--guess", "--guess: found none; allowed: what a model scores that has learned nothing"),
    ],
)
def test_what_a_study_of_commands_lacks_is_said(infinito: Infinito, scripted: Path, left_out: str, said: str) -> None:
    place = TWO_COMMANDS.index(left_out)
    done = infinito("new", "widths", *TWO_COMMANDS[:place], *TWO_COMMANDS[place + 2 :])
    assert done.returncode == 2 and said in done.stderr and not (scripted / "widths").exists()


def test_a_command_without_a_seed_or_a_file_is_refused(infinito: Infinito, scripted: Path) -> None:
    for command, said in (("python src/fit.py wide", "without a seed"), ("program {seed}", "which names no file of")):
        done = infinito("new", "widths", "--command", command, "--against", command, *TWO_COMMANDS[4:])
        assert done.returncode == 2 and said in done.stderr


@pytest.mark.slow
def test_a_study_of_commands_runs_as_it_is(infinito: Infinito, scripted: Path) -> None:
    assert infinito("new", "widths", *TWO_COMMANDS).returncode == 0
    study = scripted / "widths"
    dvc(study, "repro", "--quiet")
    compare = json.loads((study / "results/compare.json").read_text())
    assert compare["verdict"] == "BETTER" and 0.15 < compare["difference"]["value"] < 0.25
    assert "up to date" in dvc(study, "status")
    (scripted / "src/fit.py").write_text(SCRIPT.replace("0.8", "0.9"))
    assert "prepare" in dvc(study, "status")
