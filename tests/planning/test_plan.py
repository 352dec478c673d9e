import json
from pathlib import Path

import pytest

from infinito import seeds
from infinito.runs.table import RunTable
from infinito.statistics import samplesize
from infinito.statistics.paired import pilot_sd
from infinito.study import load_study
from tests.plans import change, make


def test_a_plan_from_a_finished_study(finished_study: Path) -> None:
    study = load_study(finished_study)
    content = make(study, effect=0.05, price=2.0)
    candidate, baseline = RunTable.load(study.runs).pairs()
    d = baseline["test_loss"].to_numpy() - candidate["test_loss"].to_numpy()
    pilot, cost = content["pilot"], content["cost"]
    assert (pilot["n"], pilot["design"], pilot["seed"]) == (10, "pairs", 0)
    assert pilot["sd"] == pytest.approx(d.std(ddof=1)) and pilot["sd_upper"] == pytest.approx(pilot_sd(d))
    assert pilot["init_seeds"] == seeds.pool(0, "pairs", 10) and content["seed"] == 1
    assert content["pairs"] == samplesize.planned_pairs(pilot["sd_upper"], 0.05) and content["looks"] == []
    assert content["power_reached"] >= 0.8
    assert content["arms"]["candidate"] == {"network": "infinito_v52", "settings": {"memory_slots": 8}}
    assert content["train"]["steps"] == 6 and "pairs" not in content["train"]

    assert cost["seconds_per_run"]["candidate"] == pytest.approx(candidate["wall_seconds"].mean())
    assert cost["seconds_per_pair"] == pytest.approx(sum(cost["seconds_per_run"].values()))
    assert cost["core_hours"] == pytest.approx(content["pairs"] * cost["seconds_per_pair"] / 3600)
    assert cost["hours"] == pytest.approx(cost["core_hours"] / 2) and cost["money"] == pytest.approx(2 * cost["hours"])
    assert cost["same_machine"] is True
    assert [row["design"].split(",")[0] for row in cost["designs"]] == ["pairs"] * 4 + ["grid"]
    for row in cost["designs"]:
        assert row["runs"] is None or row["runs"] == 2 * row["pairs"] and row["power"] >= 0.8
    assert json.loads(json.dumps(content, allow_nan=False)) == content


def test_looks_and_pairs_as_asked(finished_study: Path) -> None:
    study = load_study(finished_study)
    four = make(study, pairs=40, looks="obf")
    assert (four["pairs"], four["looks"]) == (40, [10, 20, 30, 40])
    assert make(study, pairs=25, looks="anytime")["looks"] == "anytime"
    assert make(study, pairs=12, effect=0.002)["power_reached"] < 0.1  # the power that 12 pairs really have
    for settings, message in (
        ({"effect": 0.0}, "effect: found 0.0; allowed: a difference above 0"),
        ({"effect": 1e-6}, "effect: found 1e-06, which takes over a million pairs"),
        ({"effect": 1e-4, "looks": "anytime"}, "looks: found anytime; allowed: none or obf where more than 5000 pairs"),
        ({"power": 1.0}, "power: found 1.0"),
        ({"pairs": 9}, "pairs: found 9; allowed: 10 to"),
        ({"workers": 0}, "workers: found 0"),
        ({"price": -1.0}, "price: found -1.0"),
    ):
        with pytest.raises(ValueError, match="^" + message):
            make(study, **settings)
    several = change(finished_study, {"compare.metrics": ["test_loss", "accuracy"]})
    assert make(several)["hypotheses"] == 2
    assert make(several, effect=0.005)["pairs"] > make(study, effect=0.005)["pairs"]  # the stricter level
    with pytest.raises(ValueError, match="^looks: found obf with 2 hypotheses; allowed: none"):
        make(several, looks="obf")
