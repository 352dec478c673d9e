"""Which files a run depends on: the user's own with all that it imports, and those of infinito that train."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from infinito.runs.code import code_of, library
from infinito.storage import file_sha256

FILES = {
    "mine.py": "import helper\nfrom package.inner import layer\nimport numpy, json\nfrom infinito.seeds import pool\n"
    "import importlib\nplugin = importlib.import_module('plugin')\n"
    "class Net:\n    def forward(self):\n        from package import late\n        return late\n",
    "helper.py": "",
    "plugin.py": "",
    "unused.py": "",
    "package/__init__.py": "",
    "package/late.py": "",
    "package/inner/__init__.py": "from .. import sibling\n",
    "package/inner/layer.py": "from ..cousin import *\nimport mine\n",
    "package/sibling.py": "",
    "package/cousin.py": "from .... import nowhere\n",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    before = set(sys.modules)
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
        monkeypatch.delitem(sys.modules, Path(name).stem, raising=False)  # another test's module of that name
    monkeypatch.syspath_prepend(tmp_path)
    code_of.cache_clear()
    yield tmp_path
    code_of.cache_clear()
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_a_network_brings_all_that_it_imports_and_nothing_else(folder: Path) -> None:
    found = {file: digest for file, digest in code_of("transformer", "mine:Task").items() if file not in library()}
    assert found == {file: digest for file, digest in code_of("mine:Net", "dyck").items() if file not in library()}
    assert found == {name: file_sha256(folder / name) for name in FILES if name != "unused.py"}


def test_of_infinito_it_is_what_trains() -> None:
    found = code_of("transformer", "dyck")
    assert found == library()
    for file in ("seeds.py", "networks/transformer.py", "training/loop.py", "tasks/dyck.py", "runs/finish.py"):
        assert f"infinito/{file}" in found
    assert not [file for file in found if file.startswith(("infinito/report", "infinito/questions", "infinito/cli"))]
