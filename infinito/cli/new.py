"""`infinito new`: a study of one's own, which runs as it is."""

import re
import shutil
from pathlib import Path
from typing import Annotated

import typer

from infinito.cli.app import app

TEMPLATE = Path(__file__).with_name("template")
PLAIN = re.compile(r"[a-z][a-z0-9_-]*")
# of DVC and git; a project of its own, as `dvc status` speaks of a whole project
FILES = {
    ".gitignore": "data/\nmodels/\n.infinito/\nresults/records/\n",
    ".dvcignore": ".infinito\n.git\n__pycache__\n",
    ".dvc/config": "[core]\n    analytics = false\n    check_update = false\n",
    ".dvc/.gitignore": "/config.local\n/tmp\n/cache\n",
}


@app.command(epilog="Example: infinito new mixer")
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the study, and of its folder in studies/.")],
) -> None:
    """Make a study in the repository around the current folder: a small one, which `dvc repro` runs as it is.

    Then put your own network in its network.py, and what it is to learn and to be compared with in its params.yaml.
    """
    from infinito.storage import replacing
    from infinito.yaml_reader import parse_yaml

    if not PLAIN.fullmatch(name) or parse_yaml(name, "NAME") != name:
        raise ValueError(f"NAME: found {name!r}; allowed: a plain word of small letters, digits, - and _, as my-study")
    here = Path.cwd()
    root = next(
        (p for p in (here, *here.parents) if (p / "infinito/stages").is_dir() and (p / "dvc.yaml").is_file()), None
    )
    if root is None:
        raise ValueError(f"{here}: found no repository of infinito around it; allowed: a folder in a clone of it")
    study = root / "studies" / name
    if study.exists():
        raise ValueError(f"NAME: found {name!r}, and {study} is there already; allowed: another name")
    with replacing(study) as folder:
        folder.mkdir()
        for path, content in FILES.items():
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_text(content, encoding="utf-8")
        params = (TEMPLATE / "params.yaml").read_text(encoding="utf-8")
        (folder / "params.yaml").write_text(params.replace("study: STUDY", f"study: {name}"), encoding="utf-8")
        shutil.copyfile(TEMPLATE / "network.py", folder / "network.py")
        (folder / "dvc.yaml").write_text(pipeline((root / "dvc.yaml").read_text(encoding="utf-8")), encoding="utf-8")
        (folder / "library").symlink_to("../../infinito")
    where = study.relative_to(root)
    print(
        f"{where}: params.yaml, dvc.yaml, network.py\n\n"
        f"dvc --cd {where} repro           # run it as it is, then open {where}/results/report.html\n"
        f"infinito check --study {where}   # after every change: is all there, and what will it take?\n"
    )


def pipeline(root: str) -> str:
    """The text of a study's dvc.yaml, by that of the root: the library by its link, and the study's own network."""
    text = root.replace("- infinito/", "- library/").replace("- requirements.lock", "- ../../requirements.lock")
    before, train, after = text.partition("  train:\n")
    return before + train + after.replace("      - data/prepared\n", "      - data/prepared\n      - network.py\n", 1)
