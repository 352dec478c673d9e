"""Tiny real studies: the same code and the same stages as the real ones, a few steps long."""

import gc
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

# their asserts too say what they compared
pytest.register_assert_rewrite("tests.comparisons", "tests.report.pages")
os.environ["OPENBLAS_NUM_THREADS"] = "1"  # more of them, for small matrices, mostly wait for one another
os.environ["INFINITO_COMPILE"] = "0"  # compiling takes longer than a tiny study; the engine's tests compile on purpose
ROOT = Path(__file__).parent.parent
OF_TOKENS = ("transformer", "infinito_v52")  # the built-in networks that take tokens

TINY: dict[str, Any] = {
    "study": "tiny",
    "prepare": {
        "task": "dyck",
        "seed": 0,
        "pool": 400,
        "validation": 48,
        "test": 48,
        "kinds": 3,
        "min_depth": 1,
        "max_depth": 3,
        "noise": 2,
        "noise_kinds": 2,
    },
    "train": {
        "seed": 0,
        "plan": None,
        "candidate": {"network": "infinito_v52", "settings": {"memory_slots": 8}},
        "baseline": {"network": "transformer", "settings": {}},
        "ablations": {},
        "trunk": {"width": 8, "layers": 1, "heads": 2, "dropout": 0.1},
        "steps": 6,
        "batch": 8,
        "optimiser": {"name": "adamw", "betas": [0.9, 0.999], "epsilon": 1e-8},
        "learning_rate": 0.01,
        "warmup": 2,
        "schedule": "cosine",
        "weight_decay": 0.01,
        "decayed": "all",
        "clip_norm": 1.0,
        "label_smoothing": 0.0,
        "keep": "last",
        "pilot": 0,
        "pairs": 10,
        "looks": [],
        "grid": {"inits": 3, "datas": 3, "noises": 1, "reps": 1},
        "engine": "stacked",
        "precision": "float32",
        "stack": 6,
        "curve_every": 3,
    },
    "compare": {"alpha": 0.05, "smallest_effect": 0.01, "metrics": ["test_loss"]},
    "attribute": {"alpha": 0.05},
    "golden": {
        "forward": ["selected"],
        "checkpoint": None,
        "data_seeds": 10,
        "controls": 2,
        "alpha": 0.025,
        "margin": 0.0,
        "useful": 0.01,
    },
    "ensemble": {"sizes": [1, 2, 4], "compute": {"size": 2, "runs": 3}},
    "report": {"title": "A tiny study"},
}


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """As in the workers: the bits of a CPU run are promised for one thread."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _frozen() -> None:
    """What importing has made stays: a collection of garbage, which statsmodels asks for, need not look through it."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def write_study(tmp_path: Path) -> Callable[..., Path]:
    """Writes a tiny study's params.yaml, changed as asked (`{"train.steps": 9}`; None removes); gives its folder."""

    def write(changes: dict[str, Any] | None = None, folder: str = "study") -> Path:
        content = yaml.safe_load(yaml.safe_dump(TINY))
        for key, value in (changes or {}).items():
            *path, last = key.split(".")
            section = content
            for part in path:
                section = section[part]
            if value is None:
                del section[last]
            else:
                section[last] = value
        target = tmp_path / folder
        target.mkdir(exist_ok=True)
        (target / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
        shutil.copyfile(ROOT / "dvc.yaml", target / "dvc.yaml")
        return target

    return write


def in_process(jobs: Sequence[Any]) -> list[Path]:
    """A fan-out without processes."""
    from infinito.runs.finish import finish

    return [finish(job, lambda steps: None) for job in jobs]


@pytest.fixture(scope="session")
def _finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from infinito.stages import STAGES
    from infinito.study import load_study

    folder = tmp_path_factory.mktemp("finished")
    (folder / "params.yaml").write_text(yaml.safe_dump(TINY, sort_keys=False))
    for stage in STAGES.values():
        stage(load_study(folder), in_process)
    return folder


@pytest.fixture
def finished_study(_finished: Path, tmp_path: Path) -> Path:
    """A copy of a tiny study in which every stage has run."""
    return Path(shutil.copytree(_finished, tmp_path / "finished"))


@pytest.fixture(scope="session")
def _recorded(_finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.recorded import make_recorded

    repository = tmp_path_factory.mktemp("recorded") / "repository"
    make_recorded(_finished, repository)
    return repository


@pytest.fixture
def recorded_study(_recorded: Path, tmp_path: Path) -> Path:
    """A copy of it in a git repository, with DVC, which has recorded it; the study's folder."""
    return Path(shutil.copytree(_recorded, tmp_path / "repository", symlinks=True)) / "studies" / "tiny"


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


Infinito = Callable[..., Done]


@pytest.fixture
def infinito(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Infinito:
    """Runs the command line in this process, which saves importing torch every time."""
    from infinito.cli import main

    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["infinito", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main()
        written = capsys.readouterr()
        return Done(int(left.value.code or 0), written.out, written.err)

    return run


@pytest.fixture
def refused(infinito: Infinito) -> Callable[..., str]:
    """Runs it with bad input, and gives the one line that comes back."""

    def run(*arguments: str) -> str:
        done = infinito(*arguments)
        assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1, done
        assert done.stderr.startswith("infinito: ")
        return done.stderr

    return run
