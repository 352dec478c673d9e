import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from infinito.storage import read_json
from tests.conftest import ROOT


def infinito(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, "-m", "infinito", *arguments], capture_output=True, text=True, env=environment, cwd="/"
    )


def test_help_names_every_verb_and_what_a_study_is() -> None:
    done = infinito("--help")
    assert done.returncode == 0
    assert all(word in done.stdout for word in ("check", "verdict", "params.yaml", "dvc repro"))


def test_verdict_prints_what_compare_wrote(finished_study: Path) -> None:
    result = read_json(finished_study / "results/compare.json")
    done = infinito("verdict", "--study", str(finished_study))
    assert done.returncode == 0, done.stderr
    assert result["sentence"] in done.stdout and f"{result['wins']} of 10" in done.stdout
    low, high = (f"{result['difference'][key]:.4g}" for key in ("ci_low", "ci_high"))
    assert f"[{low}, {high}]" in done.stdout
    machine = infinito("verdict", "--json", "--study", str(finished_study))
    assert json.loads(machine.stdout) == result


def test_check_counts_the_runs(write_study: Callable[..., Path]) -> None:
    done = infinito("check", "--study", str(write_study()))
    assert done.returncode == 0 and "study tiny, 68 runs of 6 steps" in done.stdout  # 2 x (10 + 9) + 10 x (1 + 2)


def test_bad_input_is_one_line_and_exit_code_2(write_study: Callable[..., Path], tmp_path: Path) -> None:
    unfinished = write_study()
    for arguments, message in (
        (("verdict", "--study", str(unfinished)), "compare.json: no such file; run the stage that writes it"),
        (("check", "--study", str(tmp_path / "nowhere")), "params.yaml: no such file"),
        (("check", "--study", str(write_study({"train.nonsense": 1}, "bad"))), "train.nonsense: unknown key"),
    ):
        done = infinito(*arguments)
        assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
        assert done.stderr.startswith("infinito: ") and message in done.stderr
    assert infinito("frobnicate").returncode == 2
