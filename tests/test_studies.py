"""The committed results of a study that ran on another machine follow from its committed run table."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from infinito.judging.published import judge
from infinito.planning import preregistration
from infinito.planning.ledger import Ledger, history_faults
from infinito.questions import golden
from infinito.questions.attribute import attribute
from infinito.questions.compare import compare
from infinito.runs.pairing import paired_runs
from infinito.storage import canonical, read_json, sha256
from infinito.study import load_study
from tests.comparisons import NATS, assert_same
from tests.conftest import ROOT

REPORT, GRID = ROOT / "studies" / "report", ROOT / "studies" / "grid32"


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    # every example of that task has as many tokens, and the table counts these
    return pd.read_parquet(REPORT / "results" / "runs.parquet").rename(columns={"train_tokens": "train_examples"})


def pairs(table: pd.DataFrame, design: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    arms = [table[(table["design"] == design) & (table["arm"] == arm)] for arm in ("candidate", "baseline")]
    return paired_runs(*arms, "results/runs.parquet")


def test_the_published_figures_are_judged_as_committed() -> None:
    found = judge(3.44, 19.55, 10, wins=7, best=29.14, p=0.554)
    committed = read_json(REPORT / "results" / "published.json")
    assert_same(found, committed, rel=1e-12)  # another processor rounds the last bit otherwise


@pytest.mark.parametrize("design", ["pairs", "pilot"])
def test_the_verdict_follows_from_the_run_table(table: pd.DataFrame, design: str) -> None:
    candidate, baseline = pairs(table, design)
    result = read_json(REPORT / "results" / "compare.json")
    wanted = result if design == "pairs" else result["pilot"]
    found = compare(candidate["test_loss"], baseline["test_loss"], smallest_effect=0.01, metric=NATS)
    assert found["sentence"] == wanted["sentence"]
    assert found["difference"] == pytest.approx(wanted["difference"])


def test_the_plan_is_the_one_that_was_registered() -> None:
    content, study = read_json(REPORT / "plan.json"), load_study(REPORT)
    assert sha256(canonical(content["plan"])) == content["sha256"] == study.params.train.plan
    assert preregistration.changed_setting(content["plan"], study.params) is None
    stacks = read_json(REPORT / "results" / "stacks.json")
    runs = pd.read_parquet(REPORT / "results" / "runs.parquet")
    of_pairs = set(runs.loc[runs["design"] == "pairs", "stack_id"])
    assert {stacks[stack]["protocol_sha256"] for stack in of_pairs} == {content["sha256"]}


@pytest.mark.parametrize("folder", [ROOT, ROOT / "studies" / "wikitext2", REPORT])
def test_every_committed_plan_is_in_its_ledger(folder: Path) -> None:
    study = load_study(folder)
    found, ledger = preregistration.registered(study), Ledger.read(study.ledger)
    assert found and ledger.number(found[1]) == len(ledger.plans) and ledger.plans[-1]["file"] == read_json(study.plan)
    assert history_faults(study.ledger) == []
    last, result = ledger.of("verdict", found[1])[-1], read_json(study.results / "compare.json")
    assert (last["verdict"], last["difference"]) == (result["verdict"], result["difference"]["value"])


def test_the_golden_decisions_follow_from_the_run_table(table: pd.DataFrame) -> None:
    result = read_json(REPORT / "results" / "golden.json")
    protocol = read_json(REPORT / "results" / "golden_protocol.json")["protocol"]
    confirm = table[table["design"] == "confirm"].sort_values("data_seed")
    controls = table[table["design"] == "controls"].sort_values(["data_seed", "init_seed"])
    earlier = table[table["design"].isin(["grid", "pilot", "pairs"])]
    found = golden.confirm(
        [
            golden.Candidate(name, seed, confirm[confirm["init_seed"] == (seed or 0)]["test_loss"])
            for name, seed in protocol["forwarded"].items()
        ],
        controls["test_loss"].to_numpy().reshape(-1, len(protocol["control_init_seeds"][0])),
        metric=NATS,
        data_seeds=sorted(set(confirm["data_seed"])),
        control_inits=protocol["control_init_seeds"],
        selection_inits=np.unique(earlier["init_seed"]).tolist(),
        selection_data_seeds=np.unique(earlier["data_seed"]).tolist(),
        registered=True,
        margin=protocol["margin"],
        margin_useful=protocol["useful"],
        alpha=protocol["alpha"],
    )
    assert [decision["sentence"] for decision in found] == [decision["sentence"] for decision in result["decisions"]]


def test_the_variance_of_the_grid_follows_from_the_run_table() -> None:
    runs, result = pd.read_parquet(GRID / "results" / "runs.parquet"), read_json(GRID / "results" / "attribute.json")
    assert len(runs) == 2048 and not runs["diverged"].any()
    losses = {
        arm: table.pivot(index="init_seed", columns="data_seed", values="test_loss").to_numpy()
        for arm, table in runs.groupby("arm")
    }
    losses["difference"] = losses["baseline"] - losses["candidate"]
    for name, cells in losses.items():
        found = attribute(cells)
        assert cells.shape == (32, 32) and found["sentence"] == result[name]["sentence"]
        for part, component in found["components"].items():
            assert component == pytest.approx(result[name]["components"][part])
    assert found["crossed"]["value"] == pytest.approx(0.00092, abs=1e-5)
