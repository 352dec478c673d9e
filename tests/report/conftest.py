"""Finished studies with their reports: a plain one, and one with all that a study may have."""

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from jinja2 import BytecodeCache, Environment
from jinja2.bccache import Bucket

from infinito.report.draw import Figure
from infinito.report.evidence import Evidence, gather
from infinito.report.figures import draw_all
from infinito.stages import STAGES
from infinito.study import load_study
from tests.conftest import TINY, in_process
from tests.report.pages import Page

# one study with all that a study may have
RICH: dict[str, Any] = TINY | {
    "train": TINY["train"]
    | {
        "pilot": 10,
        "pairs": 20,
        "stack": 30,
        "grid": {"inits": 2, "datas": 3, "noises": 2, "reps": 2},
        "ablations": {"small_memory": {"network": "infinito_v52", "settings": {"memory_slots": 2}}},
    },
    "compare": TINY["compare"] | {"metrics": ["test_loss", "accuracy"]},
    "golden": TINY["golden"] | {"forward": ["selected", "best_of_ten", "best_cell"]},
}


class Compiled(BytecodeCache):
    """The templates, compiled once for HTML and once for Markdown, whose text is finalised."""

    def __init__(self) -> None:
        self.code: dict[str, bytes] = {}

    def get_bucket(self, environment: Environment, name: str, filename: str | None, source: str) -> Bucket:
        return super().get_bucket(environment, f"{name}, {environment.finalize is None}", filename, source)

    def load_bytecode(self, bucket: Bucket) -> None:
        if bucket.key in self.code:
            bucket.bytecode_from_string(self.code[bucket.key])

    def dump_bytecode(self, bucket: Bucket) -> None:
        self.code[bucket.key] = bucket.bytecode_to_string()


@pytest.fixture(scope="session", autouse=True)
def _compiled() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("infinito.report.page.Environment", partial(Environment, bytecode_cache=Compiled()))
        yield


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
