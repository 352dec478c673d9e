"""data -> models/runs: all designs, all arms."""

import itertools
from pathlib import Path

from infinito import params, runs, seeds, tasks
from infinito.planning import preregistration
from infinito.runs import ARMS, FanOut, Run, RunTable, commands, stacks
from infinito.statistics import sequential
from infinito.study import Study
from infinito.tasks.measure import check_metrics


def _paired(train: params.AnyTrain, pool: str, first: int, last: int) -> list[Run]:
    """Runs of all arms, every pair with a fresh init seed and a fresh data seed of its own."""
    return [Run(arm, pool, seed, seed) for arm in train.arms for seed in seeds.pool(train.seed, pool, last)[first:]]


def crossed(train: params.AnyTrain) -> list[Run]:
    """Runs of the grid. With several noise seeds, every cell has its own; both arms share them."""
    grid = train.grid
    if grid is None:
        return []
    seed = seeds.pool(train.seed, "grid", max(grid.inits, grid.datas))
    noise = seeds.pool(train.seed, "noise", grid.inits * grid.datas * grid.noises)
    cells = itertools.product(range(grid.inits), range(grid.datas), range(grid.noises))
    return [
        Run(arm, "grid", seed[i], seed[j], rep, own_noise_seed=noise[place] if grid.noises > 1 else None)
        for place, (i, j, _) in enumerate(cells)
        for rep in range(grid.reps)
        for arm in ARMS
    ]


def _looks(train: params.AnyTrain) -> list[int]:
    """After how many pairs the training pauses for a test; the last one is the end."""
    if train.looks == "anytime":
        stack = 1 if isinstance(train, params.Commands) else train.stack
        every = sequential.FIRST_ANYTIME_LOOK if stack == "auto" else stack
        return [*range(max(every, sequential.FIRST_ANYTIME_LOOK), train.pairs, every), train.pairs]
    return train.looks or [train.pairs]


def train(study: Study, fan_out: FanOut) -> None:
    """data -> models/runs: all designs, all arms; a sequential design stops as soon as it has its answer.

    Under a plan the ledger says by which code it is begun, before the first run, and what run table came of it.
    """
    data, train = tasks.measured(study.data), study.params.train
    check_metrics(study.folder / "params.yaml", study.params.compare.metrics, data.task)
    folders: list[Path] = []
    stack = 0
    for first, last in itertools.pairwise([0, *_looks(train)]):
        wanted = _paired(train, "pairs", first, last)
        if first == 0:
            wanted += _paired(train, "pilot", 0, train.pilot) + crossed(train)
        jobs = stacks.plan(study, data, wanted, protocol=train.plan, first=stack)
        stack = 1 + max(job.number for job in jobs if job.runs[0].design == "pairs")
        if first == 0:
            preregistration.begin(study, {file: digest for job in jobs for file, digest in job.code.items()})
        folders += fan_out(jobs)
        commands.check(folders)
        runs.collect(folders, study.runs)
        if train.looks:
            candidate, baseline = RunTable.load(study.runs).pairs(unequal=train.unequal("candidate"))
            if sequential.stopped(
                (baseline["test_loss"] - candidate["test_loss"]).to_numpy(),
                design=train.design,
                pairs=train.pairs,
                alpha=study.params.compare.alpha,
            ).stop:
                break
    preregistration.trained(study)
