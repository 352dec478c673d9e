"""`infinito check`: what training takes, what can't fit, and networks found and built as the stages find them."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infinito.planning import cost
from infinito.stages import STAGES
from infinito.study import load_study
from tests.conftest import ROOT, Done, Infinito, in_process
from tests.recorded import git

NETWORK = """
from torch import nn


class Network(nn.Module):
    def __init__(self, vocabulary, length, causal, width, layers, heads, dropout):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.out = nn.Linear(width, vocabulary)

    def forward(self, input_ids):
        return self.out(self.embedding(input_ids))
"""


def test_what_training_takes_is_said(infinito: Infinito, write_study: Callable[..., Path]) -> None:
    folder = write_study({"train.candidate.train": {"steps": 9}})
    done = infinito("check", "--workers", "3", "--study", str(folder))
    assert done.returncode == 0, done.stderr
    rows = re.findall(
        r"(?m)^(\w+): (\w+), ([\d,]+) parameters; (\d+) runs, 6 at once, ([\d.]+) MiB a worker; ([\d,]+) model-steps, "
        r"([\d.,e+]+) model-steps/s uncompiled$",
        done.stdout,
    )
    assert [row[:2] for row in rows] == [("candidate", "infinito_v52"), ("baseline", "transformer")]
    # pairs, grid, 10 x (1 + 2) of golden, and of the ensemble 3 longer and 3 wider ones, twice the work each
    assert [int(row[3]) for row in rows] == [10 + 9 + 30 + 6, 10 + 9]
    assert [int(row[5]) for row in rows] == [9 * (10 + 9 + 30 + 12), 6 * (10 + 9)]
    assert re.search(
        r"(?m)^training: about [\d.]+ s, uncompiled and without evaluation, 3 workers, engine stacked$", done.stdout
    )
    assert not (folder / "data").exists()


def test_the_runs_are_those_that_the_stages_train(finished_study: Path) -> None:
    import pandas as pd

    study = load_study(finished_study)
    tables = [pd.read_parquet(file) for file in sorted((finished_study / "models").rglob("runs.parquet"))]
    found = pd.concat(tables).groupby("arm").size().to_dict()
    assert found == {arm: designs.total() for arm, designs in cost.runs(study.params).items()}


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"train.candidate.network": "transfomer"}, "network: 'transfomer' is unknown"),
        ({"train.candidate.network": "no_such:Network"}, "network: 'no_such:Network' can't be imported"),
        ({"train.candidate.settings": {"wings": 2}}, "network: 'infinito_v52' does not fit its settings"),
        ({"train.batch": 10**11}, r"train: the \w+ takes [\d,.e+]+ GiB, 1 runs at once; allowed: [\d,.]+ GiB, which"),
        (
            {"train.trunk": {"width": 2**20, "layers": 1, "heads": 2, "dropout": 0.1}},
            r"train: the \w+ takes [\d,.e+]+ GiB",
        ),
        (
            {"train.stack": 10**7},
            r"train: the \w+ takes 2 workers of [\d,.e+]+ GiB each, 10000000 runs at once; allowed",
        ),
        ({"train.steps": 10**12}, r"train: the \w+ takes [\d,.e+]+ GiB|model-steps take about"),
        ({"train.steps": 10**7, "train.pairs": 10**6 - 1}, r"model-steps take about [\d,.e+]+ years with 2 workers on"),
        (
            {"train.grid": {"inits": 10**6, "datas": 5, "noises": 1, "reps": 1}},
            "train.grid: found 1000000 init x 5 data x 1 noise seeds, 5,000,000 cells; allowed: 1,000,000, as many as",
        ),
        (
            {"golden.data_seeds": 10**6},
            "golden: found 1000000 data_seeds x 2 controls, 2,000,000 seeds; allowed: 1,000,",
        ),
        (
            {"ensemble.compute": {"size": 2, "runs": 10**6}},
            "ensemble.compute.runs: found 1000000, 2,000,000 seeds; allo",
        ),
        ({"prepare.pool": 10**11}, r"prepare: found 100,000,000,000 examples, which take [\d,.e+]+ GiB; allowed: "),
    ],
)
def test_what_cannot_be_trained_is_one_line(
    infinito: Infinito, write_study: Callable[..., Path], changes: dict[str, Any], message: str
) -> None:
    done = infinito("check", "--workers", "2", "--study", str(write_study(changes)))
    assert done.returncode == 2 and re.search(message, done.stderr), done.stderr
    assert len(done.stderr.splitlines()) == 1 and done.stdout == ""


def test_every_command_finds_what_the_stages_find(
    infinito: Infinito, write_study: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Networks beside params.yaml and in the root of the repository, for commands from anywhere."""
    git(tmp_path, "init", "-q", ".")
    study = write_study(
        {
            "train.candidate": {"network": "beside.net:Network", "settings": {}, "train": {"learning_rate": 0.02}},
            "train.baseline": {"network": "above.net:Network", "settings": {}},
            "golden": None,
            "ensemble": None,
            "train.pairs": 8,
            "train.grid": {"inits": 2, "datas": 2, "noises": 1, "reps": 1},
        },
        "studies",
    )
    for package in (study / "beside", tmp_path / "above"):
        package.mkdir()
        (package / "net.py").write_text(NETWORK)
    monkeypatch.chdir(tmp_path.parent)
    path = [folder for folder in sys.path if folder]  # of the console script, which has no folder of its own on it

    def command(*arguments: str) -> Done:
        """As in a process of its own: nothing is found or imported yet."""
        monkeypatch.setattr(sys, "path", [*path])
        for name in [name for name in sys.modules if name.partition(".")[0] in ("beside", "above")]:
            del sys.modules[name]
        done = infinito(*arguments, "--study", str(study))
        assert done.returncode == 0, done.stderr
        return done

    said = command("check").stdout
    assert "candidate: beside.net:Network, " in said and "baseline: above.net:Network, " in said
    STAGES["prepare"](load_study(study), in_process)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "INFINITO_WORKERS": "1"}
    stage = [
        sys.executable,
        "-m",
        "infinito.flows.stage",
        "train",
    ]  # a process of its own, whose workers have to find them too
    done = subprocess.run(stage, cwd=study, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    command("plan", "--pilot", "8", "--pairs", "10")
    command("verify", "--sample", "1")
