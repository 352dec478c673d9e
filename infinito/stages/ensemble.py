"""models/runs -> models/ensemble, results/ensemble.json: what do several members give?"""

import bisect
import itertools
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from infinito import networks, params, runs, seeds, tasks, training
from infinito.questions import ensemble as ensembles
from infinito.runs import ARMS, FanOut, Run, RunTable, stacks
from infinito.runs.engine import network_maker
from infinito.storage import replacing, write_json
from infinito.study import Study


def ensemble(study: Study, fan_out: FanOut) -> None:
    """models/runs -> models/ensemble, results/ensemble.json: ensembles of independently trained members, per arm.

    The candidate's are also compared with single models of the same training compute and, where they can be made wider,
    of the same inference compute.
    """
    settings, file = study.params.ensemble, study.folder / "params.yaml"
    if settings is None:
        raise ValueError(f"{file}: ensemble: missing section, which the stage ensemble needs")
    table, data = RunTable.of(study), tasks.load(study.data)
    averaged = data.task.averaged
    if averaged is None:
        raise ValueError(
            f"{file}: ensemble: found a task that averages nothing (its `averaged` is None); allowed: a task whose "
            "members' probabilities or outputs can be averaged, or a study without the stage ensemble"
        )
    pairs = table.pairs(unequal=study.params.networks.unequal("candidate"))
    result: dict[str, Any] = {"schema": "infinito/ensemble/2", "study": study.params.study, "averaged": averaged}
    said: dict[str, np.ndarray] = {}
    for arm, trained in zip(ARMS, pairs, strict=True):
        members = trained[~trained["diverged"]]
        sizes = [size for size in settings.sizes if size <= len(members)]
        if not sizes:
            raise ValueError(
                f"{study.runs / 'runs.parquet'}: only {len(members)} of {study.params.networks.pairs} runs of the "
                f"{arm} did not diverge; allowed: at least as many as the smallest of ensemble.sizes"
            )
        said[arm] = _says(study, table, data, arm, members)
        result[arm] = ensembles.ensemble_curve(
            said[arm],
            members["val_loss"].to_numpy(),
            sizes,
            averaged=averaged,
            alpha=study.params.compare.alpha,
        ) | {"members": len(members), "diverged_left_out": int(len(trained) - len(members))}
    with replacing(study.ensemble) as temporary:
        temporary.mkdir()
        if settings.compute is not None:
            groups = ensembles.group_losses(said["candidate"], settings.compute.size, averaged=averaged)
            result["equal_compute"] = _equal_compute(study, data, fan_out, settings.compute, groups, temporary)
    write_json(study.results / "ensemble.json", result)


def _says(study: Study, table: RunTable, data: tasks.Data, arm: str, members: pd.DataFrame) -> np.ndarray:
    """What the members of an arm say of every scored part of the test set, [members, parts]."""
    train = study.params.networks
    make = network_maker(train.arms[arm], train.of(arm).trunk, data)
    # what was trained one after the other need not bear anything else
    together = table.record(str(members["stack_id"].iloc[0]))["train"].get("engine") != "loop"
    says, scored = training.predict(make, data.task, table.weights(members), data.test, together=together)
    return says.flatten(1)[:, scored.flatten()].numpy()


def _equal_compute(
    study: Study, data: tasks.Data, fan_out: FanOut, compute: params.Compute, groups: np.ndarray, folder: Path
) -> dict[str, Any]:
    """Ensembles of the candidate against single models that cost as much to train, or as much to run.

    The first are trained as many times longer as the ensemble has members, the schedule stretched with it; the second
    are wider, if the networks' settings have a width. Both get fresh seeds, and the same learning rate: it was not
    tuned anew.

    Args:
        groups: losses of the ensembles [G].
        folder: where the single models are to be kept.
    """
    train = study.params.networks.of("candidate")
    designs: dict[str, tuple[params.Train, Literal["training", "inference"], dict[str, Any]]] = {}
    longer = {"steps": train.steps * compute.size, "warmup": train.warmup * compute.size}
    if train.keep == "best":  # as many points of the curve to choose from
        longer["curve_every"] = train.curve_every * compute.size
    costs = {"training_compute": 1.0, "inference_compute": 1 / compute.size}
    designs["longer"] = (train.model_copy(update=longer), "training", {"steps": longer["steps"]} | costs)
    base = _width(train)
    if base is not None:
        width = _wider(train, data, base, compute.size)
        cost = _flops(train, data, width) / (compute.size * _flops(train, data, base))
        costs = dict.fromkeys(("training_compute", "inference_compute"), cost)
        designs["wider"] = (_at(train, width), "inference", {"width": width} | costs)
    fresh = iter(seeds.pool(train.seed, "ensemble", 2 * compute.runs))
    jobs = []
    for design, (how, _, _) in designs.items():
        wanted = [Run("candidate", design, seed, seed) for seed in itertools.islice(fresh, compute.runs)]
        jobs += stacks.plan(study, data, wanted, train=how)
    runs.collect(fan_out(jobs), folder)
    single = RunTable.load(folder)
    found: dict[str, Any] = {"size": compute.size}
    for design, (_, equal, facts) in designs.items():
        members = single.design(design, "candidate")
        found[design] = (
            facts
            | {"diverged": int(members["diverged"].sum())}
            | ensembles.equal_compute(
                groups,
                members["test_loss"].to_numpy(),
                metric=data.task.metric,
                size=compute.size,
                compute=equal,
                alpha=study.params.compare.alpha,
            )
        )
    return found


def _width(train: params.Train) -> int | None:
    """The candidate's width, if there is such a setting: its own, or that of the trunk."""
    width = (train.trunk | train.candidate.settings).get("width")
    return width if isinstance(width, int) else None


def _at(train: params.Train, width: int) -> params.Train:
    """The same with another width of the candidate, set where it has it."""
    own = train.candidate.settings
    if "width" not in own:
        return train.model_copy(update={"trunk": train.trunk | {"width": width}})
    return train.model_copy(
        update={"candidate": train.candidate.model_copy(update={"settings": own | {"width": width}})}
    )


def _flops(train: params.Train, data: tasks.Data, width: int) -> int:
    """Arithmetic of the candidate's forward pass on one example, at some width."""
    how = _at(train, width)
    make = network_maker(how.candidate, how.trunk, data)
    with training.drawing(0, "unused"):
        network = make().eval()
    return networks.flops(network, data.validation.inputs[:1].cpu())


def _wider(train: params.Train, data: tasks.Data, width: int, size: int) -> int:
    """The smallest width at which the candidate costs at least `size` times as much to run as at `width`."""
    heads: Any = (train.trunk | train.candidate.settings).get("heads", 1)
    widths = range(width, width * size + 1, heads)
    wanted = size * _flops(train, data, width)
    return widths[bisect.bisect_left(widths, wanted, hi=len(widths) - 1, key=lambda width: _flops(train, data, width))]
