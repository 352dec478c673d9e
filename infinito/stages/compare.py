"""models/runs -> results/compare.json: the verdict."""

from typing import Any

import numpy as np
import pandas as pd

from infinito import params, tasks
from infinito.planning import preregistration
from infinito.questions import compare as comparison
from infinito.questions import protocol
from infinito.questions.fairness import fairness
from infinito.runs import FanOut, RunTable
from infinito.runs.commands import failures, in_words
from infinito.runs.scores import evaluation_noise, scores
from infinito.statistics import sequential
from infinito.statistics.paired import mcnemar
from infinito.storage import read_json, write_json
from infinito.study import Study
from infinito.tasks import Measures, Metric
from infinito.tasks.measure import check_metrics, described, named

# which weights a run is judged by
KEPT = {"last": "at the last step", "best": "at the point of its curve that is best on validation"}


def compare(study: Study, fan_out: FanOut) -> None:
    """models/runs -> results/compare.json: the verdict."""
    table, settings, train = RunTable.of(study), study.params.compare, study.params.train
    data = tasks.measured(study.data)
    task = data.task
    check_metrics(study.folder / "params.yaml", settings.metrics, task)
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
        arm: {key: _gain(mine, other, key, task).to_numpy() for key in settings.metrics}
        for arm, (mine, other) in paired.items()
    }
    family = comparison.family(differences, smallest_effect=settings.smallest_effect, alpha=settings.alpha)
    verdicts = {
        arm: comparison.compare(
            mine["test_loss"],
            other["test_loss"],
            metric=task.metric,
            smallest_effect=settings.smallest_effect,
            alpha=settings.alpha,
            family=None if look else _place_in(family, arm),
            look=look,
        )
        for arm, (mine, other) in paired.items()
    }
    stacks = {str(stack) for pair in paired.values() for runs_of in pair for stack in runs_of["stack_id"]}
    result: dict[str, Any] = {
        "schema": "infinito/compare/2",
        "study": study.params.study,
        "metric": f"test {task.metric.name}, {task.metric.unit}, {_kept(train)}",
        "measure": described(task.metric),
        "titles": {key: score.title or score.name for key, score in task.scores.items()},
        "networks": {arm: settings.name for arm, settings in train.arms.items()},
        **verdicts["candidate"],
        "plan": preregistration.status(study, candidate, {stack: table.record(stack) for stack in sorted(stacks)}),
        "family": [] if look else family,  # with looks there is one hypothesis, and p-values of a fixed n mislead
        "ablations": {arm: verdict for arm, verdict in verdicts.items() if arm != "candidate"},
        "alpha": settings.alpha,
        "diverged": {"candidate": int(candidate["diverged"].sum()), "baseline": int(baseline["diverged"].sum())},
        **({"failures": failures(table.table)} if not table.has_items else {}),
        "mcnemar_p": mcnemar(candidate["diverged"], baseline["diverged"]),
        "scores": scores({"candidate": candidate, "baseline": baseline}, task, _splits(study), settings.alpha),
        "evaluation_noise": evaluation_noise(
            table, candidate, baseline, _gain(candidate, baseline, "test_loss", task).to_numpy()
        ),
        "fairness": fairness(train),
        **_original_protocol(study, table, candidate, baseline, task.metric),
        "data_sha256": data.sha256,
    }
    result["sentence"] += in_words(candidate, baseline, task.metric)
    write_json(study.results / "compare.json", result)
    preregistration.conclude(study, result)


def _kept(train: params.AnyTrain) -> str:
    """Where on their curves the runs are judged; if the arms differ in it, arm by arm."""
    if isinstance(train, params.Commands):
        return "as its command reports it"
    kept = {arm: KEPT[train.of(arm).keep] for arm in train.arms}
    if len(set(kept.values())) == 1:
        return kept["candidate"]
    return ", ".join(f"{where} ({arm})" for arm, where in kept.items())


def _gain(mine: pd.DataFrame, other: pd.DataFrame, key: str, task: Measures) -> pd.Series:
    """How much better the first is, run by run; key: the loss, which is better when lower, or a score of the task."""
    difference = other[key] - mine[key]
    return difference if key == "test_loss" or named(task, key).better == "lower" else -difference


def _place_in(family: list[dict[str, Any]], arm: str) -> comparison.Family:
    first = next(row for row in family if row["arm"] == arm)  # the first metric decides
    return comparison.Family(len(family), first["p_holm"], first["p_equivalence_holm"])


def _splits(study: Study) -> dict[str, Any]:
    splits: dict[str, Any] = read_json(study.data / "manifest.json")["splits"]
    return splits


def _original_protocol(
    study: Study, table: RunTable, candidate: pd.DataFrame, baseline: pd.DataFrame, metric: Metric
) -> dict[str, Any]:
    """What the original report would have claimed, and what its ten seeds show: on the pilot if there is one.

    It claims percentages; where the loss of a batch has none, nothing is claimed.
    """
    settings = study.params.compare
    result: dict[str, Any] = {"report_protocol_repeated": []}
    if protocol.has_percentages(baseline["last_batch_loss"]):
        repeated = protocol.report_protocols(candidate["last_batch_loss"], baseline["last_batch_loss"])
        result["report_protocol_repeated"] = repeated
    if study.params.train.pilot:
        candidate, baseline = table.pairs("pilot", unequal=study.params.train.unequal("candidate"))
        result["pilot"] = comparison.compare(
            candidate["test_loss"],
            baseline["test_loss"],
            metric=metric,
            smallest_effect=settings.smallest_effect,
            alpha=settings.alpha,
        )
    if not protocol.has_percentages(baseline["last_batch_loss"]):
        return result | {"report_protocol": None}
    claimed = protocol.report_protocol(candidate["last_batch_loss"], baseline["last_batch_loss"])
    claimed["best_seed"] = int(candidate["init_seed"].iloc[int(claimed["best_seed"])])
    return result | {"report_protocol": claimed}
