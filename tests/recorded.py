"""A tiny study in a real git repository, with a real DVC that has recorded it and a remote storage."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from infinito.lineage.records import write_record
from infinito.params import load_study
from infinito.storage import read_json, write_json
from tests.conftest import ROOT

CODE = "library/questions/compare.py"
ROOM = "library/statistics"


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b")
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def dvc(folder: Path, *arguments: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def path_of(entry: Any) -> str:
    """Of an output in dvc.yaml."""
    return str(next(iter(entry)) if isinstance(entry, dict) else entry)


def edit(file: Path, **changes: Any) -> None:
    write_json(file, read_json(file) | changes)


def make_recorded(finished: Path, repository: Path) -> None:
    """Make a repository with the study studies/tiny, all stages of which DVC has recorded, and everything committed."""
    study = repository / "studies" / "tiny"
    shutil.copytree(finished, study, ignore=shutil.ignore_patterns(".infinito"))
    git(repository, "init", "-q", ".")
    for name in ("questions/compare.py", "statistics/paired.py", "statistics/more/anova.py"):
        file = repository / "infinito" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("# the first version\n")
    (study / "library").symlink_to("../../infinito")
    (study / ".dvcignore").write_text("__pycache__\n")
    (repository / "requirements.lock").write_text("torch\n")
    (study / ".gitignore").write_text("/data/\n/models/\n/results/records/\n/.infinito/\n")
    (study / ".dvc").mkdir()
    (study / ".dvc" / ".gitignore").write_text("/cache\n/tmp\n")
    remote = '[core]\n    analytics = false\n    remote = storage\n["remote \\"storage\\""]\n    url = {}\n'
    (study / ".dvc" / "config").write_text(remote.format(repository.parent / "storage").replace('\\"', '"'))
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    for name, stage in stages.items():  # of the code, which is elsewhere, only what the tests change
        code = {"train": [CODE, "../../requirements.lock"], "compare": [CODE, ROOM]}.get(name, [])
        stage["deps"] = [path for path in stage["deps"] if (study / path).exists()] + code
        for kind in {"outs", "metrics", "plots"} & stage.keys():
            stage[kind] = [x for x in stage[kind] if "records" in str(x) or (study / path_of(x)).exists()]
    (study / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}, sort_keys=False))
    git(repository, "add", "-A")
    git(repository, "commit", "-qm", "code")
    for record in study.glob("models/**/stack.json"):  # as if it had been trained here
        write_json(record, read_json(record) | {"git_revision": git(repository, "rev-parse", "HEAD")})
    for name in stages:
        write_record(load_study(study), name, 1.5)
    dvc(study, "commit", "--force", "--quiet")
    git(repository, "add", "-A")
    git(repository, "commit", "-qm", "results")
