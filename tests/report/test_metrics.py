"""The headline figures, as `dvc metrics` shows them."""

import json
from pathlib import Path

from infinito.storage import read_json
from tests.recorded import dvc, edit


def test_dvc_shows_the_headline_figures_and_nothing_else(recorded_study: Path) -> None:
    files = json.loads(dvc(recorded_study, "metrics", "show", "--json"))[""]["data"]
    assert list(files) == ["results/metrics.json"]
    shown = files["results/metrics.json"]["data"]
    compare, attribute, golden, ensemble = (
        read_json(recorded_study / f"results/{name}.json") for name in ("compare", "attribute", "golden", "ensemble")
    )
    largest = ensemble["candidate"]["curve"][-1]
    estimates = {
        "gain": compare["difference"],
        "candidate_loss": compare["candidate"],
        "baseline_loss": compare["baseline"],
        "golden_gain": golden["difference"],
        "ensemble_gain": largest["gain_over_best_member"],
    }
    for name, estimate in estimates.items():
        limits = shown[name], shown[f"{name}_low"], shown[f"{name}_high"]
        assert limits == (estimate["value"], estimate["ci_low"], estimate["ci_high"])
    for source in ("init", "data"):
        part = attribute["candidate"]["components"][source]
        limits = shown[f"{source}_share"], shown[f"{source}_share_low"], shown[f"{source}_share_high"]
        assert limits == (part["share"], part["share_ci_low"], part["share_ci_high"])
    assert (shown["verdict"], shown["planned"]) == (compare["verdict"], compare["plan"]["status"])
    assert (shown["pairs"], shown["wins"], shown["p"]) == (10, compare["wins"], compare["p_adjusted"])
    assert (shown["golden"], shown["ensemble_size"]) == (golden["status"], largest["size"])


def test_dvc_says_which_headline_figure_has_changed(recorded_study: Path) -> None:
    edit(recorded_study / "results/metrics.json", gain=0.5)
    edit(recorded_study / "results/compare.json", wins=99)  # no metric of DVC
    changes = json.loads(dvc(recorded_study, "metrics", "diff", "--json"))
    assert {file: list(figures) for file, figures in changes.items()} == {"results/metrics.json": ["gain"]}
