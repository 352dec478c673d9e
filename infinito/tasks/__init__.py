"""What is learned: examples, their loss, and the words for it.

A task module offers `prepare(settings, folder, ...)`, which writes train, validation and test as Parquet with a
manifest, and `load(folder, manifest) -> Data`. `prepare` and `load` here choose the module by name.
"""

from pathlib import Path

from infinito import params
from infinito.storage import file_sha256, read_json
from infinito.tasks import arrays, command, dyck, own, text
from infinito.tasks.split import IGNORE, Split
from infinito.tasks.task import Data, Measures, Metric, Task, label_smoothing

TASKS = {"dyck": dyck, "text": text, "arrays": arrays, "own": own}


def prepare(settings: params.Prepare, folder: Path, study: Path) -> None:
    """Write `folder`/{train,validation,test}.parquet and manifest.json; `study`: where relative sources are."""
    if isinstance(settings, params.Dyck):
        dyck.prepare(settings, folder)
    elif isinstance(settings, params.Text):
        text.prepare(settings, folder, study)
    elif isinstance(settings, params.Arrays):
        arrays.prepare(settings, folder, study)
    elif isinstance(settings, params.Script):
        command.prepare(settings, folder, study)
    else:
        own.prepare(settings, folder)


def load(folder: Path) -> Data:
    """Read what `prepare` wrote.

    Raises:
        ValueError: a file is missing, corrupt, or not the one the manifest names; or only a command knows its examples.
    """
    file = folder / "manifest.json"
    manifest = read_json(file)
    if manifest["task"] == "command":
        raise ValueError(f"{file}: task: found command; allowed: a task with examples, as this needs them")
    try:
        for name, entry in manifest["splits"].items():
            split = folder / f"{name}.parquet"
            if not split.is_file():
                raise ValueError(f"{split}: no such file; run the stage prepare (dvc repro prepare)")
            if file_sha256(split) != entry["sha256"]:
                raise ValueError(
                    f"{split}: its contents are not those that manifest.json names; run the stage prepare again"
                )
        return TASKS[manifest["task"]].load(folder, manifest)
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        if str(folder) in str(error) or "prepare." in str(error):  # which says already what is wrong
            raise
        raise ValueError(f"{file}: not a manifest of prepared data; run the stage prepare again") from error


def measured(folder: Path) -> Data | command.Reported:
    """The same, or of a task whose examples only a command knows the words for its figures.

    Raises:
        ValueError: see `load`.
    """
    manifest = read_json(folder / "manifest.json")
    return command.load(manifest) if manifest["task"] == "command" else load(folder)


__all__ = [
    "IGNORE",
    "TASKS",
    "Data",
    "Measures",
    "Metric",
    "Split",
    "Task",
    "label_smoothing",
    "load",
    "measured",
    "prepare",
]
