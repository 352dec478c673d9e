"""Plans of a tiny study, made as `infinito plan` makes them."""

from pathlib import Path
from typing import Any

import yaml

from infinito import tasks
from infinito.planning import pilot as piloting
from infinito.planning import plan
from infinito.runs.table import RunTable
from infinito.study import Study, load_study


def change(folder: Path, changes: dict[str, Any]) -> Study:
    """The study with some keys of its params.yaml changed."""
    content = yaml.safe_load((folder / "params.yaml").read_text())
    for key, value in changes.items():
        *path, last = key.split(".")
        section = content
        for part in path:
            section = section[part]
        section[last] = value
    (folder / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return load_study(folder)


def make(study: Study, **settings: Any) -> dict[str, Any]:
    data = tasks.load(study.data)
    known = piloting.pilot(study, RunTable.load(study.runs), data.sha256)
    fixed: dict[str, Any] = {"data_sha256": data.sha256, "seed": plan.fresh_root(study), "created": "2026-01-31"}
    return plan.make(study, known, **(fixed | {"unit": data.task.metric.unit, "workers": 2} | settings))
