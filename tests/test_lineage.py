"""Lineage of a tiny study in a real git repository, with a real DVC that has recorded it and a remote storage."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from infinito import lineage
from infinito.params import load_study
from infinito.storage import read_json, read_table, write_json, write_table
from tests.conftest import ROOT

CODE = "../../infinito/compare.py"


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b")
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def dvc(folder: Path, *arguments: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def _recorded(_finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the study studies/tiny, all stages of which DVC has recorded, and everything committed."""
    repository = tmp_path_factory.mktemp("recorded") / "repository"
    study = repository / "studies" / "tiny"
    shutil.copytree(_finished, study, ignore=shutil.ignore_patterns(".infinito"))
    git(repository, "init", "-q", ".")
    (repository / "infinito").mkdir()
    (repository / "infinito" / "compare.py").write_text("# the first version\n")
    (repository / "requirements.lock").write_text("torch\n")
    (study / ".gitignore").write_text("/data/\n/models/\n/.infinito/\n")
    (study / ".dvc").mkdir()
    (study / ".dvc" / ".gitignore").write_text("/cache\n/tmp\n")
    remote = '[core]\n    analytics = false\n    remote = storage\n["remote \\"storage\\""]\n    url = {}\n'
    (study / ".dvc" / "config").write_text(remote.format(repository.parent / "storage").replace('\\"', '"'))
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    for name, stage in stages.items():  # of the code, which is elsewhere, only what the tests change
        code = {"train": [CODE, "../../requirements.lock"], "compare": [CODE]}.get(name, [])
        stage["deps"] = [path for path in stage["deps"] if (study / path).exists()] + code
        for kind in {"outs", "metrics", "plots"} & stage.keys():
            stage[kind] = [x for x in stage[kind] if (study / (x if isinstance(x, str) else next(iter(x)))).exists()]
    (study / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}, sort_keys=False))
    git(repository, "add", "-A")
    git(repository, "commit", "-qm", "code")
    for record in study.glob("models/**/stack.json"):  # as if it had been trained here
        write_json(record, read_json(record) | {"git_revision": git(repository, "rev-parse", "HEAD")})
    for name in stages:
        lineage.write_record(load_study(study), name, 1.5)
    dvc(study, "commit", "--force", "--quiet")
    git(repository, "add", "-A")
    git(repository, "commit", "-qm", "results")
    return repository


@pytest.fixture
def study(_recorded: Path, tmp_path: Path) -> Path:
    """A copy of it; the study's folder."""
    return Path(shutil.copytree(_recorded, tmp_path / "repository", symlinks=True)) / "studies" / "tiny"


def _states(stage: dict[str, Any]) -> dict[str, str]:
    return {entry["name"]: entry["state"] for entry in [*stage["inputs"], *stage["outputs"]]}


def test_lineage_is_what_dvc_recorded_and_what_is_there(study: Path) -> None:
    assert "up to date" in dvc(study, "status")
    found = lineage.lineage(study)
    json.dumps(found, allow_nan=False)
    assert found["study"] == "tiny" and found["folder"] == "studies/tiny"
    assert found["git"] == {
        "revision": git(study, "rev-parse", "HEAD"),
        "diff_sha256": None,
        "changed": [],
        "untracked": [],
    }
    stages = found["stages"]
    assert {stage["status"] for stage in stages.values()} == {"up to date"}
    assert stages["compare"]["needs"] == ["prepare", "train"] and stages["prepare"]["needs"] == []
    inputs = {entry["name"]: entry for entry in stages["train"]["inputs"]}
    assert {name: (entry["kind"], entry["of"]) for name, entry in inputs.items()} == {
        "studies/tiny/data/prepared": ("data", "prepare"),
        "infinito/compare.py": ("code", None),
        "requirements.lock": ("environment", None),
    }
    assert inputs["studies/tiny/data/prepared"]["files"] == len(list((study / "data/prepared").iterdir()))
    assert stages["train"]["params"]["train"]["steps"] == 6
    (runs,) = stages["train"]["runs"]
    assert runs["runs"] == 38 and sum(group["runs"] for group in runs["designs"]) == 38
    assert runs["git_revision"] == [git(study, "rev-parse", "HEAD~")] and runs["versions"]["torch"]
    assert stages["compare"]["record"]["seconds"] == 1.5

    text = lineage.as_markdown(found, {"train": "Cached"})
    assert "    train --> compare\n" in text and "| train | Cached | up to date |" in text
    assert inputs["infinito/compare.py"]["md5"] in text and "| train | train.steps | 6 |" in text


def test_what_has_changed_is_named(study: Path) -> None:
    (study / CODE).write_text("# the second version\n")
    (study / "params.yaml").write_text(
        (study / "params.yaml").read_text().replace("smallest_effect: 0.01", "smallest_effect: 0.02")
    )
    (study / "results/golden.json").unlink()
    (study.parent.parent / "infinito" / "new.py").write_text("")
    found = lineage.lineage(study)
    stages = found["stages"]
    assert found["git"]["changed"] == ["infinito/compare.py", "studies/tiny/params.yaml"]
    assert found["git"]["untracked"] == ["infinito/new.py"] and found["git"]["diff_sha256"]
    assert stages["compare"]["status"] == "changed"
    assert stages["compare"]["changed"] == ["infinito/compare.py", "params.yaml: compare.smallest_effect"]
    assert _states(stages["golden"])["studies/tiny/results/golden.json"] == "missing"
    assert stages["attribute"]["status"] == "up to date"
    (study / "dvc.lock").unlink()
    stages = lineage.lineage(study)["stages"]
    assert {stage["status"] for stage in stages.values()} == {"not run"}
    assert set(_states(stages["attribute"]).values()) == {"new"}


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
    found = lineage.explain(study, figure)
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
    _edit(study / "results/compare.json", family=family, ablations={"plain": result}, pilot=result)

    def arms(figure: str) -> set[tuple[str, str]]:
        return {(group["design"], group["arm"]) for group in lineage.explain(study, f"compare.{figure}")["runs"]}

    first, second, other = ("pairs", "candidate"), ("pairs", "baseline"), ("pairs", "plain")
    assert arms("difference") == arms("family.0") == {first, second}
    assert arms("family.1.p_value") == arms("ablations.plain.difference.value") == {other, second}
    assert arms("ablations.plain.candidate.value") == {other} and arms("ablations") == {first, second, other}
    assert arms("pilot.p_value") == arms("report_protocol.best_seed") == {("pilot", "candidate")}


def test_explain_says_it_all_in_lines(study: Path) -> None:
    found = lineage.explain(study, "ensemble.candidate.curve.2.loss")
    assert found["entries"] == {"candidate.curve.2": {"size": 4, "groups": 2}}
    table = read_table(study / "models/runs/runs.parquet").to_pandas()
    mine = table[(table["design"] == "pairs") & (table["arm"] == "candidate")]
    assert found["runs"][0]["run_ids"] == mine["run_id"].tolist()
    assert found["runs"][0]["seeds"]["init_seed"] == mine["init_seed"].tolist()
    text = lineage.as_text(found)
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
        lineage.explain(study, figure)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_folder_that_is_no_study_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="dvc.yaml: no such file; a study is a folder with"):
        lineage.lineage(tmp_path)
    (tmp_path / "dvc.yaml").write_text("stages: [train]")
    with pytest.raises(ValueError, match="dvc.yaml: found no stages; allowed: what `dvc repro` understands"):
        lineage.lineage(tmp_path)
    (tmp_path / "dvc.yaml").write_text("stages: {train: {cmd: x, outs: [x]}}")
    with pytest.raises(ValueError, match="results: no results yet; run dvc repro"):
        lineage.explain(tmp_path, "compare")
    assert lineage.lineage(tmp_path)["git"]["revision"] is None


def test_the_commit_to_go_back_to_is_the_one_that_holds_everything(study: Path) -> None:
    recorded = git(study, "rev-parse", "HEAD")
    assert lineage.explain(study, "compare")["rebuild"]["revision"] == recorded
    (study / CODE).write_text("# the second version\n")
    git(study, "commit", "-qam", "code that no stage has seen")
    later = lineage.explain(study, "compare")
    assert (later["rebuild"]["revision"], later["rebuild"]["exact"]) == (recorded, True)
    assert later["stage"]["changed"] == ["infinito/compare.py"]
    assert lineage.explain(study, "golden.status")["rebuild"]["stages"] == ["prepare", "train", "golden"]
    dvc(study, "commit", "--force", "--quiet")  # as if they had run with it
    unsaved = lineage.explain(study, "compare")["rebuild"]
    assert unsaved["revision"] is None and unsaved["differs"][0].startswith("dvc.lock: not committed")
    assert "git checkout" not in unsaved["commands"][0]["command"]
    git(study, "checkout", "-q", recorded, "--", CODE)
    git(study, "commit", "-qam", "dvc.lock with other code than it says")
    wrong = lineage.explain(study, "compare")["rebuild"]
    assert (wrong["exact"], wrong["differs"]) == (False, ["infinito/compare.py"])
    assert "  not exactly: infinito/compare.py\n" in lineage.as_text(lineage.explain(study, "compare"))


def test_a_clone_is_filled_from_the_remote_storage_and_rebuilds_a_figure(study: Path, tmp_path: Path) -> None:
    """Push, lose the cache and all outputs, pull: nothing is out of date; and the commands of `explain` do as told."""
    dvc(study, "push", "--quiet")
    steps = [step["command"] for step in lineage.explain(study, "compare.difference")["rebuild"]["commands"]]
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
    assert steps[3] == "dvc --cd studies/tiny repro compare"
    assert "Running stage 'compare'" in dvc(clone, *steps[3].split()[1:], "--single-item")
    assert (again / "results/compare.json").read_bytes() == expected


def test_a_complete_study_lacks_no_record(study: Path) -> None:
    assert lineage.missing_records(load_study(study)) == []


def _edit(file: Path, **changes: Any) -> None:
    write_json(file, read_json(file) | changes)


def _first_stack(study: Path) -> Path:
    return sorted((study / "models/runs/stacks").iterdir())[0]


def _drop_seeds(study: Path) -> None:
    file = study / "models/runs/runs.parquet"
    write_table(file, read_table(file).to_pandas().drop(columns="noise_seed"))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda study: (study / "dvc.lock").unlink(), "results/compare.json: not in dvc.lock; run dvc repro"),
        (lambda study: _edit(study / "results/compare.json", wins=99), "compare.json: not what dvc.lock records"),
        (
            lambda study: _edit(study / "results/compare.json", wins=99),
            "results/records/compare.json: of another results/compare.json than there is",
        ),
        (lambda study: write_json(study / "results/new.json", {}), "results/new.json: no stage of dvc.yaml writes it"),
        (lambda study: (study / "results/records/golden.json").unlink(), "golden.json: missing, so nothing says"),
        (lambda study: _edit(study / "results/records/train.json", git_revision=None), "git_revision is missing"),
        (lambda study: (_first_stack(study) / "stack.json").unlink(), "stack.json: missing, with all that"),
        (lambda study: _edit(_first_stack(study) / "stack.json", processor=""), "stack.json: processor is missing"),
        (lambda study: _edit(_first_stack(study) / "stack.json", runs=[]), "stack.json: runs is missing"),
        (
            lambda study: _edit(_first_stack(study) / "stack.json", versions={"python": "3", "torch": None}),
            "stack.json: versions is missing",
        ),
        (lambda study: (_first_stack(study) / "final.safetensors").unlink(), "/final.safetensors: missing"),
        (_drop_seeds, "models/runs/runs.parquet: noise_seed is missing in 38 of 38 runs"),
    ],
)  # fmt: skip
def test_what_lacks_its_record_is_named(study: Path, harm: Callable[[Path], object], message: str) -> None:
    harm(study)
    assert any(message in fault for fault in lineage.missing_records(load_study(study)))


def test_a_stage_that_has_written_nothing_gets_no_record(study: Path) -> None:
    with pytest.raises(ValueError, match="no stage 'comparison'; allowed: prepare, train, compare, "):
        lineage.write_record(load_study(study), "comparison", 1.0)
    (study / "results/compare.json").unlink()
    with pytest.raises(ValueError, match="compare.json: stage compare has not written it"):
        lineage.write_record(load_study(study), "compare", 1.0)
