"""Where records are sent to and read from, by name: a folder, or http://SERVER of MLflow; TensorBoard and W&B are only
written."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from infinito.tracking import store
from infinito.tracking.record import Record
from infinito.tracking.sent import Progress, Sent

logger = logging.getLogger(__name__)
STORES = "a folder, or http://SERVER of MLflow"
ALLOWED = f"{STORES}, or tensorboard:FOLDER, or wandb:FOLDER"


def folder_and_copy(name: str | None) -> tuple[store.Folder, list[str]]:
    """The folder that a run is registered in, and where the record is then sent to: a run must not wait for a network.

    Raises ValueError for a name that means no store.
    """
    name = name or store.default()
    if kind(name) == "folder":
        return store.Folder(Path(name)), []
    return store.Folder(Path(store.local())), [name]


def kind(name: str) -> str:
    """folder, mlflow, tensorboard or wandb; raises ValueError for another scheme."""
    if name.startswith(("http://", "https://")):
        return "mlflow"
    for exporter in ("tensorboard", "wandb"):
        if name.startswith(f"{exporter}:"):
            return exporter
    if "://" in name:
        raise ValueError(f"store: found {name!r}; allowed: {ALLOWED}")
    return "folder"


def records(name: str) -> Iterator[Record]:
    """All runs of a store.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it can't be read.
        OSError: it does not answer.
    """
    if kind(name) == "folder":
        yield from store.Folder(Path(name)).records()
    elif kind(name) == "mlflow":
        from infinito.tracking import mlflow

        yield from mlflow.records(name)
    else:
        raise ValueError(f"store: found {name!r}, which is only written; allowed: {STORES}")


def send(runs: Sequence[Record], name: str, progress: Progress = lambda done: None, source: Path | None = None) -> Sent:
    """Send runs to a target, those that it does not have yet.

    Args:
        runs: in any order.
        name: of the target.
        progress: called with the number of runs that are through.
        source: the store that they come from, for logs and differences of code.

    Raises:
        OSError: it does not answer, or can't be written.
        ValueError: it is none, or needs a package that is not installed.
    """
    if kind(name) == "folder":
        target = store.Folder(Path(name))
        new = [record for record in runs if record not in target]
        for number, record in enumerate(new):
            if source is not None:
                target.attach(record, source)
            target.put(record)
            progress(number + 1)
        return Sent(len(new), len(runs) - len(new))
    place = Path(name.partition(":")[2])
    if kind(name) == "tensorboard":
        from infinito.tracking import tensorboard

        return tensorboard.send(runs, place, progress)
    if kind(name) == "wandb":
        from infinito.tracking import wandb

        return wandb.send(runs, place, progress)
    from infinito.tracking import mlflow

    return mlflow.send(runs, name, progress, source)


def send_or_warn(runs: Sequence[Record], names: Sequence[str], source: Path | None = None) -> bool:
    """Send runs that are over and done: a target that is down is one line, and made up later by `infinito log`."""
    reached = True
    for name in names:
        try:
            send(runs, name, source=source)
        except (OSError, ValueError) as error:
            reached = False
            said = " ".join(str(error).split())[:200]
            logger.warning("%s: not logged there: %s; later: infinito log --to %s", name, said, name)
    return reached
