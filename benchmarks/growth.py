"""Time and memory of a step against the size of stack, network and input: `python -m benchmarks.growth`.

On a CPU, one thread. Every point is a process of its own; the transformer of the original report, changed in one way at
a time. Memory is what the process takes at most beyond what it had before the training began. With `--gpu FILE`, the
results of benchmarks/gpu.py, the chart has the GPU's points too.
"""

import argparse
import functools
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import vl_convert

from benchmarks.engine import DYCK, settings
from infinito import tasks, training
from infinito.networks import build
from infinito.runs.provenance import environment
from infinito.storage import read_json, write_json
from infinito.training import memory

Json = dict[str, Any]

STACKS = (1, 2, 3, 5, 8, 16, 32, 64)
WIDTHS = (16, 32, 64, 128, 256)
DEPTHS = (4, 12, 28, 60)  # brackets, which make the length
STEPS, WARM = 40, 20


def measure(point: Json) -> Json:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        tasks.prepare(DYCK.model_copy(update={"max_depth": point["depth"], "pool": 2000}), folder, folder)
        data = tasks.load(folder)
    shape: dict[str, Any] = {"vocabulary": data.task.vocabulary, "length": data.task.length, "causal": False}
    make = functools.partial(build, "transformer", width=point["width"], layers=2, heads=4, dropout=0.1, **shape)
    program = training.Program(make, data.task)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times: dict[int, float] = {}

    def progress(step: int) -> None:
        times[step] = time.perf_counter()

    seeds = list(range(point["stack"]))
    training.train(program, data, settings(STEPS + 10), seeds, seeds, seeds, progress=progress)
    ms = (times[STEPS] - times[WARM]) / (STEPS - WARM) * 1000
    per_run = memory.bytes_per_run(make, data, STEPS, 32)
    return point | {
        "length": data.task.length,
        "ms_per_step": ms,
        "model_steps_per_second": point["stack"] / ms * 1000,
        "peak_mib": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024,
        "predicted_mib": per_run * point["stack"] / 2**20,
    }


def points() -> list[Json]:
    base = {"stack": 5, "width": 64, "depth": 12}
    return [
        *({"part": "stack"} | base | {"stack": n} for n in STACKS),
        *({"part": "width"} | base | {"width": n} for n in WIDTHS),
        *({"part": "length"} | base | {"depth": n} for n in DEPTHS),
    ]


def chart(results: list[Json], gpu: list[Json]) -> Json:
    """Model-steps per second against the runs in a stack, a Vega-Lite chart."""
    rows = [{"where": "CPU, 1 thread", "stack": r["stack"], "rate": r["model_steps_per_second"]} for r in results]
    rows += [{"where": "H100", "stack": r["width"], "rate": r["model_steps_per_second"]} for r in gpu]
    axis = {"type": "quantitative", "scale": {"type": "log"}}
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "data": {"values": rows},
        "width": 520,
        "height": 300,
        "mark": {"type": "line", "point": True},
        "encoding": {
            "x": axis | {"field": "stack", "title": "Runs in a stack"},
            "y": axis | {"field": "rate", "title": "Model-steps per second"},
            "color": {"field": "where", "title": None},
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.growth", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gpu", type=Path, help="results of benchmarks/gpu.py with the part growth")
    parser.add_argument("--out", type=Path, default=Path("growth.json"), help="results; the chart stands beside them")
    parser.add_argument("--point", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.point is not None:
        print(json.dumps(measure(arguments.point)))
        return
    results = []
    for point in points():
        command = [sys.executable, "-m", "benchmarks.growth", "--point", json.dumps(point)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        results.append(json.loads(done.stdout.splitlines()[-1]))
        print(json.dumps(results[-1]), flush=True)
    command = "python -m benchmarks.growth " + " ".join(sys.argv[1:])
    write_json(arguments.out, {"command": command, **environment("cpu"), "results": results})
    gpu = [r for r in read_json(arguments.gpu)["results"] if r.get("grows") == "stack"] if arguments.gpu else []
    shown = chart([r for r in results if r["part"] == "stack"], [r for r in gpu if "error" not in r])
    arguments.out.with_suffix(".png").write_bytes(vl_convert.vegalite_to_png(shown, scale=2, allowed_base_urls=[]))


if __name__ == "__main__":
    main()
