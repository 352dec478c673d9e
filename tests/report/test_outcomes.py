"""Whichever way a study goes, the report is honest about it."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from infinito import escape
from infinito.questions import attribute as attribution
from infinito.questions import compare as comparison
from infinito.report import figures as drawn
from infinito.report import tables, words
from infinito.report.draw import Figure
from infinito.report.evidence import Evidence
from infinito.report.figures import draw_all
from infinito.report.page import html, markdown
from infinito.runs.table import RunTable
from infinito.statistics import sequential
from tests.comparisons import NATS
from tests.report.pages import CHARTS, Page, changed, losses, rendered, rendered_texts


def test_without_single_models_it_says_so(evidence: Evidence, figures: dict[str, Figure]) -> None:
    ensemble = {key: value for key, value in evidence.ensemble.items() if key != "equal_compute"}
    for text in rendered_texts(dataclasses.replace(evidence, ensemble=ensemble), figures):
        assert "Not compared with single models of equal compute" in text
        assert "for the same money" not in text


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
    for told in (page, text):
        assert "never means “no difference”" in told


@pytest.mark.parametrize("status", ["GOLDEN_CONFIRMED", "GOLDEN_REFUTED", "NOT_CONFIRMED", "INVALID"])
def test_every_golden_status_is_told(evidence: Evidence, figures: dict[str, Figure], status: str) -> None:
    sentence = f"The status is {status}, because."
    decision = {"status": status, "sentence": sentence, "registered": status != "INVALID"}
    there = changed(evidence, golden=decision | {"decisions": [evidence.golden["decisions"][0] | decision]})
    page, text = html(there, figures), markdown(there, figures)
    shown = status.replace("_", " ")
    assert f'<span class="badge {status.lower()}">{shown}</span>' in page
    assert f"**{shown}.** {escape.markdown(sentence)}" in text
    for told in (Page(page).text, text):
        assert words.STATUS_WORDS[status] in told
        assert f"{shown.capitalize()}, by the confirmation above" in told
        assert ("was not written down" in told) == (status == "INVALID")
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
    for told in (Page(page).text, text):
        assert not re.search(r"\bNone\b|\bnan\b|\binf\b", told)
        assert "there is no variance to explain" in told
        assert "Correlation between the errors" not in told


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


@pytest.mark.parametrize("status", ["planned", "exploratory"])
def test_planned_or_not_stands_beside_the_verdict(evidence: Evidence, figures: dict[str, Figure], status: str) -> None:
    label = {"planned": "planned, third plan; earlier ones said WORSE, BETTER", "exploratory": "exploratory: this"}
    plan = {"status": status, "label": label[status], "reason": "The reason is this.", "plan_sha256": "a" * 64}
    there = changed(evidence, compare={"plan": plan})
    page, text = html(there, figures), markdown(there, figures)
    badges = re.findall(r'<span class="badge \w+">(\w+)</span>', page)
    assert badges[:2] == [evidence.compare["verdict"], status.upper()]
    check = ["Plan of the comparison", "registered before its runs, and kept", "registered and kept", "✓ met"]
    assert (check in Page(page).rows) == (status == "planned")
    assert Page(page).row("Plan of the comparison, SHA-256")[1] == "a" * 64
    for shown in (Page(page).text, text.replace("*", "")):
        said = label[status][len(status) :] if status == "planned" else ""
        assert f"{status.upper()}{said}. The reason is this." in shown
        assert ("not as something to sign off" in shown) == (status == "exploratory")
        assert shown.index("The reason is this.") < shown.index("nats per token lower than that of")


def test_refusals_stand_near_the_verdict(evidence: Evidence, figures: dict[str, Figure]) -> None:
    few = changed(evidence, compare=comparison.compare(*losses(evidence, 4), smallest_effect=0.01, metric=NATS))
    few = dataclasses.replace(few, candidate=few.candidate[:4], baseline=few.baseline[:4])
    assert len(few.compare["refusals"]) == 2
    for text in rendered_texts(few, figures):
        for refusal in few.compare["refusals"]:
            assert 0 < text.index(refusal) < text.index("One dot is one pair")
    assert "What these runs cannot support" not in rendered(evidence, figures)[1]


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
    plain = comparison.compare(candidate[: look.n], baseline[: look.n], smallest_effect=0.01, metric=NATS)
    found = comparison.compare(candidate[: look.n], baseline[: look.n], smallest_effect=0.01, look=look, metric=NATS)
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
    found = comparison.compare(candidate, baseline, smallest_effect=0.01, look=look, metric=NATS)
    there = dataclasses.replace(
        changed(evidence, compare=found), candidate=evidence.candidate[:5], baseline=evidence.baseline[:5]
    )
    for text in rendered_texts(there, figures):
        assert "there is no interval yet" in text


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
