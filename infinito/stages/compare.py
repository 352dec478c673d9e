"""models/runs -> results/compare.json: the verdict."""

from typing import Any

import numpy as np
import pandas as pd

from infinito import tasks
from infinito.params import Study
from infinito.planning.preregistration import status as plan_status
from infinito.questions import compare as comparison
from infinito.runs import FanOut, RunTable
from infinito.runs.scores import evaluation_noise, scores
from infinito.statistics import sequential
from infinito.statistics.paired import mcnemar
from infinito.storage import read_json, write_json


def compare(study: Study, fan_out: FanOut) -> None:
    """models/runs -> results/compare.json: the verdict."""
    table, settings, train = RunTable.load(study.runs), study.params.compare, study.params.train
    data_sha256 = tasks.load(study.data).sha256
    paired = {arm: table.pairs(arm=arm, unequal=train.unequal(arm)) for arm in train.arms if arm != "baseline"}
    candidate, baseline = paired["candidate"]
    look = None
    if train.looks:
        look = sequential.stopped(
            (baseline["test_loss"] - candidate["test_loss"]).to_numpy(),
            design=train.design,
            pairs=train.pairs,
            alpha=settings.alpha,
        )
        candidate, baseline = paired["candidate"] = candidate[: look.n], baseline[: look.n]
    differences: dict[str, dict[str, np.ndarray]] = {
        arm: {metric: _gain(mine, other, metric).to_numpy() for metric in settings.metrics}
        for arm, (mine, other) in paired.items()
    }
    family = comparison.family(differences, smallest_effect=settings.smallest_effect, alpha=settings.alpha)
    verdicts = {
        arm: comparison.compare(
            mine["test_loss"],
            other["test_loss"],
            smallest_effect=settings.smallest_effect,
            alpha=settings.alpha,
            family=None if look else _place_in(family, arm),
            look=look,
        )
        for arm, (mine, other) in paired.items()
    }
    stacks = {str(stack) for pair in paired.values() for runs_of in pair for stack in runs_of["stack_id"]}
    write_json(
        study.results / "compare.json",
        {
            "schema": "infinito/compare/2",
            "study": study.params.study,
            "metric": "test loss, nats per token, at the last step",
            "networks": {arm: settings.network for arm, settings in train.arms.items()},
            **verdicts["candidate"],
            "plan": plan_status(study, candidate, {stack: table.record(stack) for stack in sorted(stacks)}),
            "family": [] if look else family,  # with looks there is one hypothesis, and p-values of a fixed n mislead
            "ablations": {arm: verdict for arm, verdict in verdicts.items() if arm != "candidate"},
            "alpha": settings.alpha,
            "diverged": {"candidate": int(candidate["diverged"].sum()), "baseline": int(baseline["diverged"].sum())},
            "mcnemar_p": mcnemar(candidate["diverged"], baseline["diverged"]),
            "scores": scores({"candidate": candidate, "baseline": baseline}, _splits(study), settings.alpha),
            "evaluation_noise": evaluation_noise(
                table, candidate, baseline, _gain(candidate, baseline, "test_loss").to_numpy()
            ),
            **_original_protocol(study, table, candidate, baseline),
            "data_sha256": data_sha256,
        },
    )


def _gain(mine: pd.DataFrame, other: pd.DataFrame, metric: str) -> pd.Series:
    """How much better the first is, run by run: a loss is better when smaller, the other metrics when larger."""
    difference = other[metric] - mine[metric]
    return difference if metric.endswith("loss") else -difference


def _place_in(family: list[dict[str, Any]], arm: str) -> comparison.Family:
    first = next(row for row in family if row["arm"] == arm)  # the first metric decides
    return comparison.Family(len(family), first["p_holm"], first["p_equivalence_holm"])


def _splits(study: Study) -> dict[str, Any]:
    splits: dict[str, Any] = read_json(study.data / "manifest.json")["splits"]
    return splits


def _original_protocol(
    study: Study, table: RunTable, candidate: pd.DataFrame, baseline: pd.DataFrame
) -> dict[str, Any]:
    """What the original report would have claimed, and what its ten seeds show: on the pilot if there is one."""
    settings = study.params.compare
    repeated = comparison.report_protocols(candidate["last_batch_loss"], baseline["last_batch_loss"])
    result: dict[str, Any] = {"report_protocol_repeated": repeated}
    if study.params.train.pilot:
        candidate, baseline = table.pairs("pilot", unequal=study.params.train.unequal("candidate"))
        result["pilot"] = comparison.compare(
            candidate["test_loss"],
            baseline["test_loss"],
            smallest_effect=settings.smallest_effect,
            alpha=settings.alpha,
        )
    claimed = comparison.report_protocol(candidate["last_batch_loss"], baseline["last_batch_loss"])
    claimed["best_seed"] = int(candidate["init_seed"].iloc[int(claimed["best_seed"])])
    return result | {"report_protocol": claimed}
