"""The training engine on one GPU: `python -m benchmarks.gpu --out h100.json`.

Every measurement is a process of its own. Some compile at the same time, and wait with it while one is timed. A small
network is the original report's (benchmarks/engine.py). The language model has 6 layers, width 512, 8 heads, length
256, vocabulary 50,257 (71.6M parameters), batch 16; for it `--text` names prepared data (`infinito.tasks`).

Measured are milliseconds a step after the warm-up (the fastest 20 in a row), model-steps or tokens per second, the
seconds before (compiling, mostly), memory predicted and taken, and a hash of the digests of all weights after every
step, by which equal bits are found: in another process, in other lanes beside other runs, after an interruption.
`unfused` is without the kernels of `infinito.operations.fused`.
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

from benchmarks.engine import DYCK, NETWORKS, settings
from infinito import tasks, training
from infinito.networks import build
from infinito.operations.fused import operator
from infinito.runs.provenance import environment
from infinito.storage import write_json
from infinito.training import memory, snapshot
from tests.reference import train_one

Json = dict[str, Any]

LANGUAGE_MODEL = {"width": 512, "layers": 6, "heads": 8, "dropout": 0.1, "causal": True}
BATCH, LENGTH = 16, 256  # of the language model
AT_ONCE = 5  # processes that compile
WARM = 10  # steps before the clock starts
REPEATS = 5  # of the report's experiment
GROWTH = (1, 4, 16, 64, 256, 1024, 2048, 4096)
TRUNKS, DEPTHS = (32, 128, 256), (28, 60, 124)  # widths of the network; brackets, which make its length


class Enough(Exception):
    """All steps that were to be timed are done."""


class Turn:
    """Before it is entered others compile too; while it lasts nobody else computes, nor tries out kernels."""

    def __init__(self, file: Path) -> None:
        self.lock = file.open("w")
        fcntl.flock(self.lock, fcntl.LOCK_SH)

    def __enter__(self) -> None:
        torch.cuda.synchronize()  # what was launched is not for another's turn
        fcntl.flock(self.lock, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        fcntl.flock(self.lock, fcntl.LOCK_SH)


def small(job: Json) -> tuple[Callable[[], nn.Module], tasks.Data, training.Settings]:
    data = tasks.load(Path(job["data"]) / str(job.get("depth", DYCK.max_depth)))
    shape: dict[str, Any] = {"vocabulary": data.task.vocabulary, "length": data.task.length, "causal": False}
    trunk = {"width": job.get("trunk", 64), "layers": 2, "heads": 4, "dropout": 0.1}
    return functools.partial(build, job["network"], **trunk, **shape), data, settings(job["steps"])


def large(job: Json) -> tuple[Callable[[], nn.Module], tasks.Data, training.Settings]:
    data = tasks.load(Path(job["text"]))
    shape: dict[str, Any] = {"vocabulary": data.task.vocabulary, "length": LENGTH}
    how = training.Settings(
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


def prepare(job: Json) -> tuple[training.Program, Callable[[], nn.Module], tasks.Data, training.Settings]:
    make, data, how = (large if job.get("language") else small)(job)
    program = training.Program(make, data.task, "cuda", precision=job["precision"])
    return program, make, data.to(program.device), how


def timed(job: Json, turn: Turn) -> Json:
    """One stack: the clock runs from step 10 on, whatever is evaluated after the last one."""
    program, make, data, how = prepare(job)
    seeds = job.get("seeds") or [seed % 64 for seed in range(job["width"])]
    moments: dict[str, float] = {"begin": time.perf_counter()}
    beats: list[float] = []

    def progress(step: int) -> None:
        if step == WARM:
            moments["waiting"] = time.perf_counter()
            turn.__enter__()
        elif WARM < step < job["steps"]:  # the last one is not followed by another, which would be launched meanwhile
            beats.append(time.perf_counter())

    torch.cuda.reset_peak_memory_stats()
    trained = training.train(program, data, how, seeds, seeds, seeds, progress=progress)
    turn.__exit__()  # only now: the evaluation would slow others down
    ms = min(b - a for a, b in zip(beats[1:], beats[3:], strict=False)) / 20 * 1000
    found = {
        "ms_per_step": ms,
        "model_steps_per_second": job["width"] / ms * 1000,
        "seconds_before": moments["waiting"] - moments["begin"],
        "predicted_gib": job["width"]
        * memory.bytes_per_run(make, data, how.steps, how.batch, job["precision"], "cuda")
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


def interrupted(job: Json, turn: Turn) -> Json:
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
            training.train(program, data, how, seeds, seeds, seeds, progress=stop, snapshot=file)
        snapshot.SECONDS = 1e9
        done: list[int] = []
        resumed = training.train(program, data, how, seeds, seeds, seeds, progress=done.append, snapshot=file)
    return {
        "first_step_after": done[0],
        "hash": {
            str(seed): hashlib.sha256(resumed.trace[lane].numpy().tobytes()).hexdigest()[:16]
            for lane, seed in enumerate(seeds)
        },
    }


def report(job: Json, turn: Turn) -> Json:
    """The report's experiment: 10 runs of each arm, 3,000 steps, both arms at once or one after the other."""
    arms = {network: prepare(job | {"network": network}) for network in NETWORKS}
    seeds = list(range(10))

    def both() -> tuple[float, float]:
        """Seconds until both are warm, and from there until both are done."""
        warm, go = threading.Barrier(3), threading.Event()
        done: list[float] = []

        def arm(network: str) -> None:
            program, _, data, how = arms[network]

            def progress(step: int) -> None:
                if step == WARM:
                    warm.wait()
                    go.wait()
                if step == job["steps"] - WARM:
                    done.append(time.perf_counter())
                    raise Enough

            with contextlib.suppress(Enough), torch.cuda.stream(torch.cuda.Stream()):
                training.train(program, data, how, seeds, seeds, seeds, progress=progress)

        threads = [threading.Thread(target=arm, args=(network,)) for network in NETWORKS]
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        warm.wait()
        ready = time.perf_counter()
        with turn:
            start = time.perf_counter()
            go.set()
            for thread in threads:
                thread.join()
        # when ten steps are done, the next ten run already
        return ready - began, (max(done) - start) * job["steps"] / (job["steps"] - 3 * WARM)

    before, first = both()
    times = [first, *(both()[1] for _ in range(REPEATS - 1))]
    with turn:
        began = time.perf_counter()
        for program, _, data, how in arms.values():
            training.train(program, data, how, seeds, seeds, seeds)
        one_by_one = time.perf_counter() - began
    return {
        "seconds_both_at_once": min(times),
        "seconds_of_every_time": times,
        "seconds_one_by_one": one_by_one,  # with drawing the weights, recording again and evaluating
        "seconds_before": before,
    }


def plain(job: Json, turn: Turn) -> Json:
    """The plain loop on the same GPU, torch's own dropout."""
    make, data, how = small(job)
    times: list[float] = []
    with turn:
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


def hugging_face(job: Json, turn: Turn) -> Json:
    """GPT-2 of Hugging Face at the size of the language model, as its users train it."""
    from transformers import GPT2Config, GPT2LMHeadModel

    data = tasks.load(Path(job["text"])).to(torch.device("cuda"))
    config = GPT2Config(
        n_layer=6, n_embd=512, n_head=8, n_positions=LENGTH, vocab_size=data.task.vocabulary, tie_word_embeddings=False
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
    with turn:
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
        model: Json = {"part": "language", "kind": "timed", "precision": "bfloat16", "steps": 80}
        found += [model | {"width": 8, "unfused": True}, model | {"width": 8}, model | {"width": 1}]
        found.append({"part": "language", "kind": "interrupted", "width": 1, "precision": "bfloat16", "steps": 80})
        found += [{"part": "language", "kind": "hugging_face", "compiled": c, "steps": 60} for c in (True, False)]
        found = [job | {"language": True} for job in found]
    if "growth" in parts:
        base: Json = {"part": "growth", "kind": "timed", "network": "transformer", "precision": "bfloat16", "steps": 80}
        found += [base | {"grows": "stack", "width": n} for n in GROWTH]
        found += [base | {"grows": "width", "width": 64, "trunk": n} for n in TRUNKS]
        found += [base | {"grows": "length", "width": 64, "depth": n} for n in DEPTHS]
    if "thousand" in parts:
        found += [
            {"part": "thousand", "kind": "timed", "network": network, "width": 1000, "steps": 80} | how
            for how in ({"precision": "bfloat16", "unfused": True}, {"precision": "bfloat16"}, {"precision": "tf32"})
            for network in NETWORKS
        ]
    if "bits" in parts:
        bits: Json = {"part": "bits", "network": "infinito_v52", "precision": "float32", "width": 10, "steps": 400}
        found += [bits | {"kind": "timed"}, bits | {"kind": "timed"}, bits | {"kind": "interrupted"}]
        found.append(bits | {"kind": "timed", "seeds": [9, 33, 3, 0, 5, 44, 7, 1, 22, 2]})
        found.append(bits | {"kind": "timed", "any_order": True})
        found.append(bits | {"kind": "timed", "width": 5, "seeds": [0, 1, 2, 3, 4]})
    if "report" in parts:  # last: its time is that of all 3,000 steps, so nothing else should be compiled meanwhile
        found += [{"part": "report", "kind": "plain", "network": network, "steps": 300} for network in NETWORKS]
        found += [
            {"part": "report", "kind": "report", "precision": p, "steps": 3000} for p in ("tf32", "float32", "bfloat16")
        ]
    return found


def one(job: Json) -> Json:
    """Run one measurement in this process."""
    if job.get("any_order"):  # what the fixed order of additions costs

        @contextlib.contextmanager
        def nothing(device: torch.device, precision: str) -> Iterator[None]:
            yield

        training.fixed_order = nothing
    operator.HAS_KERNELS = operator.HAS_KERNELS and not job.get("unfused")
    return KINDS[job["kind"]](job, Turn(Path(job["lock"])))


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
        for depth in (DYCK.max_depth, *DEPTHS):
            (folder / "dyck" / str(depth)).mkdir(parents=True)
            tasks.prepare(DYCK.model_copy(update={"max_depth": depth}), folder / "dyck" / str(depth), folder)
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
