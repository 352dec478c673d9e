"""The page fetches nothing, interprets nothing, and is the same in HTML and in Markdown."""

import dataclasses
import re
import sys
from pathlib import Path

import pytest

from infinito import report
from infinito.report.draw import Figure
from infinito.report.evidence import Evidence, gather
from infinito.storage import read_json, write_json
from infinito.study import load_study
from tests.report.pages import Page, numbers, rendered

HOSTILE = '<script>alert("1")</script> & <img src=x onerror=alert(1)> [a](javascript:alert(1)) | **b** `c`'


def test_the_page_fetches_nothing_and_runs_nothing(page: Page, study: Path) -> None:
    text = (study / "results/report.html").read_text(encoding="utf-8")
    assert len(text) < 3_000_000
    assert not page.tags & {"script", "link", "iframe", "img", "object", "embed", "base", "form"}
    assert page.references and all(reference.startswith("#") for reference in page.references)
    assert set(page.references) <= {f"#{name}" for name in page.ids}
    assert len(set(page.ids)) == len(page.ids)
    assert "http:" not in text and "https:" not in text and "@import" not in text


def test_a_page_with_everything_fetches_nothing_either(rich_page: Page) -> None:
    assert not rich_page.tags & {"script", "link", "iframe", "img", "object", "embed", "base", "form"}
    assert set(rich_page.references) <= {f"#{name}" for name in rich_page.ids}
    assert len(set(rich_page.ids)) == len(rich_page.ids)


@pytest.mark.parametrize("which", ["study", "rich_study"])
def test_markdown_has_the_same_tables_and_sentences(which: str, request: pytest.FixtureRequest) -> None:
    study: Path = request.getfixturevalue(which)
    page = Page((study / "results/report.html").read_text(encoding="utf-8"))
    text = (study / "results/report.md").read_text(encoding="utf-8")
    assert re.search(r"^\|---\|---:\|", text, re.MULTILINE)  # what makes lines of Markdown a table
    lines = [
        [cell.strip().replace("\\", "").replace("\u00a0", " ") for cell in line[1:-1].split(" |")]
        for line in text.splitlines()
        if line[:1] == "|"
    ]
    runs = set(gather(load_study(study)).runs["run_id"])
    for row in page.rows:
        if row[0] not in runs and row[0] != "Run":
            assert row in lines, row
    shown = set(numbers(re.sub(r"!\[.*", "", text)))
    without_runs = re.sub(
        r"<details><summary>All \d+ runs.*?</details>",
        "",
        (study / "results/report.html").read_text(encoding="utf-8"),
        flags=re.S,
    )
    assert set(numbers(Page(without_runs).text)) <= shown
    assert "../" not in text and "`models/runs/runs.parquet`" in text


def test_the_same_results_give_the_same_bytes(finished_study: Path) -> None:
    files = [finished_study / "results" / name for name in ("report.html", "report.md", "charts/grid.png")]
    before = [file.read_bytes() for file in files]
    report.write(load_study(finished_study))
    assert [file.read_bytes() for file in files] == before
    assert not list((finished_study / "results").glob(".*"))


def test_a_missing_result_is_named_and_the_old_report_stays(finished_study: Path) -> None:
    (finished_study / "results/golden.json").unlink()
    before = (finished_study / "results/report.html").read_bytes()
    with pytest.raises(ValueError, match=r"golden\.json: no such file"):
        report.write(load_study(finished_study))
    assert (finished_study / "results/report.html").read_bytes() == before


def test_without_the_plotting_packages_it_says_what_to_install(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("infinito.report.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "altair", None)
    with pytest.raises(ValueError, match=r"infinito\[report\]"):
        report.write(load_study(study))


def test_only_the_pairs_of_the_verdict_count(finished_study: Path) -> None:
    file = finished_study / "results/compare.json"
    write_json(file, read_json(file) | {"n_pairs": 8})
    evidence = gather(load_study(finished_study))
    assert len(evidence.candidate) == len(evidence.baseline) == len(evidence.differences) == len(evidence.reported) == 8
    assert evidence.pilot is None


def test_a_hostile_title_is_only_a_title(evidence: Evidence, figures: dict[str, Figure]) -> None:
    title = evidence.params.report.model_copy(update={"title": HOSTILE})
    there = dataclasses.replace(evidence, params=evidence.params.model_copy(update={"report": title}))
    page, text = rendered(there, figures)
    assert HOSTILE in page.text
    assert not page.tags & {"script", "img"}
    assert "<script" not in text and "<img" not in text and "](javascript" not in text and "**b**" not in text
    assert text.splitlines()[0].startswith("# &lt;script>")
