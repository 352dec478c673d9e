"""The code that a run's numbers depend on, file by file: what of infinito trains and scores it, and the user's own.

A user's network or task is a file, and whatever of their own that file imports, however deep. Imports are read from the
source, those inside functions too, and `import_module` of a name that stands there. What the Python installation holds
is left out: its versions are recorded. So is what a module opens as a file: that can't be seen.
"""

import ast
import functools
import importlib.util
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path

from infinito.storage import canonical, file_sha256, read_json, sha256

LIBRARY = Path(__file__).parents[1]
ROOMS = ("networks", "operations", "tasks", "training")
FILES = ("seeds.py", "runs/engine.py", "runs/finish.py")
INSTALLED = tuple(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib"))
PACKAGES = {"site-packages", "dist-packages"}


@functools.cache
def library() -> Mapping[str, str]:
    """SHA-256 of the files of infinito that decide what a run comes out as, by their names (infinito/seeds.py)."""
    files = [LIBRARY / name for name in FILES]
    files += [file for room in ROOMS for file in sorted((LIBRARY / room).rglob("*.py"))]
    return {f"infinito/{file.relative_to(LIBRARY).as_posix()}": file_sha256(file) for file in files}


@functools.cache
def code_of(*names: str) -> Mapping[str, str]:
    """SHA-256 of every file that runs depend on, by its name; of a process, as it was when it was first asked for.

    Args:
        names: networks and tasks, as params.yaml has them. `package.module:Class` is the user's own: its file is named
            as it is imported (package/module.py), and so are those that it imports.
    """
    own: dict[str, str] = {}
    ahead = [name.partition(":")[0] for name in names if ":" in name]
    roots, seen = set(ahead), set(ahead)
    while ahead:
        module = ahead.pop()
        file = _file(module)
        if file is None or (module not in roots and _foreign(file)):
            continue
        place = module.replace(".", "/")
        own[f"{place}/{file.name}" if file.stem == "__init__" else f"{place}{file.suffix}"] = file_sha256(file)
        found = {part for name in (module, *_imports(module, file)) for part in _with_parents(name)}
        ahead += sorted(found - seen)
        seen |= found
    return {**library(), **dict(sorted(own.items()))}


def code_sha256(code: Mapping[str, str]) -> str:
    """One hash for all of it."""
    return sha256(canonical(dict(code)))


def task_name(data: Path) -> str:
    """The task that prepared data are of, as params.yaml names it."""
    return str(read_json(data / "manifest.json")["settings"]["task"])


def _with_parents(module: str) -> Iterator[str]:
    """a.b.c, a.b and a: importing the first runs the others."""
    while module:
        yield module
        module = module.rpartition(".")[0]


def _file(module: str) -> Path | None:
    """The file of a module; None where it has none, or is no module."""
    loaded = sys.modules.get(module)
    place = getattr(loaded, "__file__", None)
    if loaded is None:
        try:
            spec = importlib.util.find_spec(module)
        except Exception:  # it imports the package around it, which may raise anything
            return None
        place = spec.origin if spec and spec.has_location else None
    return Path(place).resolve() if place and Path(place).is_file() else None


def _foreign(file: Path) -> bool:
    """Whether a file belongs to infinito, to Python or to what was installed."""
    return (
        file.is_relative_to(LIBRARY.resolve())
        or bool(PACKAGES & set(file.parts))
        or any(file.is_relative_to(place) for place in INSTALLED)
    )


def _imports(module: str, file: Path) -> Iterator[str]:
    """Everything that a file may import; of `from a import b` both a and a.b, since b may be a module."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):  # an extension, compiled
        return
    package = module if file.stem == "__init__" else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute("." * node.level + (node.module or ""), package)
            yield from (base, *(f"{base}.{alias.name}" for alias in node.names))
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called, name = ast.unparse(node.func).rpartition(".")[2], node.args[0].value
            if called in ("import_module", "__import__") and isinstance(name, str):
                yield _absolute(name, package)


def _absolute(name: str, package: str) -> str:
    """A module's full name; "" where a relative one leads out of its package."""
    try:
        return importlib.util.resolve_name(name, package)
    except ImportError:
        return ""
