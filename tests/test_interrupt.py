"""Ctrl-C while a program imports is one line, whatever is being imported."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

# what each program imports early and for long; one that never ends stands in front of it
PROGRAMS = {"infinito.flows.stage": "psutil", "infinito.flows.pipeline": "prefect", "infinito": "rich"}


def answering() -> None:
    """What runs in the background of a shell would ignore Ctrl-C, and so would what it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("program", PROGRAMS)
def test_interrupted_while_it_imports(program: str, tmp_path: Path) -> None:
    (tmp_path / f"{PROGRAMS[program]}.py").write_text("import time; print('importing', flush=True); time.sleep(600)")
    process = subprocess.Popen(
        [sys.executable, "-m", program, "verdict"],
        env=os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=answering,
    )
    assert process.stdout is not None and process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "infinito: interrupted\n")


def test_afterwards_it_is_answered_as_before() -> None:
    program = (
        "import os, signal\nfrom infinito.interrupt import at_once\nwith at_once():\n    pass\n"
        "try:\n    os.kill(os.getpid(), signal.SIGINT)\nexcept KeyboardInterrupt:\n    print('answered')\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\nwith at_once():\n    os.kill(os.getpid(), signal.SIGINT)\n"
        "print('ignored')"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True, preexec_fn=answering)
    assert done.stdout == "answered\nignored\n"
