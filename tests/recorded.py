"""A tiny study in a real git repository, with a real DVC that has recorded it and a remote storage."""

import io
import logging
import os
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from warnings import catch_warnings, simplefilter

import pytest
import yaml
from dvc.cli import main as dvc_main

from infinito.lineage.records import write_record
from infinito.storage import read_json, write_json
from infinito.study import load_study
from tests.conftest import ROOT

CODE = "code/questions/compare.py"
ROOM = "code/statistics"


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b")
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def dvc(folder: Path, *arguments: str) -> str:
    """What DVC prints; it runs in this process, which saves importing it every time."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err), catch_warnings():
        simplefilter("ignore")  # of DVC's own
        patch.chdir(folder)
        patch.setenv("DVC_TEST", "1")  # or it prints JSON past what stands in for stdout
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
        for name in ("dvc", "dvc_objects", "dvc_data"):  # their handlers keep the streams that they began with
            for handler in logging.getLogger(name).handlers:
                assert isinstance(handler, logging.StreamHandler)
                patch.setattr(handler, "stream", err if handler.level >= logging.WARNING else out)
        code = dvc_main([*arguments])
    assert code == 0, out.getvalue() + err.getvalue()
    return out.getvalue()


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
    (study / "code").symlink_to("../../infinito")  # no library: stages would ask for all of it
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
