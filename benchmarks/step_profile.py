"""What a step of 5 candidates is made of on a CPU, one thread: `python -m benchmarks.step_profile --out FILE`.

Milliseconds a step of every compiled kernel and of the matrix products, by torch.profiler, and the GFLOP/s that these
products and a large square one reach by themselves (best of 20). The network is that of benchmarks/engine.py.
"""

import argparse
import contextlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch._inductor.config
from torch.profiler import ProfilerActivity, profile

from benchmarks.engine import DYCK, maker, settings
from infinito import tasks, training
from infinito.runs.provenance import environment
from infinito.storage import write_json

RUNS, TOKENS = 5, 576
FROM, TO = 40, 60  # steps that are profiled
SHAPES = ((64, 192), (192, 64), (64, 256), (256, 64), (64, 64))  # of the weights


class Enough(Exception):
    """All steps that were to be profiled are done."""


def kernels(data: tasks.Data, precision: str) -> dict[str, Any]:
    """Milliseconds a step, longest first."""
    torch._inductor.config.cpp.enable_kernel_profile = True
    program = training.Program(maker("infinito_v52", data), data.task, precision=precision)
    profiler = profile(activities=[ProfilerActivity.CPU])

    def progress(step: int) -> None:
        if step == FROM:
            profiler.__enter__()
        if step == TO:
            profiler.__exit__(None, None, None)
            raise Enough

    seeds = list(range(RUNS))
    with contextlib.suppress(Enough):
        training.train(program, data, settings(TO + 40), seeds, seeds, seeds, progress=progress)
    found: dict[str, float] = {}
    for event in profiler.key_averages():
        name = event.key[:100]  # several kernels begin alike
        found[name] = found.get(name, 0.0) + event.self_cpu_time_total / (TO - FROM) / 1000
    return dict(sorted(found.items(), key=lambda item: -item[1])[:40]) | {"all": sum(found.values())}


def best(call: Callable[[], object]) -> float:
    """Seconds, the least of 20 calls."""
    times = []
    for _ in range(20):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return min(times)


def products(dtype: torch.dtype) -> dict[str, float]:
    """GFLOP/s of batched products [5, 576, K] x [5, K, N], and of one of 1024 x 1024."""
    found = {}
    for k, n in SHAPES:
        a, b = torch.randn(RUNS, TOKENS, k).to(dtype), torch.randn(RUNS, k, n).to(dtype)
        found[f"{k} x {n}"] = 2 * RUNS * TOKENS * k * n / best(lambda a=a, b=b: torch.bmm(a, b)) / 1e9  # type: ignore[misc]
    square = torch.randn(1024, 1024).to(dtype)
    return found | {"1024 x 1024": 2 * 1024**3 / best(lambda: square @ square) / 1e9}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.step_profile",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, help="file of the results")
    out = parser.parse_args().out
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        tasks.prepare(DYCK, Path(temporary), Path(temporary))
        data = tasks.load(Path(temporary))
    found: dict[str, Any] = {"command": f"python -m benchmarks.step_profile --out {out}", **environment("cpu")}
    for precision, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        found[precision] = {"gflops": products(dtype), "milliseconds": kernels(data, precision)}
    write_json(out, found)


if __name__ == "__main__":
    main()
