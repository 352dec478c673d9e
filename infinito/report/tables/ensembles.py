"""Ensembles, by size and against single models of equal compute."""

from infinito.report import words
from infinito.report.evidence import Json
from infinito.report.tables.table import ARMS, Table
from infinito.report.words import estimate, times
from infinito.tasks import Metric
from infinito.tasks.measure import levels


def ensemble(ensembles: Json, metric: Metric) -> Table:
    """The metric and gains by size; a single member gains nothing."""
    rows = []
    for key, label in (
        ("loss", f"Test {metric.name}"),
        ("gain_over_best_member", "Gain over best member"),
        ("gain_over_average_member", "Gain over average member"),
    ):
        for pair in zip(*(ensembles[arm]["curve"] for arm in ARMS), strict=True):
            if key == "loss" or pair[0]["size"] > 1:
                cells = (
                    estimate(levels(metric, entry[key]), 4) if key == "loss" else estimate(entry[key]) for entry in pair
                )
                rows.append((label, str(pair[0]["size"]), *cells))
                label = ""
    return Table(("", "Size", *ARMS), rows, "lrrr")


def equal_compute(ensembles: Json, metric: Metric) -> Table:
    """Ensembles against single models that cost as much; compute is relative to that of an ensemble."""
    found = ensembles["equal_compute"]
    names = {"longer": f"{found['longer']['steps']:,} steps"}
    if "wider" in found:
        names["wider"] = f"width {found['wider']['width']}"
    rows = [
        (
            name,
            times(single["training_compute"]),
            times(single["inference_compute"]),
            estimate(levels(metric, single["single_loss"]), 4),
            estimate(levels(metric, single["ensemble_loss"]), 4),
            str(single["diverged"]),
        )
        for design, name in names.items()
        for single in [found[design]]
    ]
    name = metric.name
    compute = ("Training compute", "Inference compute")
    head = ("Single models", *compute, f"Their {name}", f"{words.capital(name)} of ensembles", "Diverged")
    return Table(head, rows, "lrrrrr")
