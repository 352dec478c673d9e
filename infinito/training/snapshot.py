"""The state of a training in a file, so that an interrupted one goes on and ends with the same bits."""

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor

from infinito.storage import read_weights, write_weights

logger = logging.getLogger(__name__)

SECONDS = 60.0  # between two snapshots, at least
PATIENCE = 20.0  # and that many times what the last one took


class Snapshot:
    """Named tensors, written to a file now and then; without a file it does nothing."""

    def __init__(self, file: Path | None) -> None:
        self.file = file
        self.due = time.monotonic() + SECONDS

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy what the file holds into these tensors; one that is missing or does not fit leaves them as they are."""
        if self.file is None or not self.file.is_file():
            return
        try:
            saved = read_weights(self.file)
        except ValueError as error:
            logger.warning("%s; the training begins anew", error)
            return
        shapes = [{name: (value.shape, value.dtype) for name, value in some.items()} for some in (saved, tensors)]
        if shapes[0] != shapes[1]:
            logger.warning("%s: a snapshot of another training; this one begins anew", self.file)
            return
        for name, value in tensors.items():
            value.copy_(saved[name])

    def keep(self, tensors: Callable[[], Mapping[str, Tensor]]) -> None:
        """Write what `tensors` gives, if it is time to."""
        began = time.monotonic()
        if self.file is None or began < self.due:
            return
        self.file.parent.mkdir(parents=True, exist_ok=True)
        write_weights(self.file, dict(tensors()))
        now = time.monotonic()
        self.due = now + max(SECONDS, PATIENCE * (now - began))
