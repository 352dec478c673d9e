"""How many pairs, with what power, how long and at what cost? And was what was promised then done?

A plan is written from a pilot, before the confirmatory pairs are trained, and named by the hash of its content. The
training stage records that hash with every stack, so `status` can tell a planned verdict from an exploratory one.

Effects and standard deviations are those of the paired difference, in nats per token. The standard deviation to plan
with is the upper 80 % limit of the pilot's (`paired.pilot_sd`): with the point estimate every second study would have
less power than it says. Simulated figures have a standard error of at most .005 in power, and are always the same.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy import stats

from infinito import provenance, seeds, stacks, tasks
from infinito.anova import MeanSquares, components, crossed_test, mean_squares
from infinito.paired import Array, minimal_detectable_effect, over_spread, pairs_needed, pilot_sd, power
from infinito.params import Params, Study
from infinito.runs import Run, RunTable
from infinito.sequential import FIRST_ANYTIME_LOOK, anytime_level, obrien_fleming
from infinito.stacks import StackJob
from infinito.storage import canonical, read_json, read_table, sha256, write_json

SCHEMA = "infinito/plan/1"
LEAST_PAIRS = 10  # with fewer, a test at the end gives no verdict
LEAST_PILOT = 8
LARGEST_PAIRS = seeds.POOL_SIZE - 1
ANYTIME_PAIRS = 5_000  # anytime designs that may get larger are not priced: the simulation looks after every pair
LOOKS = 4
EXPERIMENTS = 20_000
POWER_TABLE = (10, 20, 30, 50, 100)
GRID_SEEDS = range(5, 41)  # a crossed test needs 5 seeds of each kind
# what the seeds may be responsible for, where no grid tells: variances of init, data, interaction with residual
TRUTHS = {
    "mostly interaction": (0.2, 0.2, 0.8),
    "init, data and interaction alike": (1.0, 1.0, 1.0),
    "no seed matters by itself": (0.0, 0.0, 1.0),
}
# what makes a run the run it is, beside its arm, data and seeds; the other keys of `train` say how many and where
RUN_SETTINGS = ("trunk", "steps", "batch", "learning_rate", "warmup", "schedule", "weight_decay", "clip_norm")

Looks = list[int] | Literal["anytime"]


# ------------------------------------------------------------------------------------------------ power and sample size


def planned_pairs(sd: float, effect: float, power: float = 0.8, alpha: float = 0.05) -> int | None:
    """Pairs, at least 10, with which a paired t-test finds a mean difference of `effect` with probability `power`.

    None above a million.
    """
    rough = ((stats.norm.isf(alpha / 2) + stats.norm.ppf(power)) * sd / effect) ** 2  # the t-test needs slightly more
    if rough > LARGEST_PAIRS:
        return None
    return max(LEAST_PAIRS, math.ceil(pairs_needed(effect / sd, power, alpha)))


def equivalence_power(sd: float, margin: float, n: int, alpha: float = 0.05) -> float:
    """Chance that n pairs of equally good arms are found equivalent within +-margin by two one-sided t-tests.

    Both tests reject if |mean| < margin - t s / sqrt(n). Given the sample's s that is a normal probability, which is
    averaged over the chi distribution of s: exact (Phillips 1990, there written as Owen's Q function).
    """
    reach, t = margin / sd * math.sqrt(n), stats.t.isf(alpha, n - 1)
    return over_spread(lambda s: 2 * stats.norm.cdf(reach - t * s) - 1, n - 1, reach / t)  # a larger s never rejects


def equivalence_pairs(sd: float, margin: float, power: float = 0.8, alpha: float = 0.05) -> int | None:
    """Fewest pairs, at least 10, for which `equivalence_power` reaches `power`; None above a million."""
    enough = LEAST_PAIRS
    while equivalence_power(sd, margin, enough, alpha) < power:
        enough *= 2
        if enough > LARGEST_PAIRS:
            return None
    too_few = enough // 2
    while enough - too_few > 1:  # the power rises with n
        middle = (enough + too_few) // 2
        reached = equivalence_power(sd, margin, middle, alpha) >= power
        enough, too_few = (middle, too_few) if reached else (enough, middle)
    return max(LEAST_PAIRS, enough)


@dataclass(frozen=True)
class Sequential:
    """A design that may stop early: at most `pairs`; expected pairs if the effect is there, and if there is none."""

    pairs: int
    looks: Looks
    power: float
    expected_effect: float
    expected_null: float


def equal_looks(pairs: int) -> list[int]:
    """Four equally spaced looks, the last at `pairs`."""
    return [math.ceil(pairs * k / LOOKS) for k in range(1, LOOKS + 1)]


def _stops(looks: list[int], shift: float, alpha: float) -> tuple[Array, Array]:
    """20,000 experiments with planned looks: (rejected [R], pairs at the end [R]); true mean / sd = shift."""
    rng = np.random.default_rng(0)
    mean, squares = np.zeros(EXPERIMENTS), np.zeros(EXPERIMENTS)  # squares about the mean
    rejected, end = np.zeros(EXPERIMENTS, bool), np.full(EXPERIMENTS, looks[-1])
    before = 0
    for look, level in zip(looks, obrien_fleming(looks, alpha), strict=True):
        m = look - before
        # mean and sum of squares say all about m normal differences
        step = rng.normal(shift, 1 / math.sqrt(m), EXPERIMENTS) - mean
        squares += step**2 * before * m / look + (rng.chisquare(m - 1, EXPERIMENTS) if m > 1 else 0.0)
        mean += step * m / look
        t = mean / np.sqrt(squares / (look - 1) / look)
        now = ~rejected & (np.abs(t) > stats.t.isf(level / 2, look - 1))
        end[now] = look
        rejected |= now
        before = look
    return rejected, end


def looks_design(sd: float, effect: float, pairs: int, alpha: float = 0.05) -> Sequential:
    """Four looks with the levels of O'Brien & Fleming (`sequential.obrien_fleming`) at `pairs` pairs, by simulation."""
    looks = equal_looks(pairs)
    found, end = _stops(looks, effect / sd, alpha)
    null_end = _stops(looks, 0.0, alpha)[1]
    return Sequential(pairs, looks, float(found.mean()), float(end.mean()), float(null_end.mean()))


def looks_for_power(sd: float, effect: float, power: float = 0.8, alpha: float = 0.05) -> Sequential | None:
    """The smallest `looks_design` (to 1 %) that reaches the power: a little larger than with one test at the end."""
    pairs = planned_pairs(sd, effect, power, alpha)
    if pairs is None:
        return None
    design = looks_design(sd, effect, pairs, alpha)
    while design.power < power:
        pairs += max(1, pairs // 100)
        design = looks_design(sd, effect, pairs, alpha)
    return design


def _anytime_stops(shift: float, alpha: float, pairs: int | None, until: float) -> tuple[Array, int, float] | None:
    """10,000 experiments that stop when the e-value reaches 1 / alpha, looked at after every pair from 5 on.

    They go on to `pairs`, or, where that is None, until a share of `until` has stopped.

    Returns:
        (pairs at the end [R], pairs at most, share that stopped); None where more than ANYTIME_PAIRS are needed.
    """
    rng = np.random.default_rng(0)
    experiments, block = EXPERIMENTS // 2, 50
    total, squares = np.zeros((experiments, 1)), np.zeros((experiments, 1))
    end = np.zeros(experiments, int)  # 0 = goes on
    done, last = 0, pairs or ANYTIME_PAIRS
    while done < last:
        n = np.arange(done + 1, min(done + block, last) + 1)
        z = rng.standard_normal((experiments, len(n)))
        sums, sums_of_squares = total + z.cumsum(1), squares + (z**2).cumsum(1)
        sd = np.sqrt(np.maximum(sums_of_squares - sums**2 / n, 1e-12) / np.maximum(n - 1, 1))
        crossed = np.abs(sums / n + shift) > _anytime_reach(n, alpha) * sd
        first = np.where(crossed.any(1), n[crossed.argmax(1)], 0)
        end = np.where(end > 0, end, first)
        total, squares, done = sums[:, -1:], sums_of_squares[:, -1:], int(n[-1])
        if pairs is None and (end > 0).mean() >= until:
            last = max(LEAST_PAIRS, int(np.sort(end[end > 0])[math.ceil(until * experiments) - 1]))
            break
    else:
        if pairs is None:
            return None
    stopped = (end > 0) & (end <= last)
    return np.where(stopped, end, last), last, float(stopped.mean())


def _anytime_reach(n: NDArray[np.int64], alpha: float) -> Array:
    """Half-width of the anytime interval after n pairs [N], in standard deviations; huge where nothing rejects."""
    level = np.array([anytime_level(int(k), alpha=alpha) if k >= FIRST_ANYTIME_LOOK else 0.0 for k in n])
    return np.where(level > 0, stats.t.isf(level / 2, np.maximum(n - 1, 1)), 1e300) / np.sqrt(n)


def anytime_design(
    sd: float, effect: float, power: float = 0.8, alpha: float = 0.05, pairs: int | None = None
) -> Sequential | None:
    """A look after every pair from 5 on, by the e-value of `sequential.log_e_value`, by simulation.

    Args:
        pairs: stop there at the latest; None: where the power is reached.

    Returns:
        The design; None where it would take more than 5,000 pairs.
    """
    if pairs is not None and pairs > ANYTIME_PAIRS:
        return None
    with_effect = _anytime_stops(effect / sd, alpha, pairs, power)
    if with_effect is None:
        return None
    end, most, reached = with_effect
    without = _anytime_stops(0.0, alpha, most, power)
    assert without is not None
    return Sequential(most, "anytime", reached, float(end.mean()), float(without[0].mean()))


def crossed_power(effect: float, variances: tuple[float, float, float], n: int, alpha: float = 0.05) -> float:
    """Power of `anova.crossed_test` on n init seeds x n data seeds, one run of each arm per cell, by simulation.

    The mean squares of a balanced normal grid are independent chi-squared variables beside an independent normal mean,
    so these are drawn instead of the cells.

    Args:
        effect: true mean difference.
        variances: of the difference, in its squared unit: init seed, data seed, interaction with residual.
        n: seeds of each kind, at least 2.
    """
    rng = np.random.default_rng(0)
    init, data, rest = variances
    df = (n - 1) ** 2
    ms = MeanSquares(
        init=(rest + n * init) * rng.chisquare(n - 1, EXPERIMENTS) / (n - 1),
        data=(rest + n * data) * rng.chisquare(n - 1, EXPERIMENTS) / (n - 1),
        interaction=rest * rng.chisquare(df, EXPERIMENTS) / df,
        within={},
        grand_mean=rng.normal(effect, math.sqrt(init / n + data / n + rest / n**2), EXPERIMENTS),
        shape=(n, n),
    )
    return float((crossed_test(ms, alpha).p < alpha).mean())


def crossed_seeds(
    effect: float, variances: tuple[float, float, float], power: float = 0.8, alpha: float = 0.05
) -> int | None:
    """Fewest seeds of each kind, 5 to 40, with which `crossed_power` reaches `power`; None if 40 x 40 do not."""
    return next((n for n in GRID_SEEDS if crossed_power(effect, variances, n, alpha) >= power), None)


def power_table(
    sd: float, effect: float, margin: float, pairs: int, target: float = 0.8, alpha: float = 0.05
) -> list[dict[str, Any]]:
    """Rows {pairs, power (to find `effect`), equivalence_power (of equal arms), minimal_detectable_effect}."""
    return [
        {
            "pairs": n,
            "power": power(effect / sd, n, alpha),
            "equivalence_power": equivalence_power(sd, margin, n, alpha),
            "minimal_detectable_effect": minimal_detectable_effect(n, sd, target, alpha),
        }
        for n in sorted({*POWER_TABLE, pairs})
    ]


# ------------------------------------------------------------------------------------------------------------ the pilot


@dataclass(frozen=True)
class Pilot:
    """Pairs to plan with: differences d [n] in nats per token, their seeds, and what a run took."""

    d: Array
    design: str
    init_seeds: list[int]
    root: int  # of the pool that the seeds come from
    variances: tuple[float, float, float] | None  # of the difference, from the study's own grid
    grid: str | None  # size of that grid
    seconds: dict[str, float]  # per run of an arm
    device: str
    processor: str


def pilot_jobs(study: Study, data: tasks.Data, n: int) -> list[StackJob]:
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
    candidate, baseline = table.pairs(design)
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
        other = _other_settings(promised, records[stack])
        if other is None and records[stack]["arm"] != promised["arms"][arm]:
            other = f"train.{arm}"
        if other:
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


def _other_settings(promised: dict[str, Any], record: dict[str, Any]) -> str | None:
    """The first key in which a stack was trained otherwise than promised."""
    if record["data_sha256"] != promised["data_sha256"]:
        return "data"
    return next((f"train.{key}" for key, value in promised["train"].items() if record["train"][key] != value), None)


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


# ------------------------------------------------------------------------------------------------------------- the plan


def promise(params: Params) -> dict[str, Any]:
    """The part of params.yaml that a plan fixes, beside pairs, looks and seed."""
    return {
        "study": params.study,
        "arms": {name: arm.model_dump() for name, arm in params.train.arms.items()},
        "train": params.train.model_dump(include=set(RUN_SETTINGS)),
        "metrics": list(params.compare.metrics),
        "alpha": params.compare.alpha,
        "smallest_effect": params.compare.smallest_effect,
    }


def hypotheses(params: Params) -> int:
    """Tests in the family of the verdict: every arm but the baseline, with every metric."""
    return (len(params.train.arms) - 1) * len(params.compare.metrics)


def fresh_root(study: Study) -> int:
    """The first root of pools, from train.seed on, of whose `pairs` this study has not trained any yet.

    A pair that was trained before the plan can't be part of what the plan promises.
    """
    used: set[int] = set()
    for file in [study.runs / "runs.parquet", *sorted(study.scratch.glob("*/runs.parquet"))]:
        if file.is_file():
            table = read_table(file, columns=["design", "init_seed"]).to_pandas()
            used |= {int(x) for x in table.loc[table["design"] == "pairs", "init_seed"]}
    root = study.params.train.seed
    while any(0 <= seed - seeds.pool(root, "pairs", 1)[0] < seeds.POOL_SIZE for seed in used):
        root += 1
    return root


def make(
    study: Study,
    pilot: Pilot,
    *,
    data_sha256: str,
    seed: int,
    created: str,
    workers: int,
    effect: float | None = None,
    power: float = 0.8,
    pairs: int | None = None,
    looks: Literal["none", "obf", "anytime"] = "none",
    price: float | None = None,
) -> dict[str, Any]:
    """The plan of a study, with all that it was chosen from.

    With several hypotheses every figure is for the level alpha / hypotheses, the strictest step of Holm's procedure.

    Args:
        study: whose arms and settings the plan fixes.
        pilot: what is known of spread and duration.
        data_sha256: of the prepared data.
        seed: root of the pools that the confirmatory pairs come from.
        created: date.
        workers: runs that are trained at the same time.
        effect: true difference to be found, nats per token, > 0; None: compare.smallest_effect.
        power: chance to find it.
        pairs: number of pairs, at least 10; None: what the power takes.
        looks: tests before the end: none, obf (4 looks, O'Brien & Fleming) or anytime (e-value).
        price: of one hour of this machine, in any money.

    Returns:
        JSON-ready dict: study, created, arms, train, metrics, alpha, smallest_effect, data_sha256, effect, power,
        pairs, looks ([], list or "anytime"), power_reached (by these pairs, given sd_upper), seed, hypotheses,
        pilot {n, sd, sd_upper, design, seed, init_seeds}, and cost {seconds_per_run {arm: s}, seconds_per_pair,
        workers, measured_on, same_machine, price, hours, core_hours, money, power_table (see `power_table`), designs
        [{design, pairs, runs, power, expected_pairs, expected_pairs_null, hours, core_hours, money, note}]}. Hours and
        money are those of all planned pairs, with nothing stopped early and nothing else running. Of a design that is
        out of reach pairs, runs, hours, core_hours and money are None.

    Raises:
        ValueError: a value that is not allowed; the message begins with the argument's name.
    """
    params = study.params
    family = hypotheses(params)
    alpha, margin = params.compare.alpha / family, params.compare.smallest_effect
    effect = margin if effect is None else effect
    if not (math.isfinite(effect) and effect > 0):
        raise ValueError(f"effect: found {effect}; allowed: a difference above 0, in nats per token")
    if not 0.5 <= power < 1:
        raise ValueError(f"power: found {power}; allowed: 0.5 to below 1")
    if pairs is not None and not LEAST_PAIRS <= pairs <= LARGEST_PAIRS:
        raise ValueError(f"pairs: found {pairs}; allowed: {LEAST_PAIRS} to {LARGEST_PAIRS}")
    if workers < 1:
        raise ValueError(f"workers: found {workers}; allowed: 1 or more")
    if price is not None and not (math.isfinite(price) and price >= 0):
        raise ValueError(f"price: found {price}; allowed: 0 or more, for one hour of this machine")
    if looks != "none" and family > 1:
        raise ValueError(f"looks: found {looks} with {family} hypotheses; allowed: none")
    sd = pilot_sd(pilot.d)
    chosen = _choose(sd, effect, power, alpha, pairs, looks)
    seconds = sum(pilot.seconds.values())
    arms = len(pilot.seconds)

    def priced(cells: int | None) -> dict[str, Any]:
        if cells is None:
            return {"pairs": None, "runs": None, "hours": None, "core_hours": None, "money": None}
        hours = cells * seconds / workers / 3600
        money = None if price is None else price * hours
        total = {"hours": hours, "core_hours": cells * seconds / 3600, "money": money}
        return {"pairs": cells, "runs": arms * cells, **total}

    designs = [row | priced(row["pairs"]) for row in _designs(pilot, sd, effect, margin, power, alpha)]
    planned = {key: value for key, value in priced(chosen.pairs).items() if key not in ("pairs", "runs")}
    return promise(params) | {
        "created": created,
        "data_sha256": data_sha256,
        "effect": effect,
        "power": power,
        "pairs": chosen.pairs,
        "looks": chosen.looks,
        "power_reached": chosen.power,
        "seed": seed,
        "hypotheses": family,
        "pilot": {
            "n": len(pilot.d),
            "sd": float(pilot.d.std(ddof=1)),
            "sd_upper": sd,
            "design": pilot.design,
            "seed": pilot.root,
            "init_seeds": pilot.init_seeds,
        },
        "cost": {
            "seconds_per_run": pilot.seconds,
            "seconds_per_pair": seconds,
            "workers": workers,
            "measured_on": {"device": pilot.device, "processor": pilot.processor},
            "same_machine": (pilot.device, pilot.processor) == this_machine(),
            "price": price,
            **planned,
            "power_table": power_table(sd, effect, margin, chosen.pairs, power, alpha),
            "designs": designs,
        },
    }


def this_machine() -> tuple[str, str]:
    """Kind of device, as in the run table, and processor."""
    return provenance.device_class("cuda" if torch.cuda.is_available() else "cpu"), provenance.processor()


def _choose(sd: float, effect: float, target: float, alpha: float, pairs: int | None, looks: str) -> Sequential:
    """The design that is asked for."""
    fixed = pairs or planned_pairs(sd, effect, target, alpha)
    if fixed is None:
        raise ValueError(f"effect: found {effect:g}, which takes over a million pairs; allowed: a larger one, or pairs")
    if looks == "obf":
        design = looks_design(sd, effect, pairs, alpha) if pairs else looks_for_power(sd, effect, target, alpha)
    elif looks == "anytime":
        design = anytime_design(sd, effect, target, alpha, pairs)
    else:
        design = Sequential(fixed, [], power(effect / sd, fixed, alpha), fixed, fixed)
    if design is None:
        raise ValueError(f"looks: found {looks}; allowed: none or obf where more than {ANYTIME_PAIRS} pairs are needed")
    return design


def _designs(
    pilot: Pilot, sd: float, effect: float, margin: float, target: float, alpha: float
) -> list[dict[str, Any]]:
    """All designs that reach the power, pairs and grids, without their price."""

    def row(design: str, found: Sequential | None, note: str) -> dict[str, Any]:
        return {
            "design": design,
            "pairs": found and found.pairs,
            "power": found and found.power,
            "expected_pairs": found and found.expected_effect,
            "expected_pairs_null": found and found.expected_null,
            "note": note,
        }

    def at_the_end(pairs: int | None, power: Callable[[int], float]) -> Sequential | None:
        return None if pairs is None else Sequential(pairs, [], power(pairs), pairs, pairs)

    fixed = at_the_end(planned_pairs(sd, effect, target, alpha), lambda n: power(effect / sd, n, alpha))
    looks = looks_for_power(sd, effect, target, alpha)
    anytime = anytime_design(sd, effect, target, alpha)
    equal = at_the_end(equivalence_pairs(sd, margin, target, alpha), lambda n: equivalence_power(sd, margin, n, alpha))
    at = f", at {', '.join(map(str, looks.looks))} pairs" if looks else ""
    limit = "" if anytime else f", more than {ANYTIME_PAIRS} pairs"
    rows = [
        row("pairs, one test at the end", fixed, "paired t"),
        row("pairs, planned looks", looks, f"O'Brien-Fleming{at}"),
        row("pairs, a look at any time", anytime, f"e-value{limit}"),
        row("pairs, to show equivalence", equal, f"two one-sided tests within {margin:g}, arms equal"),
    ]
    shares = {f"as in the study's own {pilot.grid} grid": pilot.variances} if pilot.variances else TRUTHS
    for name, parts in shares.items():
        # both designs get the same total variance, whatever the grid's own total
        init, data, rest = (part / sum(parts) for part in parts)
        variances = init * sd**2, data * sd**2, rest * sd**2
        n = crossed_seeds(effect, variances, target, alpha)
        size = f"{n} x {n}" if n else f"more than {GRID_SEEDS[-1]} x {GRID_SEEDS[-1]}"
        grid = Sequential(n * n, [], crossed_power(effect, variances, n, alpha), n * n, n * n) if n else None
        note = f"{name}: init / data / rest {100 * init:.0f} / {100 * data:.0f} / {100 * rest:.0f} % of the variance"
        rows.append(row(f"grid, {size} seeds", grid, note))
    return rows


def plan_sha256(plan: dict[str, Any]) -> str:
    """The name of a plan: hash of its canonical JSON, so the order of keys does not matter."""
    return sha256(canonical(plan))


def write(file: Path, plan: dict[str, Any], *, replace: bool = False) -> tuple[dict[str, Any], str]:
    """Write a plan, whole or not at all. A plan that promises the same keeps its date, its prices and so its hash.

    Returns:
        (the plan that is in the file now, its hash).

    Raises:
        ValueError: the file holds another plan, and `replace` is not set; or it is no plan.
    """
    if file.exists() and not replace:
        old, old_sha256 = read(file)
        changed = next((key for key in plan if key not in ("created", "cost") and old[key] != plan[key]), None)
        if changed is None:
            return old, old_sha256
        raise ValueError(
            f"{file}: holds another plan, of {old['created']}, which differs in {changed}; allowed: --replace, after "
            "which no verdict can be called planned by the old one"
        )
    name = plan_sha256(plan)
    write_json(file, {"schema": SCHEMA, "sha256": name, "plan": plan})
    return plan, name


def read(file: Path) -> tuple[dict[str, Any], str]:
    """A plan and its hash.

    Raises:
        ValueError: no such file, not JSON, not a plan, or changed after it was hashed.
    """
    if not file.exists():
        raise ValueError(f"{file}: no such file; infinito plan writes it")
    content = read_json(file)
    if not isinstance(content, dict) or content.get("schema") != SCHEMA or not isinstance(content.get("plan"), dict):
        raise ValueError(f"{file}: not a plan ({SCHEMA}); infinito plan writes one")
    plan = content["plan"]
    if content.get("sha256") != plan_sha256(plan):
        raise ValueError(
            f"{file}: was changed after it was written: its content has the hash {plan_sha256(plan)[:16]}.., "
            f"it says {str(content.get('sha256'))[:16]}.."
        )
    missing = _PLAN_KEYS - plan.keys()
    if missing:
        raise ValueError(f"{file}: plan.{min(missing)}: missing key; infinito plan writes it")
    return plan, content["sha256"]


_PLAN_KEYS = {
    *("study", "created", "arms", "train", "metrics", "alpha", "smallest_effect", "data_sha256"),
    *("effect", "power", "pairs", "looks", "seed", "pilot", "cost"),
}


# ----------------------------------------------------------------------------------------------- planned or exploratory


def status(study: Study, pairs: pd.DataFrame, records: Mapping[str, dict[str, Any]]) -> dict[str, str | None]:
    """Is the verdict on these pairs the one that was planned?

    Args:
        study: whose params name the plan by its hash (train.plan) and whose folder holds it.
        pairs: the analysed pairs or their runs, with columns init_seed and data_seed.
        records: stack.json of every stack that these runs come from, both arms, by its id.

    Returns:
        {status: planned or exploratory, reason: one sentence, plan_sha256: the plan's hash or None}.

    Raises:
        ValueError: see `registered`.
    """
    plan, named = registered(study), study.params.train.plan
    if plan is None or named is None:
        reason = "No plan was registered before the runs: train.plan is null."
        return {"status": "exploratory", "reason": reason, "plan_sha256": None}
    seed_pairs = sorted({(int(i), int(j)) for i, j in zip(pairs["init_seed"], pairs["data_seed"], strict=True)})
    deviation = _deviation(plan, named, study.params, seed_pairs, [*records.values()])
    if deviation is not None:
        return {"status": "exploratory", "reason": deviation, "plan_sha256": named}
    reason = (
        f"The plan of {plan['created']} was registered before the first of the {len(seed_pairs)} pairs was trained, "
        "and nothing it fixes was changed."
    )
    return {"status": "planned", "reason": reason, "plan_sha256": named}


def changed_setting(plan: dict[str, Any], params: Params) -> str | None:
    """The first thing that a plan fixes and params.yaml has otherwise."""
    now = promise(params) | {key: getattr(params.train, key) for key in ("pairs", "looks", "seed")}
    for key, value in now.items():
        if plan[key] != value:
            parts = {**plan[key], **value} if isinstance(value, dict) else {}
            return ".".join([key, *[part for part in parts if plan[key].get(part) != value.get(part)][:1]])
    return None


def registered(study: Study) -> dict[str, Any] | None:
    """The plan that train.plan names; None if it is null.

    Raises:
        ValueError: train.plan is set, but plan.json is missing, is no plan, was changed, or has another hash.
    """
    named = study.params.train.plan
    if named is None:
        return None
    plan, found = read(study.plan)
    if found != named:
        raise ValueError(f"{study.plan}: is the plan {found[:16]}.., but train.plan in params.yaml is {named[:16]}..")
    return plan


def _deviation(
    plan: dict[str, Any],
    name: str,
    params: Params,
    seed_pairs: list[tuple[int, int]],
    records: list[dict[str, Any]],
) -> str | None:
    """The first way in which an analysis is not the planned one, as a sentence."""
    changed = changed_setting(plan, params)
    if changed is not None:
        return f"{changed} is not as planned: params.yaml and the plan differ in it."
    if not records:
        return "No stack of the pairs is on record."
    for record in records:
        other = _other_settings(plan, record)
        if other is None and record["arm"] not in plan["arms"].values():
            other = "arm"
        if other:
            return f"Stack {record['name']} was trained with another {other} than planned."
    n = len(seed_pairs)
    allowed = n <= plan["pairs"] if plan["looks"] == "anytime" else n in [*plan["looks"], plan["pairs"]]
    if not allowed:
        return f"{n} pairs were analysed, {plan['pairs']} were planned."
    if seed_pairs != [(seed, seed) for seed in seeds.pool(plan["seed"], "pairs", n)]:
        return f"The pairs analysed are not the first {n} of the pool that was planned."
    if {seed for pair in seed_pairs for seed in pair} & set(plan["pilot"]["init_seeds"]):
        return "Seeds of the pilot are among the pairs analysed."
    late = [record["name"] for record in records if record["protocol_sha256"] != name]
    if late:
        return f"{len(late)} of {len(records)} stacks, {late[0]} first, were not trained under this plan."
    return None
