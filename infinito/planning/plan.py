"""The plan of a study: how many pairs, with what power, how long and at what cost.

It is made from a pilot, before the confirmatory pairs are trained, and then registered (`preregistration`). The
standard deviation to plan with is the upper 80 % limit of the pilot's (`paired.pilot_sd`): with the point estimate
every second study would have less power than it says.
"""

import math
from collections.abc import Callable
from typing import Any, Literal

from infinito import machine, seeds
from infinito.params import Params
from infinito.planning.ledger import Ledger
from infinito.planning.pilot import Pilot
from infinito.planning.preregistration import promise
from infinito.runs import provenance
from infinito.statistics.paired import pilot_sd, power
from infinito.statistics.samplesize import (
    ANYTIME_PAIRS,
    GRID_SEEDS,
    LARGEST_PAIRS,
    LEAST_PAIRS,
    Sequential,
    anytime_design,
    crossed_power,
    crossed_seeds,
    equivalence_pairs,
    equivalence_power,
    looks_design,
    looks_for_power,
    planned_pairs,
    power_table,
)
from infinito.storage import read_table
from infinito.study import Study

# what the seeds may be responsible for, where no grid tells: variances of init, data, interaction with residual
TRUTHS = {
    "mostly interaction": (0.2, 0.2, 0.8),
    "init, data and interaction alike": (1.0, 1.0, 1.0),
    "no seed matters by itself": (0.0, 0.0, 1.0),
}


def hypotheses(params: Params) -> int:
    """Tests in the family of the verdict: every arm but the baseline, with every metric."""
    return (len(params.train.arms) - 1) * len(params.compare.metrics)


def fresh_root(study: Study) -> int:
    """The first root of pools, from train.seed on, of whose `pairs` this study has not trained any yet.

    A pair that was trained before the plan can't be part of what the plan promises. The ledger knows those of which
    nothing is left.
    """
    ledger = Ledger.read(study.ledger)
    begun = {entry["file"]["plan"]["seed"] for entry in ledger.plans if ledger.of("began", entry["plan"])}
    pilots = [entry["file"]["plan"]["pilot"] for entry in ledger.plans]
    begun |= {
        pilot["seed"] for pilot in pilots if pilot["design"] == "pairs"
    }  # planned from an earlier verdict's pairs
    used: set[int] = set()
    for file in [study.runs / "runs.parquet", *sorted(study.scratch.glob("*/runs.parquet"))]:
        if file.is_file():
            table = read_table(file, columns=["design", "init_seed"]).to_pandas()
            used |= {int(x) for x in table.loc[table["design"] == "pairs", "init_seed"]}
    root = study.params.train.seed
    while root in begun or any(0 <= seed - seeds.pool(root, "pairs", 1)[0] < seeds.POOL_SIZE for seed in used):
        root += 1
    return root


def make(
    study: Study,
    pilot: Pilot,
    *,
    data_sha256: str,
    unit: str,
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
        unit: of the metric, for messages.
        seed: root of the pools that the confirmatory pairs come from.
        created: date.
        workers: runs that are trained at the same time.
        effect: true difference to be found, in that unit, > 0; None: compare.smallest_effect.
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
        raise ValueError(f"effect: found {effect}; allowed: a difference above 0, in {unit}")
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
    return provenance.device_class(provenance.this_device()), machine.processor()


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
