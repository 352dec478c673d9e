"""A study without some stages: a whole report that says nothing of them, and all that reads its results."""

import dataclasses
import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from infinito.report.draw import WIDE, Figure
from infinito.report.evidence import Evidence, gather
from infinito.report.page import html, markdown
from infinito.stages import STAGES
from infinito.storage import read_json
from infinito.study import load_study
from tests.conftest import ROOT, TINY, Infinito, in_process
from tests.report.pages import Page
from tests.test_params import OPTIONAL, without

SUBSETS = [list(found) for n in range(4) for found in itertools.combinations(OPTIONAL, n)]
# of each stage: the id of its section, its heading, its charts, and words that only it has
OF = {
    "attribute": ("variance", "Why runs differ", {"variance", "grid"}, ("F test of", "REML", "Seeds of the grid")),
    "golden": ("golden", "Is there a golden seed?", {"confirmation"}, ("golden seed", "G1", "results/golden_protocol")),
    "ensemble": ("ensemble", "What do ensembles bring?", {"ensemble"}, ("Jensen", "models/ensemble")),
}


def reduced(study: Path, target: Path, kept: list[str]) -> Path:
    """A copy of a finished study with these of the optional stages only; its report is not yet drawn again."""
    shutil.copytree(study, target)
    gone = [stage for stage in OPTIONAL if stage not in kept]
    content = yaml.safe_load((target / "params.yaml").read_text())
    for stage in gone:
        del content[stage]
    if not {"attribute", "golden"} & {*kept}:
        content["train"]["grid"] = None
    (target / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    (target / "dvc.yaml").write_text(without((ROOT / "dvc.yaml").read_text(), gone))
    for stage in gone:
        for file in (target / "results").glob(f"{stage}*.json"):
            file.unlink()
        shutil.rmtree(target / "models" / stage, ignore_errors=True)
    return target


@pytest.mark.parametrize("kept", SUBSETS, ids=lambda kept: "+".join(kept) or "none")
def test_the_report_says_nothing_of_stages_that_are_not_there(
    study: Path, figures: dict[str, Figure], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: list[str]
) -> None:
    if kept:  # without any of them the charts are drawn, and with all they have been; here they are only made
        monkeypatch.setattr("infinito.report.figures.draw", lambda name, _, chart: chart(WIDE) and figures[name])
    folder = reduced(study, tmp_path / "study", kept)
    STAGES["report"](load_study(folder), in_process)
    text = (folder / "results/report.html").read_text(encoding="utf-8")
    page, told = Page(text), (folder / "results/report.md").read_text(encoding="utf-8")
    links = [reference[1:] for reference in page.references if reference.startswith("#")]
    assert links == page.ids and len(set(links)) == len(links)
    charts = {file.stem for file in (folder / "results/charts").glob("*.png")}
    for stage, (anchor, heading, drawn, words) in OF.items():
        there = stage in kept
        assert (anchor in links) == there and (f"## {heading}" in told) == there
        assert charts & drawn == (drawn if there else set())
        for shown in (page.text, told):
            assert [word in shown for word in words] == [there] * len(words), (stage, words)
    assert {"luck", "learning", "checks", "fairness", "provenance", "lineage"} <= {*links}
    assert [row[0] for row in page.below("Stage", "Status", "Read", "Wrote")[: 4 + len(kept)]] == [
        stage for stage in STAGES if stage in kept or stage not in OPTIONAL
    ]
    *others, last = [f"{f}/runs.parquet" for f in gather(load_study(folder)).folders]
    listed = f"{', '.join(others)} and {last}." if others else f"{last}."
    assert f"Every run, with all its scores: {listed}" in told.replace("`", "")
    metrics = read_json(folder / "results/metrics.json")
    assert [any(key.startswith(name) for key in metrics) for name in ("init_share", "golden", "ensemble")] == [
        stage in kept for stage in OPTIONAL
    ]


@pytest.mark.parametrize("kept", SUBSETS[:-1], ids=lambda kept: "+".join(kept) or "none")
def test_the_command_line_does_without_them_too(
    study: Path, tmp_path: Path, infinito: Infinito, kept: list[str]
) -> None:
    folder = reduced(study, tmp_path / "study", kept)
    verdict = infinito("verdict", "--study", str(folder))
    assert verdict.returncode == 0, verdict
    golden = read_json(study / "results/golden.json")["sentence"]
    assert (golden in verdict.stdout) == ("golden" in kept)
    check = infinito("check", "--study", str(folder))
    assert check.returncode == 0 and "None" not in check.stdout
    assert ("no grid of seeds" in check.stdout) == (not {"attribute", "golden"} & {*kept})
    pairs, grid, fresh, single = 20, 18, 30, 6
    runs = (
        pairs
        + grid * bool({"attribute", "golden"} & {*kept})
        + fresh * ("golden" in kept)
        + single * ("ensemble" in kept)
    )
    assert f"at most {runs} runs" in check.stdout
    explained = infinito("explain", "compare.difference.value", "--study", str(folder))
    assert explained.returncode == 0 and "Runs behind it: 20" in explained.stdout
    for stage in OPTIONAL:
        found = infinito("explain", stage, "--study", str(folder))
        assert found.returncode == (0 if stage in kept else 2), found
    audit = infinito("audit", "--study", str(folder))  # DVC has recorded nothing here, and nothing else is missing
    missing = {line.split(":")[0] for line in audit.stdout.splitlines()}
    assert audit.returncode == 1 and not any(
        stage in name for name in missing for stage in OPTIONAL if stage not in kept
    )


@pytest.mark.parametrize("stage", OPTIONAL)
def test_a_stage_without_its_section_says_so_in_one_line(study: Path, tmp_path: Path, stage: str) -> None:
    folder = reduced(study, tmp_path / "study", [])
    with pytest.raises(ValueError, match=f"params.yaml: {stage}: missing section, which the stage {stage} needs"):
        STAGES[stage](load_study(folder), in_process)


def test_a_study_without_them_trains_no_grid(tmp_path: Path) -> None:
    content: dict[str, Any] = {key: value for key, value in TINY.items() if key not in OPTIONAL}
    content["train"] = TINY["train"] | {"grid": None}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    study = load_study(tmp_path)
    for stage in study.params.stages:
        STAGES[stage](study, in_process)
    assert set(gather(study).runs["design"]) == {"pairs"}
    assert (tmp_path / "results/report.html").is_file()


# --- what differs between the arms ---


def test_the_report_tells_what_differs_between_the_arms(evidence: Evidence, figures: dict[str, Figure]) -> None:
    page = Page(html(evidence, figures))
    assert (
        "The candidate differs from the baseline by its network and settings only. Both train for as many" in page.text
    )
    for cells in (
        ["Network", "infinito_v52", "transformer"],
        ["Setting memory_slots", "8", "not set"],
        ["Steps", "6", "6"],
        ["Training examples seen", "48", "48"],
        ["Tuned", "not stated", "not stated"],
        ["Weights that count", "of the last step", "of the last step"],
    ):
        assert page.row(cells[0]) == cells
    assert not any(row[:1] and row[0].startswith("Recipe: ") for row in page.rows)


def test_an_arm_with_a_recipe_of_its_own_is_told_everywhere(
    write_study: Callable[..., Path], infinito: Infinito
) -> None:
    changes = {
        "train.candidate.train": {"steps": 12, "learning_rate": 0.02, "keep": "best"},
        "train.candidate.tuned": {"trials": 20},
    }
    folder = write_study(changes | {stage: None for stage in OPTIONAL if stage != "ensemble"})
    study = load_study(folder)
    for stage in study.params.stages:
        STAGES[stage](study, in_process)
    compare = read_json(folder / "results/compare.json")
    assert compare["metric"] == (
        "test loss, nats per token, at the point of its curve that is best on validation (candidate), "
        "at the last step (baseline)"
    )
    assert compare["measure"] == {"name": "loss", "unit": "nats per token", "better": "lower"}
    sentence = compare["fairness"]["arms"]["candidate"]["sentence"]
    assert "learning_rate 0.02 (baseline: 0.01), keep best (baseline: last), tuning 20 trials" in sentence
    page = Page((folder / "results/report.html").read_text(encoding="utf-8"))
    told = (folder / "results/report.md").read_text(encoding="utf-8")
    for shown in (page.text, told.replace("\\_", "_"), infinito("verdict", "--study", str(folder)).stdout):
        assert sentence in shown
    for cells in (
        ["Recipe: learning_rate", "0.02", "0.01"],
        ["Steps", "12", "6"],
        ["Training examples seen", "96", "48"],
        ["Tuned", "20 trials", "not stated"],
        ["Weights that count", "of the point that is best on validation", "of the last step"],
    ):
        assert page.row(cells[0]) == cells
    assert (
        read_json(folder / "results/ensemble.json")["equal_compute"]["longer"]["steps"] == 24
    )  # of the candidate's 12


def test_the_verdict_has_no_such_line_where_only_networks_differ(study: Path, infinito: Infinito) -> None:
    assert "in more than its network" not in infinito("verdict", "--study", str(study)).stdout


# --- the words of the metric ---


def test_a_page_of_a_metric_that_is_better_when_higher(study: Path, tmp_path: Path) -> None:
    """The same runs, their losses taken for negative accuracies: only words and the direction of levels change."""
    folder = Path(shutil.copytree(study, tmp_path / "study"))
    file = folder / "results/compare.json"
    compare = read_json(file)
    compare["measure"] = {"name": "accuracy", "unit": "share of images", "better": "higher"}
    for arm in ("candidate", "baseline"):
        low, high = (compare[arm][key] for key in ("ci_low", "ci_high"))
        compare[arm] |= {"value": -compare[arm]["value"], "ci_low": -high, "ci_high": -low}
    file.write_text(json.dumps(compare))
    STAGES["report"](load_study(folder), in_process)
    page = Page((folder / "results/report.html").read_text(encoding="utf-8"))
    told = (folder / "results/report.md").read_text(encoding="utf-8")
    golden = read_json(folder / "results/golden.json")
    for shown in (page.text, told):
        own = shown.partition("All settings")[0]
        for sentence in [compare["sentence"], *(d["sentence"] for d in golden["decisions"])]:
            own = own.replace(sentence, "")
        for part in ("checkpoint", "cell"):
            own = own.replace(golden["claims"][part]["sentence"], "")
        for design in ("longer", "wider"):
            own = own.replace(read_json(folder / "results/ensemble.json")["equal_compute"][design]["sentence"], "")
        assert "nats" not in own and "loss" not in own.replace("loss of the", "")
        way = "higher" if compare["difference"]["value"] >= 0 else "lower"
        assert f"share of images {way}" in own and "higher is better" in own
        assert "had the highest mean validation accuracy" in own
        assert "candidate minus baseline" in own
    assert page.row("Test accuracy, share of images")[1].startswith("−")
    assert not any(row and "ratio of losses" in row[0] for row in page.rows)
    row = next(
        row
        for row in page.rows
        if row[:2] == ["1", str(golden["selection"]["init_seeds"][golden["selection"]["best"]["index"]])]
    )
    assert row[2].startswith("−")
    size = next(row for row in page.rows if row[0] == "Test accuracy" and row[1] == "1")
    assert size[2].startswith("−")


def test_without_percentages_there_is_no_best_seed_report(evidence: Evidence, figures: dict[str, Figure]) -> None:
    compare = evidence.compare | {"report_protocol": None, "report_protocol_repeated": []}
    there = dataclasses.replace(evidence, compare=compare)
    left = {name: figure for name, figure in figures.items() if name not in ("last_batch", "reports")}
    for text in (html(there, left), markdown(there, left)):
        assert "best-seed report" not in text and "#luck" not in text


def test_ensembles_of_outputs_and_without_wider_models(evidence: Evidence, figures: dict[str, Figure]) -> None:
    assert evidence.ensemble
    equal = {key: value for key, value in evidence.ensemble["equal_compute"].items() if key != "wider"}
    there = dataclasses.replace(evidence, ensemble=evidence.ensemble | {"averaged": "outputs", "equal_compute": equal})
    page, text = Page(html(there, figures)), markdown(there, figures)
    for shown in (page.text, text):
        assert "An ensemble averages the outputs of" in shown and "Wider" not in shown
        assert "the two comparisons" not in shown and "Trained longer" in shown
    assert not any(row[0].startswith("width ") for row in page.rows)
