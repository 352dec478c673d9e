"""Images that are moved and mirrored: every way occurs, nothing happens in evaluation, runs draw for themselves."""

import functools
from collections import Counter
from collections.abc import Callable

import pytest
import torch
from torch import nn

from infinito import training
from infinito.networks import build
from infinito.operations.augmentation import Flip, Shift
from infinito.tasks.pool import Pool
from infinito.tasks.split import Split
from infinito.tasks.supervised import Classes
from infinito.training import vectorizable

N = 4000


@pytest.mark.parametrize("make", [Flip, lambda: Shift(1), lambda: Shift(0)])
def test_nothing_happens_in_evaluation(make: Callable[[], nn.Module]) -> None:
    images = torch.randn(3, 2, 5, 4)
    assert torch.equal(make().eval()(images), images)


def test_half_of_the_images_are_mirrored() -> None:
    torch.manual_seed(0)
    image = torch.arange(24.0).view(1, 2, 3, 4)
    found = Flip().train()(image.expand(N, -1, -1, -1))
    mirrored = (found == image.flip(-1)).flatten(1).all(1)
    assert ((found == image).flatten(1).all(1) | mirrored).all() and 0.46 < mirrored.float().mean() < 0.54


@pytest.mark.parametrize("pixels", [1, 2])
def test_every_way_of_moving_is_as_frequent(pixels: int) -> None:
    torch.manual_seed(0)
    image = torch.zeros(1, 1, 7, 9)
    image[..., 3, 4] = 1.0
    found = Shift(pixels).train()(image.expand(N, -1, -1, -1))
    assert torch.equal(found.flatten(1).sum(1), torch.ones(N))
    places = Counter(divmod(int(place), 9) for place in found.flatten(1).argmax(1))
    ways = (2 * pixels + 1) ** 2
    assert len(places) == ways and {abs(y - 3) for y, _ in places} == set(range(pixels + 1))
    assert max(abs(n - N / ways) for n in places.values()) < 5 * (N / ways) ** 0.5


def test_what_moves_out_is_gone_and_zeros_come_in() -> None:
    torch.manual_seed(0)
    found = Shift(1).train()(torch.ones(200, 1, 3, 3))
    assert set(found.flatten(1).sum(1).tolist()) == {4.0, 6.0, 9.0}


@pytest.mark.parametrize("compiled", [False, True])
def test_a_stacked_run_draws_what_it_would_draw_alone(compiled: bool) -> None:
    draws = torch.Generator().manual_seed(1)
    images = torch.randn(40, 1, 8, 8, generator=draws)
    labels = torch.arange(40) % 3
    task = Classes((1, 8, 8), 3, "image")
    few = Split(images[:4], labels[:4], 3)
    pool = Pool(task, "", images, labels, few, few)
    shape = {"width": 4, "layers": 1, "dropout": 0.0, "shift": 1, "flip": True}
    make = functools.partial(build, "convolutional", **task.given, **shape)
    settings = training.Settings(
        steps=4, batch=6, learning_rate=0.01, warmup=0, schedule="constant", weight_decay=0.0, clip_norm=1.0,
        curve_every=2,
    )  # fmt: skip
    vectorizable.check("convolutional", make, pool, compiled=compiled)
    program = training.Program(make, task, compile=False)
    both = training.train(program, pool, settings, [1, 2], [1, 1], [3, 4])
    other = training.train(program, pool, settings, [2, 2], [1, 1], [4, 5])
    for name, value in both.final.items():
        torch.testing.assert_close(value[1], other.final[name][0], rtol=0, atol=0)
    assert any(not torch.equal(value[0], value[1]) for value in other.final.values())
