"""Result files that people published, judged: figures to six digits, and what must be said.

They are not part of this repository: INFINITO_DATA names the folder that has them in results/, with answers.json, which
scipy and statsmodels gave.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

FOLDER = Path(os.environ.get("INFINITO_DATA", "no-such-folder")) / "results"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="INFINITO_DATA names no folder with results/")


def judged(name: str, *flags: str, code: int = 0) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "infinito", "judge", str(FOLDER / name), *flags, "--json"],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def answers() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / "answers.json").read_text())
    return found


def one(found: dict[str, Any], candidate: str, metric: str = "", task: str = "") -> dict[str, Any]:
    (chosen,) = [
        c for c in found["comparisons"]
        if c["candidate"] == candidate and metric in ("", c["metric"]) and task in ("", c["task"])
    ]  # fmt: skip
    return chosen  # type: ignore[no-any-return]


def agrees(found: dict[str, Any], right: dict[str, Any], *, corrected: bool = False, within: float = 1e-12) -> None:
    p, interval = ("corrected_p", "corrected_ci95") if corrected else ("p", "ci95")
    difference = found["difference"]
    assert difference["value"] == pytest.approx(right["difference"], rel=1e-5, abs=1e-12)
    assert [difference["ci_low"], difference["ci_high"]] == pytest.approx(right[interval], rel=1e-5, abs=within)
    assert found["p_value"] == pytest.approx(right[p], rel=1e-5)
    if "p_holm" in right:
        assert found["p_adjusted"] == pytest.approx(right["p_holm"], rel=1e-5)
    for key, theirs in (("wins", "wins"), ("correlation_of_arms", "correlation_of_arms"), ("df", "df"), ("t", "t")):
        if key in found and theirs in right:
            assert found[key] == pytest.approx(right[theirs], rel=1e-5)


def said(found: dict[str, Any]) -> str:
    return " ".join([*found["remarks"], *(remark for c in found["comparisons"] for remark in c["remarks"])])


def test_the_best_of_a_hundred_berts_is_no_golden_seed(answers: dict[str, Any]) -> None:
    found, right = judged("hans_100_seeds.csv", code=1), answers["hans"]
    assert "Minimum, Maximum, Mean, Standard deviation: summaries, no runs" in said(found)
    assert "one arm only" in said(found)
    best = next(b for b in found["best"] if b["value"] == pytest.approx(right["best_dev"], rel=1e-5))
    assert best["tried"] == 100 and best["in_sd"] == pytest.approx(right["best_in_sd"], rel=1e-4)
    assert best["expected_in_sd"] == pytest.approx(right["expected_maximum_sd"], rel=1e-5)
    assert best["expected_by_luck"] == pytest.approx(right["best_by_luck"], rel=1e-5)
    assert best["chance_of_as_much"] == pytest.approx(right["chance_that_luck_gives_as_much"], rel=1e-5)
    assert best["sentence"].startswith("no golden seed")
    hans = next(o for o in best["elsewhere"] if o["rank"] == right["its_rank_on_hans"])
    assert hans["correlation"] == pytest.approx(right["correlation_dev_hans"], rel=1e-5)


@pytest.mark.parametrize(
    "name, baseline, metrics",
    [("nanogpt_logs", "master-s1480", ("val_loss", "seconds")), ("wandb_chart_export.csv", "master", ("val_loss",))],
)
def test_runs_without_seeds_are_not_paired(
    name: str, baseline: str, metrics: tuple[str, ...], answers: dict[str, Any]
) -> None:
    found, right = judged(name, "--baseline", baseline), answers["nanogpt"]
    assert len(found["comparisons"]) == len(metrics) and "7 runs in an arm are too few" in said(found)
    assert "1450" in said(found) and "1480" in said(found) and "would be invented" in said(found)
    for c in found["comparisons"]:
        agrees(c, right["seconds" if "time" in c["metric"] else "val_loss"])
        assert c["verdict"] == "INCONCLUSIVE" and c["paired"] is None


def test_a_file_a_seed(answers: dict[str, Any]) -> None:
    found = judged("rtdl_one_file_per_seed", "--baseline", "mlp")
    agrees(found["comparisons"][0], answers["rtdl_files"]["paired"])
    assert found["hypotheses"] == 1 and "the negative of" in said(found)
    assert "gains nothing here (r = -0.16)" in said(found)
    welch = judged("rtdl_one_file_per_seed", "--baseline", "mlp", "--unpaired")
    agrees(welch["comparisons"][0], answers["rtdl_files"]["welch"])


def test_a_german_spreadsheet(answers: dict[str, Any]) -> None:
    found = judged("adult_spreadsheet_de.csv", "--baseline", "mlp")
    for name, right in answers["german"]["Holm over 2 arms x 2 metrics"].items():
        arms, metric = name.split(", ")
        agrees(one(found, arms.split(" against ")[0], metric), right)
    accuracy = one(found, "ft_transformer", "Genauigkeit")
    assert accuracy["unit"] == "percentage points" and "+0.652 percentage points" in accuracy["sentence"]
    assert "the header is repeated" in said(found)


def test_runs_that_did_not_finish_are_named(answers: dict[str, Any]) -> None:
    found = judged("mlflow_runs.csv", "--baseline", "mlp")
    for arm, right in answers["mlflow"]["Holm over 2"].items():
        agrees(one(found, arm), right)
    assert all(word in said(found) for word in ("FAILED", "KILLED", "RUNNING"))


def test_learning_curves(answers: dict[str, Any]) -> None:
    found = judged("tdmpc2_humanoid_run", "--baseline", "tdmpc2", "--at", "13e6:13.7e6")
    for name, right in answers["tdmpc2"]["Holm over 3"].items():
        ours = one(found, name.split(" against ")[1])  # the other way round: tdmpc2 is the baseline
        low, high = right["ci95"]
        agrees(ours | {"t": -ours["t"]}, right | {"difference": -right["difference"], "ci95": [-high, -low]})
        assert ours["verdict"] == "INCONCLUSIVE"
    assert "tdmpc: two different figures" in said(found) and "seed 1, 2" in said(found)
    assert "3 runs in an arm are too few" in said(found)


def test_folds_are_corrected_and_failed_ones_named(answers: dict[str, Any]) -> None:
    found = judged("automl_folds.csv", "--baseline", "RandomForest", "--metric", "auc")
    for name, right in answers["automl"].items():
        if not isinstance(right, dict) or "corrected_p" not in right:
            continue
        arms, _ = name.split(", ")
        task, pair = arms.split(": ")
        if right["n_pairs"] < 3:
            continue
        ours = one(found, pair.split(" against ")[0], task=task)
        agrees(ours, right, corrected=True)
    kc1 = one(found, "autosklearn", task="kc1")
    assert "autosklearn: 1 of 10 runs have no figure" in " ".join(kc1["remarks"])
    assert "counted as guessing (auc 0.5) the mean difference is -0.030" in " ".join(kc1["remarks"])


def test_two_checkpoints_are_no_recipes(answers: dict[str, Any]) -> None:
    found = judged("lm_eval_pythia", "--baseline", "160m", code=1)
    for task, right in answers["lm_eval"]["z over items, Holm over 8 tasks"].items():
        ours = one(found, "160m-deduped", task=task)
        agrees(ours, right, within=3e-6)  # theirs take 1.96 for the quantile
    assert "seeds were not varied" in said(found) and "no several seeds" in said(found)
    assert {c["verdict"] for c in found["comparisons"]} == {"INCONCLUSIVE"} and found["across_tasks"] == []
