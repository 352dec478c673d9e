"""Ensembles, by size and against single models of equal compute."""

from infinito.report.evidence import Json
from infinito.report.tables.table import ARMS, Table
from infinito.report.words import estimate, times


def ensemble(ensembles: Json) -> Table:
    """Loss and gains by size; a single member gains nothing."""
    rows = []
    for key, label in (
        ("loss", "Test loss"),
        ("gain_over_best_member", "Gain over best member"),
        ("gain_over_average_member", "Gain over average member"),
    ):
        for pair in zip(*(ensembles[arm]["curve"] for arm in ARMS), strict=True):
            if key == "loss" or pair[0]["size"] > 1:
                rows.append(
                    (label, str(pair[0]["size"]), *(estimate(entry[key], 4 if key == "loss" else 3) for entry in pair))
                )
                label = ""
    return Table(("", "Size", *ARMS), rows, "lrrr")


def equal_compute(ensembles: Json) -> Table:
    """Ensembles against single models that cost as much; compute is relative to that of an ensemble."""
    found = ensembles["equal_compute"]
    names = {"longer": f"{found['longer']['steps']:,} steps", "wider": f"width {found['wider']['width']}"}
    rows = [
        (
            name,
            times(single["training_compute"]),
            times(single["inference_compute"]),
            estimate(single["single_loss"], 4),
            estimate(single["ensemble_loss"], 4),
            str(single["diverged"]),
        )
        for design, name in names.items()
        for single in [found[design]]
    ]
    head = ("Single models", "Training compute", "Inference compute", "Their loss", "Loss of ensembles", "Diverged")
    return Table(head, rows, "lrrrrr")
