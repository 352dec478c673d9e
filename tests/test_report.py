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

from infinito import attribute as attribution
from infinito import compare as comparison
from infinito import report, sequential
from infinito.params import load_study
from infinito.report import charts, dots, tables, words
from infinito.report import figures as drawn
from infinito.report.draw import DARK, LIGHT, Figure, draw
from infinito.report.evidence import Evidence, gather
from infinito.report.figures import draw_all
from infinito.report.page import html, markdown, plain_markdown
from infinito.runs import RunTable
from infinito.stages import STAGES
from infinito.storage import read_json, write_json
from tests.conftest import TINY, in_process

CHARTS = {"differences", "last_batch", "learning_curves", "variance", "grid", "confirmation", "ensemble"}
# one study with all that a study may have
RICH: dict[str, Any] = TINY | {
    "train": TINY["train"]
    | {
        "pilot": 10,
        "pairs": 20,
        "grid": {"inits": 2, "datas": 3, "noises": 2, "reps": 2},
        "ablations": {"small_memory": {"network": "infinito_v52", "settings": {"memory_slots": 2}}},
    },
    "compare": TINY["compare"] | {"metrics": ["test_loss", "accuracy"]},
    "golden": TINY["golden"] | {"forward": ["selected", "best_of_ten", "best_cell"]},
}
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

    def row(self, *cells: str) -> list[str]:
        """The first row that begins so."""
        return next(row for row in self.rows if tuple(row[: len(cells)]) == cells)

    def below(self, *head: str) -> list[list[str]]:
        """The rows under a head, and whatever comes after its table."""
        return self.rows[self.rows.index(list(head)) + 1 :]


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


@pytest.fixture(scope="module")
def rich_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a pilot, ablations, two metrics, noise seeds, reruns and several golden candidates."""
    folder = tmp_path_factory.mktemp("rich")
    (folder / "params.yaml").write_text(yaml.safe_dump(RICH, sort_keys=False))
    for stage in STAGES.values():
        stage(load_study(folder), in_process)
    return folder


@pytest.fixture(scope="module")
def rich(rich_study: Path) -> Evidence:
    return gather(load_study(rich_study))


@pytest.fixture(scope="module")
def rich_page(rich_study: Path) -> Page:
    return Page((rich_study / "results/report.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def rich_figures(rich: Evidence) -> dict[str, Figure]:
    return draw_all(rich)


def rendered(evidence: Evidence, figures: dict[str, Figure]) -> tuple[Page, str]:
    """The page and the Markdown; neither shows a value of Python."""
    page, text = Page(html(evidence, figures)), markdown(evidence, figures)
    for words_of_it in (page.text, text):
        assert not re.search(r"\b(None|nan|inf|True|False)\b", words_of_it.partition("All settings")[0])
    return page, text


def rendered_texts(evidence: Evidence, figures: dict[str, Figure]) -> tuple[str, str]:
    page, text = rendered(evidence, figures)
    return page.text, text


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
    attribute_is_shown(page, read_json(study / "results/attribute.json"))
    assert "No run was repeated with identical seeds" in page.text


def attribute_is_shown(page: Page, attribute: dict[str, Any]) -> None:
    parts = [
        (name, part, attribute[of])
        for of in ("candidate", "baseline", "difference")
        for name, part in attribute[of]["components"].items()
    ]
    shown = page.below("Of", "Source", "Share", "Standard deviation", "Raw variance", "p")
    for row, (name, part, whole) in zip(shown, parts, strict=False):
        assert row[1] == words.source(name, whole["components"])
        assert row[2] == words.share(part).replace("\u00a0", " ")
        shows(row[3], *(x**0.5 for x in ci(part)))
        assert row[4] == words.number(part["raw"], 2)
        assert row[5] == words.p_value(whole.get(f"p_{name}")).replace("\u00a0", " ")
    by_method = page.below("Of", "Source", "Variance, at least 0", "Raw", "REML", "Degrees of freedom")
    for row, (_, part, _) in zip(by_method, parts, strict=False):
        assert row[3:] == [words.number(part["raw"]), words.number(part["reml"]), str(part["n"])]
    for of in ("candidate", "baseline", "difference"):
        assert f"{of.capitalize()}. {attribute[of]['sentence']}" in page.text
    assert ("This interval is not reliable" in page.text) != attribute["difference"]["crossed"]["reliable"]


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
    for claim, name in (("checkpoint", "G1, these weights."), ("cell", "G3, the cell.")):
        assert f"{name} {golden['claims'][claim]['sentence']}" in page.text
    assert (
        f"G2, the init seed. {golden['status'].replace('_', ' ').capitalize()}, by the confirmation above." in page.text
    )
    assert golden["checkpoint"]["run_id"] in page.text
    ranked = page.row("1", str(golden["golden_init_seed"]))
    for cell, gain in zip(ranked[3:], ("naive_gain", "blup_gain", "james_stein_gain"), strict=True):
        shows(cell.lstrip("+"), best[gain])
    given = f"given that it came first: {words.signed(best['conditional_mle_gain'])}; luck alone: {luck[1]}"
    assert given in page.text


def test_the_figures_are_those_of_ensemble(page: Page, study: Path) -> None:
    ensemble = read_json(study / "results/ensemble.json")
    start = page.rows.index(["", "Size", "candidate", "baseline"]) + 1
    for row, entries in zip(
        page.rows[start : start + 3], zip(*(ensemble[arm]["curve"] for arm in tables.ARMS), strict=True), strict=True
    ):
        assert row[1] == str(entries[0]["size"])
        for cell, entry in zip(row[2:], entries, strict=True):
            shows(cell, *ci(entry["loss"]))
    equal = ensemble["equal_compute"]
    for design, label in (("longer", "Trained longer."), ("wider", "Wider.")):
        assert f"{label} {equal[design]['sentence']}" in page.text
    for row, single in (
        (page.row(f"{equal['longer']['steps']} steps"), equal["longer"]),
        (page.row(f"width {equal['wider']['width']}"), equal["wider"]),
    ):
        shows(" ".join(row[1:3]), single["training_compute"], single["inference_compute"])
        shows(row[3], *ci(single["single_loss"]))
        shows(row[4], *ci(single["ensemble_loss"]))
        assert row[5] == str(single["diverged"])


def test_without_single_models_it_says_so(evidence: Evidence, figures: dict[str, Figure]) -> None:
    ensemble = {key: value for key, value in evidence.ensemble.items() if key != "equal_compute"}
    for text in rendered_texts(dataclasses.replace(evidence, ensemble=ensemble), figures):
        assert "Not compared with single models of equal compute" in text
        assert "for the same money" not in text


def test_all_runs_and_all_settings_are_there(page: Page, study: Path) -> None:
    runs = pd.concat(
        pd.read_parquet(study / "models" / part / "runs.parquet")
        for part in ("runs", "golden/confirmation", "ensemble")
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


@pytest.mark.parametrize("which", ["study", "rich_study"])
def test_markdown_has_the_same_tables_and_sentences(which: str, request: pytest.FixtureRequest) -> None:
    study: Path = request.getfixturevalue(which)
    page = Page((study / "results/report.html").read_text(encoding="utf-8"))
    text = (study / "results/report.md").read_text(encoding="utf-8")
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
    decision = {"status": status, "sentence": sentence, "registered": status != "INVALID"}
    there = changed(evidence, golden=decision | {"decisions": [evidence.golden["decisions"][0] | decision]})
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
    nothing_confirmed = {
        "difference": {"value": 0.01, "ci_low": None, "ci_high": None, "n": 1},
        "p_value": None,
        "p_holm": None,
        "checkpoint": None,
    }
    there = changed(
        evidence,
        compare={
            "minimal_detectable_effect": None,
            "effect_size": nothing,
            "relative_difference": None,
            "skewness": None,
            "pairs_for_80_percent_power": None,
            "evaluation_noise.ratio": None,
            "secondary.log_ratio_p": None,
            "scores.candidate.accuracy": nothing,
        },
        golden=nothing_confirmed | {"decisions": [evidence.golden["decisions"][0] | nothing_confirmed]},
        attribute={
            f"{of}.components.{source}.{share}": None
            for of in ("candidate", "baseline", "difference")
            for source in ("init", "data", "interaction_and_residual")
            for share in ("share", "share_ci_low", "share_ci_high")
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


def test_diverged_runs_are_named(evidence: Evidence, figures: dict[str, Figure]) -> None:
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
    learning = drawn._learning(there)
    assert learning
    page, _ = rendered(there, figures | {"learning_curves": learning})
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


@pytest.mark.parametrize("status", ["planned", "exploratory"])
def test_planned_or_not_stands_beside_the_verdict(evidence: Evidence, figures: dict[str, Figure], status: str) -> None:
    plan = {"status": status, "reason": "The reason is this.", "plan_sha256": "a" * 64}
    there = changed(evidence, compare={"plan": plan})
    page, text = html(there, figures), markdown(there, figures)
    badges = re.findall(r'<span class="badge \w+">(\w+)</span>', page)
    assert badges[:2] == [evidence.compare["verdict"], status.upper()]
    check = ["Plan of the comparison", "registered before its runs, and kept", "registered and kept", "✓ met"]
    assert (check in Page(page).rows) == (status == "planned")
    assert Page(page).row("Plan of the comparison, SHA-256")[1] == "a" * 64
    for shown in (Page(page).text, text.replace("*", "")):
        assert f"{status.upper()}. The reason is this." in shown
        assert ("not as something to sign off" in shown) == (status == "exploratory")
        assert shown.index("The reason is this.") < shown.index("nats per token lower than that of")


def test_refusals_stand_near_the_verdict(evidence: Evidence, figures: dict[str, Figure]) -> None:
    few = changed(evidence, compare=comparison.compare(*losses(evidence, 4), smallest_effect=0.01))
    few = dataclasses.replace(few, candidate=few.candidate[:4], baseline=few.baseline[:4])
    assert len(few.compare["refusals"]) == 2
    for text in rendered_texts(few, figures):
        for refusal in few.compare["refusals"]:
            assert 0 < text.index(refusal) < text.index("One dot is one pair")
    assert "What these runs cannot support" not in rendered(evidence, figures)[1]


def losses(evidence: Evidence, n: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    return evidence.candidate["test_loss"].to_numpy()[:n], evidence.baseline["test_loss"].to_numpy()[:n]


def test_a_family_is_shown_with_what_it_pays(rich_page: Page, rich: Evidence, page: Page) -> None:
    compare = rich.compare
    shown = rich_page.below(
        *("Arm", "Metric", "Gain over the baseline", "p alone", "p, Holm", "p, max t", "Equivalence, Holm")
    )
    assert len(compare["family"]) == compare["hypotheses"] == 4
    for row, hypothesis in zip(shown, compare["family"], strict=False):
        assert row[0] == hypothesis["arm"]
        shows(row[2], *ci(hypothesis["difference"]))
        keys = ("p_value", "p_holm", "p_max_t", "p_equivalence_holm")
        assert row[3:] == [words.p_value(hypothesis[key]).replace("\u00a0", " ") for key in keys]
    ablations = rich_page.below("Arm", "Network", "Verdict", "Gain over the baseline", "p", "Wins")
    for row, arm in zip(ablations, ("candidate", "small_memory"), strict=False):
        found = compare if arm == "candidate" else compare["ablations"][arm]
        assert row[:3] == [arm, "infinito_v52", found["verdict"]]
        shows(row[3], *ci(found["difference_simultaneous"]))
        assert row[4] == f"{words.p_value(found['p_adjusted'])} (Holm)".replace("\u00a0", " ")
        assert row[5] == f"{found['wins']} of 20"
    simultaneous = words.interval(compare["difference_simultaneous"])
    assert f"The 95% interval of this gain, which allows for all 4 hypotheses, is {simultaneous}" in rich_page.text
    assert f"p-value, by Holm {words.p_value(compare['p_adjusted'])}".replace("\u00a0", " ") in rich_page.text
    assert "family" in rich_page.ids and "family" not in page.ids
    assert "All that was tested" not in page.text and "Ablations" not in page.text


def test_holm_may_find_what_its_interval_does_not_show(rich: Evidence, rich_figures: dict[str, Figure]) -> None:
    wide = {"value": 0.01, "ci_low": -0.001, "ci_high": 0.021, "n": 20}
    there = changed(rich, compare={"verdict": "BETTER", "difference_simultaneous": wide})
    for text in rendered_texts(there, rich_figures):
        assert "it contains zero, for it pays for all hypotheses at once" in text
        assert "a true gain fits these runs as well as a true loss" not in text


@pytest.mark.parametrize("design", ["looks", "anytime"])
@pytest.mark.parametrize("stops", [True, False])
def test_a_sequential_design_tells_where_it_stopped_and_no_interval_without_it(
    rich: Evidence, rich_figures: dict[str, Figure], design: str, stops: bool
) -> None:
    candidate, baseline = losses(rich)
    if not stops:  # as if there were nothing to find
        candidate = candidate + (baseline - candidate).mean()
    look = sequential.stopped(
        baseline - candidate, design="anytime" if design == "anytime" else (8, 16, 24), pairs=24, alpha=0.05
    )
    assert look.stop == stops
    plain = comparison.compare(candidate[: look.n], baseline[: look.n], smallest_effect=0.01)
    found = comparison.compare(candidate[: look.n], baseline[: look.n], smallest_effect=0.01, look=look)
    compare = {key: value for key, value in rich.compare.items() if key != "difference_simultaneous"}
    train = rich.params.train.model_copy(update={"looks": "anytime" if design == "anytime" else [8, 16, 24]})
    there = dataclasses.replace(
        rich,
        compare=compare | found | {"family": compare["family"][:1], "ablations": {}, "report_protocol_repeated": []},
        params=rich.params.model_copy(update={"train": train}),
        candidate=rich.candidate[: look.n].assign(test_loss=candidate[: look.n]),
        baseline=rich.baseline[: look.n],
    )
    differences = drawn._pairs(there)
    assert f"mean {words.estimate(found['difference'])}" in differences.wide
    page, text = rendered(there, rich_figures | {"differences": differences})
    assert page.row("Accuracy on scored tokens")[1] == words.value(compare["scores"]["candidate"]["accuracy"], 4)
    for label in ("p of the sign-flip permutation test", "p of Wilcoxon’s signed-rank test", "p of the sign test"):
        assert page.row(label)[1] == words.UNKNOWN
    assert "[" not in page.row("Mean difference in units of its spread (Hedges’ g)")[1]
    done = [f"{look.n} of at most 24", "until the test stops, or all", "✓ met" if stops else "✗ not met"]
    assert ["Pairs of runs", *done] in page.rows
    for shown in (page.text, text):
        assert words.interval(found["difference"]) in shown
        for part in (plain["difference"], plain["probability_of_improvement"], plain["effect_size"]):
            assert words.interval(part) not in shown
        assert ("further pairs had been trained by then" in shown) == (look.n < 20)
        if stops:
            where = f"at look {look.number} of 3 after" if design == "looks" else "It stopped after"
            assert where in shown
        else:
            assert f"So far there are {look.n} pairs and no reason to stop." in shown
            assert found["refusals"][0] in shown
        if design == "anytime":
            assert "by an e-value, at the latest after 24 pairs" in shown
        else:
            assert "Tests were set after 8, 16, 24 pairs" in shown
    if design == "anytime":
        assert f"e-value {words.number(look.e_value)}" in page.text


def test_a_look_that_excludes_nothing_has_no_interval(evidence: Evidence, figures: dict[str, Figure]) -> None:
    candidate, baseline = losses(evidence, 5)
    look = sequential.look(baseline - candidate, design="anytime", pairs=24)
    look = look._replace(ci_low=None, ci_high=None, stop=False)
    found = comparison.compare(candidate, baseline, smallest_effect=0.01, look=look)
    there = dataclasses.replace(
        changed(evidence, compare=found), candidate=evidence.candidate[:5], baseline=evidence.baseline[:5]
    )
    for text in rendered_texts(there, figures):
        assert "there is no interval yet" in text


def test_only_the_pairs_of_the_verdict_count(finished_study: Path) -> None:
    file = finished_study / "results/compare.json"
    write_json(file, read_json(file) | {"n_pairs": 8})
    evidence = gather(load_study(finished_study))
    assert len(evidence.candidate) == len(evidence.baseline) == len(evidence.differences) == len(evidence.reported) == 8
    assert evidence.pilot is None


def test_a_pilot_is_judged_by_both_protocols(rich_page: Page, rich: Evidence) -> None:
    pilot, claimed = rich.compare["pilot"], rich.compare["report_protocol"]
    assert rich_page.row("", "Best-seed report") == ["", "Best-seed report", "Our rules, same runs", "This study"]
    assert rich_page.row("Pairs of runs")[1:] == ["10", "10", "20"]
    mean = rich_page.row("Mean difference")
    shows(mean[1], claimed["mean_percent"], claimed["sd_percent"])
    shows(mean[2], *ci(pilot["difference"]))
    shows(mean[3], *ci(rich.compare["difference_simultaneous"]))
    assert rich_page.row("Wins")[1:] == [
        f"{x['wins']} of {n}" for x, n in ((claimed, 10), (pilot, 10), (rich.compare, 20))
    ]
    headline = rich_page.row("Headline")
    shows(headline[1], claimed["best_seed"], claimed["best_percent"])
    assert headline[2:] == [pilot["verdict"], rich.compare["verdict"]]
    assert f"The pilot by our rules: {pilot['verdict']}. {pilot['sentence']}" in rich_page.text
    assert rich.reported.max() == pytest.approx(claimed["best_percent"])
    assert rich.reported.mean() == pytest.approx(claimed["mean_percent"])


def test_one_report_after_another(
    rich_page: Page, rich: Evidence, rich_figures: dict[str, Figure], page: Page, figures: dict[str, Figure]
) -> None:
    repeated = rich.compare["report_protocol_repeated"]
    shown = rich_page.below("Pairs", "Mean", "Wins", "p", "Best seed", "Best by luck alone")
    for row, claimed, pairs in zip(shown, repeated, ("1–10", "11–20"), strict=False):
        assert row[0] == pairs
        shows(row[1], claimed["mean_percent"], claimed["sd_percent"])
        assert row[2] == f"{claimed['wins']} of 10"
        shows(row[4], claimed["best_percent"])
        shows(row[5], claimed["expected_best_by_luck"])
    best = [claimed["best_percent"] for claimed in [rich.compare["report_protocol"], *repeated]]
    low, high = (words.signed_percent(x) for x in (min(best), max(best)))
    luck = [claimed["expected_best_by_luck"] for claimed in [rich.compare["report_protocol"], *repeated]]
    by_luck = " to ".join(words.signed_percent(x) for x in (min(luck), max(luck)))
    assert (
        f"Over 3 such reports the headline goes from {low} to {high}, where luck alone brings {by_luck}"
        in rich_page.text
    )
    assert set(rich_figures) == CHARTS | {"reports"}
    assert all(words.signed_percent(x) in rich_figures["reports"].wide for x in best)
    assert "reports" not in figures and "One report after another" not in page.text


def test_noise_seeds_and_reruns_are_sources_of_their_own(
    rich_page: Page, rich: Evidence, rich_figures: dict[str, Figure]
) -> None:
    assert {"noise", "nondeterminism"} <= rich.attribute["candidate"]["components"].keys()
    attribute_is_shown(rich_page, rich.attribute)
    assert "each time with 2 noise seeds of its own, and every such run 2 times over" in rich_page.text
    assert "Runs repeated with identical seeds are equal bit for bit." in rich_page.text
    assert ["Reruns of identical seeds", "equal bit for bit", "equal bit for bit", "✓ met"] in rich_page.rows
    different = changed(rich, attribute={"baseline.deterministic": False})
    assert "Runs repeated with identical seeds are not equal" in rendered(different, rich_figures)[1]
    seeds = ("Init seed", "Data seed", "Noise seed", "Rerun")
    assert rich_page.below("Run", "Design", "Arm", *seeds, "Validation", "Test", "Last batch", "")


def test_a_grid_with_missing_runs_has_no_intervals(evidence: Evidence, figures: dict[str, Figure], study: Path) -> None:
    table = RunTable.load(study / "models/runs")
    loss = {arm: table.grid(arm, "test_loss") for arm in tables.ARMS}
    loss["candidate"][0, 1] = np.nan
    loss["difference"] = loss["baseline"] - loss["candidate"]
    found = {name: attribution.attribute(y) for name, y in loss.items()}
    for name, y in loss.items():
        found[name]["cells"] = [[None if np.isnan(x) else float(x) for x in row] for row in y.mean((2, 3))]
    there = changed(evidence, attribute=found)
    again = {figure.name: figure for figure in (drawn._variance(there), drawn._grid(there)) if figure}
    assert len(again) == 2
    page, text = rendered(there, figures | again)
    part = found["candidate"]["components"]["init"]
    assert page.row("candidate", "initial weights")[2:] == [
        words.percent(part["share"]).replace("\u00a0", " "),
        words.number(part["value"] ** 0.5, 2),
        words.UNKNOWN,
        words.UNKNOWN,
    ]
    for shown in (page.text, text):
        assert "REML, unbalanced: 8 of 9 cells" in shown
        assert "With runs missing from the grid, its mean is not tested." in shown
    assert "✗ not met" in page.row("Seeds of the grid")


def test_every_candidate_of_the_golden_rule_is_shown(
    rich_page: Page, rich: Evidence, rich_figures: dict[str, Figure]
) -> None:
    golden = rich.golden
    assert golden["forwarded"] == len(golden["decisions"]) > 1
    shown = rich_page.below("", "Found by", "Status", "Gain on fresh data seeds", "Wins", "p, Holm")
    for row, decision in zip(shown, golden["decisions"], strict=False):
        assert row[0] == f"seed {decision['golden_init_seed']}"
        assert row[2] == decision["status"].replace("_", " ")
        shows(row[3], *ci(decision["difference"]))
        assert row[4] == f"{decision['wins']} of 10"
        assert row[5] == words.p_value(decision["p_holm"]).replace("\u00a0", " ")
        assert decision["sentence"] in rich_page.text
    assert f"G2, the init seed. {golden['claims']['init_seed']['sentence']}" in rich_page.text
    assert f"one-sided {words.plain(100 * (1 - golden['bound_alpha']))}% bounds" in rich_page.text
    confirmation = rich_figures["confirmation"].wide
    assert all(f"seed {decision['golden_init_seed']}" in confirmation for decision in golden["decisions"])


def test_weights_from_a_file_have_no_seed(rich: Evidence, rich_figures: dict[str, Figure]) -> None:
    first, *others = rich.golden["decisions"]
    file = others[0] | {"golden_init_seed": None, "name": "checkpoint"}
    differences = {"checkpoint": rich.golden["differences"], first["name"]: rich.golden["differences"]}
    there = changed(rich, golden=file | {"decisions": [file, first], "all_differences": differences})
    confirmation = drawn._confirmation(there)
    assert "the weights of the file" in confirmation.wide
    page, text = rendered(there, rich_figures | {"confirmation": confirmation})
    assert page.row("the weights of the file", "initial weights from a file")
    assert "of the weights of the file with data seed" in text
    alone = changed(rich, golden=file | {"decisions": [file], "forwarded": 1})
    for shown in rendered_texts(alone, rich_figures):
        assert "It was not forwarded, so what is left of it on fresh seeds is unknown." in shown
        assert "Confirmation on fresh data seeds" not in shown


def test_who_diverges_more_often_is_tested(evidence: Evidence, figures: dict[str, Figure]) -> None:
    there = changed(evidence, compare={"diverged": {"candidate": 3, "baseline": 0}, "mcnemar_p": 0.25})
    for text in rendered_texts(there, figures):
        assert "McNemar’s exact test: p = 0.25." in text
    assert "McNemar’s exact test" not in rendered(evidence, figures)[1]


def test_a_page_with_everything_fetches_nothing_either(rich_page: Page) -> None:
    assert not rich_page.tags & {"script", "link", "iframe", "img", "object", "embed", "base", "form"}
    assert set(rich_page.references) <= {f"#{name}" for name in rich_page.ids}
    assert len(set(rich_page.ids)) == len(rich_page.ids)


def test_a_hostile_title_is_only_a_title(evidence: Evidence, figures: dict[str, Figure]) -> None:
    title = evidence.params.report.model_copy(update={"title": HOSTILE})
    there = dataclasses.replace(evidence, params=evidence.params.model_copy(update={"report": title}))
    page, text = rendered(there, figures)
    assert HOSTILE in page.text
    assert not page.tags & {"script", "img"}
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


@pytest.mark.parametrize("values", [[0.0] * 10, [-5000.0, -30.0, 1.0, 2.0, 90.0], [3.0, 3.0]])
def test_odd_rows_can_be_drawn(values: list[float]) -> None:
    best = int(np.argmax(values))
    row = dots.Row("1–10", values, {"value": float(np.mean(values))}, ("+9%", "p"), ring=best, luck=1e4)
    figure = draw(
        "odd",
        "odd",
        lambda width: dots.rows(
            [row] * 3, heads=("best", "p"), colours=(LIGHT["baseline"], LIGHT["candidate"]), axis="x", width=width
        ),
    )
    assert "NaN" not in figure.wide and "NaN" not in figure.narrow
    low, high = dots._most([row] * 3, None)
    assert low < 0 < high and values[best] < high


def test_colours_have_names_in_light_and_dark(study: Path) -> None:
    assert LIGHT.keys() == DARK.keys() and len(set(LIGHT.values())) == len(LIGHT)
    text = (study / "results/report.html").read_text(encoding="utf-8")
    charts_only = "".join(re.findall(r"<svg.*?</svg>", text, flags=re.S))
    assert "var(--candidate)" in charts_only
    assert not set(re.findall(r"#[0-9a-f]{6}", charts_only)) & set(LIGHT.values())
