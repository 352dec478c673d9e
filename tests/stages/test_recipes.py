"""A whole study whose arms differ in their recipe, by the loop, of a network that can't be stacked."""

import importlib
import shutil
from collections.abc import Callable
from pathlib import Path

from infinito import tasks
from infinito.runs import RunTable
from infinito.stages import STAGES
from infinito.storage import read_json, read_table
from infinito.study import load_study
from tests.conftest import ROOT, Infinito, in_process

ensemble = importlib.import_module("infinito.stages.ensemble")  # of that name the room hands on the stage
OWN = {
    "optimiser": {"name": "sgd", "momentum": 0.9, "nesterov": True},
    "steps": 9,
    "label_smoothing": 0.1,
    "decayed": "matrices",
    "keep": "best",
    "trunk": {"dropout": 0.3},
}
CHANGES = {
    "train.engine": "auto",
    "train.candidate": {"network": "tests.users:If", "settings": {}, "train": OWN, "tuned": {"trials": 7}},
    "train.baseline": {"network": "tests.users:If", "settings": {}},
    "train.grid.inits": 2,
    "train.grid.datas": 2,
    "train.pairs": 6,
    "golden.data_seeds": 5,
    "golden.controls": 1,
}


def test_every_stage_and_verify_do_with_it(write_study: Callable[..., Path], infinito: Infinito) -> None:
    study = load_study(write_study(CHANGES))
    shutil.copyfile(ROOT / "dvc.yaml", study.folder / "dvc.yaml")
    for stage in STAGES.values():
        stage(study, in_process)
    table = RunTable.load(study.runs)
    candidate, baseline = table.pairs(unequal=study.params.train.unequal("candidate"))
    assert (candidate["steps"] == 9).all() and (baseline["steps"] == 6).all()
    assert set(candidate["kept_step"]) <= {3, 6, 9} and set(baseline["kept_step"]) == {6}
    record = table.record(candidate["stack_id"].iloc[0])["train"]
    assert record["engine"] == "loop" and record["trunk"]["dropout"] == 0.3
    assert {key: record[key] for key in OWN if key != "trunk"} == {k: v for k, v in OWN.items() if k != "trunk"}
    confirmed = read_table(study.golden / "confirmation/runs.parquet").to_pandas()
    assert (confirmed["steps"] == 9).all()  # the candidate's own recipe
    longer = read_table(study.ensemble / "runs.parquet").to_pandas().groupby("design")["steps"].first()
    assert longer["longer"] == 18 and longer["wider"] == 9

    fairness = read_json(study.results / "compare.json")["fairness"]
    assert "7" in str(fairness) and "not stated" in str(fairness)
    page = (study.results / "report.md").read_text()
    assert "What differs between the arms" in page and "not stated" in page and "label_smoothing" in page

    one = candidate["run_id"].iloc[0]
    done = infinito("verify", one, "--study", str(study.folder))
    assert done.returncode == 0 and f"{one} (candidate, pairs, lane 0): equal bit for bit over 9 steps" in done.stdout


def test_arms_may_differ_in_their_optimiser_alone(write_study: Callable[..., Path]) -> None:
    muon = {"name": "muon", "momentum": 0.95, "nesterov": True, "betas": [0.9, 0.999], "epsilon": 1e-8}
    plain = {"network": "transformer", "settings": {}}
    study = load_study(
        write_study({"train.candidate": plain | {"train": {"optimiser": muon}}, "train.baseline": plain})
    )
    for stage in ("prepare", "train", "compare"):
        STAGES[stage](study, in_process)
    candidate, baseline = RunTable.load(study.runs).pairs()
    assert set(candidate["run_id"]).isdisjoint(baseline["run_id"])
    assert (candidate["test_loss"] != baseline["test_loss"]).all()


def test_a_wider_candidate_is_wider_wherever_its_width_is_set(write_study: Callable[..., Path]) -> None:
    candidate = {"network": "transformer", "settings": {"width": 6, "heads": 1}}
    study = load_study(write_study({"train.candidate": candidate}))
    STAGES["prepare"](study, in_process)
    train, data = study.params.train.of("candidate"), tasks.load(study.data)
    base = ensemble._width(train)
    assert base == 6
    width = ensemble._wider(train, data, base, 3)
    assert ensemble._flops(train, data, width) >= 3 * ensemble._flops(train, data, 6) > ensemble._flops(train, data, 7)
    assert ensemble._at(train, width).candidate.settings == {"width": width, "heads": 1}
