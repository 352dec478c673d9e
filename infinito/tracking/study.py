"""The runs of a study, as records: from its run tables and the records of the stacks."""

import logging
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from infinito import params
from infinito.lineage.runs import SEEDS, run_tables, stack_records
from infinito.storage import canonical, read_table, sha256
from infinito.study import Study
from infinito.tracking import targets as trackers
from infinito.tracking.parameters import flat
from infinito.tracking.record import FINISHED, Curve, Record

logger = logging.getLogger(__name__)
# columns of the run table that are no figures of a run
NO_METRICS = {*SEEDS, "lane", "steps", "kept_step", "diverged", "wall_seconds", "train_examples"}


def targets(study: Study) -> list[str]:
    """Where params.yaml wants runs to be logged."""
    wanted = study.params.tracking
    if wanted is None:
        return []
    found = [wanted.mlflow] if wanted.mlflow else []
    found += [str(study.folder / wanted.store)] if wanted.store else []
    found += [f"tensorboard:{study.folder / wanted.tensorboard}"] if wanted.tensorboard else []
    return found + ([f"wandb:{study.folder / wanted.wandb}"] if wanted.wandb else [])


def log(study: Study) -> None:
    """Log the runs that there are, after a stage and never in its way: what goes wrong is a line, and made up later."""
    names = targets(study)
    try:
        if names and (found := list(records(study.folder))):
            trackers.send_or_warn(found, names)
    except Exception as error:  # the runs are trained and saved, and no tracker's fault may cost them
        said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        logger.warning("runs not logged: %s; later: infinito log", said)


def records(folder: Path) -> Iterator[Record]:
    """All runs of a study's run tables: of the verdict and grid, of the golden seed, of the ensemble.

    Raises:
        ValueError: a table or record can't be read.
    """
    for table in run_tables(folder, "models"):
        runs = read_table(table / "runs.parquet").to_pandas()
        curves: dict[str, dict[str, Curve]] = {}
        if (table / "curves.parquet").is_file():
            points = read_table(table / "curves.parquet").to_pandas()
            for (run, split, metric), rows in points.groupby(["run_id", "split", "metric"], sort=False):
                curve = list(zip(rows["step"].astype(float), rows["value"].astype(float), strict=True))
                curves.setdefault(str(run), {})[f"{split}_{metric}"] = curve
        stacks = stack_records(table, runs["stack_id"].unique())
        for row in runs.to_dict("records"):
            yield _record(row, stacks[row["stack_id"]] or {}, curves.get(row["run_id"], {}), table.relative_to(folder))


def _record(row: dict[Any, Any], stack: dict[str, Any], curves: dict[str, Curve], table: Path) -> Record:
    """One row of a run table; a stack that trained it again is another run."""
    recipe = params.recipe(stack["train"]) if "train" in stack else {}
    ended = stack.get("finished")
    seconds = float(row["wall_seconds"])
    began = (datetime.fromisoformat(ended) - timedelta(seconds=float(stack["wall_seconds"]))) if ended else None
    tags = {
        "run_id": row["run_id"],
        "diverged": str(bool(row["diverged"])).lower(),
        "weights_sha256": row["weights_sha256"],
        "data_sha256": row["data_sha256"],
        "artefacts": (table / "stacks" / row["stack_id"]).as_posix(),
        "lane": str(row["lane"]),
        "device": row.get("device"),
        "git.revision": stack.get("git_revision"),
        "git.diff_sha256": stack.get("git_diff_sha256"),
        "plan_sha256": stack.get("protocol_sha256"),
    }
    return Record(
        id=sha256(canonical([row["study"], row["design"], row["run_id"], row["stack_id"]]))[:12],
        name=row["study"],
        status=FINISHED,
        began=began.isoformat(timespec="seconds") if began else "",
        ended=ended,
        seconds=round(seconds, 3),
        arm=row["arm"],
        design=row["design"],
        params=flat({**stack.get("arm", {}), **recipe}),
        seeds={name: int(row[name]) for name in SEEDS},
        metrics={
            name: float(value)
            for name, value in row.items()
            if name not in NO_METRICS and isinstance(value, int | float) and not isinstance(value, bool)
        },
        curves=curves,
        tags={name: str(value) for name, value in tags.items() if value},
        dirty=bool(stack.get("git_diff_sha256") or stack.get("git_untracked")) if stack.get("git_revision") else None,
        code=str(row.get("code_sha256", ""))[:10],
        facts={"environment": {key: stack.get(key) for key in ("versions", "device", "processor")}},
    )
