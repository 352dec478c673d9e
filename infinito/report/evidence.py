"""Everything a report is made of, as the stages before it left it."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from infinito.lineage.pipeline import Pipeline
from infinito.lineage.settings import read_params
from infinito.lineage.stages import stage_lineage
from infinito.params import Params
from infinito.questions.protocol import percent_gain
from infinito.runs.table import RunTable
from infinito.storage import read_json, read_table
from infinito.study import Study
from infinito.tasks import Metric
from infinito.tasks.measure import metric_of

Json = dict[str, Any]

THIS_PAGE = "this page"  # the status of the stage that writes it


@dataclass(frozen=True)
class Evidence:
    """The results of every stage, the runs behind them, and the record of every stack of runs."""

    params: Params
    manifest: Json
    compare: Json
    attribute: Json | None  # of a stage that the study does without: None
    golden: Json | None
    protocol: Json | None
    ensemble: Json | None
    candidate: pd.DataFrame  # runs of the pairs behind the verdict, row by row with the same seeds as `baseline`
    baseline: pd.DataFrame
    pilot: tuple[pd.DataFrame, pd.DataFrame] | None  # the same two of the pilot
    curves: pd.DataFrame
    runs: pd.DataFrame  # all of them, those of the golden and the ensemble stage included
    stacks: list[Json]
    lineage: Json  # the stages by name, see `infinito.lineage.stages`; {} for a study that DVC does not know

    @property
    def metric(self) -> Metric:
        """What all of it is about."""
        return metric_of(self.compare)

    @property
    def differences(self) -> np.ndarray:
        """Gain of the candidate in every pair, in the unit of the metric."""
        return self.baseline["test_loss"].to_numpy() - self.candidate["test_loss"].to_numpy()

    @property
    def reported(self) -> np.ndarray:
        """What a best-seed report looks at, percent per pair: those of the pilot if there is one."""
        return last_batch_percent(*(self.pilot or (self.candidate, self.baseline)))

    @property
    def folders(self) -> list[str]:
        """Where run tables lie, from the study."""
        folders = ["models/runs"]
        if self.golden:
            folders.append("models/golden/confirmation")
        if self.ensemble and "equal_compute" in self.ensemble:
            folders.append("models/ensemble")
        return folders


def last_batch_percent(candidate: pd.DataFrame, baseline: pd.DataFrame) -> np.ndarray:
    """Gain of the candidate in every pair on the last training batch, in percent of the baseline."""
    return percent_gain(candidate["last_batch_loss"], baseline["last_batch_loss"])


def gather(study: Study) -> Evidence:
    """Read what the other stages wrote.

    Raises:
        ValueError: a file is missing or corrupt; the message names it.
    """
    stages = study.params.stages
    wanted = {name: name for name in ("compare", "attribute", "golden", "ensemble")} | {"golden_protocol": "golden"}
    results = {name: read_json(study.results / f"{name}.json") for name, stage in wanted.items() if stage in stages}
    folders = [study.runs]
    folders += [study.golden / "confirmation"] if "golden" in stages else []
    folders += [study.ensemble] if "ensemble" in stages and _has_runs(study.ensemble) else []
    tables = [RunTable.of(study, folder) for folder in folders]
    compare, unequal = results["compare"], study.params.train.unequal("candidate")
    n = compare["n_pairs"]  # a sequential design may have trained more before it knew that it could stop
    candidate, baseline = (runs[:n] for runs in tables[0].pairs(unequal=unequal))
    return Evidence(
        params=study.params,
        manifest=read_json(study.data / "manifest.json"),
        compare=compare,
        attribute=results.get("attribute"),
        golden=results.get("golden"),
        protocol=results.get("golden_protocol"),
        ensemble=results.get("ensemble"),
        candidate=candidate,
        baseline=baseline,
        pilot=tables[0].pairs("pilot", unequal=unequal) if "pilot" in compare else None,
        curves=read_table(study.runs / "curves.parquet").to_pandas(),
        runs=pd.concat([table.table for table in tables], ignore_index=True),
        stacks=[record for table in tables for record in _records(table.folder)],
        lineage=_lineage(study),
    )


def _has_runs(folder: Path) -> bool:
    return (folder / "runs.parquet").is_file()


def _records(folder: Path) -> list[Json]:
    return [read_json(file) for file in sorted(folder.glob("stacks/*/stack.json"))]


def _lineage(study: Study) -> Json:
    """The lineage of every stage; of the report's own only what it reads, as it is now.

    What DVC has recorded of the report itself is of an earlier one, and must not get into this one: the same inputs
    are to give the same page, and DVC records this one when it is finished.
    """
    if not (study.folder / "dvc.yaml").is_file():
        return {}
    pipeline, params = Pipeline.load(study.folder), read_params(study.folder)
    own = pipeline.writer("results/report.html")
    before = replace(pipeline, recorded={stage: x for stage, x in pipeline.recorded.items() if stage != own})
    found = {}
    for stage, declared in before.stages.items():
        keys = [key for key in declared.get("params", []) if isinstance(key, str)]
        found[stage] = stage_lineage(before, stage, params) | {"keys": keys}
    if own:
        inputs = [entry | {"md5": before.on_disk(entry["path"])} for entry in found[own]["inputs"]]
        found[own] |= {"status": THIS_PAGE, "inputs": inputs, "outputs": [], "record": None}
    return found
