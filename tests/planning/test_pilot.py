from collections.abc import Callable
from pathlib import Path

import pytest

from infinito import runs, seeds, tasks
from infinito.planning import pilot as piloting
from infinito.planning import plan
from infinito.runs import stacks
from infinito.runs.table import Run, RunTable
from infinito.study import load_study
from tests.conftest import in_process
from tests.plans import change, make


def test_a_pilot_of_its_own_leaves_the_pairs_fresh(write_study: Callable[..., Path], tmp_path: Path) -> None:
    from infinito.stages import STAGES

    study = load_study(write_study())
    with pytest.raises(ValueError, match="manifest.json: no such file; run the stage that writes it"):
        tasks.load(study.data)
    STAGES["prepare"](study, in_process)
    data = tasks.load(study.data)
    with pytest.raises(ValueError, match="^pilot: found 7; allowed: 8 pairs or more"):
        piloting.pilot_jobs(study, data, 7)
    runs.collect(in_process(piloting.pilot_jobs(study, data, 8)), tmp_path / "pilot")
    known = piloting.pilot(study, RunTable.load(tmp_path / "pilot"), data.sha256)
    assert known.design == "pilot" and known.init_seeds == seeds.pool(0, "pilot", 8) and known.variances is None
    assert plan.fresh_root(study) == 0
    content = plan.make(study, known, data_sha256=data.sha256, unit="nats", seed=0, created="2026-01-31", workers=1)
    grids = [row for row in content["cost"]["designs"] if row["design"].startswith("grid")]
    assert len(grids) == len(plan.TRUTHS)  # without a grid of its own: three stated truths
    # one stack of confirmatory pairs in the scratch is enough: those seeds are no longer fresh
    in_process(stacks.plan(study, data, [Run("candidate", "pairs", seeds.pool(0, "pairs", 1)[0], 0)]))
    assert plan.fresh_root(study) == 1


def test_a_pilot_with_other_settings_is_refused(finished_study: Path) -> None:
    for changes, key in (
        ({"train.steps": 7}, "train.steps"),
        ({"train.trunk.dropout": 0.2}, "train.trunk"),
        ({"train.candidate.settings": {"memory_slots": 9}}, "train.candidate"),
    ):
        before = (finished_study / "params.yaml").read_text()
        with pytest.raises(ValueError, match=f"trained with another {key} than params.yaml has now"):
            make(change(finished_study, changes))
        (finished_study / "params.yaml").write_text(before)
    with pytest.raises(ValueError, match="another data than params.yaml"):
        study = load_study(finished_study)
        piloting.pilot(study, RunTable.load(study.runs), "0" * 64)
