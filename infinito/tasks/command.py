"""What somebody's script learns: the words for its figures, and the hashes of the files that it is made of."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infinito import params
from infinito.storage import file_sha256, write_json
from infinito.tasks.split import identity, used_settings
from infinito.tasks.task import Metric


@dataclass(frozen=True)
class Figures:
    """The words for what a command reports."""

    metric: Metric
    scores: Mapping[str, Metric]


@dataclass(frozen=True)
class Reported:
    """A prepared task whose examples only the command itself knows."""

    task: Figures
    sha256: str  # of the manifest, which holds the hashes of all files


OUTPUTS = ("data/prepared", "models", "results")  # of the study itself, below which no file is the script's


def prepare(settings: params.Script, folder: Path, study: Path) -> None:
    """Write manifest.json with the hash of every file that the commands read.

    Raises:
        ValueError: prepare.files names what is not there.
    """
    known = {"schema": "infinito/data/1", "task": "command", "settings": used_settings(settings)}
    write_json(folder / "manifest.json", known | {"files": hashes(settings.files, study), "splits": {}, "overlap": {}})


def load(manifest: Mapping[str, Any]) -> Reported:
    """The words of a manifest, and its hash."""
    settings = manifest["settings"]
    scores = {name: _metric(score, name) for name, score in settings["scores"].items()}
    return Reported(Figures(_metric(settings["metric"]), scores), identity(manifest))


def hashes(names: Sequence[str], study: Path) -> dict[str, str]:
    """SHA-256 of every file by its path from the study; of a folder all files below it.

    Raises:
        ValueError: there is no such file or folder.
    """
    found = {}
    for name in names:
        place = study / name
        if not place.exists():
            raise ValueError(f"{study / 'params.yaml'}: prepare.files: found {name}, which is no file and no folder")
        outputs = [study / output for output in OUTPUTS]
        for file in _files(place):
            if any(file.is_relative_to(output) for output in outputs):
                continue
            found[f"{name.rstrip('/')}/{file.relative_to(place).as_posix()}" if file != place else name] = file_sha256(
                file
            )
    return found


def _metric(words: Mapping[str, Any], title: str | None = None) -> Metric:
    return Metric(words["name"], words["unit"], words["direction"], words["guess"], title=title and words["name"])


def _files(place: Path) -> Iterator[Path]:
    """A file, or all below a folder but for what is hidden and what Python compiles."""
    if place.is_file():
        yield place
        return
    for file in sorted(place.rglob("*")):
        parts = file.relative_to(place).parts
        if file.is_file() and "__pycache__" not in parts and not any(part.startswith(".") for part in parts):
            yield file
