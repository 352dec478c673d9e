"""The corpus as files, and prepared as a study would have it."""

import tempfile
from pathlib import Path
from typing import Any

import pytest

from infinito import tasks
from infinito.tasks import text
from tests.tasks.text.corpus import CORPUS, SETTINGS, Prepare, written


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    (folder / "corpus").mkdir()
    for name, lines in CORPUS.items():
        file = "valid" if name == "validation" else name
        (folder / "corpus" / f"{file}.txt").write_text(written(lines), encoding="utf-8", newline="")
    return folder


@pytest.fixture
def prepare(study: Path, tmp_path: Path) -> Prepare:
    """Prepares the corpus, with some settings changed, in a fresh folder."""

    def run(where: Path = study, **changes: Any) -> Path:
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        tasks.prepare(SETTINGS.model_copy(update=changes), folder, where)
        return folder

    return run


@pytest.fixture(scope="session")
def prepared(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    tasks.prepare(SETTINGS, folder, study)
    return folder


@pytest.fixture(scope="session")
def data(prepared: Path) -> text.Text:
    loaded = tasks.load(prepared)
    assert isinstance(loaded, text.Text)
    return loaded
