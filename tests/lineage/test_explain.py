"""The runs behind a figure, and the commands that build it again: a study that a real DVC has recorded."""

import json
from pathlib import Path

import pandas as pd
import pytest

from infinito.library import link
from infinito.lineage.figure import explain
from infinito.lineage.markdown import as_markdown
from infinito.lineage.stages import lineage
from infinito.lineage.text import as_text
from infinito.storage import read_json, read_table, write_table
from tests.recorded import CODE, dvc, edit, git


@pytest.fixture
def study(recorded_study: Path) -> Path:
    return recorded_study


@pytest.mark.parametrize(
    ("figure", "expected"),
    [
        ("compare", {("pairs", "candidate"): 10, ("pairs", "baseline"): 10}),
        ("compare.difference.value", {("pairs", "candidate"): 10, ("pairs", "baseline"): 10}),
        ("compare.candidate.ci_low", {("pairs", "candidate"): 10}),
        ("compare.scores.baseline.accuracy", {("pairs", "baseline"): 10}),
        ("compare.family.0.p_value", {("pairs", "candidate"): 10, ("pairs", "baseline"): 10}),
        ("attribute.difference.components.init.share", {("grid", "candidate"): 9, ("grid", "baseline"): 9}),
        ("attribute.baseline.cells.0.1", {("grid", "baseline"): 9}),
        ("golden.status", {("grid", "candidate"): 9, ("confirm", "candidate"): 10, ("controls", "candidate"): 20}),
        ("golden.selection.best", {("grid", "candidate"): 9}),
        ("golden.checkpoint.test_loss", {("confirm", "candidate"): 1}),
        ("golden_protocol.sha256", {("grid", "candidate"): 9}),
        ("ensemble.candidate.curve.2.loss", {("pairs", "candidate"): 10}),
    ],
)
def test_a_figure_knows_its_runs(study: Path, figure: str, expected: dict[tuple[str, str], int]) -> None:
    found = explain(study, figure)
    json.dumps(found, allow_nan=False)
    assert {(group["design"], group["arm"]): group["count"] for group in found["runs"]} == expected
    assert sum(stack["runs"] for stack in found["stacks"]) == sum(expected.values())
    assert all(stack["git_revision"] and stack["processor"] for stack in found["stacks"])
    name, *keys = figure.split(".")
    assert found["stage"]["name"] == {"golden_protocol": "golden"}.get(name, name)
    assert found["file"] == f"studies/tiny/results/{name}.json"
    value = read_json(study / f"results/{name}.json")
    for key in keys:
        value = value[int(key) if isinstance(value, list) else key]
    assert found["value"] == value


def test_ablations_and_a_pilot_have_runs_of_their_own(study: Path) -> None:
    file = study / "models/runs/runs.parquet"
    table = read_table(file).to_pandas()
    pairs = table[table["design"] == "pairs"]
    plain, pilot = pairs[pairs["arm"] == "candidate"].assign(arm="plain"), pairs.head(3).assign(design="pilot")
    write_table(file, pd.concat([table, plain, pilot]))
    result = read_json(study / "results/compare.json")
    family = [{"arm": "candidate", "p_value": 0.5}, {"arm": "plain", "p_value": 0.5}]
    edit(study / "results/compare.json", family=family, ablations={"plain": result}, pilot=result)

    def arms(figure: str) -> set[tuple[str, str]]:
        return {(group["design"], group["arm"]) for group in explain(study, f"compare.{figure}")["runs"]}

    first, second, other = ("pairs", "candidate"), ("pairs", "baseline"), ("pairs", "plain")
    assert arms("difference") == arms("family.0") == {first, second}
    assert arms("family.1.p_value") == arms("ablations.plain.difference.value") == {other, second}
    assert arms("ablations.plain.candidate.value") == {other} and arms("ablations") == {first, second, other}
    assert arms("pilot.p_value") == arms("report_protocol.best_seed") == {("pilot", "candidate")}


def test_explain_says_it_all_in_lines(study: Path) -> None:
    found = explain(study, "ensemble.candidate.curve.2.loss")
    assert found["entries"] == {"candidate.curve.2": {"size": 4, "groups": 2}}
    table = read_table(study / "models/runs/runs.parquet").to_pandas()
    mine = table[(table["design"] == "pairs") & (table["arm"] == "candidate")]
    assert found["runs"][0]["run_ids"] == mine["run_id"].tolist()
    assert found["runs"][0]["seeds"]["init_seed"] == mine["init_seed"].tolist()
    text = as_text(found)
    for line in (
        "ensemble.candidate.curve.2.loss = ",
        "  candidate.curve.2: size 4, groups 2\n",
        "studies/tiny/results/ensemble.json, written by stage ensemble of study tiny: up to date\n",
        "Runs behind it: 10\n",
        "  10 of the candidate, pairs, in studies/tiny/models/runs: init_seed 1000000 to 1000009 (10); ",
        "  compare.alpha: 0.05\n",
        f"  git checkout {git(study, 'rev-parse', 'HEAD')} ",
        "  dvc --cd studies/tiny repro ensemble ",
    ):
        assert line in text, text


@pytest.mark.parametrize(
    ("figure", "message"),
    [
        ("", "figure: found ''; allowed: attribute, compare, ensemble, golden, golden_protocol, metrics, and keys in"),
        ("compair", "figure: found 'compair'; allowed: attribute, compare, "),
        ("compare.diference", "found 'diference' in results/compare.json; allowed: schema, study, "),
        ("compare.difference.mean", "in results/compare.json.difference; allowed: value, ci_low, ci_high, n"),
        ("ensemble.candidate.curve.9", "found '9' in results/ensemble.json.candidate.curve; allowed: 0 to "),
        ("ensemble.candidate.curve.-1", "found '-1' in"),
        ("golden.status.0", "found '0' in results/golden.json.status, which is \"GOLDEN_"),
        ("../params", "figure: found ''; allowed: "),
    ],
)
def test_an_unknown_figure_is_one_line(study: Path, figure: str, message: str) -> None:
    with pytest.raises(ValueError) as error:
        explain(study, figure)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_the_commit_to_go_back_to_is_the_one_that_holds_everything(study: Path) -> None:
    recorded = git(study, "rev-parse", "HEAD")
    assert explain(study, "compare")["rebuild"]["revision"] == recorded
    (study / CODE).write_text("# the second version\n")
    git(study, "commit", "-qam", "code that no stage has seen")
    later = explain(study, "compare")
    assert (later["rebuild"]["revision"], later["rebuild"]["exact"]) == (recorded, True)
    assert later["stage"]["changed"] == ["infinito/questions/compare.py"]
    assert explain(study, "golden.status")["rebuild"]["stages"] == ["prepare", "train", "golden"]
    dvc(study, "commit", "--force", "--quiet")  # as if they had run with it
    unsaved = explain(study, "compare")["rebuild"]
    assert unsaved["revision"] is None and unsaved["differs"][0].startswith("dvc.lock: not committed")
    assert "git checkout" not in unsaved["commands"][0]["command"]
    git(study, "checkout", "-q", recorded, "--", str((study / CODE).resolve()))
    git(study, "commit", "-qam", "dvc.lock with other code than it says")
    wrong = explain(study, "compare")["rebuild"]
    assert (wrong["exact"], wrong["differs"]) == (False, ["infinito/questions/compare.py"])
    assert "  not exactly: infinito/questions/compare.py\n" in as_text(explain(study, "compare"))


def test_a_clone_is_filled_from_the_remote_storage_and_rebuilds_a_figure(study: Path, tmp_path: Path) -> None:
    """Push, lose the cache and all outputs, pull: nothing is out of date; and the commands of `explain` do as told."""
    dvc(study, "push", "--quiet")
    steps = [step["command"] for step in explain(study, "compare.difference")["rebuild"]["commands"]]
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(study.parent.parent), str(clone))
    again = clone / "studies" / "tiny"
    assert not (again / "models").exists() and not (again / ".dvc" / "cache").exists()
    git(clone, *steps[0].split()[1:])
    assert steps[2].startswith("dvc --cd studies/tiny pull ")
    dvc(clone, *steps[2].split()[1:])
    dvc(clone, "--cd", "studies/tiny", "pull", "--quiet")
    assert "up to date" in dvc(again, "status") and git(clone, "status", "--short") == ""
    assert "in sync" in dvc(again, "status", "--cloud")
    expected = (again / "results/compare.json").read_bytes()
    (again / "results/compare.json").unlink()
    link(again)  # a stage runs by the code that is recorded, or not at all; what stands for it here can't run
    assert steps[3] == "dvc --cd studies/tiny repro compare"
    assert "Running stage 'compare'" in dvc(clone, *steps[3].split()[1:], "--single-item")
    assert (again / "results/compare.json").read_bytes() == expected


def test_what_dvc_keeps_elsewhere_is_not_on_this_machine_but_not_changed(study: Path, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(study.parent.parent), str(clone))
    again = clone / "studies" / "tiny"
    here, found = explain(study, "compare.difference.value"), explain(again, "compare.difference.value")
    assert here["stage"]["absent"] == [] and found["value"] == here["value"]
    assert (found["stage"]["status"], found["stage"]["changed"], found["runs"]) == ("not on this machine", [], [])
    absent = [f"studies/tiny/{path}" for path in ("data/prepared", "models/runs", "results/records/compare.json")]
    assert sorted(found["stage"]["absent"]) == absent
    text = as_text(found)
    assert "Runs behind it: not on this machine: dvc pull brings them\n" in text and "changed" not in text
    assert "; dvc pull brings them\n" in text and text.count("(not on this machine)") == 2  # of the inputs
    assert "not on this machine" in as_markdown(lineage(again)) and "changed" not in as_markdown(lineage(again))
    # what git has, or nobody keeps, is changed where it is gone
    (clone / "infinito" / "questions" / "compare.py").unlink()
    gone = explain(again, "compare.difference.value")["stage"]
    assert (gone["status"], gone["changed"]) == ("changed", ["infinito/questions/compare.py"])
    (again / "models" / "runs").mkdir(parents=True)
    assert "studies/tiny/models/runs" in explain(again, "compare.difference.value")["stage"]["changed"]
    (again / "results" / "attribute.json").unlink()
    assert "studies/tiny/results/attribute.json" in lineage(again)["stages"]["attribute"]["changed"]
