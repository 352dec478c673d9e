"""Which run is compared with which: the pairs of two arms, or the reason why there are none.

A pair is one run of each arm with the same seeds, and all else that could tell them apart is the same too: the data,
the evaluation set, the examples seen, the steps, the processor. What differs is the arm, and nothing but the arm.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

SEEDS = ["init_seed", "data_seed", "noise_seed", "rep"]
SHARED = ["data_sha256", "evaluation_sha256", "train_examples", "steps", "device"]  # by the two runs of a pair
# by all runs of an arm; not across the arms: a user's own network file is part of the code of its arm only
ONE_PER_ARM = {"arm_sha256": "configuration", "code_sha256": "version of the code"}
NEVER_EMPTY = ["run_id", *SEEDS, *SHARED, *ONE_PER_ARM]
NAMED = 3  # run ids in a message


def paired_runs(
    candidate: pd.DataFrame, baseline: pd.DataFrame, source: str, unequal: Sequence[str] = ()
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both arms row by row with the same seeds, in the order of the seeds; the order of the given rows is irrelevant.

    Args:
        candidate: runs of the candidate, one row each.
        baseline: runs of the baseline.
        source: the file that they come from, for messages.
        unequal: columns of SHARED in which the recipes of the arms are meant to differ (`Train.unequal`).

    Returns:
        (candidate, baseline), all columns kept.

    Raises:
        ValueError: a column or a value is missing, an arm has no runs, a run occurs twice or in both arms, an arm has
            two configurations or two versions of the code, a loss is not finite, a run lacks its partner, or the two
            runs of a pair differ in a column of SHARED. The message names the runs, the column and what is allowed.
    """
    candidate, baseline = _arm("candidate", candidate, source), _arm("baseline", baseline, source)
    both = candidate.loc[candidate["run_id"].isin(baseline["run_id"]), "run_id"]
    if len(both):
        raise _refusal(source, both, "run_id", "candidate and baseline", "one of them, no run is its own partner")
    _check_partners(candidate, baseline, source)
    for column in (column for column in SHARED if column not in unequal):
        mine, others = candidate[column].to_numpy(), baseline[column].to_numpy()
        differ = np.flatnonzero(mine != others)
        if len(differ):
            first = differ[0]
            ids = [candidate["run_id"][first], baseline["run_id"][first]]
            allowed = f"the same in both runs of a pair ({len(differ)} pairs differ)"
            raise _refusal(source, ids, column, f"{mine[first]} and {others[first]}", allowed)
    return candidate, baseline


def _refusal(source: str, ids: Iterable[Any], column: str, found: object, allowed: str) -> ValueError:
    names = [str(x) for x in ids]
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    runs = f"run{'s' if len(names) > 1 else ''} {', '.join(names[:NAMED])}{more}"
    return ValueError(f"{source}: {runs}: {column}: found {found}; allowed: {allowed}")


def _arm(arm: str, frame: pd.DataFrame, source: str) -> pd.DataFrame:
    """The runs of an arm in the order of their seeds, after all that can be checked without the other arm."""
    missing = [column for column in [*NEVER_EMPTY, "test_loss"] if column not in frame.columns]
    if missing:
        raise ValueError(f"{source}: {arm}: found no column {', '.join(missing)}; allowed: run tables that have it")
    if frame.empty:
        raise ValueError(f"{source}: {arm}: found 0 runs; allowed: at least 1")
    for column in NEVER_EMPTY:
        absent = frame[column].isna()
        if absent.any():
            raise _refusal(source, frame.loc[absent, "run_id"], column, "no value", "one value per run")
    frame = frame.sort_values([*SEEDS, "run_id"], ignore_index=True)
    for run_id, same in frame.groupby("run_id", observed=True):
        if len(same) > 1:
            raise _refusal(source, [run_id], "run_id", f"{len(same)} times in the {arm}", "once")
    for column, what in ONE_PER_ARM.items():
        first = frame.drop_duplicates(column)
        if len(first) > 1:
            values = f"{len(first)} values in the {arm}, {' and '.join(map(str, first[column][:2]))}"
            raise _refusal(source, first["run_id"], column, values, f"exactly one {what} per arm")
    for seeds, same in frame.groupby(SEEDS):
        if len(same) > 1:
            found = f"{_named(seeds)} {len(same)} times in the {arm}"
            raise _refusal(source, same["run_id"], "seeds", found, "once per arm")
    loss = frame["test_loss"].to_numpy(float, na_value=np.nan)
    bad = ~np.isfinite(loss)
    if bad.any():
        allowed = "a finite number, a diverged run scores the declared cap"
        raise _refusal(source, frame.loc[bad, "run_id"], "test_loss", loss[bad][0], allowed)
    return frame


def _named(seeds: tuple[Any, ...]) -> str:
    return ", ".join(f"{name} {value}" for name, value in zip(SEEDS, seeds, strict=True))


def _check_partners(candidate: pd.DataFrame, baseline: pd.DataFrame, source: str) -> None:
    """Every run has a run of the other arm with the same seeds."""
    runs = [
        dict(zip(frame[SEEDS].itertuples(index=False, name=None), frame["run_id"], strict=True))
        for frame in (candidate, baseline)
    ]
    alone = sorted(runs[0].keys() ^ runs[1].keys())
    if alone:
        seeds, ids = alone[0], [(runs[0] | runs[1])[key] for key in alone]
        lacking = "baseline" if seeds in runs[0] else "candidate"
        found = f"{_named(seeds)}, which lacks an arm, the {lacking} ({len(alone)} such runs)"
        raise _refusal(source, ids, "seeds", found, "both arms on the same seeds")
