"""The stages of the pipeline: each reads its inputs, calls the library, and writes its outputs whole or not at all."""

import bisect
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from infinito import attribute as attribution
from infinito import checkpoint, engine, networks, params, report, runs, seeds, sequential, stacks, tasks
from infinito import compare as comparison
from infinito import ensemble as ensembles
from infinito import golden as gold
from infinito.paired import mcnemar
from infinito.params import Study
from infinito.preregistration import status as plan_status
from infinito.report.metrics import metrics
from infinito.runs import Run, RunTable
from infinito.scores import evaluation_noise, scores
from infinito.stacks import StackJob
from infinito.storage import file_sha256, read_json, replacing, write_json

FanOut = Callable[[Sequence[StackJob]], list[Path]]
ARMS = ("candidate", "baseline")
OF_A_FILE = 0  # the init seed of runs whose initial weights are those of a file; no pool has it


def prepare(study: Study, fan_out: FanOut) -> None:
    """params -> data/prepared: the three splits and their manifest."""
    with replacing(study.data) as temporary:
        temporary.mkdir()
        tasks.prepare(study.params.prepare, temporary, study.folder)


def _paired(train: params.Train, pool: str, first: int, last: int) -> list[Run]:
    """Runs of all arms, every pair with a fresh init seed and a fresh data seed of its own."""
    return [Run(arm, pool, seed, seed) for arm in train.arms for seed in seeds.pool(train.seed, pool, last)[first:]]


def crossed(train: params.Train) -> list[Run]:
    """Runs of the grid. With several noise seeds, every cell has its own; both arms share them."""
    grid = train.grid
    seed = seeds.pool(train.seed, "grid", max(grid.inits, grid.datas))
    noise = seeds.pool(train.seed, "noise", grid.inits * grid.datas * grid.noises)
    cells = itertools.product(range(grid.inits), range(grid.datas), range(grid.noises))
    return [
        Run(arm, "grid", seed[i], seed[j], rep, own_noise_seed=noise[place] if grid.noises > 1 else None)
        for place, (i, j, _) in enumerate(cells)
        for rep in range(grid.reps)
        for arm in ARMS
    ]


def _looks(train: params.Train) -> list[int]:
    """After how many pairs the training pauses for a test; the last one is the end."""
    if train.looks == "anytime":
        every = sequential.FIRST_ANYTIME_LOOK if train.stack == "auto" else train.stack
        return [*range(max(every, sequential.FIRST_ANYTIME_LOOK), train.pairs, every), train.pairs]
    return train.looks or [train.pairs]


def _look(study: Study, difference: pd.Series) -> sequential.Look:
    """The test of a sequential design at its stop, or else at the last look that was reached."""
    looks, alpha = study.params.train.looks, study.params.compare.alpha
    design = looks if looks == "anytime" else tuple(looks)
    return sequential.stopped(difference.to_numpy(), design=design, pairs=study.params.train.pairs, alpha=alpha)


def train(study: Study, fan_out: FanOut) -> None:
    """data -> models/runs: all designs, all arms; a sequential design stops as soon as it has its answer."""
    data, train = tasks.load(study.data), study.params.train
    folders: list[Path] = []
    stack = 0
    for first, last in itertools.pairwise([0, *_looks(train)]):
        wanted = _paired(train, "pairs", first, last)
        if first == 0:
            wanted += _paired(train, "pilot", 0, train.pilot) + crossed(train)
        jobs = stacks.plan(study, data, wanted, protocol=train.plan, first=stack)
        stack = 1 + max(job.number for job in jobs if job.runs[0].design == "pairs")
        folders += fan_out(jobs)
        runs.collect(folders, study.runs)
        if train.looks:
            candidate, baseline = RunTable.load(study.runs).pairs()
            if _look(study, baseline["test_loss"] - candidate["test_loss"]).stop:
                break


def compare(study: Study, fan_out: FanOut) -> None:
    """models/runs -> results/compare.json: the verdict."""
    table, settings, train = RunTable.load(study.runs), study.params.compare, study.params.train
    data_sha256 = tasks.load(study.data).sha256
    paired = {arm: table.pairs(arm=arm) for arm in train.arms if arm != "baseline"}
    candidate, baseline = paired["candidate"]
    look = None
    if train.looks:
        look = _look(study, baseline["test_loss"] - candidate["test_loss"])
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
        candidate, baseline = table.pairs("pilot")
        result["pilot"] = comparison.compare(
            candidate["test_loss"],
            baseline["test_loss"],
            smallest_effect=settings.smallest_effect,
            alpha=settings.alpha,
        )
    claimed = comparison.report_protocol(candidate["last_batch_loss"], baseline["last_batch_loss"])
    claimed["best_seed"] = int(candidate["init_seed"].iloc[int(claimed["best_seed"])])
    return result | {"report_protocol": claimed}


def _means(cells: np.ndarray) -> list[list[float | None]]:
    """Mean of every cell over its noise seeds and reps; None where a run is missing."""
    return [[None if np.isnan(x) else float(x) for x in row] for row in cells.mean((2, 3))]


def attribute(study: Study, fan_out: FanOut) -> None:
    """models/runs -> results/attribute.json: the variance by source, for both arms and for their difference."""
    table, alpha = RunTable.load(study.runs), study.params.attribute.alpha
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
            **{name: attribution.attribute(y, alpha=alpha) | {"cells": _means(y)} for name, y in loss.items()},
        },
    )


def _best_seeds(study: Study, table: RunTable) -> dict[str, int]:
    """Init seeds by how they were found: by the rule of this program, and in two ways of the original report."""
    grid = {arm: table.design("grid", arm) for arm in ARMS}
    mean = grid["candidate"].groupby("init_seed")["val_loss"].mean()
    candidate, baseline = table.pairs("pilot" if study.params.train.pilot else "pairs")

    def best_by_percentage(mine: pd.DataFrame, other: pd.DataFrame) -> int:
        gain = (other["last_batch_loss"] - mine["last_batch_loss"]) / other["last_batch_loss"]
        return int(mine["init_seed"].iloc[int(gain.argmax())])

    return {
        "selected": int(mean.index[int(mean.argmin())]),
        "best_of_ten": best_by_percentage(candidate[:10], baseline[:10]),
        "best_cell": best_by_percentage(grid["candidate"], grid["baseline"]),
    }


def _forwarded(study: Study, table: RunTable) -> dict[str, int]:
    """What is put to the golden rule: init seeds by name; two ways that found the same seed share a name."""
    found = _best_seeds(study, table) | {"checkpoint": OF_A_FILE}
    ways: dict[int, list[str]] = {}
    for way in dict.fromkeys(study.params.golden.forward):
        ways.setdefault(found[way], []).append(way.replace("_", " "))
    return {" and ".join(names): init_seed for init_seed, names in ways.items()}


def golden(study: Study, fan_out: FanOut) -> None:
    """models/runs -> models/golden, results/golden.json: select on the grid, confirm on fresh seeds, keep the weights.

    The protocol is written down, with its hash, before the first confirmation run.
    """
    table, settings, root = RunTable.load(study.runs), study.params.golden, study.params.train.seed
    data, cells = tasks.load(study.data), table.design("grid", "candidate")
    init_seeds, grid_data_seeds = (sorted({int(x) for x in cells[key]}) for key in ("init_seed", "data_seed"))
    selection = gold.select(table.grid("candidate", "val_loss"))
    forwarded = _forwarded(study, table)
    file = None if settings.checkpoint is None else study.folder / settings.checkpoint
    if file is not None and not file.is_file():
        raise ValueError(f"{study.folder / 'params.yaml'}: golden.checkpoint: found {file}, which is no file")
    data_seeds = seeds.pool(root, "confirm", settings.data_seeds)
    fresh = seeds.pool(root, "controls", settings.data_seeds * settings.controls)
    control_inits = [fresh[j * settings.controls : (j + 1) * settings.controls] for j in range(settings.data_seeds)]
    protocol = {
        "schema": "infinito/golden-protocol/2",
        "study": study.params.study,
        "data_sha256": data.sha256,
        "selected_on": "mean validation loss over the data seeds of the grid",
        "selected_from": init_seeds,
        "forwarded": {name: None if seed == OF_A_FILE else seed for name, seed in forwarded.items()},
        "checkpoint_sha256": None if file is None else file_sha256(file),
        "data_seeds": data_seeds,
        "control_init_seeds": control_inits,
        "test": "one-sided paired t on mean(controls) - golden, test loss; Holm over the forwarded",
        **settings.model_dump(include={"alpha", "margin", "useful"}),
    }
    registered = gold.protocol_hash(protocol)
    write_json(study.results / "golden_protocol.json", {"sha256": registered, "protocol": protocol})

    wanted = [
        Run("candidate", "confirm", seed, data_seed)
        for seed in forwarded.values()
        for data_seed in data_seeds
        if seed != OF_A_FILE
    ]
    wanted += [
        Run("candidate", "controls", init_seed, data_seed)
        for data_seed, inits in zip(data_seeds, control_inits, strict=True)
        for init_seed in inits
    ]
    jobs = stacks.plan(study, data, wanted, protocol=registered)
    if OF_A_FILE in forwarded.values():
        from_file = [Run("candidate", "confirm", OF_A_FILE, data_seed) for data_seed in data_seeds]
        jobs += stacks.plan(study, data, from_file, protocol=registered, initial=file, first=len(jobs))
    folders = fan_out(jobs)
    with replacing(study.golden) as temporary:
        runs.collect(folders, temporary / "confirmation")
        confirmation = RunTable.load(temporary / "confirmation")
        confirm = confirmation.design("confirm", "candidate").sort_values("data_seed", ignore_index=True)
        controls = confirmation.design("controls", "candidate").sort_values(["data_seed", "init_seed"])
        control_loss = controls["test_loss"].to_numpy().reshape(-1, settings.controls)
        candidates = [
            gold.Candidate(name, None if seed == OF_A_FILE else seed, own["test_loss"].to_numpy())
            for name, seed in forwarded.items()
            for own in [confirm[confirm["init_seed"] == seed]]
        ]
        earlier = table.table[table.table["design"].isin(["grid", "pilot", "pairs"])]
        decisions = gold.confirm(
            candidates,
            control_loss,
            data_seeds=data_seeds,
            control_inits=control_inits,
            selection_inits=[int(x) for x in earlier["init_seed"].unique()],
            selection_data_seeds=[int(x) for x in earlier["data_seed"].unique()],
            # runs of an earlier protocol that are used again were not registered under this one
            registered={confirmation.record(s)["protocol_sha256"] for s in confirmation.table["stack_id"]}
            == {registered},
            margin=settings.margin,
            margin_useful=settings.useful,
            alpha=settings.alpha,
        )
        differences = {c.name: (control_loss.mean(1) - np.asarray(c.loss)).tolist() for c in candidates}
        first = next(iter(forwarded.values()))
        kept = confirm[(confirm["init_seed"] == first) & ~confirm["diverged"]].nsmallest(1, "val_loss")
        if kept.empty:
            raise ValueError(f"init seed {first}: every confirmation run diverged, so there is no model to keep")
        i, j = selection["best_cell"]["index"]
        nats, tokens = confirmation.items([str(kept["run_id"].iloc[0])])
        result = {
            "schema": "infinito/golden/2",
            "study": study.params.study,
            **decisions[0],
            "decisions": decisions,
            "claims": gold.claims(
                nats[0],
                tokens,
                decisions,
                selection["best_cell"],
                cell_seeds=(init_seeds[i], grid_data_seeds[j]),
                deterministic=_deterministic(cells),
                unit="examples",
            ),
            "protocol_sha256": registered,
            "selection": selection | {"init_seeds": init_seeds},
            "differences": differences[candidates[0].name],
            "all_differences": differences,
        }
        result["checkpoint"] = checkpoint.export(study, confirmation, kept, result, data, temporary)
    write_json(study.results / "golden.json", result)


def _deterministic(cells: pd.DataFrame) -> bool | None:
    """Whether reruns of identical seeds ended with the same weights, bit for bit; None where nothing was rerun."""
    if cells["rep"].max() == 0:
        return None
    return bool((cells.groupby(["init_seed", "data_seed", "noise_seed"])["weights_sha256"].nunique() == 1).all())


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
        make = stacks.network_maker(settings.train.arms[arm], settings.train.trunk, data)
        log_probability = engine.predict(make, table.weights(members), data.test)
        scored = (data.test.targets != tasks.IGNORE).flatten()
        probabilities[arm] = log_probability.flatten(1)[:, scored].numpy()
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
    train, compute = study.params.train, study.params.ensemble.compute
    assert compute is not None
    width = _wider(train, data, compute.size)
    longer = {"steps": train.steps * compute.size, "warmup": train.warmup * compute.size}
    designs = {
        "longer": train.model_copy(update=longer),
        "wider": train.model_copy(update={"trunk": train.trunk.model_copy(update={"width": width})}),
    }
    fresh = iter(seeds.pool(train.seed, "ensemble", 2 * compute.runs))
    jobs = []
    for design, how in designs.items():
        wanted = [Run("candidate", design, seed, seed) for seed in itertools.islice(fresh, compute.runs)]
        jobs += stacks.plan(study, data, wanted, train=how)
    runs.collect(fan_out(jobs), folder)
    single = RunTable.load(folder)
    groups = ensembles.group_losses(target_log_prob, compute.size)
    cost = {"base": _flops(train, data, train.trunk.width), "wider": _flops(train, data, width)}
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
    make = stacks.network_maker(train.candidate, train.trunk.model_copy(update={"width": width}), data)
    with seeds.DrawFrom(seeds.torch_stream(0, "unused")):
        network = make().eval()
    return networks.flops(network, data.validation.inputs[:1].cpu())


def _wider(train: params.Train, data: tasks.Data, size: int) -> int:
    """The smallest width at which the candidate costs at least `size` times as much to run."""
    widths = range(train.trunk.width, train.trunk.width * size + 1, train.trunk.heads)
    wanted = size * _flops(train, data, train.trunk.width)
    return widths[bisect.bisect_left(widths, wanted, hi=len(widths) - 1, key=lambda width: _flops(train, data, width))]


def write_report(study: Study, fan_out: FanOut) -> None:
    """results/*.json and models/ -> results/report.html, report.md, charts as PNG, metrics.json."""
    report.write(study)
    names = ("compare", "attribute", "golden", "ensemble")
    write_json(study.results / "metrics.json", metrics(*(read_json(study.results / f"{name}.json") for name in names)))


STAGES: dict[str, Callable[[Study, FanOut], None]] = {
    "prepare": prepare,
    "train": train,
    "compare": compare,
    "attribute": attribute,
    "golden": golden,
    "ensemble": ensemble,
    "report": write_report,
}
