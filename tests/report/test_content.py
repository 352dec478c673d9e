"""The figures on the page are those of the results."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from infinito.report import tables, words
from infinito.report.draw import Figure
from infinito.report.evidence import Evidence
from infinito.report.page import html
from infinito.storage import read_json
from tests.report.pages import CHARTS, Page, changed, ci, rendered, shows


def test_the_figures_are_those_of_compare(page: Page, study: Path) -> None:
    compare = read_json(study / "results/compare.json")
    claimed = compare["report_protocol"]
    assert compare["sentence"] in page.text
    assert compare["verdict"] in page.text
    for label, key in (("Test loss, nats per token", None), ("Accuracy on scored tokens", "accuracy")):
        cells = page.row(label)
        for cell, arm in zip(cells[1:], ("candidate", "baseline"), strict=True):
            assert shows(cell, *ci(compare["scores"][arm][key] if key else compare[arm]))
    mean = page.row("Mean difference")
    assert shows(mean[1], claimed["mean_percent"], claimed["sd_percent"])
    assert shows(mean[2], *ci(compare["difference"]))
    assert page.row("Wins")[1:] == [f"{claimed['wins']} of 10", f"{compare['wins']} of 10"]
    assert shows(page.row("p")[2], compare["p_value"])
    assert shows(page.row("Headline")[1], claimed["best_seed"], claimed["best_percent"])
    assert shows(page.row("Best of 10 by luck alone")[1], claimed["expected_best_by_luck"])
    assert shows(page.row("p of the sign-flip permutation test")[1], compare["secondary"]["sign_flip_p"])
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
        assert shows(row[3], *(x**0.5 for x in ci(part)))
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
    assert shows(naive[1], best["naive_gain"])
    assert naive[2] == "selection-biased"
    assert shows(luck[1], golden["selection"]["expected_best_by_luck"])
    assert shows(blup[1], best["blup_gain"])
    assert shows(page.row("Confirmation on fresh data seeds")[1], golden["difference"]["value"])
    for claim, name in (("checkpoint", "G1, these weights."), ("cell", "G3, the cell.")):
        assert f"{name} {golden['claims'][claim]['sentence']}" in page.text
    assert (
        f"G2, the init seed. {golden['status'].replace('_', ' ').capitalize()}, by the confirmation above." in page.text
    )
    assert golden["checkpoint"]["run_id"] in page.text
    ranked = page.row("1", str(golden["golden_init_seed"]))
    for cell, gain in zip(ranked[3:], ("naive_gain", "blup_gain", "james_stein_gain"), strict=True):
        assert shows(cell.lstrip("+"), best[gain])
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
            assert shows(cell, *ci(entry["loss"]))
    equal = ensemble["equal_compute"]
    for design, label in (("longer", "Trained longer."), ("wider", "Wider.")):
        assert f"{label} {equal[design]['sentence']}" in page.text
    for row, single in (
        (page.row(f"{equal['longer']['steps']} steps"), equal["longer"]),
        (page.row(f"width {equal['wider']['width']}"), equal["wider"]),
    ):
        assert shows(" ".join(row[1:3]), single["training_compute"], single["inference_compute"])
        assert shows(row[3], *ci(single["single_loss"]))
        assert shows(row[4], *ci(single["ensemble_loss"]))
        assert row[5] == str(single["diverged"])


def test_what_is_in_two_splits_is_there(page: Page, study: Path) -> None:
    shares = read_json(study / "data/prepared/manifest.json")["overlap"]
    assert shares["test"]["train"] == 0.0
    assert page.row("Overlap of the splits")[1].startswith("0 % of validation also in train; 0 % of test also in train")
    assert page.row("Test examples that also stand in the training split")[1:3] == ["0 %", "at most 1 %"]


def test_all_runs_and_all_settings_are_there(page: Page, study: Path) -> None:
    runs = pd.concat(
        pd.read_parquet(study / "models" / part / "runs.parquet")
        for part in ("runs", "golden/confirmation", "ensemble")
    )
    listed = {row[0]: row for row in page.rows if row[0] in set(runs["run_id"])}
    assert len(listed) == len(runs)
    first = runs.iloc[0]
    assert shows(
        " ".join(listed[first["run_id"]][3:8]),
        *first[["init_seed", "data_seed", "val_loss", "test_loss", "last_batch_loss"]],
    )
    assert page.row("train.trunk.width")[1] == "8"
    assert page.row("Data, SHA-256")[1] == read_json(study / "results/compare.json")["data_sha256"]


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
        assert shows(page.row(label)[1], *ci(score))


def test_a_family_is_shown_with_what_it_pays(rich_page: Page, rich: Evidence, page: Page) -> None:
    compare = rich.compare
    shown = rich_page.below(
        *("Arm", "Metric", "Gain over the baseline", "p alone", "p, Holm", "p, max t", "Equivalence, Holm")
    )
    assert len(compare["family"]) == compare["hypotheses"] == 4
    for row, hypothesis in zip(shown, compare["family"], strict=False):
        assert row[0] == hypothesis["arm"]
        assert shows(row[2], *ci(hypothesis["difference"]))
        keys = ("p_value", "p_holm", "p_max_t", "p_equivalence_holm")
        assert row[3:] == [words.p_value(hypothesis[key]).replace("\u00a0", " ") for key in keys]
    ablations = rich_page.below("Arm", "Network", "Verdict", "Gain over the baseline", "p", "Wins")
    for row, arm in zip(ablations, ("candidate", "small_memory"), strict=False):
        found = compare if arm == "candidate" else compare["ablations"][arm]
        assert row[:3] == [arm, "infinito_v52", found["verdict"]]
        assert shows(row[3], *ci(found["difference_simultaneous"]))
        assert row[4] == f"{words.p_value(found['p_adjusted'])} (Holm)".replace("\u00a0", " ")
        assert row[5] == f"{found['wins']} of 20"
    simultaneous = words.interval(compare["difference_simultaneous"])
    assert f"The 95% interval of this gain, which allows for all 4 hypotheses, is {simultaneous}" in rich_page.text
    assert f"p-value, by Holm {words.p_value(compare['p_adjusted'])}".replace("\u00a0", " ") in rich_page.text
    assert "family" in rich_page.ids and "family" not in page.ids
    assert "All that was tested" not in page.text and "Ablations" not in page.text


def test_a_pilot_is_judged_by_both_protocols(rich_page: Page, rich: Evidence) -> None:
    pilot, claimed = rich.compare["pilot"], rich.compare["report_protocol"]
    assert rich_page.row("", "Best-seed report") == ["", "Best-seed report", "Our rules, same runs", "This study"]
    assert rich_page.row("Pairs of runs")[1:] == ["10", "10", "20"]
    mean = rich_page.row("Mean difference")
    assert shows(mean[1], claimed["mean_percent"], claimed["sd_percent"])
    assert shows(mean[2], *ci(pilot["difference"]))
    assert shows(mean[3], *ci(rich.compare["difference_simultaneous"]))
    assert rich_page.row("Wins")[1:] == [
        f"{x['wins']} of {n}" for x, n in ((claimed, 10), (pilot, 10), (rich.compare, 20))
    ]
    headline = rich_page.row("Headline")
    assert shows(headline[1], claimed["best_seed"], claimed["best_percent"])
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
        assert shows(row[1], claimed["mean_percent"], claimed["sd_percent"])
        assert row[2] == f"{claimed['wins']} of 10"
        assert shows(row[4], claimed["best_percent"])
        assert shows(row[5], claimed["expected_best_by_luck"])
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


def test_every_candidate_of_the_golden_rule_is_shown(
    rich_page: Page, rich: Evidence, rich_figures: dict[str, Figure]
) -> None:
    golden = rich.golden
    assert golden["forwarded"] == len(golden["decisions"]) > 1
    shown = rich_page.below("", "Found by", "Status", "Gain on fresh data seeds", "Wins", "p, Holm")
    for row, decision in zip(shown, golden["decisions"], strict=False):
        assert row[0] == f"seed {decision['golden_init_seed']}"
        assert row[2] == decision["status"].replace("_", " ")
        assert shows(row[3], *ci(decision["difference"]))
        assert row[4] == f"{decision['wins']} of 10"
        assert row[5] == words.p_value(decision["p_holm"]).replace("\u00a0", " ")
        assert decision["sentence"] in rich_page.text
    assert f"G2, the init seed. {golden['claims']['init_seed']['sentence']}" in rich_page.text
    assert f"one-sided {words.plain(100 * (1 - golden['bound_alpha']))}% bounds" in rich_page.text
    confirmation = rich_figures["confirmation"].wide
    assert all(f"seed {decision['golden_init_seed']}" in confirmation for decision in golden["decisions"])
