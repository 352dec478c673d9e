"""What is said while stacks are trained: what waits for a compiler, and for how long it will take."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from infinito.flows import fanout
from infinito.stages import STAGES
from infinito.study import load_study
from tests.conftest import ROOT, in_process
from tests.toy import Toy

COMPILED = [Toy(f"candidate-{i:02d}", Path("."), steps=1000, compiled=True) for i in range(4)]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets what time it is, in seconds since the report began."""
    now = [0.0]
    monkeypatch.setattr(fanout.time, "monotonic", lambda: now[0])

    def at(seconds: float) -> None:
        now[0] = seconds

    return at


def test_compiling_is_said_with_its_time_and_kept_out_of_the_estimate(clock: Callable[[float], None]) -> None:
    report = fanout._Report(COMPILED)
    clock(7)
    assert report._line() == "0 of 4 stacks, 0 of 4,000 model-steps, starting for 7 s"
    for job in COMPILED[:2]:
        report.progress(job, 0)
    clock(30)
    assert report._line() == "0 of 4 stacks, 0 of 4,000 model-steps, compiling for 23 s"
    report.progress(COMPILED[0], 1)
    clock(40)
    report.progress(COMPILED[0], 101)  # ten a second; two are at work, so twenty
    line = "0 of 4 stacks, 101 of 4,000 model-steps, 20 model-steps/s, 3 min 15 s left, compiling 1 of them for 33 s"
    assert report._line() == line
    report.progress(COMPILED[1], 1)
    clock(50)
    report.progress(COMPILED[0], 201)
    report.progress(COMPILED[1], 101)
    assert report._line() == "0 of 4 stacks, 302 of 4,000 model-steps, 20 model-steps/s, 3 min 05 s left"


def test_the_estimate_has_the_time_that_a_stack_takes_after_its_last_step(clock: Callable[[float], None]) -> None:
    report = fanout._Report(COMPILED)
    report.progress(COMPILED[0], 0)
    clock(50)
    report.progress(COMPILED[0], 1)
    clock(150)
    report.progress(COMPILED[0], 1000)
    clock(250)  # its evaluation takes as long as its training
    report.finished(COMPILED[0])
    report.progress(COMPILED[1], 0)
    assert " 5 model-steps/s, 10 min 01 s left, compiling 1 of them for 0 s" in report._line()


def test_stacks_that_are_found_finished_say_no_rate(clock: Callable[[float], None]) -> None:
    report = fanout._Report(COMPILED)
    for job in COMPILED[:3]:
        report.progress(job, job.steps)
        report.finished(job)
    assert report._line() == "3 of 4 stacks, 3,000 of 4,000 model-steps"
    report.progress(COMPILED[3], 0)
    report.progress(COMPILED[3], 1)
    clock(20)
    report.finished(COMPILED[3])
    assert report._line() == "4 of 4 stacks, 4,000 of 4,000 model-steps, 50 model-steps/s, 20 s"


@pytest.mark.slow
def test_a_compiled_training_says_so_and_leaks_no_semaphore(write_study: Callable[..., Path]) -> None:
    folder = write_study(
        {
            # the same program, compiled once
            "train.candidate": {"network": "transformer", "settings": {}, "train": {"learning_rate": 0.02}},
            "train.pairs": 4,
            "train.grid": {"inits": 2, "datas": 2, "noises": 1, "reps": 1},
        }
    )
    STAGES["prepare"](load_study(folder), in_process)
    environment = os.environ | {"INFINITO_COMPILE": "1", "INFINITO_WORKERS": "1", "PYTHONPATH": str(ROOT)}
    program = (
        "from infinito.flows import fanout, stage\nfanout.SECONDS_BETWEEN_LINES = 0.5\nexit(stage.main(['train']))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(r"infinito: 0 of 4 stacks, 0 of 96 model-steps, compiling for \d+ s\n", done.stderr), done.stderr
    assert "leaked" not in done.stderr and "semaphore" not in done.stderr
