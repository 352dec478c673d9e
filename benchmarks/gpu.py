"""The training engine on one GPU: `python -m benchmarks.gpu --out h100.json`.

Every measurement is a process of its own. Some compile at the same time, but only one is timed at a time. A small
network is the original report's (benchmarks/engine.py). The language model has 6 layers, width 512, 8 heads, length
256, vocabulary 50,257 (71.6M parameters), batch 16; for it `--text` names prepared data (`infinito.tasks`).

Measured are milliseconds a step after the warm-up, model-steps or tokens per second, the seconds before (compiling,
mostly), memory predicted and taken, and a hash of the digests of all weights after every step, by which equal bits are
found: in another process, in other lanes beside other runs, after an interruption.
"""

import argparse
import contextlib
import fcntl
import functools
import hashlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.engine import DYCK, NETWORKS, maker, settings
from infinito import engine, memory, snapshot, tasks
from infinito.engine import training
from infinito.networks import build
from infinito.provenance import environment
from infinito.storage import write_json
from tests.reference import train_one

Json = dict[str, Any]

LANGUAGE_MODEL = {"width": 512, "layers": 6, "heads": 8, "dropout": 0.1, "causal": True}
BATCH, LENGTH = 16, 256  # of the language model
AT_ONCE = 5  # processes that compile
WARM = 10  # steps before the clock starts
GROWTH = (1, 4, 16, 64, 256, 1024, 4096)


class Enough(Exception):
    """All steps that were to be timed are done."""


@contextlib.contextmanager
def alone(file: Path) -> Iterator[None]:
    """While it lasts no other process is timed."""
    with file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def small(job: Json) -> tuple[Callable[[], nn.Module], tasks.Data, engine.Settings]:
    data = tasks.load(Path(job["data"]))
    return maker(job["network"], data), data, settings(job["steps"])


def large(job: Json) -> tuple[Callable[[], nn.Module], tasks.Data, engine.Settings]:
    data = tasks.load(Path(job["text"]))
    shape: dict[str, Any] = {"vocabulary": data.vocabulary, "length": LENGTH}
    how = engine.Settings(
        steps=job["steps"],
        batch=BATCH,
        learning_rate=0.0003,
        warmup=20,
        schedule="cosine",
        weight_decay=0.01,
        clip_norm=1.0,
        curve_every=job["steps"],
    )
    return functools.partial(build, "transformer", **LANGUAGE_MODEL, **shape), data, how


def prepare(job: Json) -> tuple[engine.Program, Callable[[], nn.Module], tasks.Data, engine.Settings]:
    make, data, how = (large if job.get("language") else small)(job)
    program = engine.Program(make, "cuda", precision=job["precision"])
    return program, make, data.to(program.device), how


def timed(job: Json) -> Json:
    """One stack: the clock runs from step 10 to the last but one, whatever is evaluated after it."""
    program, make, data, how = prepare(job)
    seeds = job.get("seeds") or [seed % 64 for seed in range(job["width"])]
    moments: dict[str, float] = {"begin": time.perf_counter()}
    lock = alone(Path(job["lock"]))
    last = job["steps"] - WARM

    def progress(step: int) -> None:
        if step == WARM:
            moments["waiting"] = time.perf_counter()
            lock.__enter__()
            moments["start"] = time.perf_counter()
        if step == last:
            moments["end"] = time.perf_counter()

    torch.cuda.reset_peak_memory_stats()
    trained = engine.train(program, data, how, seeds, seeds, seeds, progress=progress)
    lock.__exit__(None, None, None)  # only now: the evaluation would slow others down
    ms = (moments["end"] - moments["start"]) / (last - WARM) * 1000
    found = {
        "ms_per_step": ms,
        "model_steps_per_second": job["width"] / ms * 1000,
        "seconds_before": moments["waiting"] - moments["begin"],
        "predicted_gib": job["width"]
        * memory.bytes_per_run(make, how.steps, how.batch, data.length, job["precision"], "cuda")
        / 2**30,
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30,
        "last_loss": float(trained.last_batch_loss.mean()),
        "hash": {
            str(seed): hashlib.sha256(trained.trace[lane].numpy().tobytes()).hexdigest()[:16]
            for lane, seed in enumerate(seeds)
        },
    }
    if len(seeds) > 16:
        del found["hash"]
    if job.get("language"):
        found["tokens_per_second"] = job["width"] * BATCH * LENGTH / ms * 1000
    return found


def interrupted(job: Json) -> Json:
    """Stop in the middle, go on from the snapshot with a new recording: the same bits?"""
    program, _, data, how = prepare(job)
    seeds = list(range(job["width"]))
    snapshot.SECONDS = snapshot.PATIENCE = 0.0
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / "snapshot.safetensors"

        def stop(step: int) -> None:
            if step == job["steps"] // 20 * 10:
                raise Enough

        with contextlib.suppress(Enough):
            engine.train(program, data, how, seeds, seeds, seeds, progress=stop, snapshot=file)
        snapshot.SECONDS = 1e9
        done: list[int] = []
        resumed = engine.train(program, data, how, seeds, seeds, seeds, progress=done.append, snapshot=file)
    return {
        "first_step_after": done[0],
        "hash": {
            str(seed): hashlib.sha256(resumed.trace[lane].numpy().tobytes()).hexdigest()[:16]
            for lane, seed in enumerate(seeds)
        },
    }


def report(job: Json) -> Json:
    """The report's experiment: 10 runs of each arm, 3,000 steps, one arm after the other or both at once."""
    arms = {network: prepare(job | {"network": network}) for network in NETWORKS}
    seeds = list(range(10))
    warm, go = threading.Barrier(3), threading.Event()
    moments: dict[str, float] = {}
    moments["begin"] = time.perf_counter()

    def arm(network: str, wait: bool) -> None:
        program, _, data, how = arms[network]

        def progress(step: int) -> None:
            if step == WARM and wait:
                warm.wait()
                go.wait()
            if step == job["steps"] - WARM:
                moments[network] = time.perf_counter()
                raise Enough

        with contextlib.suppress(Enough), torch.cuda.stream(torch.cuda.Stream()):
            engine.train(program, data, how, seeds, seeds, seeds, progress=progress)

    threads = [threading.Thread(target=arm, args=(network, True)) for network in NETWORKS]
    for thread in threads:
        thread.start()
    warm.wait()
    moments["ready"] = time.perf_counter()
    with alone(Path(job["lock"])):
        began = time.perf_counter()
        go.set()
        for thread in threads:
            thread.join()
        together = max(moments[network] for network in NETWORKS) - began
        began = time.perf_counter()
        for network in NETWORKS:
            arm(network, False)
        one_by_one = time.perf_counter() - began
    scale = job["steps"] / (job["steps"] - 3 * WARM)  # when ten steps are done, the next ten run already
    return {
        "seconds_both_at_once": together * scale,
        "seconds_one_by_one": one_by_one,  # with drawing the weights and recording again
        "seconds_before": moments["ready"] - moments["begin"],
    }


def plain(job: Json) -> Json:
    """The plain loop on the same GPU, torch's own dropout."""
    _, data, how = small(job)
    make = maker(job["network"], data)
    times: list[float] = []
    with alone(Path(job["lock"])):
        train_one(
            lambda: make().cuda(),
            data.to(torch.device("cuda")),
            how,
            0,
            0,
            0,
            keyed_noise=False,
            progress=lambda step: times.append(time.perf_counter()),
        )
    ms = (times[-1] - times[WARM]) / (len(times) - 1 - WARM) * 1000
    return {"ms_per_step": ms, "model_steps_per_second": 1000 / ms}


def hugging_face(job: Json) -> Json:
    """GPT-2 of Hugging Face at the size of the language model, as its users train it."""
    from transformers import GPT2Config, GPT2LMHeadModel

    data = tasks.load(Path(job["text"])).to(torch.device("cuda"))
    config = GPT2Config(
        n_layer=6, n_embd=512, n_head=8, n_positions=LENGTH, vocab_size=data.vocabulary, tie_word_embeddings=False
    )
    torch.backends.cuda.matmul.allow_tf32 = True
    model: Any = GPT2LMHeadModel(config).cuda().train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.0003, fused=True)
    call = torch.compile(model) if job["compiled"] else model
    order = data.order(0, job["steps"], BATCH).cuda()

    def step(t: int) -> None:
        ids = data.batch(order[t])[0]
        with torch.autocast("cuda", torch.bfloat16):
            loss = call(input_ids=ids, labels=ids).loss
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    for t in range(WARM):
        step(t)
    torch.cuda.synchronize()
    with alone(Path(job["lock"])):
        began = time.perf_counter()
        for t in range(WARM, job["steps"]):
            step(t)
        torch.cuda.synchronize()
        ms = (time.perf_counter() - began) / (job["steps"] - WARM) * 1000
    parameters = sum(p.numel() for p in model.parameters())
    return {"ms_per_step": ms, "tokens_per_second": BATCH * LENGTH / ms * 1000, "parameters": parameters}


KINDS = {f.__name__: f for f in (timed, interrupted, report, plain, hugging_face)}


def jobs(parts: list[str]) -> list[Json]:
    """All measurements of these parts; what is heavy to compile first."""
    found: list[Json] = []
    if "language" in parts:
        for width in (8, 1):
            found.append({"part": "language", "kind": "timed", "width": width, "precision": "bfloat16", "steps": 60})
        found.append({"part": "language", "kind": "interrupted", "width": 1, "precision": "bfloat16", "steps": 60})
        found += [{"part": "language", "kind": "hugging_face", "compiled": c, "steps": 60} for c in (True, False)]
        found = [job | {"language": True} for job in found]
    if "thousand" in parts:
        found += [
            {"part": "thousand", "kind": "timed", "network": network, "width": 1000, "precision": p, "steps": 80}
            for p in ("bfloat16", "tf32")
            for network in NETWORKS
        ]
    if "report" in parts:
        found += [
            {"part": "report", "kind": "report", "precision": p, "steps": 3000} for p in ("float32", "tf32", "bfloat16")
        ]
        found += [{"part": "report", "kind": "plain", "network": network, "steps": 300} for network in NETWORKS]
    if "bits" in parts:
        bits: Json = {"part": "bits", "network": "infinito_v52", "precision": "float32", "width": 10, "steps": 400}
        found += [bits | {"kind": "timed"}, bits | {"kind": "timed"}, bits | {"kind": "interrupted"}]
        found.append(bits | {"kind": "timed", "seeds": [9, 33, 3, 0, 5, 44, 7, 1, 22, 2]})
        found.append(bits | {"kind": "timed", "any_order": True})
        found.append(bits | {"kind": "timed", "width": 5, "seeds": [0, 1, 2, 3, 4]})
    if "growth" in parts:
        found += [
            {"part": "growth", "kind": "timed", "network": "transformer", "width": n, "precision": "tf32", "steps": 80}
            for n in GROWTH
        ]
    return found


def one(job: Json) -> Json:
    """Run one measurement in this process."""
    if job.get("any_order"):  # what the fixed order of additions costs

        @contextlib.contextmanager
        def nothing(device: torch.device, precision: str) -> Iterator[None]:
            yield

        training.fixed_order = nothing
    return KINDS[job["kind"]](job)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = ("language", "thousand", "report", "bits", "growth")
    parser.add_argument("--parts", nargs="+", choices=parts, default=list(parts), help="what to measure (all)")
    parser.add_argument("--text", type=Path, help="prepared data of the language model")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"), help="file of the results (gpu.json)")
    parser.add_argument("--job", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job is not None:
        print(json.dumps(one(arguments.job)))
        return
    if not torch.cuda.is_available():
        parser.error("found no GPU")
    if "language" in arguments.parts and arguments.text is None:
        parser.error("allowed: --text FOLDER with the part language")
    results: list[Json] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "dyck").mkdir()
        tasks.prepare(DYCK, folder / "dyck", folder)
        where = {"data": str(folder / "dyck"), "text": str(arguments.text), "lock": str(folder / "lock")}

        def run(job: Json) -> None:
            command = [sys.executable, "-m", "benchmarks.gpu", "--job", json.dumps(job | where)]
            done = subprocess.run(command, capture_output=True, text=True)
            failed = (done.stderr.strip().splitlines() or ["?"])[-1][:300]
            found = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {"error": failed}
            results.append(job | found)
            print(json.dumps(results[-1])[:500], flush=True)
            write_json(arguments.out, {"command": " ".join(sys.argv[1:]), **environment("cuda"), "results": results})

        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(run, jobs(arguments.parts)))


if __name__ == "__main__":
    main()
