"""The stages of the pipeline: each reads its inputs, calls the library, and writes its outputs whole or not at all."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from infinito import attribute as attribution
from infinito import checkpoint, engine, report, runs, seeds, tasks
from infinito import compare as comparison
from infinito import ensemble as ensembles
from infinito import golden as gold
from infinito.params import Study
from infinito.runs import Run, RunTable, StackJob
from infinito.storage import read_json, replacing, write_json

FanOut = Callable[[Sequence[StackJob]], list[Path]]
ARMS = ("candidate", "baseline")


def prepare(study: Study, fan_out: FanOut) -> None:
    """params -> data/prepared: the three splits and their manifest."""
    with replacing(study.data) as temporary:
        temporary.mkdir()
        tasks.prepare(study.params.prepare, temporary, study.folder)


def train(study: Study, fan_out: FanOut) -> None:
    """data -> models/runs: both designs, both arms."""
    data, train = tasks.load(study.data), study.params.train
    fresh = seeds.pool(train.seed, "pairs", train.pairs)
    crossed = seeds.pool(train.seed, "grid", max(train.grid.inits, train.grid.datas))
    wanted = [Run(arm, "pairs", seed, seed) for arm in ARMS for seed in fresh]
    wanted += [
        Run(arm, "grid", init_seed, data_seed)
        for arm in ARMS
        for init_seed in crossed[: train.grid.inits]
        for data_seed in crossed[: train.grid.datas]
    ]
    runs.collect(fan_out(runs.plan(study, data, wanted)), study.runs)


def compare(study: Study, fan_out: FanOut) -> None:
    """models/runs -> results/compare.json: the verdict."""
    table, settings = RunTable.load(study.runs), study.params.compare
    candidate, baseline = table.pairs()
    result = comparison.compare(
        candidate["test_loss"], baseline["test_loss"], smallest_effect=settings.smallest_effect, alpha=settings.alpha
    )
    difference = baseline["test_loss"].to_numpy() - candidate["test_loss"].to_numpy()
    claimed = comparison.report_protocol(candidate["last_batch_loss"], baseline["last_batch_loss"])
    claimed["best_seed"] = int(candidate["init_seed"][claimed["best_seed"]])
    write_json(
        study.results / "compare.json",
        {
            "schema": "infinito/compare/1",
            "study": study.params.study,
            "metric": "test loss, nats per token, at the last step",
            "networks": {
                "candidate": study.params.train.candidate.network,
                "baseline": study.params.train.baseline.network,
            },
            **result,
            "alpha": settings.alpha,
            "diverged": {
                arm: int(frame["diverged"].sum()) for arm, frame in (("candidate", candidate), ("baseline", baseline))
            },
            "scores": _scores(study, candidate, baseline, settings.alpha),
            "evaluation_noise": _evaluation_noise(table, candidate, baseline, difference),
            "report_protocol": claimed,
            "data_sha256": tasks.load(study.data).sha256,
        },
    )


def _scores(study: Study, candidate: pd.DataFrame, baseline: pd.DataFrame, alpha: float) -> dict[str, Any]:
    """Other faces of the same runs, per arm: accuracy, and for text the perplexities of the mean loss."""
    splits = read_json(study.data / "manifest.json")["splits"]
    scores: dict[str, Any] = {}
    for arm, frame in (("candidate", candidate), ("baseline", baseline)):
        names = ["accuracy"] if splits["test"].get("words") else ["accuracy", "exact"]  # exact: all of a word right
        shares = {name: comparison.mean_estimate(frame[name], alpha) for name in names}
        scores[arm] = {
            name: share | {key: float(np.clip(share[key] or 0.0, 0.0, 1.0)) for key in ("ci_low", "ci_high")}
            for name, share in shares.items()
        }
        for split, column in (("validation", "val_loss"), ("test", "test_loss")):
            if not splits[split].get("words"):
                continue
            loss = comparison.mean_estimate(frame[column], alpha)
            tokens = splits[split]["scored_tokens"]
            for name, unit in (("token", tokens), ("word", splits[split]["words"])):
                scores[arm][f"{split}_perplexity_per_{name}"] = {
                    key: float(np.exp(value * tokens / unit)) if key != "n" else value for key, value in loss.items()
                }
            scores[arm][f"{split}_bits_per_byte"] = {
                key: value * tokens / splits[split]["bytes"] / float(np.log(2)) if key != "n" else value
                for key, value in loss.items()
            }
    return scores


def _evaluation_noise(
    table: RunTable, candidate: pd.DataFrame, baseline: pd.DataFrame, difference: np.ndarray
) -> dict[str, float | None]:
    """Is the test set large enough? Standard error of a pair's difference over examples, against its SD over seeds."""
    finite = ~(candidate["diverged"] | baseline["diverged"]).to_numpy()  # a diverged run has no loss per example
    candidate, baseline, difference = candidate[finite], baseline[finite], difference[finite]
    if len(difference) < 2:
        return {"standard_error": None, "sd_over_seeds": None, "ratio": None}
    nats, tokens = table.items([*candidate["run_id"], *baseline["run_id"]])
    per_example = nats[len(candidate) :] - nats[: len(candidate)]  # [pairs, examples], summed over an example's tokens
    residual = per_example - difference[:, None] * tokens  # a ratio estimate: nats over tokens
    error = float(np.median(np.sqrt(len(tokens)) * residual.std(1, ddof=1) / tokens.sum()))
    spread = float(difference.std(ddof=1))
    return {"standard_error": error, "sd_over_seeds": spread, "ratio": error / spread if spread > 0 else None}


def attribute(study: Study, fan_out: FanOut) -> None:
    """models/runs -> results/attribute.json: the variance by source, for both arms and for their difference."""
    table, alpha = RunTable.load(study.runs), study.params.attribute.alpha
    loss = {arm: table.grid(arm, "test_loss") for arm in ARMS}
    loss["difference"] = loss["baseline"] - loss["candidate"]
    write_json(
        study.results / "attribute.json",
        {
            "schema": "infinito/attribute/1",
            "study": study.params.study,
            "init_seeds": sorted({int(x) for x in table.design("grid", "candidate")["init_seed"]}),
            "data_seeds": sorted({int(x) for x in table.design("grid", "candidate")["data_seed"]}),
            **{name: attribution.attribute(y, alpha=alpha) | {"cells": y.tolist()} for name, y in loss.items()},
        },
    )


def golden(study: Study, fan_out: FanOut) -> None:
    """models/runs -> models/golden, results/golden.json: select on the grid, confirm on fresh seeds, keep the weights.

    The protocol is written down, with its hash, before the first confirmation run.
    """
    table, settings, root = RunTable.load(study.runs), study.params.golden, study.params.train.seed
    data = tasks.load(study.data)
    grid_runs = table.design("grid", "candidate")
    init_seeds = sorted({int(x) for x in grid_runs["init_seed"]})
    selection = gold.select(table.grid("candidate", "val_loss"))
    chosen = init_seeds[selection["best"]["index"]]
    data_seeds = seeds.pool(root, "confirm", settings.data_seeds)
    fresh = seeds.pool(root, "controls", settings.data_seeds * settings.controls)
    control_inits = [fresh[j * settings.controls : (j + 1) * settings.controls] for j in range(settings.data_seeds)]
    protocol = {
        "schema": "infinito/golden-protocol/1",
        "study": study.params.study,
        "data_sha256": data.sha256,
        "selected_on": "mean validation loss over the data seeds of the grid",
        "selected_from": init_seeds,
        "golden_init_seed": chosen,
        "data_seeds": data_seeds,
        "control_init_seeds": control_inits,
        "test": "one-sided paired t on mean(controls) - golden, test loss",
        **settings.model_dump(),
    }
    registered = gold.protocol_hash(protocol)
    write_json(study.results / "golden_protocol.json", {"sha256": registered, "protocol": protocol})

    wanted = [Run("candidate", "confirm", chosen, data_seed) for data_seed in data_seeds]
    wanted += [
        Run("candidate", "controls", init_seed, data_seed)
        for data_seed, inits in zip(data_seeds, control_inits, strict=True)
        for init_seed in inits
    ]
    folders = fan_out(runs.plan(study, data, wanted, protocol=registered))
    with replacing(study.golden) as temporary:
        runs.collect(folders, temporary / "confirmation")
        confirmation = RunTable.load(temporary / "confirmation")
        golden_runs = confirmation.design("confirm", "candidate").sort_values("data_seed", ignore_index=True)
        controls = confirmation.design("controls", "candidate").sort_values(["data_seed", "init_seed"])
        decision = gold.confirm(
            golden_runs["test_loss"].to_numpy(),
            controls["test_loss"].to_numpy().reshape(-1, settings.controls),
            golden_init=chosen,
            data_seeds=data_seeds,
            control_inits=control_inits,
            selection_inits=init_seeds,
            selection_data_seeds=sorted({int(x) for x in grid_runs["data_seed"]}),
            # runs of an earlier protocol that are used again were not registered under this one
            registered={confirmation.record(s)["protocol_sha256"] for s in confirmation.table["stack_id"]}
            == {registered},
            margin=settings.margin,
            margin_useful=settings.useful,
            alpha=settings.alpha,
        )
        result = {
            "schema": "infinito/golden/1",
            "study": study.params.study,
            **decision,
            "golden_init_seed": chosen,
            "protocol_sha256": registered,
            "selection": selection | {"init_seeds": init_seeds},
            "differences": (
                controls["test_loss"].to_numpy().reshape(-1, settings.controls).mean(1)
                - golden_runs["test_loss"].to_numpy()
            ).tolist(),
        }
        best = golden_runs[~golden_runs["diverged"]].nsmallest(1, "val_loss")
        if best.empty:
            raise ValueError(f"init seed {chosen}: every confirmation run diverged, so there is no model to keep")
        result["checkpoint"] = checkpoint.export(study, confirmation, best, result, data, temporary)
    write_json(study.results / "golden.json", result)


def ensemble(study: Study, fan_out: FanOut) -> None:
    """models/runs -> results/ensemble.json: ensembles of independently trained members, per arm."""
    table, data, settings = RunTable.load(study.runs), tasks.load(study.data), study.params
    result: dict[str, Any] = {"schema": "infinito/ensemble/1", "study": settings.study}
    for arm, members in zip(ARMS, table.pairs(), strict=True):
        members = members[~members["diverged"]]
        sizes = [size for size in settings.ensemble.sizes if size <= len(members)]
        if not sizes:
            raise ValueError(
                f"{study.runs / 'runs.parquet'}: only {len(members)} of {settings.train.pairs} runs of the {arm} "
                "did not diverge; allowed: at least as many as the smallest of ensemble.sizes"
            )
        make = runs.network_maker(getattr(settings.train, arm), settings.train.trunk, data)
        log_probability = engine.predict(make, table.weights(members), data.test)
        scored = (data.test.targets != tasks.IGNORE).flatten()
        result[arm] = ensembles.ensemble_curve(
            log_probability.flatten(1)[:, scored].numpy(),
            members["val_loss"].to_numpy(),
            sizes,
            alpha=settings.compare.alpha,
        ) | {"members": len(members), "diverged_left_out": int(settings.train.pairs - len(members))}
    write_json(study.results / "ensemble.json", result)


def write_report(study: Study, fan_out: FanOut) -> None:
    """results/*.json and models/ -> results/report.html, report.md and charts as PNG."""
    report.write(study)


STAGES: dict[str, Callable[[Study, FanOut], None]] = {
    "prepare": prepare,
    "train": train,
    "compare": compare,
    "attribute": attribute,
    "golden": golden,
    "ensemble": ensemble,
    "report": write_report,
}
