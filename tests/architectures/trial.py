"""A network by an engine, against the plain loop of tests/reference.py: they agree, or one line says why not."""

import dataclasses
import functools
import inspect
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from torch import Tensor, nn

from infinito import networks, params, tasks, training
from infinito.training import loop, vectorizable
from tests.architectures import language, pretrained, vision
from tests.conftest import TINY
from tests.reference import train_one

ENGINES = ("loop", "stacked")
HOW = ("", " compiled")
FOUND = Path(__file__).with_name("found.json")
TRUNK = {"width": 8, "layers": 2, "heads": 2, "dropout": 0.0}
SETTINGS = training.Settings(
    steps=3,
    batch=4,
    learning_rate=0.003,
    warmup=0,
    schedule="constant",
    weight_decay=0.01,
    clip_norm=1.0,
    curve_every=3,
)
# Largest difference of a weight, in double precision and in single. There Adam makes a step of the learning rate out of
# a gradient that is zero but for rounding, as that of the keys' bias in attention is: the plain loop itself, in single
# precision, is up to 9e-4 away from itself in double (attention's biases; next to them 3e-7).
SMALL = {"": 1e-6, " compiled": 1e-3}
DIGITS = params.Arrays(
    task="arrays",
    source="sklearn.datasets:load_digits",
    config=None,
    kind="classes",
    inputs=["images"],
    targets=["target"],
    standardise=True,
    seed=0,
    validation=0.2,
    test=0.2,
)
DYCK = params.Dyck(**TINY["prepare"] | {"max_depth": 4})


def cases() -> dict[str, str]:
    """The networks, as params.yaml names them, by the names of their classes."""
    return {
        name: f"{module.__name__}:{name}"
        for module in (language, vision, pretrained)
        for name, found in vars(module).items()
        if inspect.isclass(found) and found.__module__ == module.__name__ and _is_whole(found)
    }


def _is_whole(found: type) -> bool:
    """Whether it is a network for a task, not a part of one."""
    given = inspect.signature(found).parameters
    return ("vocabulary" in given or "shape" in given) and found not in (language.Model, pretrained.Wrapped)


@functools.cache
def data_of(network: str) -> tasks.Data:
    """Digits for images, brackets for tokens."""
    return _prepared("vision" in network)


@functools.cache
def _prepared(images: bool) -> tasks.Data:
    with tempfile.TemporaryDirectory() as folder:
        tasks.prepare(DIGITS if images else DYCK, Path(folder), Path("."))
        return tasks.load(Path(folder))


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came out: the largest difference of a weight from the plain loop, or the line that refuses the network."""

    difference: float | None
    line: str | None
    seconds: float


def attempt(network: str, engine: str, compiled: bool) -> Outcome:
    """Train `network` by an engine and by the plain loop from the same seeds; uncompiled in double precision."""
    began = time.perf_counter()
    data = data_of(network)
    single = functools.partial(networks.build, network, **data.task.given, **TRUNK)
    make = single if compiled else functools.partial(_double, single)
    try:
        if engine == "loop":
            runs = training.Loop(make, data.task, compile=compiled)
            final = loop.train(runs, data, SETTINGS, [5], [1], [2]).final
        else:
            vectorizable.check(network, single, data, compiled=compiled)
            program = training.Program(make, data.task, compile=compiled)
            final = training.train(program, data, SETTINGS, [5, 6], [1, 2], [2, 3]).final
    except ValueError as error:
        return Outcome(None, str(error), time.perf_counter() - began)
    seconds = time.perf_counter() - began
    plain = train_one(make, data, SETTINGS, 5, 1, 2, keyed_noise=engine == "stacked").final
    return Outcome(max(_difference(final[key][0], value) for key, value in plain.items()), None, seconds)


def _double(make: Callable[[], nn.Module]) -> nn.Module:
    network = make().double()
    network.register_forward_pre_hook(lambda _, given: (given[0].double(),) if given[0].is_floating_point() else None)
    return network


def _difference(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).abs().max()) if b.numel() else 0.0


def read_found() -> dict[str, dict[str, Outcome]]:
    """What was measured: by network, then by `loop`, `loop compiled` and so on."""
    content = json.loads(FOUND.read_text()) if FOUND.exists() else {}
    return {name: {how: Outcome(**found) for how, found in row.items()} for name, row in content.items()}


def write_found(found: dict[str, dict[str, Outcome]]) -> None:
    content = {name: {how: dataclasses.asdict(one) for how, one in row.items()} for name, row in found.items()}
    FOUND.write_text(json.dumps(content, indent=1) + "\n")
