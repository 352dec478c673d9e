"""A grid of seeds of both arms on one device, end to end: `python -m benchmarks.grid --study studies/grid32`.

Prepares the data, trains all cells of `train.grid`, collects the run table and splits the variance. Writes
results/{runs.parquet, stacks.json, attribute.json, grid.json} of the study; the last one has the seconds of every part.
What is there already (data, finished stacks) is not done again, and then not timed.
"""

import argparse
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from infinito import runs, tasks
from infinito.runs import stacks
from infinito.runs.finish import finish
from infinito.runs.provenance import environment, this_device
from infinito.stages import STAGES
from infinito.stages.train import crossed
from infinito.storage import read_json, write_json
from infinito.study import Study, load_study


def train(study: Study) -> dict[str, float]:
    """Train the grid, stack by stack in this process; seconds by stack."""
    data, seconds = tasks.load(study.data), {}
    folders = []
    for job in stacks.plan(study, data, crossed(study.params.train)):
        began = time.perf_counter()
        folders.append(finish(job, lambda steps: None))
        seconds[job.name] = time.perf_counter() - began
        print(f"{job.name}: {len(job.runs)} runs, {seconds[job.name]:.1f} s", flush=True)
    runs.collect(folders, study.runs)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.grid", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--study", type=Path, default=Path("studies/grid32"), help="folder of params.yaml")
    study = load_study(parser.parse_args().study)
    seconds: dict[str, float] = {}
    parts: dict[str, Callable[[], None]] = {
        "prepare": lambda: STAGES["prepare"](study, lambda jobs: []),
        "train": lambda: seconds.update(train(study)),
        "attribute": lambda: STAGES["attribute"](study, lambda jobs: []),
    }
    timed = {}
    for name, part in parts.items():
        began = time.perf_counter()
        part()
        timed[name] = time.perf_counter() - began
    shutil.copyfile(study.runs / "runs.parquet", study.results / "runs.parquet")
    records = {file.parent.name: read_json(file) for file in sorted((study.runs / "stacks").glob("*/stack.json"))}
    write_json(study.results / "stacks.json", records)
    own = study.params.train
    total = sum(len(record["runs"]) for record in records.values())
    engine = sum(record["wall_seconds"] for record in records.values())  # with compiling and evaluating
    found = {
        "runs": total,
        "steps": own.steps,
        "seconds": timed | {"whole": sum(timed.values())},
        "seconds_by_stack": seconds,
        "model_steps_per_second": total * own.steps / engine,
        **environment(this_device()),
    }
    write_json(study.results / "grid.json", found)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
