"""What a network keeps in attributes, by hooks or by itself, is forgotten after a step of many runs."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from infinito import params, tasks, training
from infinito.training import loop, vectorizable
from infinito.training.attributes import forget, kept_by
from tests.conftest import TINY
from tests.reference import THREE_STEPS


class Plain(nn.Module):
    """Two layers, whose mean is added to what comes out; the subclasses get at the layers' outputs another way."""

    def __init__(self, vocabulary: int, width: int, **_: Any) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(vocabulary, width), nn.Linear(width, vocabulary)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.prepare()

    def prepare(self) -> None:
        """Hang in the hooks."""

    def forward(self, ids: Tensor) -> Tensor:
        x, outputs = self.embedding(ids), []
        for layer in self.layers:
            outputs.append(layer(x))
            x = x + torch.relu(outputs[-1])
        return self.head(x + sum(outputs) / 2)


class InOneMapping(Plain):
    """Hooks put what they see into a mapping of the network."""

    def prepare(self) -> None:
        self.seen: dict[int, Tensor] = {}
        for number, layer in enumerate(self.layers):
            layer.register_forward_hook(functools.partial(self.see, number))

    def see(self, number: int, layer: nn.Module, inputs: Any, output: Tensor) -> None:
        self.seen[number] = output

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids)
        for layer in self.layers:
            x = x + torch.relu(layer(x))
        return self.head(x + sum(self.seen.values()) / 2)


class InEveryLayer(InOneMapping):
    """Hooks put what they see into an attribute that the layer does not have before."""

    def see(self, number: int, layer: Any, inputs: Any, output: Tensor) -> None:
        layer.seen = output

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids)
        for layer in self.layers:
            x = x + torch.relu(layer(x))
        return self.head(x + sum(layer.seen for layer in self.layers) / 2)  # type: ignore[union-attr, arg-type]


class InAList(Plain):
    """No hook: a list that every call begins anew."""

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids)
        self.seen = []
        for layer in self.layers:
            self.seen.append(layer(x))
            x = x + torch.relu(self.seen[-1])
        return self.head(x + sum(self.seen) / 2)


class OfTheHooks(InOneMapping):
    """A mapping that the hooks know by themselves."""

    def prepare(self) -> None:
        seen: dict[str, dict[int, Tensor]] = {"of": {}}
        self.seen = seen  # type: ignore[assignment]
        for number, layer in enumerate(self.layers):
            layer.register_forward_hook(
                lambda layer, inputs, output, number=number: seen["of"].update({number: output})
            )

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids)
        for layer in self.layers:
            x = x + torch.relu(layer(x))
        return self.head(x + sum(self.seen["of"].values()) / 2)  # type: ignore[index, attr-defined]


KINDS = [InOneMapping, InEveryLayer, InAList, OfTheHooks]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tasks.Data:
    folder = tmp_path_factory.mktemp("data")
    tasks.prepare(params.Dyck(**TINY["prepare"]), folder, Path("."))
    return tasks.load(folder)


def trained(kind: type[Plain], data: tasks.Data, engine: str, **how: Any) -> training.Trained:
    make = functools.partial(kind, data.task.given["vocabulary"], 8)
    settings = dataclasses.replace(THREE_STEPS, curve_every=1, **how.pop("settings", {}))
    if engine == "loop":
        return loop.train(training.Loop(make, data.task, **how), data, settings, [5], [1], [2])
    vectorizable.check(kind.__name__, make, data, compiled=how.get("compile", True))
    return training.train(training.Program(make, data.task, **how), data, settings, [5, 6], [1, 2], [2, 3])


@pytest.mark.parametrize("best", [False, True])
@pytest.mark.parametrize("engine", ["loop", "stacked"])
@pytest.mark.parametrize("kind", KINDS)
def test_it_trains_and_is_evaluated_as_without_attributes(
    kind: type[Plain], engine: str, best: bool, data: tasks.Data
) -> None:
    settings = {"keep": "best"} if best else {}
    found, plain = (trained(one, data, engine, compile=False, settings=settings) for one in (kind, Plain))
    assert torch.equal(found.trace, plain.trace)
    assert (found.test.losses == plain.test.losses).all() and (found.validation_curve == plain.validation_curve).all()


@pytest.mark.slow  # the compiler takes 5 to 20 seconds each
@pytest.mark.skipif(training.compiler() is None, reason="no C++ compiler")
@pytest.mark.parametrize("kind", KINDS)
def test_compiled_too(kind: type[Plain], data: tasks.Data) -> None:
    found, plain = (trained(one, data, "stacked", compile=True) for one in (kind, Plain))
    assert found.compiled
    for name, value in plain.final.items():
        torch.testing.assert_close(found.final[name], value, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_left_in_the_network(kind: type[Plain], data: tasks.Data) -> None:
    network: Any = kind(data.task.given["vocabulary"], 8)
    before, seen = [set(vars(module)) for module in network.modules()], vars(network).get("seen")
    inputs = data.validation.inputs[:2]
    kept = kept_by(network, lambda: network(inputs))
    assert {each.name for each in kept} == {"seen"}
    for _ in range(2):
        assert [set(vars(module)) for module in network.modules()] == before
        assert (not seen or seen == {"of": {}}) and vars(network).get(
            "seen"
        ) is seen  # the object that a hook may know by itself
        network(inputs)
        forget(kept)


def test_what_is_no_tensor_and_what_stays_are_left_alone(data: tasks.Data) -> None:
    network: Any = Plain(data.task.given["vocabulary"], 8)
    network.table, network.calls = torch.ones(3), 0

    def call() -> None:
        network.calls += 1

    assert kept_by(network, call) == [] and network.calls == 1


class Remembering(Plain):
    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids)
        self.seen = x.detach().mean() + 0.1 * getattr(self, "seen", 0.0)
        return self.head(x + self.seen)


def test_a_network_that_reads_what_the_call_before_left_is_refused(data: tasks.Data) -> None:
    with pytest.raises(ValueError, match="the same step, taken twice, gives two results"):
        trained(Remembering, data, "stacked", compile=False)


def test_the_engine_leaves_a_network_as_it_was_made(data: tasks.Data) -> None:
    made: list[InOneMapping] = []

    def make() -> nn.Module:
        made.append(InOneMapping(data.task.given["vocabulary"], 8))
        return made[-1]

    training.train(training.Program(make, data.task, compile=False), data, THREE_STEPS, [5], [1], [2])
    assert made[0].seen == {}
