"""The networks for arrays: their shapes, and that they can be stacked."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.func import functional_call, stack_module_state

from infinito import networks

TRUNK: dict[str, Any] = {"width": 8, "layers": 2, "dropout": 0.0}


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 5, 7), (2, 1, 9), (1, 1, 1)])
@pytest.mark.parametrize("name", ["mlp", "convolutional"])
def test_every_shape_gives_what_the_task_asks(name: str, shape: tuple[int, ...]) -> None:
    for outputs in ({"classes": 5}, {"labels": 3}, {"outputs": 2}):
        network = networks.build(name, shape=shape, **TRUNK, **outputs)
        assert network(torch.randn(4, *shape)).shape == (4, *outputs.values())


def test_a_perceptron_without_layers_is_linear() -> None:
    network = networks.build("mlp", shape=(2, 3), outputs=1, width=8, layers=0, dropout=0.0)
    a, b = torch.randn(2, 1, 2, 3)
    torch.testing.assert_close(network(a) + network(b), network(a + b) + network(torch.zeros(1, 2, 3)))
    assert sum(p.numel() for p in network.parameters()) == 7


@pytest.mark.parametrize("name", ["mlp", "convolutional"])
def test_stacked_they_are_what_they_are_alone(name: str) -> None:
    made = [networks.build(name, shape=(1, 6, 6), classes=3, **TRUNK) for _ in range(3)]
    weights, buffers = stack_module_state(made)
    x = torch.randn(3, 4, 1, 6, 6)

    def one(weights: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        return functional_call(made[0], weights, (x,))

    found = torch.vmap(one)(weights, x)
    torch.testing.assert_close(found, torch.stack([network(part) for network, part in zip(made, x, strict=True)]))
    assert not buffers and not any(isinstance(module, nn.MaxPool2d) for module in made[0].modules())


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("mlp", {"shape": (4,)}, "ValueError: found no number of outputs; allowed: one of classes, labels"),
        ("mlp", {"shape": (4,), "classes": 3, "outputs": 2}, "found classes, outputs; allowed: one of classes, labels"),
        ("convolutional", {"shape": (4,), "classes": 3}, r"shape: found \(4,\); allowed: an image's \(channels"),
        ("mlp", {"shape": (4,), "classes": 3, "heads": 2}, "does not fit its settings .*unexpected keyword"),
    ],
)  # fmt: skip
def test_bad_settings(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        networks.build(name, **TRUNK, **settings)
