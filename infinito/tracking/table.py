"""One table of many runs: grouped by everything but the seeds, and never a mean without its n and interval.

Runs of equal seeds are one draw, not several: their mean counts once. Where runs share some of their seeds and not
others, as in a grid, they are not independent, and a t interval would be too narrow: there is none.
"""

import math
import operator
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from infinito.readers.direction import direction
from infinito.statistics.paired import mean_estimate
from infinito.tracking.parameters import scalar
from infinito.tracking.record import FINISHED, RUNNING, Json, Record, Value

OWN = ("id", "name", "status", "began", "arm", "design", "code", "dirty")
# parameters that say where something is written or what it is called: every run has another one, and means the same
PLACES = re.compile(
    r"(^|[._])(out|output|outputs|out_?dir|output_?dir|log_?dir|save_?(dir|path|to)|run_?(name|id|dir)|work_?dir|"
    r"exp_?(name|dir)|metrics(_file|_path|_out)?|result(s)?(_dir|_file|_path)?|checkpoint_?dir|ckpt_?dir)$",
    re.IGNORECASE,
)
COMPARED: dict[str, Callable[[Any, Any], bool]] = {
    "!=": operator.ne, "<=": operator.le, ">=": operator.ge, "=": operator.eq, "<": operator.lt, ">": operator.gt,
}  # fmt: skip


def values(record: Record) -> dict[str, Value]:
    """All that a run can be chosen and grouped by, by its name."""
    return {**record.tags, **record.params, **record.seeds, **{key: getattr(record, key) for key in OWN}}


def where(records: Sequence[Record], conditions: str) -> list[Record]:
    """The runs that meet all conditions: "lr=0.1 model~gpt steps>=100 arm!=baseline"; ~ is: contains.

    Raises:
        ValueError: no condition; a name that no run has.
    """
    for condition in conditions.split():
        match = re.fullmatch(r"([^=!<>~]+)(!=|<=|>=|=|<|>|~)(.*)", condition)
        if match is None:
            raise ValueError(
                f"--where: found {condition!r}; allowed: NAME=VALUE, or !=, <, >, <=, >=, and ~ (contains)"
            )
        name, how, text = match.groups()
        name = _known(records, name, "where")
        wanted = scalar(text)
        records = [record for record in records if _meets(values(record).get(name), how, wanted, text)]
    return list(records)


def _meets(value: Value, how: str, wanted: Value, text: str) -> bool:
    if how == "~":
        return value is not None and text.lower() in str(value).lower()
    if how in ("=", "!="):
        return COMPARED[how](value, wanted) or (how == "=" and str(value) == text)
    if isinstance(value, bool | None) or isinstance(value, str) != isinstance(wanted, str):
        return False
    return COMPARED[how](value, wanted)


def _known(records: Sequence[Record], name: str, flag: str) -> str:
    """The whole name that is meant; its last part is enough where only one has it."""
    names = list(dict.fromkeys(key for record in records for key in values(record)))
    ends = [key for key in names if key.rpartition(".")[2] == name]
    if name in names or not names:
        return name
    if len(ends) == 1:
        return ends[0]
    raise ValueError(f"--{flag}: found {name!r}; allowed: {', '.join(ends or names)}")


def metrics(records: Sequence[Record], wanted: Sequence[str]) -> list[str]:
    """The metrics of the table: those wanted, or those of a test set whose names say which way they are better.

    Raises:
        ValueError: no run has a figure of that name.
    """
    known = list(dict.fromkeys(name for record in records for name in record.metrics))
    for name in wanted:
        if name not in known:
            raise ValueError(f"--metric: found {name!r}; allowed: {', '.join(known) or 'none, as no run has figures'}")
    if wanted:
        return list(dict.fromkeys(wanted))
    told = [name for name in known if direction(name)] or known
    return [name for name in told if re.search(r"(^|[._/])test([._/]|$)", name)] or told


def groups(
    records: Sequence[Record], chosen: Sequence[str], by: Sequence[str] = (), but: Sequence[str] = ()
) -> list[Json]:
    """The table, a group and metric a row.

    Args:
        records: all that count, in any state.
        chosen: metrics.
        by: names to group by, instead of all settings but the seeds.
        but: names to leave out of them.

    Returns:
        settings (those that are not the same in all groups), metric, n (independent draws of the seeds), runs, value,
        ci_low, ci_high, sd, best (with the id of its run), failed, running, dirty, codes, note (why there is no
        interval, or what to beware of).
    """
    by = [_known(records, name, "by") for name in by]
    left = {_known(records, name, "but") for name in but}
    settings = [_settings(record, by, left) for record in records]
    found: dict[tuple[Any, ...], list[Record]] = defaultdict(list)
    names = list(dict.fromkeys(name for entry in settings for name in entry))
    for record, entry in zip(records, settings, strict=True):
        found[tuple(_spelled(entry.get(name)) for name in names)].append(record)
    telling = [place for place, name in enumerate(names) if name in by or len({key[place] for key in found}) > 1]
    rows = []
    for key, runs in found.items():
        # the name alone tells what it is, where nothing else does
        shown = {names[place]: key[place] for place in telling} or {"name": runs[0].name}
        rows += [{"settings": shown, **_row(runs, metric)} for metric in chosen or [""]]
    return rows


def _spelled(value: Value) -> Value | str:
    """1 and 1.0 are one setting, 1 and true are two."""
    return str(value) if isinstance(value, bool) else float(value) if isinstance(value, int) else value


def _settings(record: Record, by: Sequence[str], left: set[str]) -> dict[str, Value]:
    if by:
        known = values(record)
        return {name: known.get(name) for name in by}
    params = {name: value for name, value in record.params.items() if not PLACES.search(name) and name not in left}
    own: dict[str, Value] = {"name": record.name, "arm": record.arm, "design": record.design}
    return {name: value for name, value in own.items() if name not in left} | params


def _row(runs: Sequence[Record], metric: str) -> Json:
    done = [
        record for record in runs if record.status == FINISHED and math.isfinite(record.metrics.get(metric, math.nan))
    ]
    running = sum(record.status == RUNNING for record in runs)
    draws: dict[tuple[Any, ...], list[float]] = defaultdict(list)
    for record in done:
        # a run that names no seed is a draw of its own
        draws[tuple(sorted(record.seeds.items())) or (record.id,)].append(record.metrics[metric])
    means = np.array([np.mean(figures) for figures in draws.values()])
    notes = list(_notes(done, draws))
    independent = len(means) > 1 and not _crossed([dict(key) for key in draws if key and isinstance(key[0], tuple)])
    estimate = mean_estimate(means, 0.05 if independent else 0) if len(means) else {}
    way = direction(metric)
    best = (
        min(done, key=lambda record: record.metrics[metric] * (-1 if way == "higher" else 1)) if done and way else None
    )
    return {
        "metric": metric,
        "n": len(means),
        "runs": len(runs),
        "value": estimate.get("value"),
        "ci_low": estimate.get("ci_low"),
        "ci_high": estimate.get("ci_high"),
        "sd": float(means.std(ddof=1)) if len(means) > 1 else None,
        "best": best.metrics[metric] if best else None,
        "best_run": best.id if best else None,
        "failed": len(runs) - len(done) - running,
        "running": running,
        "dirty": sum(bool(record.dirty) for record in runs),
        "codes": len({record.code for record in runs}),
        "note": "; ".join(notes),
    }


def _notes(done: Sequence[Record], draws: dict[tuple[Any, ...], list[float]]) -> Iterable[str]:
    named = [dict(key) for key in draws if key and isinstance(key[0], tuple)]
    if len(draws) == 1:
        yield "1 run: no interval" if len(done) == 1 else f"{len(done)} runs of the same seeds: no interval"
    elif _crossed(named):
        yield "runs share seeds: no interval"
    elif len(done) > len(draws):
        yield f"{len(done) - len(draws)} runs repeat seeds"
    if done and not named:
        yield "no seed is known"
    if len({record.code for record in done}) > 1:
        yield f"{len({record.code for record in done})} states of the code (--by code)"


def _crossed(seeds: Sequence[dict[str, Value]]) -> bool:
    """Whether a seed occurs in several draws but not in all of them."""
    for name in dict.fromkeys(name for entry in seeds for name in entry):
        different = len({_spelled(entry.get(name)) for entry in seeds})
        if 1 < different < len(seeds):
            return True
    return False


def each(records: Iterable[Record]) -> list[Json]:
    """A run a row, flat: what `infinito judge` reads; dots tell figures from settings of the same name."""
    rows = []
    for record in records:
        row: Json = {"run_id": record.id, "arm": record.arm or record.name, "status": record.status.lower()}
        row |= {"design": record.design} if record.design else {}
        row |= record.params | record.seeds
        row |= {(f"metrics.{name}" if name in row else name): value for name, value in record.metrics.items()}
        rows.append(
            row | {"dirty": record.dirty, "code": record.code, "began": record.began, "seconds": record.seconds}
        )
    return rows
