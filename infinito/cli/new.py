"""`infinito new`: a study of one's own, which runs as it is."""

import ast
import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import typer

from infinito.cli.app import app
from infinito.cli.scripts import Scripts

TEMPLATE = Path(__file__).with_name("template")  # params_*.yaml of every task; pipeline.yaml is dvc.yaml of the root
PLAIN = re.compile(r"[a-z][a-z0-9_-]*")
IGNORED = ("data/", "models/", ".infinito/", "results/records/")  # by git
IGNORED_BY_DVC = ".infinito\n.git\n__pycache__\n"
DVC = {
    ".dvc/config": "[core]\n    analytics = false\n    check_update = false\n",
    ".dvc/.gitignore": "/config.local\n/tmp\n/cache\n",
}
LIBRARY = """\
# library: infinito's own code, by a link that git ignores. After `git clone`, `infinito link` makes it.
"""
SCRIPTS = "Of commands"
SAMPLE = (
    "    network: network:Mixer  # network.py beside this file; or a name that infinito has, or package.module:Class\n"
)
SETTINGS = "    settings: {expansion: 2}  # its own\n"


@app.command(epilog="Example: infinito new mixer; infinito new prose --task text --source texts --network net.py:Net")
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the study, and of its folder, which is made here.")],
    task: Annotated[Literal["dyck", "text"], typer.Option(help="What is learned; any other one in params.yaml.")] = (
        "dyck"
    ),
    source: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="With --task text: has train.txt, valid.txt and test.txt."),
    ] = None,
    network: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.py:CLASS", help="The candidate.", show_default="a sample, network.py, to be replaced"
        ),
    ] = None,
    command: Annotated[
        str | None,
        typer.Option(metavar="'...'", help="The candidate: any command, with {seed} in it.", rich_help_panel=SCRIPTS),
    ] = None,
    against: Annotated[
        str | None, typer.Option(metavar="'...'", help="The baseline's command.", rich_help_panel=SCRIPTS)
    ] = None,
    value: Annotated[
        str | None,
        typer.Option(
            metavar="'...'",
            help="Where the figure is: 'accuracy: {value}' in what it prints, or '{out}/metrics.json:test.accuracy'.",
            rich_help_panel=SCRIPTS,
        ),
    ] = None,
    guess: Annotated[
        float | None,
        typer.Option(help="What guessing scores; a run that fails counts with it.", rich_help_panel=SCRIPTS),
    ] = None,
    higher: Annotated[
        bool | None,
        typer.Option(
            "--higher/--lower", help="Which way it is better.", rich_help_panel=SCRIPTS, show_default="as its name says"
        ),
    ] = None,
) -> None:
    """Make a study in the current folder, in any git repository: a small one, which `dvc repro` runs as it is.

    Then put your own network in its network.py, and what it is to learn and to be compared with in its params.yaml. Or
    compare two command lines, in any language: --command, --against, --value and --guess.
    """
    from infinito import library
    from infinito.cli.pipeline import depending, without
    from infinito.importing import repository
    from infinito.storage import replacing
    from infinito.yaml_reader import parse_yaml

    if not PLAIN.fullmatch(name) or parse_yaml(name, "NAME") != name:
        raise ValueError(f"NAME: found {name!r}; allowed: a plain word of small letters, digits, - and _, as my-study")
    if (task == "text") != (source is not None):
        raise ValueError(
            f"--source: found {repr(str(source)) if source else 'none'}, with --task {task}; allowed: with --task text "
            "a folder with train.txt, valid.txt and test.txt, else none"
        )
    scripts = Scripts(command, against, value, guess, higher)
    scripted = any(given is not None for given in (command, against, value, guess, higher))
    if scripted and (source or network or task != "dyck"):
        raise ValueError("--command: found --task, --source or --network beside it; allowed: one or the other")
    here = Path.cwd()
    root = repository(here)
    if root is None:
        raise ValueError(f"{here}: in no git repository; a study needs one, as its plan and results do: git init")
    in_clone = library.in_clone(here)
    study = (root / "studies" if in_clone else here.resolve()) / name
    if study.exists():
        raise ValueError(f"NAME: found {name!r}, and {study} is there already; allowed: another name")
    text = source and _text(source)
    own = Own.find(network, root, study) if network else None

    template = TEMPLATE / f"params_{'command' if scripted else task}.yaml"
    params = template.read_text(encoding="utf-8").replace("STUDY", name, 1)
    pipeline = (TEMPLATE / "pipeline.yaml").read_text(encoding="utf-8").replace("- infinito/", "- library/")
    if own:
        params = params.replace(SAMPLE, f"    network: {own.network}\n").replace(SETTINGS, "    settings: {}\n")
    if scripted:
        params, read = scripts.params(params, root, study)
        pipeline = depending(without(pipeline, ["attribute", "golden", "ensemble"]), "prepare", read)
    else:
        pipeline = depending(pipeline, "train", own.files if own else ["network.py"])
    if text:
        place = os.path.relpath(text, study) if text.is_relative_to(root) else str(text)
        params = params.replace("SOURCE", json.dumps(place), 1)
        pipeline = depending(pipeline, "prepare", [place])
    if in_clone:
        pipeline = pipeline.replace("- requirements.lock", "- ../../requirements.lock")
    else:
        pipeline = LIBRARY + pipeline.replace("      - requirements.lock\n", "")
    ignored = IGNORED if in_clone else (*IGNORED, "/library")
    # a DVC that is there has the storage of its people; in a clone of infinito every study is a project by itself
    has_dvc = not in_clone and any((place / ".dvc").is_dir() for place in _up_to(root, study.parent))
    files = {"params.yaml": params, "dvc.yaml": pipeline, ".gitignore": "".join(f"{path}\n" for path in ignored)}
    files |= {".dvcignore": IGNORED_BY_DVC} | ({} if has_dvc else DVC)

    sample = not own and not scripted
    with replacing(study) as folder:
        folder.mkdir()
        for path, content in files.items():
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_text(content, encoding="utf-8")
        if sample:
            shutil.copyfile(TEMPLATE / "network.py", folder / "network.py")
        library.link(folder, study)
    _print_next(os.path.relpath(study, here.resolve()), sample)


def _print_next(study: str, sample: bool) -> None:
    print(
        f"{study}: params.yaml, dvc.yaml{', network.py' if sample else ''}\n\n"
        f"dvc --cd {study} repro           # run it as it is, then open {study}/results/report.html\n"
        f"infinito check --study {study}   # after every change: is all there, and what will it take?\n"
    )
    missing = [name for name in ("dvc", "psutil", "altair", "jinja2") if find_spec(name) is None]
    if missing:
        print(f"To run it, {', '.join(missing)} must be installed: pip install 'infinito[orchestrate,report]'\n")


def _up_to(root: Path, folder: Path) -> Iterator[Path]:
    """A folder and those around it, as far as the root of its repository."""
    return (place for place in (folder, *folder.parents) if place.is_relative_to(root))


def _text(source: Path) -> Path:
    """The folder, in full; raises ValueError where a split is missing."""
    from infinito.tasks.text import FILES, KINDS

    for split, stems in FILES.items():
        if not any((source / f"{stem}{kind}").is_file() for stem in stems for kind in KINDS):
            raise ValueError(
                f"--source: found {str(source)!r}, which has no {split} text; allowed: a folder with "
                "train.txt, valid.txt and test.txt"
            )
    return source.resolve()


@dataclass(frozen=True)
class Own:
    """A network of the user's own: as params.yaml names it, and its files, relative to the study."""

    network: str
    files: Sequence[str]

    @classmethod
    def find(cls, given: str, root: Path, study: Path) -> "Own":
        """Of `path/to/file.py:Class`, from here; it must be importable from the root of the repository.

        Raises:
            ValueError: it is not, or has no such class; names the flag.
        """
        from infinito.importing import put_on_path
        from infinito.runs.code import code_of

        path, _, name = given.rpartition(":")
        file = Path(path).resolve()
        if not (path.endswith(".py") and name.isidentifier() and file.is_file()):
            raise ValueError(f"--network: found {given!r}; allowed: FILE.py:CLASS, with a file that is there")
        parts = file.relative_to(root).with_suffix("").parts if file.is_relative_to(root) else ("",)
        if not all(part.isidentifier() for part in parts):
            raise ValueError(
                f"--network: found {path!r}, which Python can't import from {root}; allowed: a file in this "
                "repository, whose path is of names as Python has them"
            )
        classes = _classes(file)
        if name not in classes:
            raise ValueError(f"--network: found {name!r}; {path} has {', '.join(classes) or 'no class at all'}")
        module = ".".join(parts)
        put_on_path(study)
        try:
            spec = find_spec(module)
        except Exception as error:  # of a package around it, which is imported
            raise ValueError(f"--network: {module} can't be imported: {' '.join(str(error).split())}") from error
        if spec is None or spec.origin is None or Path(spec.origin).resolve() != file:
            raise ValueError(f"--network: found {path!r}; but {module} is {spec and spec.origin}; rename one of them")
        network = f"{module}:{name}"
        code = [root / place for place in code_of(network) if not place.startswith("infinito/")]
        return cls(network, [os.path.relpath(place, study) for place in code if place.is_file()])


def _classes(file: Path) -> list[str]:
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"--network: {file}: {' '.join(str(error).split())}") from error
    return [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
