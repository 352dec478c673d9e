"""Runs, and the run table: what was trained, from which seeds, and what it left on disk."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from torch import Tensor

from infinito.runs import integrity
from infinito.runs.pairing import paired_runs
from infinito.storage import read_json, read_table, read_weights, replacing, write_table
from infinito.study import Study
from infinito.tasks.split import identity

ARMS = ("candidate", "baseline")


@dataclass(frozen=True)
class Run:
    """One training: which arm, for which purpose, from which seeds."""

    arm: str
    design: str
    init_seed: int
    data_seed: int
    rep: int = 0  # counts trainings from identical seeds
    own_noise_seed: int | None = None

    @property
    def noise_seed(self) -> int:
        """Of dropout and exploration: its own, or else the stream named noise of the data seed."""
        return self.data_seed if self.own_noise_seed is None else self.own_noise_seed

    @property
    def seeds(self) -> dict[str, int]:
        return {"init": self.init_seed, "data": self.data_seed, "noise": self.noise_seed, "rep": self.rep}


def _plain_ids(table: pa.Table) -> pa.Table:
    """Run ids as strings: as dictionaries their type would depend on how many runs a stack has."""
    at = table.schema.get_field_index("run_id")
    return table.set_column(at, "run_id", table.column(at).cast(pa.string()))


def collect(folders: Sequence[Path], out: Path) -> None:
    """Join finished stacks into one run table: runs and curves as Parquet; items, weights and records per stack.

    What is large stays in the folder of its stack, so that no step holds more than one of them: the losses of all test
    examples of a million runs are terabytes.
    """
    with replacing(out) as temporary:
        (temporary / "stacks").mkdir(parents=True)
        for table in ("runs", "curves"):
            parts = [read_table(folder / f"{table}.parquet") for folder in folders]
            write_table(temporary / f"{table}.parquet", pa.concat_tables([_plain_ids(part) for part in parts]))
        for folder in folders:
            target = temporary / "stacks" / folder.name
            target.mkdir()
            for name in (*integrity.files(read_json(folder / "stack.json")), "stack.json"):
                shutil.copyfile(folder / name, target / name)


@dataclass(frozen=True)
class RunTable:
    """Finished runs on disk: `table` has one row per run."""

    folder: Path
    table: pd.DataFrame

    @classmethod
    def load(cls, folder: Path) -> "RunTable":
        """Raises ValueError if the table is missing, corrupt, holds a run twice, or is not what its stacks recorded."""
        table = read_table(folder / "runs.parquet").to_pandas()
        key = ["arm", "design", "init_seed", "data_seed", "noise_seed", "rep"]
        missing = {*key, "run_id", "stack_id", "lane", "val_loss", "test_loss", "data_sha256"} - {*table.columns}
        if missing:
            raise ValueError(f"{folder / 'runs.parquet'}: not a run table: column {min(missing)} is missing")
        twice = table[table.duplicated(key, keep=False)]
        if len(twice):
            first = twice.iloc[0]
            ids = twice.loc[(twice[key] == first[key]).all(axis=1), "run_id"].tolist()
            seeds = ", ".join(f"{name} {first[name]}" for name in key[2:])
            what = (
                f"run {ids[0]} {len(ids)} times" if len({*ids}) == 1 else f"runs {', '.join(ids[:3])} of the same seeds"
            )
            raise ValueError(
                f"{folder / 'runs.parquet'}: found {what} ({first['arm']}, {first['design']}: {seeds}); "
                "allowed: one run of an arm and design with the same seeds"
            )
        integrity.check(folder, table)
        return cls(folder, table)

    @classmethod
    def of(cls, study: Study, folder: Path | None = None) -> "RunTable":
        """The runs of a study, or those of another of its folders, which must be of the data that the study has now.

        Raises:
            ValueError: see `load`; or the runs were trained on other data.
        """
        runs = cls.load(folder or study.runs)
        manifest = study.data / "manifest.json"
        if not manifest.is_file():
            raise ValueError(f"{manifest}: no such file; run the stage prepare (dvc repro prepare)")
        now = identity(read_json(manifest))
        other = runs.table[runs.table["data_sha256"] != now]
        if len(other):
            first = other.iloc[0]
            raise ValueError(
                f"{runs.folder / 'runs.parquet'}: run {first['run_id']} was trained on the data "
                f"{str(first['data_sha256'])[:12]}, {study.data} has {now[:12]}; allowed: the same; "
                "train again (dvc repro train), or get the data back (dvc checkout)"
            )
        return runs

    def design(self, design: str, arm: str) -> pd.DataFrame:
        """The runs of one design and arm, ordered by their seeds."""
        found = self.table[(self.table["design"] == design) & (self.table["arm"] == arm)]
        return found.sort_values(["init_seed", "data_seed", "noise_seed", "rep"], ignore_index=True)

    def pairs(
        self, design: str = "pairs", arm: str = "candidate", unequal: Sequence[str] = ()
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        """An arm and the baseline in a paired design, row by row with the same seeds.

        unequal: see `pairing.paired_runs`.

        Raises:
            ValueError: see `pairing.paired_runs`; a single pair.
        """
        source = f"{self.folder / 'runs.parquet'}: design {design}"
        found = paired_runs(self.design(design, arm), self.design(design, "baseline"), source, unequal)
        if len(found[0]) < 2:
            raise ValueError(f"{source}: found 1 pair of runs; allowed: 2 or more, as one has no spread")
        return found

    def grid(self, arm: str, column: str, *, complete: bool = False) -> np.ndarray:
        """One column of the exploratory design, [init seeds, data seeds, noise seeds, reps], seeds in rising order.

        A missing run is NaN, or an error where the grid must be complete.

        Raises:
            ValueError: fewer than two init or data seeds; a missing run.
        """
        runs, where = self.design("grid", arm), f"{self.folder / 'runs.parquet'}: design grid of the {arm}"
        inits, datas = (sorted(runs[seed].unique()) for seed in ("init_seed", "data_seed"))
        if len(inits) < 2 or len(datas) < 2:
            raise ValueError(
                f"{where}: found {len(runs)} runs of {len(inits)} init seeds and {len(datas)} data seeds; allowed: at "
                "least 2 of each"
            )
        # every cell has noise seeds of its own: within the cell they are counted
        place = [
            pd.factorize(runs["init_seed"], sort=True)[0],
            pd.factorize(runs["data_seed"], sort=True)[0],
            runs.groupby(["init_seed", "data_seed"])["noise_seed"].rank("dense").to_numpy(int) - 1,
            runs["rep"].to_numpy(),
        ]
        cells = np.full([int(p.max()) + 1 for p in place], np.nan)
        cells[tuple(place)] = runs[column]
        missing = np.argwhere(np.isnan(cells))
        if complete and len(missing):
            init, data = inits[missing[0][0]], datas[missing[0][1]]
            raise ValueError(
                f"{where}: found no {column} for init seed {init} with data seed {data} ({len(missing)} such places); "
                "allowed: a run for every init seed with every data seed"
            )
        return cells

    @property
    def has_items(self) -> bool:
        """Whether the losses of test examples are kept, and weights: not of commands."""
        return "failure" not in self.table

    def items(self, run_ids: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Test loss per example: summed [R, N] in the order of `run_ids`, and its weight [N] (scored tokens)."""
        where = self.table[self.table["run_id"].isin(run_ids)]
        rows: dict[str, np.ndarray] = {}
        for stack, runs in where.groupby("stack_id"):
            file = integrity.check_file(self.folder / "stacks" / str(stack) / "items.parquet")
            table = read_table(file).to_pandas()
            for run_id, items in table.groupby(table["run_id"].astype(str)):
                if run_id in set(runs["run_id"]):
                    items = items.sort_values("item")
                    rows[str(run_id)] = items["loss"].to_numpy(float)
                    weights = items["weight"].to_numpy()
        return np.stack([rows[run_id] for run_id in run_ids]), weights

    def weights(self, runs: pd.DataFrame, which: str = "final") -> dict[str, Tensor]:
        """Stacked weights of some runs, in their order: `which` is initial or final."""
        stacks = {
            stack_id: read_weights(integrity.check_file(self.folder / "stacks" / stack_id / f"{which}.safetensors"))
            for stack_id in runs["stack_id"].unique()
        }
        lanes = list(zip(runs["stack_id"], runs["lane"], strict=True))
        names = stacks[lanes[0][0]]
        return {name: torch.stack([stacks[stack][name][lane] for stack, lane in lanes]) for name in names}

    def record(self, stack_id: str) -> dict[str, Any]:
        """The provenance of a stack."""
        content: dict[str, Any] = read_json(self.folder / "stacks" / stack_id / "stack.json")
        return content
