"""The report: its figures are those of the results, it fetches nothing, and it is honest whichever way a study goes."""

import copy
import dataclasses
import re
import shutil
import struct
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from infinito import report
from infinito.params import load_study
from infinito.report import charts, dots, tables, words
from infinito.report.draw import DARK, LIGHT, Figure, draw
from infinito.report.evidence import Evidence, gather
from infinito.report.figures import draw_all
from infinito.report.page import html, markdown, plain_markdown
from infinito.storage import read_json

CHARTS = {"differences", "last_batch", "learning_curves", "variance", "grid", "confirmation", "ensemble"}
HOSTILE = '<script>alert("1")</script> & <img src=x onerror=alert(1)> [a](javascript:alert(1)) | **b** `c`'


class Page(HTMLParser):
    """What a page shows and what it refers to; charts and the list of runs are left out of the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.references: list[str] = []
        self.ids: list[str] = []
        self.rows: list[list[str]] = []
        self.words: list[str] = []
        self._inside: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attributes:
            if name in ("src", "href", "xlink:href", "srcset", "data", "action", "poster", "background"):
                self.references.append(value or "")
            elif name == "id":
                self.ids.append(value or "")
            else:
                self.references += re.findall(r"url\(([^)]*)\)", value or "")
        if tag in ("svg", "style", "td", "th"):
            self._inside.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if self._inside and self._inside[-1] == tag:
            self._inside.pop()

    def handle_data(self, data: str) -> None:
        if "svg" in self._inside or "style" in self._inside:
            return
        self.words.append(data)
        if self._inside:
            self.rows[-1][-1] += data.replace("\u00a0", " ")

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def row(self, label: str) -> list[str]:
        return next(row for row in self.rows if row[0] == label)


def numbers(text: str) -> list[str]:
    return re.findall(r"−?\d[\d,]*(?:\.\d+)?", text)


def shows(text: str, *values: float) -> None:
    """The numbers in `text` are these values, each to the decimals that are shown."""
    found = numbers(text)
    assert len(found) == len(values), (text, values)
    for shown, value in zip(found, values, strict=True):
        decimals = len(shown.partition(".")[2])
        assert float(shown.replace("−", "-").replace(",", "")) == pytest.approx(value, abs=0.5000001 * 10**-decimals)


def ci(estimate: dict[str, Any]) -> tuple[float, float, float]:
    return estimate["value"], estimate["ci_low"], estimate["ci_high"]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, _finished: Path) -> Path:
    """A finished study whose report is there; not to be changed."""
    return Path(shutil.copytree(_finished, tmp_path_factory.mktemp("report") / "study"))


@pytest.fixture(scope="module")
def evidence(study: Path) -> Evidence:
    return gather(load_study(study))


@pytest.fixture(scope="module")
def figures(evidence: Evidence) -> dict[str, Figure]:
    return draw_all(evidence)


@pytest.fixture(scope="module")
def page(study: Path) -> Page:
    return Page((study / "results/report.html").read_text(encoding="utf-8"))


def changed(evidence: Evidence, **changes: dict[str, Any]) -> Evidence:
    """Evidence with results changed as asked: `compare={"verdict": "WORSE"}`; dots in keys go deeper."""
    parts = {}
    for part, values in changes.items():
        parts[part] = copy.deepcopy(getattr(evidence, part))
        for key, value in values.items():
            *path, last = key.split(".")
            section = parts[part]
            for name in path:
                section = section[name]
            section[last] = value
    return dataclasses.replace(evidence, **parts)


def test_the_figures_are_those_of_compare(page: Page, study: Path) -> None:
    compare = read_json(study / "results/compare.json")
    claimed = compare["report_protocol"]
    assert compare["sentence"] in page.text
    assert compare["verdict"] in page.text
    for label, key in (("Test loss, nats per token", None), ("Accuracy on scored tokens", "accuracy")):
        cells = page.row(label)
        for cell, arm in zip(cells[1:], ("candidate", "baseline"), strict=True):
            shows(cell, *ci(compare["scores"][arm][key] if key else compare[arm]))
    mean = page.row("Mean difference")
    shows(mean[1], claimed["mean_percent"], claimed["sd_percent"])
    shows(mean[2], *ci(compare["difference"]))
    assert page.row("Wins")[1:] == [f"{claimed['wins']} of 10", f"{compare['wins']} of 10"]
    shows(page.row("p")[2], compare["p_value"])
    shows(page.row("Headline")[1], claimed["best_seed"], claimed["best_percent"])
    shows(page.row("Best of 10 by luck alone")[1], claimed["expected_best_by_luck"])
    shows(page.row("p of the sign-flip permutation test")[1], compare["secondary"]["sign_flip_p"])
    assert f"Pairs won by the candidate {compare['wins']} of 10" in page.text
    assert f"Detectable difference {words.number(compare['minimal_detectable_effect'])}" in page.text


def test_the_figures_are_those_of_attribute(page: Page, study: Path) -> None:
    attribute = read_json(study / "results/attribute.json")
    start = page.rows.index(["Of", "Source", "Share", "Standard deviation", "p"]) + 1
    parts = [attribute[of]["components"] for of in ("candidate", "baseline", "difference")]
    for row, part in zip(page.rows[start : start + 9], [x for p in parts for x in p.values()], strict=True):
        assert row[2] == words.percent(part["share"]).replace("\u00a0", " ")
        shows(row[3], *(x**0.5 for x in ci(part)))


def test_the_figures_are_those_of_golden(page: Page, study: Path) -> None:
    golden = read_json(study / "results/golden.json")
    assert golden["sentence"] in page.text
    assert golden["protocol_sha256"] in page.text
    best = golden["selection"]["best"]
    naive, luck, blup = (
        page.row(label)
        for label in (
            "On the grid it was selected on",
            "Best of the grid expected by luck alone",
            "Shrunken estimate (BLUP)",
        )
    )
    shows(naive[1], best["naive_gain"])
    assert naive[2] == "selection-biased"
    shows(luck[1], golden["selection"]["expected_best_by_luck"])
    shows(blup[1], best["blup_gain"])
    shows(page.row("Confirmation on fresh data seeds")[1], golden["difference"]["value"])
    for claim in ("These weights.", "The init seed.", "The cell."):
        assert claim in page.text
    assert golden["checkpoint"]["run_id"] in page.text


def test_the_figures_are_those_of_ensemble(page: Page, study: Path) -> None:
    ensemble = read_json(study / "results/ensemble.json")
    start = page.rows.index(["", "Size", "candidate", "baseline"]) + 1
    for row, entries in zip(
        page.rows[start : start + 3], zip(*(ensemble[arm]["curve"] for arm in tables.ARMS), strict=True), strict=True
    ):
        assert row[1] == str(entries[0]["size"])
        for cell, entry in zip(row[2:], entries, strict=True):
            shows(cell, *ci(entry["loss"]))


def test_all_runs_and_all_settings_are_there(page: Page, study: Path) -> None:
    runs = pd.concat(
        pd.read_parquet(study / "models" / part / "runs.parquet") for part in ("runs", "golden/confirmation")
    )
    listed = {row[0]: row for row in page.rows if row[0] in set(runs["run_id"])}
    assert len(listed) == len(runs)
    first = runs.iloc[0]
    shows(
        " ".join(listed[first["run_id"]][3:8]),
        *first[["init_seed", "data_seed", "val_loss", "test_loss", "last_batch_loss"]],
    )
    assert page.row("train.trunk.width")[1] == "8"
    assert page.row("Data, SHA-256")[1] == read_json(study / "results/compare.json")["data_sha256"]


def test_the_page_fetches_nothing_and_runs_nothing(page: Page, study: Path) -> None:
    text = (study / "results/report.html").read_text(encoding="utf-8")
    assert len(text) < 3_000_000
    assert not page.tags & {"script", "link", "iframe", "img", "object", "embed", "base", "form"}
    assert page.references and all(reference.startswith("#") for reference in page.references)
    assert set(page.references) <= {f"#{name}" for name in page.ids}
    assert len(set(page.ids)) == len(page.ids)
    assert "http:" not in text and "https:" not in text and "@import" not in text


def test_every_chart_is_a_picture(study: Path) -> None:
    folder = study / "results/charts"
    assert {file.stem for file in folder.iterdir()} == CHARTS
    for file in folder.iterdir():
        content = file.read_bytes()
        width, _ = struct.unpack(">II", content[16:24])
        assert content.startswith(b"\x89PNG\r\n\x1a\n") and content.rstrip().endswith(b"IEND\xaeB`\x82")
        assert 1300 < width < 1600
    linked = re.findall(r"!\[.*\]\((.*)\)", (study / "results/report.md").read_text(encoding="utf-8"))
    assert len(linked) == len(CHARTS)
    assert {(study / "results" / link).resolve() for link in linked} == {file.resolve() for file in folder.iterdir()}


def test_markdown_has_the_same_tables_and_sentences(page: Page, study: Path) -> None:
    text = (study / "results/report.md").read_text(encoding="utf-8")
    lines = [
        [cell.strip().replace("\\", "") for cell in line[1:-1].split(" |")]
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


@pytest.mark.parametrize(
    ("verdict", "low", "high", "words_in_it"),
    [
        ("BETTER", 0.02, 0.06, ["lower", "every value in it favours the candidate"]),
        ("WORSE", -0.06, -0.02, ["higher", "every value in it favours the baseline"]),
        ("EQUIVALENT", -0.002, 0.004, ["it contains zero"]),
        ("INCONCLUSIVE", -0.1, 0.04, ["it contains zero"]),
    ],
)
def test_every_verdict_is_told(
    evidence: Evidence, figures: dict[str, Figure], verdict: str, low: float, high: float, words_in_it: list[str]
) -> None:
    difference = {"value": (low + high) / 2, "ci_low": low, "ci_high": high, "n": 10}
    there = changed(
        evidence, compare={"verdict": verdict, "sentence": f"As {verdict} as it can be.", "difference": difference}
    )
    page, text = html(there, figures), markdown(there, figures)
    assert f'<span class="badge {verdict.lower()}">{verdict}</span>' in page
    assert f'<div class="current"><dt>{verdict}</dt>' in page and page.count('class="current"') == 1
    assert f"**{verdict}.** As {verdict} as it can be." in text
    assert f"**{verdict}** (this study)" in text
    for word in words_in_it:
        assert word in " ".join(page.split()) and word in text
    for rendered in (page, text):
        assert "never means “no difference”" in rendered


@pytest.mark.parametrize("status", ["GOLDEN_CONFIRMED", "GOLDEN_REFUTED", "NOT_CONFIRMED", "INVALID"])
def test_every_golden_status_is_told(evidence: Evidence, figures: dict[str, Figure], status: str) -> None:
    sentence = f"The status is {status}, because."
    there = changed(evidence, golden={"status": status, "sentence": sentence, "registered": status != "INVALID"})
    page, text = html(there, figures), markdown(there, figures)
    shown = status.replace("_", " ")
    assert f'<span class="badge {status.lower()}">{shown}</span>' in page
    assert f"**{shown}.** {plain_markdown(sentence)}" in text
    for rendered in (Page(page).text, text):
        assert words.STATUS_WORDS[status] in rendered
        assert f"{shown.capitalize()}, by the confirmation above" in rendered
        assert ("was not written down" in rendered) == (status == "INVALID")
    if status == "INVALID":
        assert "not registered before its runs" in page
    assert (": proves nothing" in text) == (status == "INVALID")


@pytest.mark.parametrize("best", [1.0, 9.0])
def test_a_best_seed_is_never_evidence(evidence: Evidence, figures: dict[str, Figure], best: float) -> None:
    there = changed(
        evidence, compare={"report_protocol.best_percent": best, "report_protocol.expected_best_by_luck": 5.0}
    )
    text = markdown(there, figures)
    assert ("explains all of its lead" in text) == (best < 5)
    assert ("That is no evidence." in text) == (best > 5)


def test_what_is_unknown_is_a_dash(evidence: Evidence) -> None:
    nothing = {"value": None, "ci_low": None, "ci_high": None, "n": 1}
    there = changed(
        evidence,
        compare={
            "effect_size": nothing,
            "relative_difference": None,
            "skewness": None,
            "pairs_for_80_percent_power": None,
            "evaluation_noise.ratio": None,
            "secondary.log_ratio_p": None,
            "scores.candidate.accuracy": nothing,
        },
        golden={
            "difference": {"value": 0.01, "ci_low": None, "ci_high": None, "n": 1},
            "p_value": None,
            "checkpoint": None,
        },
        attribute={
            f"{of}.components.{source}.share": None
            for of in ("candidate", "baseline", "difference")
            for source in ("init", "data", "interaction_and_residual")
        },
        ensemble={"candidate.error_correlation": None},
    )
    for entry in there.ensemble["candidate"]["curve"]:
        for key in ("loss", "gain_over_best_member", "gain_over_average_member"):
            entry[key] |= {"ci_low": None, "ci_high": None}
    figures = draw_all(there)
    assert set(figures) == CHARTS - {"variance"}
    page, text = html(there, figures), markdown(there, figures)
    assert Page(page).row("Mean logarithm of the ratio of losses")[1] == words.UNKNOWN
    assert Page(page).row("Accuracy on scored tokens")[1] == words.UNKNOWN
    for rendered in (Page(page).text, text):
        assert not re.search(r"\bNone\b|\bnan\b|\binf\b", rendered)
        assert "there is no variance to explain" in rendered
        assert "Correlation between the errors" not in rendered


def test_diverged_runs_are_named(evidence: Evidence) -> None:
    candidate, runs = evidence.candidate.copy(), evidence.runs.copy()
    gone = candidate["run_id"].iloc[:2]
    candidate["diverged"] = candidate["run_id"].isin(gone)
    runs["diverged"] = runs["run_id"].isin(gone)
    curves = evidence.curves.copy()
    curves.loc[curves["run_id"].isin(gone), "value"] = np.nan
    there = dataclasses.replace(
        changed(evidence, compare={"diverged": {"candidate": 2, "baseline": 0}}),
        candidate=candidate,
        runs=runs,
        curves=curves,
    )
    page = Page(html(there, draw_all(there)))
    assert page.row("Diverged runs") == ["Diverged runs", "2", "0"]
    assert ["Diverged runs", f"2 of {len(runs)}", "0", "✗ not met"] in page.rows
    assert "2 diverged runs count with the loss of guessing" in page.text
    assert "2 diverged runs are left out here" in page.text


def test_text_studies_show_their_perplexities(evidence: Evidence, figures: dict[str, Figure]) -> None:
    score = {"value": 87.2, "ci_low": 86.9, "ci_high": 87.5, "n": 10}
    names = [
        f"{split}_{what}"
        for split in ("validation", "test")
        for what in ("perplexity_per_token", "perplexity_per_word", "bits_per_byte")
    ]
    there = changed(evidence, compare={f"scores.{arm}.{name}": score for arm in tables.ARMS for name in names})
    page = Page(html(there, figures))
    for label in ("Validation perplexity per word", "Test perplexity per token", "Test bits per byte"):
        shows(page.row(label)[1], *ci(score))


def test_a_hostile_title_is_only_a_title(finished_study: Path) -> None:
    file = finished_study / "params.yaml"
    content = yaml.safe_load(file.read_text())
    content["report"]["title"] = HOSTILE
    file.write_text(yaml.safe_dump(content))
    report.write(load_study(finished_study))
    page = Page((finished_study / "results/report.html").read_text(encoding="utf-8"))
    assert HOSTILE in page.text
    assert not page.tags & {"script", "img"}
    text = (finished_study / "results/report.md").read_text(encoding="utf-8")
    assert "<script" not in text and "<img" not in text and "](javascript" not in text and "**b**" not in text
    assert text.splitlines()[0].startswith("# &lt;script>")


@pytest.mark.parametrize(
    ("x", "digits", "text"),
    [
        (2.34567, 4, "2.346"),
        (-0.0012345, 3, "−0.00123"),
        (0.0, 3, "0"),
        (1234567.0, 3, "1,234,567"),
        (1.5e-7, 3, "1.50e−07"),
        (None, 3, "–"),
        (float("nan"), 3, "–"),
    ],
)
def test_numbers_are_readable(x: float | None, digits: int, text: str) -> None:
    assert words.number(x, digits) == text


def test_estimates_share_the_decimals_of_their_interval() -> None:
    assert (
        words.estimate({"value": 2.259316, "ci_low": 2.168245, "ci_high": 2.350386, "n": 10}, 4)
        == "2.259 [2.168, 2.350]"
    )
    assert words.estimate({"value": 0.0, "ci_low": 0.0, "ci_high": 0.00798, "n": 4}) == "0 [0, 0.0080]"
    assert words.estimate({"value": -1e-9, "ci_low": -1.0, "ci_high": 1.0, "n": 4}) == "0.000 [−1.000, 1.000]"
    assert words.estimate({"value": 2.1457, "ci_low": None, "ci_high": None, "n": 1}, 4) == "2.146"
    assert words.estimate(None) == words.UNKNOWN


def test_dots_of_a_stack_do_not_overlap() -> None:
    values = np.random.default_rng(0).normal(size=300)
    level = dots._stack(values, 0.1)
    for k in range(level.max() + 1):
        assert (np.diff(np.sort(values[level == k])) >= 0.1).all()
    assert (level[np.argsort(values)[:1]] == 0).all()


def test_learning_curves_are_means_and_bands_of_finite_values() -> None:
    curves = pd.DataFrame({"arm": "candidate", "step": 5, "value": [*range(11), np.inf]})
    assert charts.learning_curves(curves).to_dict("records") == [
        {"arm": "candidate", "step": 5, "mean": 5.0, "low": 1.0, "high": 9.0}
    ]


@pytest.mark.parametrize("values", [[0.0] * 12, [0.25] * 12, [1e-9, -1e9]])
def test_odd_differences_can_be_drawn(values: list[float]) -> None:
    mean = {"value": float(np.mean(values)), "ci_low": None, "ci_high": None, "n": len(values)}
    figure = draw(
        "odd",
        'a "description"',
        lambda width: dots.differences(
            values,
            mean,
            margin=0.01,
            margin_label="small",
            sides=("worse", "better"),
            colours=(LIGHT["baseline"], LIGHT["candidate"]),
            axis="difference",
            width=width,
        ),
    )
    assert 'aria-label="a &#34;description&#34;"' in figure.wide
    assert "NaN" not in figure.wide and "NaN" not in figure.narrow


def test_colours_have_names_in_light_and_dark(study: Path) -> None:
    assert LIGHT.keys() == DARK.keys() and len(set(LIGHT.values())) == len(LIGHT)
    text = (study / "results/report.html").read_text(encoding="utf-8")
    charts_only = "".join(re.findall(r"<svg.*?</svg>", text, flags=re.S))
    assert "var(--candidate)" in charts_only
    assert not set(re.findall(r"#[0-9a-f]{6}", charts_only)) & set(LIGHT.values())
