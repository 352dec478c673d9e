"""Finished studies with their reports: a plain one, and one with all that a study may have."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from infinito.params import load_study
from infinito.report.draw import Figure
from infinito.report.evidence import Evidence, gather
from infinito.report.figures import draw_all
from infinito.stages import STAGES
from tests.conftest import TINY, in_process
from tests.report.pages import Page

# one study with all that a study may have
RICH: dict[str, Any] = TINY | {
    "train": TINY["train"]
    | {
        "pilot": 10,
        "pairs": 20,
        "grid": {"inits": 2, "datas": 3, "noises": 2, "reps": 2},
        "ablations": {"small_memory": {"network": "infinito_v52", "settings": {"memory_slots": 2}}},
    },
    "compare": TINY["compare"] | {"metrics": ["test_loss", "accuracy"]},
    "golden": TINY["golden"] | {"forward": ["selected", "best_of_ten", "best_cell"]},
}


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory, _finished: Path) -> Path:
    """A finished study whose report is there; not to be changed."""
    return Path(shutil.copytree(_finished, tmp_path_factory.mktemp("report") / "study"))


@pytest.fixture(scope="session")
def evidence(study: Path) -> Evidence:
    return gather(load_study(study))


@pytest.fixture(scope="session")
def figures(evidence: Evidence) -> dict[str, Figure]:
    return draw_all(evidence)


@pytest.fixture(scope="session")
def page(study: Path) -> Page:
    return Page((study / "results/report.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def rich_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a pilot, ablations, two metrics, noise seeds, reruns and several golden candidates."""
    folder = tmp_path_factory.mktemp("rich")
    (folder / "params.yaml").write_text(yaml.safe_dump(RICH, sort_keys=False))
    for stage in STAGES.values():
        stage(load_study(folder), in_process)
    return folder


@pytest.fixture(scope="session")
def rich(rich_study: Path) -> Evidence:
    return gather(load_study(rich_study))


@pytest.fixture(scope="session")
def rich_page(rich_study: Path) -> Page:
    return Page((rich_study / "results/report.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def rich_figures(rich: Evidence) -> dict[str, Figure]:
    return draw_all(rich)
