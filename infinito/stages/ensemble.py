"""models/runs -> models/ensemble, results/ensemble.json: what do several members give?"""

import bisect
import itertools
from pathlib import Path
from typing import Any, Literal

import numpy as np

from infinito import networks, params, runs, seeds, tasks, training
from infinito.params import Study
from infinito.questions import ensemble as ensembles
from infinito.runs import ARMS, FanOut, Run, RunTable, stacks
from infinito.runs.engine import network_maker
from infinito.storage import replacing, write_json


def ensemble(study: Study, fan_out: FanOut) -> None:
    """models/runs -> models/ensemble, results/ensemble.json: ensembles of independently trained members, per arm.

    The candidate's are also compared with single models of the same training compute and of the same inference compute.
    """
    table, data, settings = RunTable.load(study.runs), tasks.load(study.data), study.params
    result: dict[str, Any] = {"schema": "infinito/ensemble/2", "study": settings.study}
    probabilities: dict[str, np.ndarray] = {}
    for arm, members in zip(ARMS, table.pairs(), strict=True):
        members = members[~members["diverged"]]
        sizes = [size for size in settings.ensemble.sizes if size <= len(members)]
        if not sizes:
            raise ValueError(
                f"{study.runs / 'runs.parquet'}: only {len(members)} of {settings.train.pairs} runs of the {arm} "
                "did not diverge; allowed: at least as many as the smallest of ensemble.sizes"
            )
        make = network_maker(settings.train.arms[arm], settings.train.of(arm).trunk, data)
        says, scored = training.predict(make, data.task, table.weights(members), data.test)
        probabilities[arm] = says.flatten(1)[:, scored.flatten()].numpy()
        result[arm] = ensembles.ensemble_curve(
            probabilities[arm], members["val_loss"].to_numpy(), sizes, alpha=settings.compare.alpha
        ) | {"members": len(members), "diverged_left_out": int(len(table.pairs()[0]) - len(members))}
    with replacing(study.ensemble) as temporary:
        temporary.mkdir()
        if settings.ensemble.compute is not None:
            result["equal_compute"] = _equal_compute(study, data, fan_out, probabilities["candidate"], temporary)
    write_json(study.results / "ensemble.json", result)


def _equal_compute(
    study: Study, data: tasks.Data, fan_out: FanOut, target_log_prob: np.ndarray, folder: Path
) -> dict[str, Any]:
    """Ensembles of the candidate against single models that cost as much to train, or as much to run.

    The first are trained as many times longer as the ensemble has members, the schedule stretched with it; the second
    are wider. Both get fresh seeds, and the same learning rate: it was not tuned anew.
    """
    train, compute = study.params.train.of("candidate"), study.params.ensemble.compute
    assert compute is not None
    width = _wider(train, data, compute.size)
    longer = {"steps": train.steps * compute.size, "warmup": train.warmup * compute.size}
    designs = {
        "longer": train.model_copy(update=longer),
        "wider": train.model_copy(update={"trunk": train.trunk | {"width": width}}),
    }
    fresh = iter(seeds.pool(train.seed, "ensemble", 2 * compute.runs))
    jobs = []
    for design, how in designs.items():
        wanted = [Run("candidate", design, seed, seed) for seed in itertools.islice(fresh, compute.runs)]
        jobs += stacks.plan(study, data, wanted, train=how)
    runs.collect(fan_out(jobs), folder)
    single = RunTable.load(folder)
    groups = ensembles.group_losses(target_log_prob, compute.size)
    cost = {"base": _flops(train, data, train.trunk["width"]), "wider": _flops(train, data, width)}
    facts = {
        "longer": {"steps": longer["steps"], "training_compute": 1.0, "inference_compute": 1 / compute.size},
        "wider": {"width": width}
        | dict.fromkeys(("training_compute", "inference_compute"), cost["wider"] / (compute.size * cost["base"])),
    }
    found: dict[str, Any] = {}
    equal: Literal["training", "inference"]
    for design, equal in (("longer", "training"), ("wider", "inference")):
        members = single.design(design, "candidate")
        found[design] = (
            facts[design]
            | {"diverged": int(members["diverged"].sum())}
            | ensembles.equal_compute(
                groups,
                members["test_loss"].to_numpy(),
                size=compute.size,
                compute=equal,
                alpha=study.params.compare.alpha,
            )
        )
    return {"size": compute.size} | found


def _flops(train: params.Train, data: tasks.Data, width: int) -> int:
    """Arithmetic of the candidate's forward pass on one example, at some width."""
    make = network_maker(train.candidate, train.trunk | {"width": width}, data)
    with training.drawing(0, "unused"):
        network = make().eval()
    return networks.flops(network, data.validation.inputs[:1].cpu())


def _wider(train: params.Train, data: tasks.Data, size: int) -> int:
    """The smallest width at which the candidate costs at least `size` times as much to run."""
    widths = range(train.trunk["width"], train.trunk["width"] * size + 1, train.trunk["heads"])
    wanted = size * _flops(train, data, train.trunk["width"])
    return widths[bisect.bisect_left(widths, wanted, hi=len(widths) - 1, key=lambda width: _flops(train, data, width))]
