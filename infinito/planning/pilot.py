"""The pilot: pairs to plan with, which are never among the confirmatory ones."""

from dataclasses import dataclass

import numpy as np

from infinito import seeds, tasks
from infinito.planning.preregistration import other_settings, promise
from infinito.runs import stacks
from infinito.runs.table import Run, RunTable
from infinito.statistics.anova import components, mean_squares
from infinito.statistics.paired import Array
from infinito.study import Study
from infinito.tasks.command import Reported

LEAST_PILOT = 8


@dataclass(frozen=True)
class Pilot:
    """Pairs to plan with: differences d [n] of their losses, their seeds, and what a run took."""

    d: Array
    design: str
    init_seeds: list[int]
    root: int  # of the pool that the seeds come from
    variances: tuple[float, float, float] | None  # of the difference, from the study's own grid
    grid: str | None  # size of that grid
    seconds: dict[str, float]  # per run of an arm
    device: str
    processor: str


def pilot_jobs(study: Study, data: tasks.Data | Reported, n: int) -> list[stacks.Job]:
    """The stacks of n pilot pairs, both arms, with seeds of a pool of their own.

    Raises:
        ValueError: fewer than 8 pairs; see `stacks.plan`.
    """
    if n < LEAST_PILOT:
        raise ValueError(f"pilot: found {n}; allowed: {LEAST_PILOT} pairs or more, fewer say nothing about the spread")
    wanted = [
        Run(arm, "pilot", seed, seed)
        for arm in ("candidate", "baseline")
        for seed in seeds.pool(study.params.train.seed, "pilot", n)
    ]
    return stacks.plan(study, data, wanted)


def pilot(study: Study, table: RunTable, data_sha256: str) -> Pilot:
    """The pilot pairs of a run table, or, where it has none, the confirmatory pairs of a finished study.

    Raises:
        ValueError: a run without its partner, fewer than 8 pairs, equal differences, or runs of other settings or data
            than those of params.yaml.
    """
    design = "pilot" if (table.table["design"] == "pilot").any() else "pairs"
    candidate, baseline = table.pairs(design, unequal=study.params.train.unequal("candidate"))
    arms = {"candidate": candidate, "baseline": baseline}
    d = baseline["test_loss"].to_numpy(float) - candidate["test_loss"].to_numpy(float)
    if len(d) < LEAST_PILOT:
        raise ValueError(f"{table.folder}: found {len(d)} pairs to plan with; allowed: {LEAST_PILOT} or more")
    if np.ptp(d) == 0:
        raise ValueError(f"{table.folder}: all differences are equal; check that the seeds reach the training")
    stacks = {stack: arm for arm, frame in arms.items() for stack in frame["stack_id"]}
    records = {stack: table.record(stack) for stack in stacks}
    promised = promise(study.params) | {"data_sha256": data_sha256}
    for stack, arm in stacks.items():
        other = other_settings(promised, records[stack])
        if other:
            other = f"train.{arm}" if other == "arm" else other
            raise ValueError(
                f"{table.folder}: its runs were trained with another {other} than params.yaml has now: "
                "train them again (dvc repro train), or train a pilot alone: infinito plan --pilot 8"
            )
    seconds = {}
    for arm in study.params.train.arms:
        own = table.design(design, arm)  # an ablation that the pilot lacks takes about as long as the candidate
        seconds[arm] = float((own if len(own) else candidate)["wall_seconds"].mean())
    record = records[next(iter(stacks))]
    variances, grid = _own_grid(table)
    return Pilot(
        d=d,
        design=design,
        init_seeds=sorted({int(x) for x in candidate["init_seed"]}),
        root=study.params.train.seed,
        variances=variances,
        grid=grid,
        seconds=seconds,
        device=record["device"],
        processor=record["processor"],
    )


def _own_grid(table: RunTable) -> tuple[tuple[float, float, float] | None, str | None]:
    """Variance components of the difference by a complete grid, truncated at 0: init, data, all that is left."""
    if not all(len(table.design("grid", arm)) for arm in ("candidate", "baseline")):
        return None, None
    candidate, baseline = (table.grid(arm, "test_loss") for arm in ("candidate", "baseline"))
    if candidate.shape != baseline.shape or min(candidate.shape[:2]) < 2:
        return None, None
    y = (baseline - candidate).reshape(*candidate.shape[:2], -1)  # [I, J, K]
    if not np.isfinite(y).all() or np.ptp(y) == 0:
        return None, None
    parts = {name: max(float(x), 0.0) for name, x in components(mean_squares(y)).items()}
    init, data = parts.pop("init"), parts.pop("data")
    return (init, data, sum(parts.values())), f"{y.shape[0]} x {y.shape[1]}"
