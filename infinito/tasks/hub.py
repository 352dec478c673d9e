"""Names that are a file or folder of the study, or else a name on the Hugging Face hub."""

import re
from collections.abc import Collection
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from infinito.mistakes import one_line

if TYPE_CHECKING:
    from datasets import DatasetDict

HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


def local(key: str, name: str, study: Path, suffixes: Collection[str]) -> Path | None:
    """The file or folder behind a name; None where only the hub can have it.

    Args:
        key: of the section `prepare`, for the message.
        name: as params.yaml has it.
        study: where relative names are.
        suffixes: of files, which no name on the hub ends with.

    Raises:
        ValueError: there is no such file, and the hub has no such names.
    """
    path = study / name
    if path.exists():
        return path
    if HUB_NAME.fullmatch(name) and not name.endswith(tuple(suffixes)):
        return None
    raise ValueError(f"prepare.{key}: {path}: no such file or folder")


def load(name: str, config: str | None) -> "DatasetDict":
    """All splits of a data set on the hub; nothing is reported to it.

    Raises:
        ValueError: `datasets` is not installed; it can't be loaded.
    """
    if find_spec("datasets") is None:
        raise ValueError(f"prepare.source: {name!r}: the hub needs datasets; install infinito[lm]")
    import datasets

    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False
    try:
        return datasets.load_dataset(name, config)
    except Exception as error:  # whatever may happen on the way to the hub
        raise ValueError(f"prepare.source: {name!r} can't be loaded from the hub: {one_line(error)}") from error
