"""models/runs -> results/attribute.json: the variance by source."""

import numpy as np

from infinito.questions import attribute as attribution
from infinito.runs import ARMS, FanOut, RunTable
from infinito.storage import write_json
from infinito.study import Study


def _means(cells: np.ndarray) -> list[list[float | None]]:
    """Mean of every cell over its noise seeds and reps; None where a run is missing."""
    return [[None if np.isnan(x) else float(x) for x in row] for row in cells.mean((2, 3))]


def attribute(study: Study, fan_out: FanOut) -> None:
    """models/runs -> results/attribute.json: the variance by source, for both arms and for their difference."""
    settings = study.params.attribute
    if settings is None:
        raise ValueError(f"{study.folder / 'params.yaml'}: attribute: missing section, which the stage attribute needs")
    table = RunTable.of(study)
    loss = {arm: table.grid(arm, "test_loss") for arm in ARMS}
    loss["difference"] = loss["baseline"] - loss["candidate"]
    cells = table.design("grid", "candidate")
    write_json(
        study.results / "attribute.json",
        {
            "schema": "infinito/attribute/2",
            "study": study.params.study,
            "init_seeds": sorted({int(x) for x in cells["init_seed"]}),
            "data_seeds": sorted({int(x) for x in cells["data_seed"]}),
            **{name: attribution.attribute(y, alpha=settings.alpha) | {"cells": _means(y)} for name, y in loss.items()},
        },
    )
