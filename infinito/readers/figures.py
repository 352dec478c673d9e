"""One figure a run: of curves their end, of runs those that are finished, of several under one name none."""

from typing import cast

import numpy as np
import pandas as pd

from infinito.readers.results import Options, Results, finished

UNIT = ["arm", "task", "metric"]


def figures(results: Results, options: Options) -> tuple[pd.DataFrame, list[str]]:
    """What is judged.

    Args:
        results: what was read.
        options: at, last, best_by: which part of a curve counts.

    Returns:
        A run a row: arm, task, metric, run, seed, value (NaN where it is missing or the run did not finish), status;
        and what must be said.

    Raises:
        ValueError: two figures for one run, by its name; a step that no run has.
    """
    table, remarks = results.table, []
    done = finished(table["status"])
    if not done.all():
        remarks.append(_unfinished(table[~done], results.pairing or "seed"))
        table = table.assign(value=table["value"].where(done))
    table = table.assign(run=table["run"].where(table["run"] != "", table["seed"]))
    identity = [*UNIT, "seed" if (table["seed"] != "").all() else "run"]
    if (table[identity[-1]] == "").all():
        if table["step"].notna().any():
            raise ValueError("found curves without runs; say what tells the runs apart: --run COLUMN or --seed COLUMN")
        table = table.assign(run=table.groupby(UNIT).cumcount().astype(str))
        identity = [*UNIT, "run"]
        remarks.append("No column names the runs: every row counts as a run of its own.")
    if not table.duplicated(identity).any():  # one figure a run: its step says only where the run ended
        table = table.assign(step=np.nan)
    if table["step"].notna().any():
        table, more = _ends(table, identity, options)
        remarks += more
    table, more = _once(table, identity)
    remarks += more
    missing = table[table["value"].isna() & finished(table["status"])]
    if len(missing):
        remarks.append(f"{_counted(missing)} without a figure, not counted in any mean.")
    diverged = table[np.isinf(table["value"])]
    if len(diverged):
        remarks.append(f"{_counted(diverged)} diverged (infinite), not counted in any mean.")
        status = table["status"].mask(np.isinf(table["value"]), "diverged")
        table = table.assign(value=table["value"].replace([np.inf, -np.inf], np.nan), status=status)
    return table[[*UNIT, "run", "seed", "value", "status"]].reset_index(drop=True), remarks


def _counted(rows: pd.DataFrame) -> str:
    by = rows.drop_duplicates(["arm", "task", "run", "seed"]).groupby("arm", sort=False).size()
    return "Runs " + ", ".join(f"{arm or 'all'}: {n}" for arm, n in by.items())


def _unfinished(rows: pd.DataFrame, what: str) -> str:
    """Which runs are not counted, and what they say of themselves."""
    rows = rows.drop_duplicates(["arm", "task", "run", "seed", "status"])
    said = []
    for status in rows["status"].unique():
        group = rows[rows["status"] == status]
        names = [
            " ".join(filter(None, (row.arm, row.task, f"{what} {row.seed}" if row.seed else row.run)))
            for row in group.itertuples()
        ]
        said.append(f"{len(group)} {status} ({', '.join(names[:4])}{', ...' if len(names) > 4 else ''})")
    return f"Runs that did not finish, not counted: {'; '.join(said)}."


def _ends(table: pd.DataFrame, identity: list[str], options: Options) -> tuple[pd.DataFrame, list[str]]:
    """The part of every curve that counts; figures of metrics without steps are no curves, and stay as they are."""
    stepped = table.groupby(["task", "metric"])["step"].transform("count") > 0
    curves = table[stepped].dropna(subset=["step"])
    # a run that has a figure without a step, and no curve: its final one
    bare = stepped & table["step"].isna() & ~table.set_index(identity).index.isin(curves.set_index(identity).index)
    single = table[~stepped | bare]
    curves, remarks = _without_repeats(curves, [*identity, "step"])
    alive, more = _survivors(curves, identity)
    remarks += more
    if options.at is not None:
        first, end = options.at
        chosen = alive[alive["step"].between(first, end)]
        if chosen.empty:
            raise ValueError(
                f"--at: found no figure there; allowed: {alive['step'].min():g} to {alive['step'].max():g}"
            )
        span = f"the figure at step {first:g}" if first == end else f"the mean of the steps {first:g} to {end:g}"
        found, said = _mean(chosen, identity), [f"Of every curve {span}."]
    elif options.best_by:
        by = alive[alive["metric"] == options.best_by]
        if by.empty:
            raise ValueError(f"--best-by: found {options.best_by!r}; allowed: {', '.join(alive['metric'].unique())}")
        found, said = _best(alive, by, identity, options.best_by)
    else:
        found, said = _last(alive, identity, options.last or 1)
    lost = curves.drop_duplicates(identity).merge(found[identity], on=identity, how="left", indicator=True)
    lost = lost[lost["_merge"] == "left_only"].drop(columns="_merge").assign(value=np.nan)
    return pd.concat([single, found, lost], ignore_index=True), [*remarks, *said]


def _survivors(curves: pd.DataFrame, identity: list[str]) -> tuple[pd.DataFrame, list[str]]:
    """The figures of curves, less those of runs that have none from some step on at which other runs have one."""
    alive, lost = curves.dropna(subset=["value"]), curves[curves["value"].isna()]
    if lost.empty:
        return alive, []
    lost = lost.merge(alive[["task", "metric", "step"]].drop_duplicates(), on=["task", "metric", "step"])
    ends = alive.groupby(identity)["step"].max().rename("end").reset_index()
    lost = lost.merge(ends, on=identity, how="left")
    gone = lost[~(lost["step"] < lost["end"])].drop_duplicates(identity)
    if gone.empty:
        return alive, []
    kept = ~alive.set_index(identity).index.isin(gone.set_index(identity).index)
    return alive[kept], [f"{_counted(gone)} have no figure from some step on (diverged?), and so none that counts."]


def _last(alive: pd.DataFrame, identity: list[str], number: int) -> tuple[pd.DataFrame, list[str]]:
    """The mean of the last figures of every run.

    Where all runs of an arm end at the same step, as they were meant to, up to every run's own end; else up to the step
    at which the shortest run ends. Every task and metric is a matter of its own.
    """
    said: dict[tuple[str, str], str] = {}
    limits = []
    what = "its last figure" if number == 1 else f"the mean of its last {number} figures"
    ends = alive.groupby(identity)["step"].max()
    for key, here in ends.groupby(level=["task", "metric"], sort=False):
        place = cast(tuple[str, str], key)
        of_arms = here.groupby(level="arm").agg(["min", "max"])
        limit = np.inf
        if (of_arms["min"] < of_arms["max"]).any():
            limit = here.min()
            said[place] = (
                f"The runs stop at different steps, between {here.min():g} and {here.max():g}; of every run {what} up "
                f"to step {here.min():g}, where the shortest one ends."
            )
        elif of_arms["max"].nunique() > 1:
            steps = ", ".join(f"{arm} at {end:g}" for arm, end in of_arms["max"].items())
            said[place] = f"The arms stop at different steps ({steps}); of every run {what}."
        else:
            said[place] = f"Of every curve {what}, up to step {here.max():g}."
        limits.append((*place, limit))
    until = pd.DataFrame(limits, columns=["task", "metric", "until"])
    chosen = alive.merge(until, on=["task", "metric"])
    chosen = chosen[chosen["step"] <= chosen["until"]].sort_values("step", kind="stable")
    kept = chosen.drop_duplicates([*identity, "step"]).groupby(identity).tail(number)[[*identity, "step"]]
    return _mean(chosen.merge(kept, on=[*identity, "step"]), identity), _by_place(said)


def _by_place(said: dict[tuple[str, str], str]) -> list[str]:
    """A sentence that holds everywhere once, else each with its task and metric."""
    sentences = list(dict.fromkeys(said.values()))
    if len(sentences) == 1:
        return sentences
    places: dict[str, list[str]] = {}
    for place, sentence in said.items():
        places.setdefault(sentence, []).append(" ".join(filter(None, place)))
    return [
        f"{', '.join(names[:4])}{f' and {len(names) - 4} more' if len(names) > 4 else ''}: {sentence}"
        for sentence, names in places.items()
    ]


def _mean(chosen: pd.DataFrame, identity: list[str]) -> pd.DataFrame:
    """Of every run the mean of its figures, none of which may be there in two ways."""
    _clear(chosen, [*identity, "step"])
    rest = {key: (key, "first") for key in ("run", "seed", "status") if key not in identity}
    return chosen.groupby(identity, as_index=False, sort=False).agg(
        value=("value", "mean"), step=("step", "max"), **rest
    )


def _best(alive: pd.DataFrame, by: pd.DataFrame, identity: list[str], name: str) -> tuple[pd.DataFrame, list[str]]:
    """The step at which another metric is best, of every run."""
    from infinito.readers.direction import direction

    keys = [key for key in identity if key != "metric"]
    if direction(name) is None:
        raise ValueError(f"--best-by: found {name!r}, whose name does not say which way it is better")
    higher = direction(name) == "higher"
    order = by.sort_values("value", ascending=not higher, kind="stable").drop_duplicates(keys)
    chosen = alive.merge(order[[*keys, "step"]], on=[*keys, "step"])
    said = f"Of every curve the step at which {name} is best ({'highest' if higher else 'lowest'})."
    return _clear(chosen, identity), [said]


def _without_repeats(table: pd.DataFrame, keys: list[str]) -> tuple[pd.DataFrame, list[str]]:
    """Without rows that say the same twice; those that say two things are named, and stay."""
    twice = table.duplicated(keys, keep=False)
    if not twice.any():
        return table, []
    remarks = []
    rows = table[twice]
    name = keys[-2]
    kinds = rows.groupby(keys)["value"].nunique(dropna=False)
    differing = kinds[kinds > 1].reset_index()
    for arm, group in differing.groupby("arm"):
        which = ", ".join(sorted(group[name].unique()))
        remarks.append(
            f"{arm}: two different figures for {len(group)} pairs of {name} and step ({name} {which}, steps up to "
            f"{group['step'].max():g}): two runs under one name."
        )
    return table.drop_duplicates([*keys, "value"]), remarks


def _clear(table: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """The rows that count.

    Raises:
        ValueError: two different figures for one of them.
    """
    twice = table[table.duplicated(keys, keep=False)]
    if len(twice):
        raise ValueError(_ambiguous(twice, keys))
    return table


def _once(table: pd.DataFrame, identity: list[str]) -> tuple[pd.DataFrame, list[str]]:
    """Every run once; the same figure twice is said, two different ones are refused."""
    again = table.duplicated([*identity, "value"])
    remarks = []
    if again.any():
        names = table[again].drop_duplicates(identity)
        shown = ", ".join(f"{row.arm} {getattr(row, identity[-1])}".strip() for row in names.head(4).itertuples())
        remarks.append(f"{int(again.sum())} rows are there twice with the same figure ({shown}); counted once.")
        table = table[~again]
    known = table.dropna(subset=["value"])
    twice = known[known.duplicated(identity, keep=False)]
    if len(twice):
        raise ValueError(_ambiguous(twice, identity))
    lost = table["value"].isna() & table.duplicated(identity, keep=False)
    return table[~(lost & table.set_index(identity).index.isin(known.set_index(identity).index))], remarks


def _ambiguous(twice: pd.DataFrame, keys: list[str]) -> str:
    first = twice.iloc[0]
    same = twice[(twice[keys] == first[keys]).all(axis=1)]
    where = ", ".join(f"{key} {first[key]}" for key in keys if str(first[key]) != "")
    apart = "tell them apart (--run COLUMN)" if "run" in keys else "say what differs (--task COLUMN, --arm COLUMN)"
    values = " and ".join(f"{value:g}" for value in same["value"].head(2))
    return f"found {values} for {where}: two runs under one name; {apart}, or take one out"
