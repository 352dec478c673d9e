"""How long and how large a million runs would be, on paper: `python -m benchmarks.million --devices 8`.

A simulated schedule: stacks are handed to whichever device is free, every hand-over passes one scheduler that does one
at a time, a device compiles both arms once, and a stack is now and then lost and trained again from the beginning.
Rates are measured ones: by default those of one H100 (benchmarks/results/gpu.json) and of Prefect
(benchmarks/results/orchestration.json). Nothing here is a measurement.
"""

import argparse
import heapq
import json
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Plan:
    """What is to be done, and what it takes."""

    runs: int
    steps: int
    width: int  # of a stack
    devices: int
    rate: float  # model-steps per second of a device
    compile: float  # seconds, once per device and arm
    hand_over: float  # seconds of the scheduler per stack
    lost: float  # share of the stacks that are lost
    bytes_per_run: int  # weights before and after training, losses of test examples, trace


def simulate(plan: Plan) -> dict[str, Any]:
    """List scheduling: hours until the last stack, how busy devices and scheduler are, terabytes."""
    rng = np.random.default_rng(0)
    stacks = -(-plan.runs // plan.width)
    seconds = plan.width * plan.steps / plan.rate
    free = [(2 * plan.compile, device) for device in range(plan.devices)]
    scheduler, busy, again, waiting = 0.0, 0.0, 0, stacks
    while waiting:
        waiting -= 1
        ready, device = heapq.heappop(free)
        scheduler = max(scheduler, ready) + plan.hand_over if plan.hand_over else ready
        took = seconds
        if rng.random() < plan.lost:
            took *= rng.random()
            waiting += 1
            again += 1
        busy += took
        heapq.heappush(free, (scheduler + took, device))
    end = max(moment for moment, _ in free)
    return {
        "stacks": stacks,
        "stacks_trained_again": again,
        "seconds_per_stack": seconds,
        "hours": end / 3600,
        "device_hours": busy / 3600,
        "devices_busy": busy / (end * plan.devices),
        "scheduler_busy": (stacks + again) * plan.hand_over / end,
        "terabytes": plan.runs * plan.bytes_per_run / 1e12,
        "files": stacks * 5,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.million", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=1_000_000, help="(1000000)")
    parser.add_argument("--steps", type=int, default=3000, help="of a run (3000)")
    parser.add_argument("--width", type=int, default=1024, help="runs in a stack (1024)")
    parser.add_argument("--devices", type=int, default=8, help="(8)")
    parser.add_argument("--rate", type=float, default=68_000, help="model-steps per second of a device (68000)")
    parser.add_argument("--compile", type=float, default=60, help="seconds, per device and arm (60)")
    parser.add_argument("--hand-over", type=float, default=0.042, help="seconds of the scheduler per stack (0.042)")
    parser.add_argument("--lost", type=float, default=0.01, help="share of the stacks that are lost (0.01)")
    parser.add_argument("--bytes-per-run", type=int, default=1_230_000, help="on disk (1230000)")
    arguments = vars(parser.parse_args())
    if min(arguments[key] for key in ("runs", "steps", "width", "devices", "rate")) <= 0 or arguments["lost"] >= 1:
        parser.error("allowed: numbers above 0, and --lost below 1")
    print(json.dumps(arguments | simulate(Plan(**arguments)), indent=2))


if __name__ == "__main__":
    main()
