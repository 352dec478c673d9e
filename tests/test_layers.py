"""Imports point one way, and the library needs no orchestration and no plotting to be imported."""

import ast
import re
import subprocess
import sys

from tests.conftest import ROOT

# rooms and ground, from the bottom: each may import what comes before it
LAYERS = [
    "interrupt",
    "disk",
    "storage",
    "escape",
    "yaml_reader",
    "importing",
    "library",
    "machine",
    "mistakes",
    "params",
    "study",
    "seeds",
    "statistics",
    "tasks",
    "operations",
    "networks",
    "training",
    "readers",
    "runs",
    "questions",
    "judging",
    "planning",
    "lineage",
    "tracking",
    "verify",
    "report",
    "stages",
    "cli",
    "__main__",
    "flows",  # a link: its folder stands beside infinito/
]
FOREIGN = ("prefect", "dvc", "datasets", "altair", "vl_convert", "jinja2")


def imported(file_text: str) -> set[str]:
    """Modules of infinito that a file imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(file_text)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "infinito":
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names} - {"__version__"}
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("infinito.")}
    return found


def test_imports_point_down_the_list_only() -> None:
    for file in [*(ROOT / "infinito").rglob("*.py"), *(ROOT / "infinito" / "flows").glob("*.py")]:
        name = file.relative_to(ROOT / "infinito").parts[0].removesuffix(".py")
        if name == "__init__":
            continue
        assert name in LAYERS, f"{name} has no place in the order"
        above = {other for other in imported(file.read_text()) if LAYERS.index(other) > LAYERS.index(name)}
        assert not above, f"{file.name} imports {above}, which come later"


def test_the_library_imports_without_orchestration_and_plotting() -> None:
    program = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {FOREIGN!r} or name == "infinito.flows":
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
import infinito.cli, infinito.stages, infinito.report, infinito.statistics.correlation, infinito.statistics.sequential
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_only_the_room_training_says_vmap() -> None:
    users = {
        file.parent.name
        for file in (ROOT / "infinito").rglob("*.py")
        if re.search(r"(?<!register_)\bvmap\(", file.read_text())
    }
    assert users == {"training"}


def test_nothing_is_imported_by_two_names() -> None:
    """`flows` is where the files of `infinito.flows` stand; a module of that name would be another one."""
    places = ("infinito", "flows", "tests", "benchmarks")
    for file in (file for place in places for file in (ROOT / place).rglob("*.py")):
        assert not re.search(r"^\s*(from|import) flows\b", file.read_text(), re.MULTILINE), file
    names = ("stage", "pipeline", "serve", "dask", "runner")
    program = f"""
import importlib, sys
for name in {names}:
    importlib.import_module(f"infinito.flows.{{name}}")
files = [getattr(module, "__file__", None) or "" for module in list(sys.modules.values())]
ours = [file for file in files if file.startswith({str(ROOT)!r}) and "/flows/" in file]
assert len(ours) == len(set(ours)) > 8 and "flows" not in sys.modules, ours
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
