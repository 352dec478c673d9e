"""Stacks on one GPU and on all of a host: `python -m benchmarks.devices --study FOLDER --out FILE`.

Trains the same stacks of candidates by one process on one GPU and by one process per GPU, both after everything is
compiled, and compares the seconds (starting the processes and reading the data included) and the weights, which must
be equal to the bit. The new folder gets data and a run table of its own, which `infinito verify` can read.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from infinito import runs, seeds, tasks
from infinito.flows import fanout
from infinito.runs import stacks
from infinito.runs.finish import finish
from infinito.runs.provenance import environment
from infinito.runs.table import Run
from infinito.stages import STAGES
from infinito.storage import read_json, write_json
from infinito.study import load_study

TEMPLATE = Path("studies/report")
ARM = "candidate"


def train(folder: Path, count: int, width: int, steps: int, precision: str) -> list[Path]:
    """Train the runs from nothing on the GPUs that this process sees; the folders of the stacks."""
    study = load_study(folder)
    how = study.params.train.model_copy(update={"stack": width, "steps": steps, "precision": precision})
    wanted = [Run(ARM, "pairs", seed, seed) for seed in seeds.pool(how.seed, "pairs", count)]
    jobs = stacks.plan(study, tasks.load(study.data), wanted, train=how)
    for job in jobs:
        shutil.rmtree(job.scratch / job.stack_id, ignore_errors=True)
    return fanout.fan_out(jobs, finish, fanout.as_threads)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.devices", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--study", type=Path, required=True, help="a folder to make")
    parser.add_argument("--runs", type=int, default=512, help="runs of the candidate to train (512)")
    parser.add_argument("--width", type=int, default=64, help="runs in a stack (64)")
    parser.add_argument("--steps", type=int, default=1500, help="steps of a run (1500)")
    parser.add_argument("--precision", default="bfloat16", help="of matrix products (bfloat16)")
    parser.add_argument("--out", type=Path, required=True, help="file of the results")
    parser.add_argument("--part", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    folder: Path = arguments.study
    if arguments.part is not None:
        began = time.perf_counter()
        made = train(folder, arguments.runs, arguments.width, arguments.steps, arguments.precision)
        seconds = time.perf_counter() - began
        runs.collect(made, load_study(folder).runs)
        records = [read_json(stack / "stack.json") for stack in made]
        table = pd.read_parquet(load_study(folder).runs / "runs.parquet")
        own = [record["wall_seconds"] for record in records]
        found = {"seconds": seconds, "stacks": own, "weights": table.set_index("run_id")["weights_sha256"].to_dict()}
        write_json(arguments.part, found)
        return
    folder.mkdir(parents=True)
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(TEMPLATE / name, folder)
    STAGES["prepare"](load_study(folder), lambda jobs: [])
    count = torch.cuda.device_count()
    every = ",".join(map(str, range(count)))
    results: dict[str, dict[str, Any]] = {}
    for name, devices in (("compiling", every), ("one", "0"), ("all", every)):
        part = folder / f"{name}.json"
        command = [sys.executable, "-m", "benchmarks.devices", *sys.argv[1:], "--part", str(part)]
        subprocess.run(command, check=True, env=os.environ | {"CUDA_VISIBLE_DEVICES": devices})
        results[name] = read_json(part)
    weights = [result.pop("weights") for result in results.values()]
    found = {
        "command": "python -m benchmarks.devices " + " ".join(sys.argv[1:]),
        "gpus": count,
        "runs": len(weights[0]),
        "runs_equal_to_the_bit": sum(len({w[run] for w in weights}) == 1 for run in weights[0]),
        "ratio": results["one"]["seconds"] / results["all"]["seconds"],
        **results,
        **environment("cuda" if count else "cpu"),
    }
    write_json(arguments.out, found)
    print(json.dumps({key: found[key] for key in ("gpus", "runs", "runs_equal_to_the_bit", "ratio")}))


if __name__ == "__main__":
    main()
