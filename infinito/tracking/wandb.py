"""Weights & Biases: runs written offline, in its own format; `wandb sync FOLDER/wandb/offline-*` sends them later.

Nothing is sent from here, and no account is needed.
"""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from infinito.tracking.record import FINISHED, Record
from infinito.tracking.sent import Progress, Sent


def send(runs: Sequence[Record], folder: Path, progress: Progress) -> Sent:
    """Write the runs that the folder does not have; see `targets.send`."""
    there = {path.name.rpartition("-")[2] for path in (folder / "wandb").glob("offline-run-*")}
    new = [record for record in runs if record.id not in there]
    for number, record in enumerate(new):
        _write(record, folder)
        progress(number + 1)
    return Sent(len(new), len(runs) - len(new))


def _write(record: Record, folder: Path) -> None:
    try:
        import wandb
    except ImportError as error:
        raise ValueError("wandb: is not installed; allowed: after pip install wandb") from error
    (folder / "wandb").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".") as temporary:
        run = wandb.init(
            mode="offline",
            dir=temporary,
            project=record.name.replace("/", "_"),
            group=record.arm or None,
            job_type=record.design or None,
            id=record.id,
            name=" ".join([record.arm or record.name, *(f"{key}={value}" for key, value in record.seeds.items())]),
            config={**record.params, **record.seeds, "infinito": {"code": record.code, "dirty": record.dirty}},
            settings=wandb.Settings(
                silent=True,
                console="off",
                disable_git=True,
                disable_code=True,
                x_disable_stats=True,
                x_disable_meta=True,
            ),
        )
        for name in record.curves:
            run.define_metric(name, step_metric="at")
        for step in sorted({step for curve in record.curves.values() for step, _ in curve}):
            row = {name: value for name, curve in record.curves.items() for at, value in curve if at == step}
            run.log({"at": step, **row})
        run.summary.update({**record.metrics, "tags": record.tags})
        run.finish(exit_code=0 if record.status == FINISHED else 1)
        # a run appears when it is whole, so that what was broken off is written again
        for written in (Path(temporary) / "wandb").glob("offline-run-*"):
            os.replace(written, folder / "wandb" / written.name)
