"""What a run that is a command costs beside the command itself: `python -m benchmarks.commands --runs 10000`.

The command is `echo`: a compiled program that prints one figure and ends at once. Everything else is there:
worker processes, a folder and a log a run, its record, tables, hashes. Compared with the same program started by
Python's subprocess.run, one after the other, in a process that has done nothing else.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from infinito.flows import fanout
from infinito.runs import Run, RunTable, collect, stacks
from infinito.runs.finish import finish
from infinito.runs.provenance import environment
from infinito.stages import STAGES
from infinito.study import load_study

PARAMS = """\
study: overhead
prepare:
  task: command
  metric: {name: figure, unit: points, direction: lower, guess: 1.0}
  scores: {}
  files: [params.yaml]
train:
  seed: 0
  plan: null
  candidate: {command: "echo figure 0.5 {seed}"}
  baseline: {command: "echo figure 0.6 {seed}"}
  ablations: {}
  values: {test: {stdout: "figure {value}"}}
  threads: 1
  timeout: 60
  retries: 0
  pilot: 0
  pairs: PAIRS
  looks: []
  grid: null
compare: {alpha: 0.05, smallest_effect: 0.01, metrics: [test_loss]}
report: {}
"""


def measure(runs: int) -> dict[str, float | int]:
    """Seconds of all runs through the stages' fan-out, and again when all are finished; of the bare program too."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "params.yaml").write_text(PARAMS.replace("PAIRS", str(runs // 2)))
        study = load_study(Path(folder))
        STAGES["prepare"](study, lambda jobs: [])
        from infinito import seeds, tasks

        wanted = [
            Run(arm, "pairs", s, s) for arm in ("candidate", "baseline") for s in seeds.pool(0, "pairs", runs // 2)
        ]
        seconds = []
        for _ in range(2):
            began = time.monotonic()
            jobs = stacks.plan(study, tasks.measured(study.data), wanted)
            collect(fanout.fan_out(jobs, finish, fanout.as_threads), study.runs)
            assert len(RunTable.load(study.runs).table) == 2 * (runs // 2)
            seconds.append(time.monotonic() - began)
    began = time.monotonic()
    for number in range(200):
        subprocess.run(["echo", "figure 0.5", str(number)], stdout=subprocess.DEVNULL, check=True)
    bare = (time.monotonic() - began) / 200
    workers = fanout.worker_count()
    return {
        "runs": runs,
        "workers": workers,
        "seconds": seconds[0],
        "milliseconds_per_run": 1000 * seconds[0] / runs,
        "milliseconds_per_run_and_worker": 1000 * seconds[0] * workers / runs,
        "seconds_when_finished": seconds[1],
        "milliseconds_of_the_bare_program": 1000 * bare,
    }


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000)
    runs = parser.parse_args().runs
    load = os.getloadavg()[0]
    json.dump(measure(runs) | {"load_before": load, **environment("cpu")}, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
