"""The loop engine beside the stacked one: `python -m benchmarks.loop --json results.json [--device cuda]`.

Three questions. From which size of a network on does stacking bring nothing? (A transformer of 2 layers, wider and
wider; model-steps per second of a stack and of the loop, both compiled.) How many tokens of a language model does the
loop train in a second? (71.6M parameters, batch 16, length 256, on a GPU only; also by Muon, and uncompiled.) Are two
trainings from the same seeds equal to the bit? Data are random tokens, of which no figure here depends.
"""

import argparse
import functools
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from infinito import training
from infinito.networks import build
from infinito.runs.provenance import environment
from infinito.storage import write_json
from infinito.tasks.pool import Pool
from infinito.tasks.split import Split
from infinito.tasks.tokens import Tokens
from infinito.training import loop, optimisers, stacked

Json = dict[str, Any]

WARM, STEPS = {"cpu": 10, "cuda": 30}, {"cpu": 30, "cuda": 230}
WIDTHS = {"cpu": (64, 256, 512), "cuda": (64, 128, 256, 512, 1024, 2048)}
TOGETHER = {"cpu": 5, "cuda": 16}
LANGUAGE_MODEL = {"width": 512, "layers": 6, "heads": 8, "dropout": 0.1}


class Enough(Exception):
    """All steps that were to be timed are done."""


def data(vocabulary: int, length: int, examples: int) -> Pool:
    """Random tokens, each to be followed by the next."""
    draws = torch.Generator().manual_seed(0)
    tokens = torch.randint(vocabulary, (examples, length + 1), generator=draws)
    inputs, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
    few = Split(inputs[:2], targets[:2], length * vocabulary)
    return Pool(Tokens(vocabulary, length, causal=True, exact=False), "", inputs.int(), targets.int(), few, few)


def timed(kind: str, make: Any, pool: Pool, batch: int, runs: int, device: str, **how: Any) -> Json:
    """Model-steps a second between two moments of a training, and what came of it."""
    engine: Any = training.Loop if kind == "loop" else training.Program
    trains: Any = loop.train if kind == "loop" else stacked.train
    program = engine(make, pool.task, device, how.pop("compile", True), how.pop("precision"), **how)
    settings = training.Settings(
        steps=STEPS[device] + 20, batch=batch, learning_rate=3e-4, warmup=10, schedule="constant", weight_decay=0.01,
        clip_norm=1.0, curve_every=10**6,
    )  # fmt: skip
    moments: dict[int, float] = {}
    began = time.perf_counter()

    def progress(step: int) -> None:
        moments[step] = time.perf_counter()
        if step >= STEPS[device]:
            raise Enough

    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seeds = list(range(runs if kind == "stacked" else 1))
    try:
        trains(program, pool, settings, seeds, seeds, seeds, progress=progress)
    except Enough:
        pass
    first, last = min(s for s in moments if s >= WARM[device]), max(moments)
    rate = len(seeds) * (last - first) / (moments[last] - moments[first])
    return {
        "engine": kind,
        "runs": len(seeds),
        "compiled": program.compiled,
        "model_steps_per_second": rate,
        "seconds_before": moments[first] - began,
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else None,
    }


def widths(device: str, precision: str) -> list[Json]:
    """Both engines, network by network."""
    pool, found = data(13, 18, 4096), []
    for width in WIDTHS[device]:
        make = functools.partial(build, "transformer", **pool.task.given, width=width, layers=2, heads=4, dropout=0.1)
        parameters = sum(p.numel() for p in make().parameters())
        for kind in ("stacked", "loop"):
            row = timed(kind, make, pool, 32, TOGETHER[device], device, precision=precision)
            found.append({"width": width, "parameters": parameters, "precision": precision} | row)
            print(found[-1], flush=True)
    return found


def language_model() -> list[Json]:
    """71.6M parameters on a GPU."""
    pool, found = data(50_257, 256, 2048), []
    make = functools.partial(build, "transformer", **pool.task.given, **LANGUAGE_MODEL)
    muon = optimisers.Muon(0.95, True)
    for name, kind, how in (
        ("stacked, one run", "stacked", {}),
        ("loop", "loop", {}),
        ("loop, Muon", "loop", {"optimiser": muon}),
        ("loop, uncompiled", "loop", {"compile": False}),
        ("stacked, one run, Muon", "stacked", {"optimiser": muon}),
        ("loop, again", "loop", {}),
    ):
        row = timed(kind, make, pool, 16, 1, "cuda", precision="bfloat16", **how)
        row["tokens_per_second"] = row["model_steps_per_second"] * 16 * 256
        found.append({"name": name} | row)
        print(found[-1], flush=True)
    return found


def equal_bits(device: str, language: bool) -> Json:
    """Two trainings from the same seeds, each with a network of its own."""
    pool = data(50_257, 256, 512) if language else data(13, 18, 4096)
    shape = LANGUAGE_MODEL if language else {"width": 64, "layers": 2, "heads": 4, "dropout": 0.1}
    make = functools.partial(build, "transformer", **pool.task.given, **shape)
    settings = training.Settings(
        steps=60, batch=16, learning_rate=3e-4, warmup=10, schedule="constant", weight_decay=0.01, clip_norm=1.0,
        curve_every=30,
    )  # fmt: skip
    found = [
        loop.train(training.Loop(make, pool.task, device, precision="bfloat16"), pool, settings, [1], [2], [3])
        for _ in range(2)
    ]
    return {
        "device": device,
        "language_model": language,
        "equal": bool(torch.equal(found[0].trace, found[1].trace)),
        "losses": [float(np.mean(x.last_batch_loss)) for x in found],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, metavar="FILE", help="where to write what was measured")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--only", nargs="+", choices=("widths", "language", "bits"), default=("widths", "language", "bits")
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    precision = "bfloat16" if options.device == "cuda" else "float32"
    content: Json = {"command": f"python -m benchmarks.loop --device {options.device}", **environment(options.device)}
    if options.device == "cuda" and "language" in options.only:
        content["language_model"] = language_model()
        write_json(options.json, content)
    if "bits" in options.only:
        content["bits"] = [equal_bits(options.device, options.device == "cuda")]
        write_json(options.json, content)
    if "widths" in options.only:
        content["widths"] = widths(options.device, precision)
    write_json(options.json, content)


if __name__ == "__main__":
    main()
