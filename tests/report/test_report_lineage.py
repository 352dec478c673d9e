"""The lineage in the report: what DVC has recorded of the stages before it, and nothing of itself."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from infinito import report
from infinito.report.draw import Figure
from infinito.report.evidence import gather
from infinito.report.tables import lineage
from infinito.storage import read_json, write_json
from infinito.study import load_study
from tests.recorded import CODE, dvc
from tests.report.pages import Page

STAGES = ["prepare", "train", "compare", "attribute", "golden", "ensemble", "report"]


@pytest.fixture(autouse=True)
def _drawn_once(figures: dict[str, Figure], monkeypatch: pytest.MonkeyPatch) -> None:
    """The charts are those of the study that was recorded, whatever is done to its lineage."""
    monkeypatch.setattr("infinito.report.figures.draw_all", lambda evidence: figures)


def pages(study: Path) -> tuple[Page, str]:
    """The section of a report that is built now, as HTML and as Markdown."""
    report.write(load_study(study))
    texts = [(study / "results" / name).read_text(encoding="utf-8") for name in ("report.html", "report.md")]
    return Page(texts[0][texts[0].index('<h2 id="lineage"') :]), texts[1][texts[1].index("## What went in") :]


def recorded(study: Path, stage: str, path: str) -> str:
    """The MD5 in dvc.lock, cut as on the page."""
    entry = yaml.safe_load((study / "dvc.lock").read_text())["stages"][stage]
    return next(str(x["md5"])[:8] for x in [*entry.get("deps", []), *entry["outs"]] if x["path"] == path)


def cells(page: Page, *first: str) -> list[str]:
    return [" ".join(cell.split()) for cell in page.row(*first)]


def test_every_stage_says_what_went_in_what_came_out_and_where_it_ran(recorded_study: Path) -> None:
    page, text = pages(recorded_study)
    runs = f"models/runs/ {recorded(recorded_study, 'train', 'models/runs')}"
    data = f"data/prepared/ {recorded(recorded_study, 'prepare', 'data/prepared')}"
    compare = f"results/compare.json {recorded(recorded_study, 'compare', 'results/compare.json')}"
    assert cells(page, "train") == ["train", "up to date", f"{data}, 1 file of code, package versions", runs]
    assert cells(page, "compare") == ["compare", "up to date", f"{data}, {runs}, 3 files of code", compare]
    assert cells(page, "report")[1::2] == ["this page", "this page"] and compare in cells(page, "report")[2]
    ran = page.below("Stage", "Finished (UTC)", "Took", "Git revision")
    assert [row[0] for row in ran[:7]] == STAGES
    record = read_json(recorded_study / "results/records/train.json")
    assert ran[1][1:3] == [record["finished"][:16].replace("T", " "), "2 s"]
    assert ran[1][3] == record["git_revision"][:12] and ran[6][1:] == ["this page", "", ""]
    (machine,) = page.below("Stages", "Machine", "Versions")[:1]
    assert machine[0] == "all of these" and record["processor"] in machine[1]
    assert f"torch {record['versions']['torch']}" in machine[2]
    assert [f"All files of {stage}" in page.text for stage in STAGES] == [True] * 7
    environment = recorded(recorded_study, "train", "../../requirements.lock")
    assert ["in", environment, "requirements.lock", "environment", ""] in page.rows
    assert ["in", "", "params.yaml: study, train", "parameters", ""] in page.rows
    lines = [[cell.strip().replace("\\", "") for cell in line[1:-1].split(" |")] for line in text.splitlines()]
    for row in page.rows:
        assert [" ".join(cell.split()) for cell in row] in lines, row


def test_the_page_depends_on_nothing_of_its_own(recorded_study: Path) -> None:
    """Before its stage was ever recorded, after it was, and by DVC: the same page; and DVC has nothing more to do."""
    built = recorded_study / "results/report.html"
    pages(recorded_study)
    before = built.read_bytes()
    lock = yaml.safe_load((recorded_study / "dvc.lock").read_text())
    del lock["stages"]["report"]
    (recorded_study / "dvc.lock").write_text(yaml.safe_dump(lock))
    (recorded_study / "results/records/report.json").unlink()
    pages(recorded_study)
    assert built.read_bytes() == before
    assert "Running stage 'report'" in dvc(recorded_study, "repro", "--no-run-cache", "report")
    assert built.read_bytes() == before
    assert "up to date" in dvc(recorded_study, "status")
    assert "Running" not in dvc(recorded_study, "repro", "--no-run-cache", "report")


def test_times_of_earlier_stages_do_not_draw_the_report_again(recorded_study: Path) -> None:
    stages = yaml.safe_load((recorded_study / "dvc.yaml").read_text())["stages"]
    assert not [path for path in stages["report"]["deps"] if "dvc.lock" in path or "records" in path]


def test_what_has_changed_since_is_named(recorded_study: Path) -> None:
    (recorded_study / CODE).write_text("# the second version\n")
    file = recorded_study / "params.yaml"
    file.write_text(file.read_text().replace("smallest_effect: 0.01", "smallest_effect: 0.02"))
    old = recorded(recorded_study, "compare", CODE)
    page, _ = pages(recorded_study)
    assert cells(page, "compare")[1] == "changed" and cells(page, "attribute")[1] == "up to date"
    assert ["in", old, "infinito/questions/compare.py", "code", "changed since"] in page.rows
    keys = "params.yaml: study, train, compare"
    assert ["in", "", keys, "parameters", "changed since: compare.smallest_effect"] in page.rows


def test_another_machine_uncommitted_changes_and_a_lost_record_are_told(recorded_study: Path) -> None:
    file = recorded_study / "results/records/golden.json"
    changes: dict[str, Any] = {"git_diff_sha256": "f" * 64, "git_untracked": ["infinito/new.py"], "processor": "a GPU"}
    write_json(file, read_json(file) | changes)
    (recorded_study / "results/records/ensemble.json").unlink()
    page, _ = pages(recorded_study)
    ran = {row[0]: row for row in page.below("Stage", "Finished (UTC)", "Took", "Git revision")[:7]}
    assert ran["golden"][3].endswith(f" with changes {'f' * 12}, 1 untracked file")
    assert ran["ensemble"][1:] == ["not recorded", "", ""]
    machines = page.below("Stages", "Machine", "Versions")[:2]
    assert [row[0] for row in machines] == ["prepare, train, compare, attribute", "golden"]
    assert machines[1][1].startswith("a GPU, ")


@pytest.mark.parametrize(("lost", "words"), [("dvc.lock", "not recorded by DVC"), ("dvc.yaml", "Nothing is recorded")])
def test_without_dvc_there_is_a_page_all_the_same(recorded_study: Path, lost: str, words: str) -> None:
    (recorded_study / lost).unlink()
    page, text = pages(recorded_study)
    assert words in page.text and words in text
    found = gather(load_study(recorded_study)).lineage
    assert [row[0] for row in lineage.stages(found).rows] == (STAGES if found else [])
