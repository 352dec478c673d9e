"""Commands as arms, from the command line."""

import os
import subprocess
import sys
from pathlib import Path

import yaml

from infinito.study import load_study
from tests.commands import content, starts, write
from tests.conftest import ROOT, Infinito


def test_the_template_is_a_study(tmp_path: Path) -> None:
    text = (ROOT / "infinito/cli/template/params_command.yaml").read_text()
    (tmp_path / "params.yaml").write_text(text.replace("STUDY", "mine").replace("COMMAND", "python train.py {seed}"))
    assert load_study(tmp_path).params.stages == ["prepare", "train", "compare", "report"]


def test_check_says_what_would_be_run(infinito: Infinito, tmp_path: Path) -> None:
    study = write(tmp_path / "study", content(pairs=3))
    done = infinito("check", "--study", str(study))
    assert done.returncode == 0, done.stderr
    assert "at most 6 runs of commands, which read 1 files" in done.stdout and "train.py 0.6" in done.stdout
    assert not (study / "started").exists()


def test_stages_end_with_the_right_code(tmp_path: Path) -> None:
    study = write(tmp_path / "study", content(pairs=2))

    def stage(name: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "infinito.flows.stage", name],
            cwd=study,
            env=os.environ | {"PYTHONPATH": str(ROOT), "INFINITO_WORKERS": "2"},
            capture_output=True,
            text=True,
        )

    assert stage("prepare").returncode == 0
    done = stage("train")
    assert done.returncode == 0 and "4 of 4 runs" in done.stderr and starts(study) == 4
    broken = content(pairs=2, values={"test": {"stdout": "accuracy: {value}"}})
    broken["train"]["candidate"]["command"] = f"{sys.executable} -c 'raise SystemExit(3)' {{init_seed}} {{data_seed}}"
    (study / "params.yaml").write_text(yaml.safe_dump(broken))
    done = stage("train")
    assert done.returncode == 1 and "all 2 runs of the candidate failed" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
