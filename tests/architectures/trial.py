"""A network by an engine, against the plain loop of tests/reference.py: they agree, or one line says why not."""

import dataclasses
import functools
import inspect
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from infinito import networks, params, tasks, training
from infinito.storage import read_json, write_json
from infinito.training import loop, vectorizable
from infinito.training.optimisers import SGD
from tests.architectures import language, pretrained, unusual, vision
from tests.conftest import TINY
from tests.reference import THREE_STEPS as SETTINGS
from tests.reference import train_one

ENGINES = ("loop", "stacked")
HOW = ("", " compiled")
FOUND = Path(__file__).with_name("found.json")
TRUNK = {"width": 8, "layers": 2, "heads": 2, "dropout": 0.0}
# Compiled, in single precision, by plain gradient descent: AdamW makes a whole step out of a gradient that is zero but
# for rounding, as that of the keys' bias in attention is.
COMPILED = dataclasses.replace(SETTINGS, learning_rate=0.1)
SMALL = 1e-6  # largest difference of a weight
# their parameters keep their types, which would be no longer unusual in double precision; no attention, see COMPILED
SINGLE = ("HalfEmbedding", "DoubleScale")
# by functions of torch that draw other numbers when they are compiled: the same ones every time
DRAWING = (
    "StochasticDepth",
    "GptOfFunctions",
    "AlbertWithDropout",
    "MonteCarloDropout",
    "Noisy",
    "GumbelSoftmax",
    "BernoulliDepth",
    "RandomSlopes",
)
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
        for module in (language, vision, pretrained, unusual)
        for name, found in vars(module).items()
        if inspect.isclass(found) and found.__module__ == module.__name__ and _is_whole(found)
    }


def is_of_images(network: str) -> bool:
    """Whether the network takes images; else it takes tokens."""
    return network.startswith(vision.__name__)


def _is_whole(found: type) -> bool:
    """Whether it is a network for a task, not a part of one."""
    given = inspect.signature(found).parameters
    return ("vocabulary" in given or "shape" in given) and found not in (language.Model, pretrained.Wrapped)


@functools.cache
def prepared(images: bool) -> tasks.Data:
    """Digits for networks over images, brackets for those over tokens."""
    with tempfile.TemporaryDirectory() as folder:
        tasks.prepare(DIGITS if images else DYCK, Path(folder), Path("."))
        return tasks.load(Path(folder))


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came out: the largest difference of a weight from the plain loop, or the line that refuses the network."""

    difference: float | None
    line: str | None
    seconds: float


def attempt(network: str, engine: str, how: str) -> Outcome:
    """Train `network` by an engine and by the plain loop from the same seeds.

    Args:
        network: as params.yaml names it.
        engine: one of ENGINES.
        how: one of HOW: by AdamW in double precision (but for SINGLE), or compiled, by plain gradient descent in single
            precision.
    """
    began = time.perf_counter()
    data, compiled = prepared(is_of_images(network)), how == " compiled"
    single = functools.partial(networks.build, network, **data.task.given, **TRUNK)
    mixed = network.partition(":")[2] in SINGLE
    make = single if compiled or mixed else functools.partial(_double, single)
    settings, optimiser = (COMPILED, SGD(0.0, nesterov=False)) if compiled else (SETTINGS, None)
    by_torch = _descent if compiled else _fused if mixed else None
    try:
        if engine == "loop":
            runs = training.Loop(make, data.task, compile=compiled, optimiser=optimiser)
            final = loop.train(runs, data, settings, [5], [1], [2]).final
        else:
            vectorizable.check(network, single, data, compiled=compiled)
            program = training.Program(make, data.task, compile=compiled, optimiser=optimiser)
            final = training.train(program, data, settings, [5, 6], [1, 2], [2, 3]).final
    except ValueError as error:
        return Outcome(None, str(error), time.perf_counter() - began)
    seconds = time.perf_counter() - began
    keyed = engine == "stacked"
    plain = train_one(functools.partial(_plain, make), data, settings, 5, 1, 2, keyed_noise=keyed, optimisers=by_torch)
    assert max(_difference(plain.final[key], value) for key, value in plain.initial.items()) > 1e-3  # it has moved
    return Outcome(max(_difference(final[key][0], value) for key, value in plain.final.items()), None, seconds)


def _descent(network: nn.Module) -> list[torch.optim.Optimizer]:
    return [torch.optim.SGD(network.parameters(), COMPILED.learning_rate, weight_decay=SETTINGS.weight_decay)]


def _fused(network: nn.Module) -> list[torch.optim.Optimizer]:
    """AdamW that rounds what is kept in half precision once a step, not after every operation."""
    rate, decay = SETTINGS.learning_rate, SETTINGS.weight_decay
    return [torch.optim.AdamW(network.parameters(), rate, weight_decay=decay, fused=True)]


def _plain(make: Callable[[], nn.Module]) -> nn.Module:
    """As a plain loop wants it: gradients that AdamW takes, which are not sparse, a loss not of half precision."""
    network = make()
    for module in network.modules():
        if isinstance(module, nn.Embedding):
            module.sparse = False
    network.register_forward_hook(lambda _, given, out: out.float() if out.dtype == torch.float16 else out)
    return network


def _double(make: Callable[[], nn.Module]) -> nn.Module:
    network = make().double()
    network.register_forward_pre_hook(lambda _, given: (given[0].double(),) if given[0].is_floating_point() else None)
    return network


def _difference(a: Tensor, b: Tensor) -> float:
    return float((a.to(torch.complex128) - b.to(torch.complex128)).abs().max()) if b.numel() else 0.0


def read_found() -> dict[str, dict[str, Outcome]]:
    """What was measured: by network, then by `loop`, `loop compiled` and so on."""
    content = read_json(FOUND) if FOUND.exists() else {}
    return {name: {how: Outcome(**found) for how, found in row.items()} for name, row in content.items()}


def write_found(found: dict[str, dict[str, Outcome]]) -> None:
    content = {name: {how: dataclasses.asdict(one) for how, one in row.items()} for name, row in found.items()}
    write_json(FOUND, content)
