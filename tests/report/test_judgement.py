"""The page of a judgement: it shows what was found, fetches nothing, and interprets nothing of what was read."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from infinito.judging.runs import judged
from infinito.readers import Options, read
from infinito.report import judgement
from tests.cli.test_cli import Infinito
from tests.report.pages import Page

HOSTILE = "<script>alert(1)</script> | **b** `c`"


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three arms, one of them with a hostile name, on six tasks; one run of the baseline failed."""
    rng = np.random.default_rng(0)
    rows = [
        {"method": arm, "env": f"env{task}", "seed": seed, "reward": 10 * task + (task + 1) * rng.normal(shift, 1)}
        for arm, shift in (("base", 0.0), ("new", 2.0), (HOSTILE, 0.0)) for task in range(6) for seed in range(12)
    ]  # fmt: skip
    rows[3]["reward"] = None
    file = tmp_path_factory.mktemp("judgement") / "runs.json"
    file.write_text(json.dumps(rows))
    return file


@pytest.fixture(scope="module")
def written(table: Path) -> Path:
    options = Options()
    result, runs = judged(
        read(str(table), options), options, baseline="base", candidates=[], all_pairs=False, higher=[], lower=[],
        paired=None, smallest_effect=None,
    )  # fmt: skip
    for suffix in judgement.SUFFIXES:
        judgement.write(result, runs, table.name, table.with_suffix(suffix))
    return table


def test_the_page_fetches_nothing_and_runs_nothing(written: Path) -> None:
    text = written.with_suffix(".html").read_text(encoding="utf-8")
    page = Page(text)
    assert not page.tags & {"script", "link", "iframe", "img", "object", "embed", "base", "form"}
    assert page.references and set(page.references) <= {f"#{name}" for name in page.ids}
    assert "http:" not in text.replace("http://www.w3.org", "") and "https:" not in text
    assert "&lt;script&gt;" in text


def test_the_page_shows_every_comparison_and_what_must_be_said(written: Path) -> None:
    page = Page(written.with_suffix(".html").read_text(encoding="utf-8"))
    words = " ".join(page.words)
    assert sum(row[:2] == ["new", "base"] for row in page.rows) == 7  # six tasks, and over tasks
    assert "12 comparisons" in words and "EXPLORATORY" in words and "paired by seed" in words
    assert "base: 1 of 12 runs have no figure" in words and "6 BETTER" in words


def test_markdown_has_the_same_tables_and_its_pictures_lie_beside_it(written: Path) -> None:
    page = Page(written.with_suffix(".html").read_text(encoding="utf-8"))
    text = written.with_suffix(".md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| .* \|$", text, re.MULTILINE)
    assert len(rows) == len(page.rows)
    pictures = re.findall(r"\]\((runs/[\w-]+\.png)\)", text)
    assert len(pictures) == 6 + 3 and all((written.parent / name).is_file() for name in pictures)
    assert {name.split("/")[1].split("-")[0] for name in pictures} == {"runs", "forest", "ranks", "profiles"}


@pytest.mark.parametrize("to, said", [("out.pdf", "ends in .html or .md"), ("nowhere/out.html", "and no folder")])
def test_where_it_can_not_be_written_is_one_line(infinito: Infinito, table: Path, to: str, said: str) -> None:
    found = infinito("judge", str(table), "--baseline", "base", "--report", str(table.parent / to))
    assert found.returncode == 2 and said in found.stderr and len(found.stderr.splitlines()) == 1


def test_one_arm_has_a_page_too(infinito: Infinito, tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_text("seed,accuracy\n" + "".join(f"{i},{i % 7}\n" for i in range(20)))
    found = infinito("judge", str(tmp_path / "one.csv"), "--report", str(tmp_path / "one.html"))
    assert found.returncode == 1
    assert "NO COMPARISON" in " ".join(Page((tmp_path / "one.html").read_text()).words)
