"""Which recorded runs are to be trained again."""

import random
from collections.abc import Sequence

import pandas as pd

from infinito.lineage.runs import run_table
from infinito.study import Study

LISTED = 3  # ids that a message gives of many
# columns of a run table without which its runs can't be trained again
COLUMNS = ("run_id", "stack_id", "lane", "arm", "design", "init_seed", "data_seed", "noise_seed", "rep", "test_loss")


def runs_of(study: Study) -> pd.DataFrame:
    """All runs of a study's run tables; `table`: the folder of each.

    Raises:
        FileNotFoundError: no dvc.yaml.
        ValueError: no runs, a run table that can't be read, or one that lacks a column.
    """
    table = run_table(study.folder)
    if table.empty:
        raise ValueError(f"{study.runs / 'runs.parquet'}: no such file, and no other runs; train them: dvc repro train")
    missing = [column for column in COLUMNS if column not in table or table[column].isna().any()]
    if missing:
        raise ValueError(f"{', '.join(table['table'].unique())}: not run tables: column {missing[0]} is missing")
    return table


def chosen(table: pd.DataFrame, names: Sequence[str], sample: int | None = None, every: bool = False) -> set[str]:
    """Ids of runs, asked for in one of three ways.

    Args:
        table: see `runs_of`.
        names: ids, or the beginnings of ids, each of which must fit one only.
        sample: so many, drawn anew each time, so that nobody knows beforehand which runs will be looked at.
        every: all of them.

    Raises:
        ValueError: none of the three or several; a name that fits no id or more than one; too large a sample.
    """
    if bool(names) + (sample is not None) + every != 1:
        asked = [*names, *(["--sample"] if sample is not None else []), *(["--all"] if every else [])]
        raise ValueError(
            f"RUN_ID: found {', '.join(asked) or 'none'}; allowed: ids or their beginnings, or --sample N, or --all"
        )
    known = sorted(table["run_id"].unique())
    if every:
        return set(known)
    if sample is not None:
        if not 1 <= sample <= len(known):
            raise ValueError(f"--sample: found {sample}; allowed: 1 to {len(known)}, the runs of this study")
        return set(random.SystemRandom().sample(known, sample))
    return {_only(known, name) for name in names}


def _only(known: list[str], name: str) -> str:
    fitting = [run for run in known if run.startswith(name)]
    if len(fitting) != 1:
        problem = f"with which {len(fitting)} ids begin" if fitting else "with which no id begins"
        some = ", ".join((fitting or known)[:LISTED])
        raise ValueError(f"RUN_ID: found {name!r}, {problem}; allowed: the beginning of one id only, as {some}, ..")
    return fitting[0]
