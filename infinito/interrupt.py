"""Ctrl-C while a program still imports: nothing has been done yet, and one line says that it ends."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

EXIT = 130  # 128 + SIGINT, as of shells


@contextmanager
def at_once() -> Iterator[None]:
    """For the imports of a program; afterwards Ctrl-C is a KeyboardInterrupt again."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # not where somebody ignores it, or answers it in another way
        signal.signal(signal.SIGINT, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    os.write(2, b"infinito: interrupted\n")
    os._exit(EXIT)
