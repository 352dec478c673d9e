"""Which engine trains a study, and what is said of it."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from infinito import tasks
from infinito.runs import Run, RunTable, collect, stacks
from infinito.runs.engine import LARGE
from infinito.runs.finish import finish
from infinito.stages import STAGES
from infinito.study import load_study
from tests.conftest import in_process

WANTED = [Run(arm, "pairs", seed, seed) for arm in ("candidate", "baseline") for seed in (1, 2)]
LOOP = {"train.engine": "loop"}


def planned(folder: Path) -> list[stacks.StackJob]:
    study = load_study(folder)
    STAGES["prepare"](study, in_process)
    return stacks.plan(study, tasks.load(study.data), WANTED)


def test_small_networks_that_can_be_stacked_are_stacked(write_study: Callable[..., Path]) -> None:
    jobs = planned(write_study({"train.engine": "auto"}))
    assert {job.train.engine for job in jobs} == {"stacked"} and len(jobs) == 2


def test_one_network_that_cannot_be_stacked_makes_it_the_loop_for_all(
    write_study: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "infinito.runs.engine"):
        jobs = planned(write_study({"train.engine": "auto", "train.candidate.network": "tests.users:Steps",
                                    "train.candidate.settings": {}}))  # fmt: skip
    assert {job.train.engine for job in jobs} == {"loop"} and all(len(job.runs) == 1 for job in jobs)
    (line,) = caplog.messages
    assert line.startswith("train.engine: auto takes loop, one run after the other: network: 'tests.users:Steps': ")
    assert "users.py:" in line and "instead: " in line and "\n" not in line
    assert " model-steps/s, uncompiled; 4 runs of the baseline stacked are " in line


def test_a_large_network_is_trained_by_the_loop(
    write_study: Callable[..., Path], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LARGE, "cpu", 100.0)
    with caplog.at_level(logging.WARNING, "infinito.runs.engine"):
        jobs = planned(write_study({"train.engine": "auto"}))
    assert {job.train.engine for job in jobs} == {"loop"}
    assert "GFLOP, so that one run fills the device (" in caplog.text


def test_who_insists_on_stacking_gets_the_reason(write_study: Callable[..., Path]) -> None:
    folder = write_study({"train.candidate.network": "tests.users:Steps", "train.candidate.settings": {}})
    with pytest.raises(ValueError, match=r"network: 'tests.users:Steps': .*; or train.engine: auto, or loop, which"):
        planned(folder)


def test_the_engine_is_part_of_the_identity_of_a_run(write_study: Callable[..., Path]) -> None:
    stacked, loop = planned(write_study({}))[0], planned(write_study(LOOP))[0]
    assert stacked.run_id(WANTED[0]) != loop.run_id(WANTED[0])


def test_a_study_of_the_loop_leaves_what_the_other_leaves(write_study: Callable[..., Path], tmp_path: Path) -> None:
    columns = {}
    for engine in ("stacked", "loop"):
        jobs = planned(write_study({"train.engine": engine}))
        collect([finish(job, lambda steps: None) for job in jobs], tmp_path / engine)
        table = RunTable.load(tmp_path / engine)
        candidate, baseline = table.pairs()
        assert len(candidate) == len(baseline) == 2 and not table.table["diverged"].any()
        columns[engine] = list(table.table.columns)
        weights = table.weights(candidate)
        assert all(len(value) == 2 for value in weights.values())
        assert table.record(candidate["stack_id"].iloc[0])["train"]["engine"] == engine
    assert columns["stacked"] == columns["loop"]
