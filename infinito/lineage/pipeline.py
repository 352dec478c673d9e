"""What DVC knows of a study: dvc.yaml, the stages as they are declared, and dvc.lock, what they read and wrote."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infinito.yaml_reader import read_yaml

Json = dict[str, Any]

OUTPUTS = ("outs", "metrics", "plots")


@dataclass(frozen=True)
class Pipeline:
    """dvc.yaml and dvc.lock of a study."""

    folder: Path
    stages: Json  # as dvc.yaml has them
    recorded: Json  # as dvc.lock has them; {} where nothing was run by DVC
    _hashes: dict[Path, str | None] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path) -> "Pipeline":
        """Raises FileNotFoundError without a dvc.yaml, ValueError if it or dvc.lock can't be read."""
        file = folder / "dvc.yaml"
        if not file.is_file():
            raise FileNotFoundError(f"{file}: no such file; a study is a folder with a params.yaml and a dvc.yaml")
        lock = folder / "dvc.lock"
        return cls(folder, _stages(file), _stages(lock) if lock.is_file() else {})

    def outputs(self, stage: str) -> list[str]:
        entry = self.stages[stage]
        return [path for kind in OUTPUTS for path in _paths(entry.get(kind, []))]

    def in_git(self, path: str) -> bool:
        """Whether git keeps an output, not DVC's cache."""
        entries = [entry for stage in self.stages.values() for kind in OUTPUTS for entry in stage.get(kind, [])]
        return any(isinstance(entry, dict) and entry.get(path, {}).get("cache") is False for entry in entries)

    def inputs(self, stage: str) -> list[str]:
        return list(_paths(self.stages[stage].get("deps", [])))

    def writer(self, path: str) -> str | None:
        """The stage that writes `path`, relative to the study, or a folder around it."""
        inside = {path, *map(str, Path(path).parents)}
        return next((stage for stage in self.stages if inside & set(self.outputs(stage))), None)

    def in_storage(self, path: str) -> bool:
        """Whether a stage writes `path` and DVC keeps it, where git does not."""
        inside = {path, *map(str, Path(path).parents)}
        for stage in self.stages.values():
            for entry in (entry for kind in ("outs", "metrics", "plots") for entry in stage.get(kind, [])):
                name, how = next(iter(entry.items())) if isinstance(entry, dict) else (entry, {})
                if name in inside:
                    return (how or {}).get("cache", True) is not False
        return False

    def upstream(self, stage: str) -> list[str]:
        """`stage` and all stages that it needs, in the order of dvc.yaml."""
        found, ahead = set(), [stage]
        while ahead:
            name = ahead.pop()
            if name not in found:
                found.add(name)
                ahead += [writer for path in self.inputs(name) if (writer := self.writer(path))]
        return [name for name in self.stages if name in found]

    def on_disk(self, path: str) -> str | None:
        """MD5 of a file or folder, as DVC takes it; None where there is nothing."""
        place = self.folder / path
        if place not in self._hashes:
            self._hashes[place] = md5(place)
        return self._hashes[place]


def _stages(file: Path) -> Json:
    content = read_yaml(file)
    stages = content.get("stages") if isinstance(content, dict) else None
    if not isinstance(stages, dict) or not all(isinstance(entry, dict) for entry in stages.values()):
        raise ValueError(f"{file}: found no stages; allowed: what `dvc repro` understands")
    return stages


def _paths(entries: Iterable[Any]) -> Iterator[str]:
    for entry in entries:
        yield next(iter(entry)) if isinstance(entry, dict) else entry


def md5(path: Path) -> str | None:
    """MD5 of a file, or of a folder's list of files with ".dir" at its end, as DVC takes it; None: there is nothing.

    Python's caches are left out, as .dvcignore says.
    """
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "md5").hexdigest()
    if not path.is_dir():
        return None
    files = {file.relative_to(path).as_posix(): file for file in path.rglob("*") if file.is_file()}
    return md5_of_list({name: md5(file) for name, file in files.items() if "__pycache__" not in Path(name).parts})


def md5_of_list(files: Mapping[str, str | None]) -> str:
    """What DVC takes as the MD5 of a folder: names and MD5s of its files."""
    listed = [{"md5": files[name], "relpath": name} for name in sorted(files)]
    return hashlib.md5(json.dumps(listed, sort_keys=True).encode()).hexdigest() + ".dir"
