"""Starts commands for one worker and ends them: a small process that goes with its worker, and leaves nothing behind.

The worker sends a line of JSON {command, folder, environment, log, timeout} and gets one back: {exit_code, seconds,
late}, or {error} where the program can't be started. Every command has a process group of its own, which is killed as a
whole when the command ends, when its time is over, and when the worker is gone, however it went. (A worker is large and
has threads: to start a process from there would take longer, and nothing would be left to end it.)
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import Any

_lock = threading.Lock()
_running: "list[subprocess.Popen[bytes]]" = []


def _kill(process: "subprocess.Popen[bytes]") -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _run(asked: "dict[str, Any]") -> "dict[str, Any]":
    late = threading.Event()
    began = time.monotonic()
    with open(asked["log"], "wb") as log, _lock:
        try:
            process = subprocess.Popen(
                asked["command"],
                cwd=asked["folder"],
                env={**os.environ, **asked["environment"]},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            return {"error": f"{asked['command'][0]}: {error.strerror}"}
        _running[:] = [process]

    def end() -> None:
        late.set()
        _kill(process)

    timer = threading.Timer(asked["timeout"], end)  # a wait with a timeout would look only now and then
    timer.daemon = True
    timer.start()
    code = process.wait()
    timer.cancel()
    with _lock:
        _kill(process)  # what it has left running
        _running.clear()
    return {"exit_code": code, "seconds": time.monotonic() - began, "late": late.is_set()}


def main() -> None:
    """Do what comes by standard input, until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the stage, which ends its workers
    asked: list[dict[str, Any]] = []
    ready = threading.Semaphore(0)

    def listen() -> None:
        for line in sys.stdin:
            asked.append(json.loads(line))
            ready.release()
        with _lock:  # the worker is gone
            for process in _running:
                _kill(process)
            os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    while True:
        ready.acquire()
        print(json.dumps(_run(asked.pop())), flush=True)


if __name__ == "__main__":
    main()
