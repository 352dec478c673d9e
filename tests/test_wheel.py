"""The wheel, installed away from this repository: what is in it, and a newcomer's first minutes with it."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from infinito import __version__
from infinito.storage import read_json
from infinito.yaml_reader import read_yaml
from tests.conftest import ROOT, Done
from tests.recorded import git

OPTIONAL = ("prefect", "dvc", "psutil", "datasets", "tokenizers", "sklearn", "PIL", "altair", "jinja2", "distributed")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, since building leaves folders behind."""
    source = tmp_path_factory.mktemp("source")
    for name in ("infinito", "flows"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE", "dvc.yaml"):
        shutil.copyfile(ROOT / name, source / name)
    build = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", "dist", "."]
    subprocess.run([sys.executable, "-m", "pip", *build], cwd=source, check=True)
    return next((source / "dist").iterdir())


class Installed:
    """An environment with this wheel, and, as nothing is downloaded here, with the packages of this one."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        venv.create(folder / "env", with_pip=False, symlinks=True)
        self.bin = folder / "env" / "bin"
        (self.packages,) = (folder / "env" / "lib").glob("python*/site-packages")
        (self.packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
        arguments = ["install", "--quiet", "--no-deps", "--no-index", str(wheel)]
        subprocess.run([sys.executable, "-m", "pip", "--python", str(self.bin / "python"), *arguments], check=True)
        self.environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        self.environment["PATH"] = f"{self.bin}:{os.environ['PATH']}"

    def run(self, folder: Path, *command: str) -> Done:
        done = subprocess.run(command, cwd=folder, env=self.environment, capture_output=True, text=True)
        return Done(done.returncode, done.stdout, done.stderr)

    def ran(self, folder: Path, *command: str) -> str:
        done = self.run(folder, *command)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return Installed(tmp_path_factory.mktemp("installed"), wheel)


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A repository of somebody's, with a folder of Prefect flows and the losses of a few runs."""
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows" / "__init__.py").write_text("raise RuntimeError('their own flows')\n")
    rows = [f"{arm},{seed},{loss + 0.01 * (seed * seed % 7)}" for arm, loss in (("mlp", 0.5), ("ft", 0.4))
            for seed in range(12)]  # fmt: skip
    (tmp_path / "results.csv").write_text("\n".join(["arm,seed,test_loss", *rows]) + "\n")
    git(tmp_path, "init", "-q", ".")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "theirs")
    return tmp_path


def test_nothing_is_missing_and_nothing_else_is_in_it(wheel: Path) -> None:
    expected = {
        file.relative_to(ROOT).as_posix()
        for folder in (ROOT / "infinito", ROOT / "infinito" / "flows")
        for file in folder.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    found = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert found == expected and {"infinito/flows/stage.py", "infinito/report/report.css"} < found


def test_runs_are_judged_and_a_study_is_made_anywhere(installed: Installed, theirs: Path) -> None:
    assert installed.ran(theirs, "infinito", "--version") == f"infinito {__version__}\n"
    assert "BETTER" in installed.ran(theirs, "infinito", "judge", "results.csv", "--baseline", "mlp")
    installed.ran(theirs, "infinito", "new", "mine")
    assert (theirs / "mine" / "library").resolve() == installed.packages / "infinito"
    assert read_yaml(theirs / "mine" / "dvc.yaml")["stages"].keys() == read_yaml(ROOT / "dvc.yaml")["stages"].keys()


def test_runs_are_judged_by_the_core_alone(installed: Installed, theirs: Path) -> None:
    program = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {OPTIONAL!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Refuse())
sys.argv = ["infinito", *sys.argv[1:]]
from infinito.cli import main
main()
"""
    command = ("judge", "results.csv", "--baseline", "mlp")
    assert "BETTER" in installed.ran(theirs, "python", "-c", program, *command)
    for name, package in (("stage", "psutil"), ("pipeline", "httpx"), ("serve", "psutil")):
        module = program.replace("from infinito.cli import main", f"from infinito.flows.{name} import main")
        done = installed.run(theirs, "python", "-c", module.replace("'dvc'", "'httpx', 'dvc'"), "up")
        assert done.returncode == 2
        assert done.stderr == f"infinito: needs the package {package}: pip install 'infinito[orchestrate]'\n"


@pytest.mark.slow
def test_the_first_minutes_of_a_newcomer(installed: Installed, theirs: Path, tmp_path: Path) -> None:
    """Judge a table, make a study, run it, read the report, commit; then another version, and a colleague's clone."""
    installed.ran(theirs, "infinito", "judge", "results.csv", "--baseline", "mlp")
    installed.ran(theirs, "infinito", "new", "mine")
    study = theirs / "mine"
    params = (study / "params.yaml").read_text()
    for key, value in {"pool": 400, "steps": 6, "curve_every": 3, "warmup": 2, "pairs": 10}.items():
        params, found = re.subn(rf"(?m)^(  {key}:) \d+", rf"\1 {value}", params)
        assert found == 1, key
    (study / "params.yaml").write_text(params)
    dvc = ("python", "-m", "dvc", "--cd", "mine")
    installed.ran(theirs, *dvc, "repro")
    assert "Is Mixer better than transformer?" in (study / "results" / "report.html").read_text()
    assert "exploratory" in installed.ran(theirs, "infinito", "verdict", "--study", "mine").lower()
    record = read_json(study / "results" / "records" / "train.json")
    assert record["versions"]["infinito"] == __version__
    committed = git(theirs, "ls-files", "--others", "--exclude-standard").splitlines()
    assert {path.split("/")[1] for path in committed} == {
        ".dvc", ".dvcignore", ".gitignore", "dvc.lock", "dvc.yaml", "network.py", "params.yaml", "results"
    }  # fmt: skip
    assert not [path for path in committed if "records" in path or "cache" in path or "tmp" in path]
    git(theirs, "add", "-A")
    git(theirs, "commit", "-qm", "mine")
    assert "up to date" in installed.ran(theirs, *dvc, "status") and git(theirs, "status", "--short") == ""

    # a colleague has another path, and finds nothing changed that git holds
    git(tmp_path, "clone", "-q", str(theirs), str(tmp_path / "clone"))
    missing = installed.run(tmp_path / "clone" / "mine", "infinito", "check")
    assert missing.returncode == 2 and "infinito link --study ." in missing.stderr
    installed.ran(tmp_path / "clone" / "mine", "infinito", "link")
    status = installed.ran(tmp_path / "clone", *dvc, "status")
    assert "library" not in status and "changed command" not in status and "models/runs" in status

    # what trains is another version: what it made is out of date; what only shows it is not
    with (installed.packages / "infinito" / "training" / "schedule.py").open("a") as file:
        file.write("# another version\n")
    status = installed.ran(theirs, *dvc, "status")
    assert (
        "library/training" in status.partition("train:")[2].partition("compare:")[0] and "library/report" not in status
    )
