"""The training engine against the plain loop: `python -m benchmarks.engine --runs 20 --steps 300 --json`.

The setting is the original report's: Dyck, 4 to 12 brackets, width 64, 2 layers, 4 heads, batch 32, dropout 0.1, AdamW;
half of the runs are of each arm. The engine uses the processes and the stacks of a real study and its time includes
neither starting them nor compiling, both stated apart. The reference is the loop of tests/reference.py, one run after
the other, once as the engine's tests use it (the same keyed noise, drawn eagerly) and once with torch's own dropout,
which draws faster; the ratio that counts is against the faster of the two.
"""

import argparse
import contextlib
import functools
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

import torch
from torch import nn

from infinito import machine, params, tasks, training
from infinito.flows.fanout import worker_count
from infinito.networks import build
from tests.reference import train_one

NETWORKS = ("infinito_v52", "transformer")
DYCK = params.Dyck(
    task="dyck",
    seed=0,
    pool=20_000,
    validation=64,
    test=64,
    kinds=4,
    min_depth=4,
    max_depth=12,
    noise=6,
    noise_kinds=3,
)


def settings(steps: int) -> training.Settings:
    return training.Settings(
        steps=steps,
        batch=32,
        learning_rate=0.0005,
        warmup=0,
        schedule="constant",
        weight_decay=0.01,
        clip_norm=1.0,
        curve_every=steps,
    )


def maker(network: str, data: tasks.Data) -> Callable[[], nn.Module]:
    shape: dict[str, Any] = {"vocabulary": data.task.vocabulary, "length": data.task.length, "causal": False}
    return functools.partial(build, network, width=64, layers=2, heads=4, dropout=0.1, **shape)


@dataclass(frozen=True)
class Stack:
    """What a process trains."""

    network: str
    folder: Path  # of the data
    seeds: tuple[int, ...]
    steps: int
    precision: str


@functools.cache
def program(network: str, folder: Path, precision: str) -> tuple[training.Program, tasks.Data]:
    data = tasks.load(folder)
    return training.Program(maker(network, data), data.task, precision=precision), data


class Compiled(Exception):
    """Enough steps for a warm-up."""


def warm(job: Stack) -> None:
    """Compile what a stack needs in this process: its own first ten steps, since the number of steps shapes tensors."""

    def stop(_: int) -> None:
        raise Compiled

    with contextlib.suppress(Compiled):
        train(job, stop)


def stack(job: Stack) -> None:
    """Train one stack in this process."""
    train(job, lambda _: None)


def train(job: Stack, progress: Callable[[int], None]) -> None:
    torch.set_num_threads(1)
    prepared, data = program(job.network, job.folder, job.precision)
    training.train(prepared, data, settings(job.steps), job.seeds, job.seeds, job.seeds, progress=progress)


def measure_engine(
    folder: Path, runs: int, steps: int, width: int, workers: int, precision: str
) -> tuple[float, float]:
    """Model-steps per second over all processes, and the seconds before them (starting, compiling)."""

    def stack_of(network: str, start: int) -> Stack:
        return Stack(network, folder, tuple(range(start, start + width)), steps, precision)

    began = time.time()
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        _compile(pool, [stack_of(network, 0) for network in NETWORKS for _ in range(workers)])
        ready = time.time()
        per_arm = runs // 2
        # as in a study a short stack is filled up, so that nothing is compiled again; what fills it is not counted
        jobs = [stack_of(network, start) for start in range(0, per_arm, width) for network in NETWORKS]
        pool.map(stack, jobs, chunksize=1)
        seconds = time.time() - ready
    return 2 * per_arm * steps / seconds, ready - began


def _compile(pool: Pool, jobs: list[Stack]) -> None:
    """Let every worker compile both programs; a worker may take two jobs of one kind, so they are handed out thrice."""
    for _ in range(3):
        pool.map(warm, jobs, chunksize=1)


def measure_reference(folder: Path, steps: int, keyed_noise: bool) -> float:
    """Model-steps per second of the plain loop with all threads, mean over both networks."""
    data = tasks.load(folder)
    seconds = 0.0
    for network in NETWORKS:
        times: list[float] = []
        train_one(
            maker(network, data),
            data,
            settings(steps + 10),
            0,
            0,
            0,
            keyed_noise=keyed_noise,
            progress=lambda _, times=times: times.append(time.perf_counter()),  # type: ignore[misc]
        )
        seconds += (times[-1] - times[9]) / steps
    return len(NETWORKS) / seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.engine", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=20, help="models to train, half of them of each arm (20)")
    parser.add_argument("--steps", type=int, default=300, help="steps of each (300)")
    parser.add_argument("--stack", type=int, default=5, help="runs trained together in one process (5)")
    precisions = ("float32", "bfloat16")
    parser.add_argument("--precision", choices=precisions, default="float32", help="of the engine's products (float32)")
    parser.add_argument("--reference-steps", type=int, default=300, help="steps of the plain loop (300)")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    arguments = parser.parse_args()
    if arguments.runs < 2 or arguments.steps < 20 or arguments.stack < 1 or arguments.reference_steps < 1:
        parser.error("allowed: --runs of 2 or more, --steps of 20 or more, --stack and --reference-steps of 1 or more")
    workers = worker_count()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        tasks.prepare(DYCK, folder, folder)
        torch.set_num_threads(workers)
        plain = measure_reference(folder, arguments.reference_steps, keyed_noise=False)
        keyed = measure_reference(folder, arguments.reference_steps, keyed_noise=True)
        rate, before = measure_engine(
            folder, arguments.runs, arguments.steps, arguments.stack, workers, arguments.precision
        )
    reference = max(plain, keyed)
    result = {
        "model_steps_per_second": rate,
        "reference_model_steps_per_second": reference,
        "ratio": rate / reference,
        "reference_keyed_noise": keyed,
        "reference_torch_dropout": plain,
        "seconds_before_first_step": before,
        "runs": arguments.runs // 2 * 2,
        "steps": arguments.steps,
        "stack": arguments.stack,
        "precision": arguments.precision,
        "processes": workers,
        "torch": torch.__version__,
        "compiled": training.compiler() is not None,
        "processor": machine.processor(),
    }
    if arguments.json:
        print(json.dumps(result))
        return
    print(f"plain loop   {reference:8.1f} model-steps/s (keyed noise {keyed:.1f}, torch's dropout {plain:.1f})")
    print(f"engine       {rate:8.1f} model-steps/s in {workers} processes, after {before:.0f} s of compiling")
    print(f"ratio        {rate / reference:8.2f}")


if __name__ == "__main__":
    main()
