"""A user's own network against the built-in transformer: `python -m benchmarks.user_network --json`.

The user's networks are written in the ordinary way and know nothing of infinito: a recurrent one with gates (Cho et al.
2014), written out with `nn.Linear`, and PyTorch's own `nn.TransformerEncoder`, without dropout on the weights of its
attention. All have the width and the depth of the built-in transformer and learn the same task at the setting of
benchmarks/engine.py.

Each is timed in one process with one thread: a stack of runs in the engine, and its own plain loop, one run after the
other (tests/reference.py, with torch's own dropout, which is the faster one). What counts is the ratio of the two, and
how near it is to the built-in network's. Neither time includes compiling.
"""

import argparse
import functools
import json
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.engine import DYCK, settings
from infinito import machine, tasks, training
from infinito.networks import build
from infinito.training import vectorizable
from tests.reference import train_one

NETWORKS = {
    "transformer": "transformer",
    "recurrent": "benchmarks.user_network:Recurrent",
    "encoder": "benchmarks.user_network:Encoder",
}


class Recurrent(nn.Module):
    """Layers of gated recurrent units, from left to right; integer [B, T] -> [B, T, V]."""

    def __init__(
        self, vocabulary: int, width: int, layers: int, heads: int, length: int, causal: bool, dropout: float
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.of_input = nn.ModuleList(nn.Linear(width, 3 * width) for _ in range(layers))
        self.of_state = nn.ModuleList(nn.Linear(width, 3 * width) for _ in range(layers))
        self.drops = nn.ModuleList(nn.Dropout(dropout) for _ in range(layers))
        self.head = nn.Linear(width, vocabulary)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids)
        for of_input, of_state, drop in zip(self.of_input, self.of_state, self.drops, strict=True):
            state, states = torch.zeros_like(x[:, 0]), []
            for given in of_input(x).unbind(1):
                a, b, c = given.chunk(3, -1)
                r, z, n = of_state(state).chunk(3, -1)
                update = torch.sigmoid(b + z)
                state = (1 - update) * torch.tanh(c + torch.sigmoid(a + r) * n) + update * state
                states.append(state)
            x = drop(torch.stack(states, 1))
        return self.head(x)


class Encoder(nn.Module):
    """PyTorch's encoder with learned positions; integer [B, T] -> [B, T, V]."""

    def __init__(
        self, vocabulary: int, width: int, layers: int, heads: int, length: int, causal: bool, dropout: float
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.position = nn.Parameter(0.02 * torch.randn(1, length, width))
        layer = nn.TransformerEncoderLayer(width, heads, 4 * width, dropout, activation="gelu", batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        for copy in self.encoder.layers:
            copy.self_attn.dropout = 0.0
        self.head = nn.Linear(width, vocabulary)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.encoder(self.embedding(ids) + self.position[:, : ids.shape[1]]))


def maker(network: str, data: tasks.Data) -> Callable[[], nn.Module]:
    shape: dict[str, Any] = {"vocabulary": data.task.vocabulary, "length": data.task.length, "causal": False}
    return functools.partial(build, network, width=64, layers=2, heads=4, dropout=0.1, **shape)


def stacked(program: training.Program, data: tasks.Data, width: int, steps: int) -> float:
    """Model-steps per second of a stack, after its first ten steps, in which it is compiled."""
    times: list[float] = []
    seeds = list(range(width))
    training.train(
        program,
        data,
        settings(steps + 10),
        seeds,
        seeds,
        seeds,
        progress=lambda step: times.append(time.perf_counter()) if step < steps + 10 else None,
    )
    return width * 10 * (len(times) - 1) / (times[-1] - times[0])


def alone(make: Callable[[], nn.Module], data: tasks.Data, steps: int) -> float:
    """Steps per second of the plain loop, after its first ten."""
    times: list[float] = []
    train_one(
        make,
        data,
        settings(steps + 10),
        0,
        0,
        0,
        keyed_noise=False,
        progress=lambda _: times.append(time.perf_counter()),
    )
    return steps / (times[-1] - times[9])


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.user_network",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--steps", type=int, default=300, help="timed steps of each run, a multiple of 10 (300)")
    parser.add_argument("--stack", type=int, default=5, help="runs trained together (5)")
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each, of which the median counts (3)")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    arguments = parser.parse_args()
    if arguments.steps < 20 or arguments.steps % 10 or arguments.stack < 1 or arguments.repeats < 1:
        parser.error("allowed: --steps a multiple of 10 from 20, --stack and --repeats of 1 or more")
    torch.set_num_threads(1)
    figures: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = Path(temporary)
        tasks.prepare(DYCK, folder, folder)
        data = tasks.load(folder)
        makers = {name: maker(network, data) for name, network in NETWORKS.items()}
        for name, make in makers.items():
            vectorizable.check(NETWORKS[name], make, data, compiled=False)
        programs = {name: training.Program(make, data.task) for name, make in makers.items()}
        measured: dict[str, list[tuple[float, float]]] = {name: [] for name in makers}
        for _ in range(arguments.repeats):  # in turns, so that what else the machine does falls on all alike
            for name, make in makers.items():
                rate = stacked(programs[name], data, arguments.stack, arguments.steps)
                measured[name].append((rate, alone(make, data, arguments.steps)))
        for name, pairs in measured.items():
            figures[name] = {
                "parameters": sum(p.numel() for p in makers[name]().parameters()),
                "model_steps_per_second": statistics.median(rate for rate, _ in pairs),
                "plain_steps_per_second": statistics.median(plain for _, plain in pairs),
                "ratio": statistics.median(rate / plain for rate, plain in pairs),
            }
    result = {
        "networks": figures,
        "steps": arguments.steps,
        "stack": arguments.stack,
        "repeats": arguments.repeats,
        "torch": torch.__version__,
        "compiled": training.compiler() is not None,
        "processor": machine.processor(),
    }
    if arguments.json:
        print(json.dumps(result))
        return
    print(f"{'network':12} {'parameters':>10} {'stacked':>10} {'plain':>10} {'ratio':>6}   (model-steps/s)")
    for name, row in figures.items():
        print(
            f"{name:12} {row['parameters']:10.0f} {row['model_steps_per_second']:10.1f} "
            f"{row['plain_steps_per_second']:10.1f} {row['ratio']:6.2f}"
        )


if __name__ == "__main__":
    sys.exit(main())
