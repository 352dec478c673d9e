import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.func import vmap

from infinito import training
from infinito.operations.noise import GaussianNoise, KeyedDropout, KeyedGaussianNoise, bits, keyed, normal, uniform
from infinito.seeds import noise_keys

KEYS = noise_keys(1, 8)
SHAPE = torch.Size([200, 500])


def test_uniform_and_normal_are_what_they_say() -> None:
    u, n = uniform(KEYS[0], 0, SHAPE).flatten().numpy(), normal(KEYS[0], 0, SHAPE).flatten().numpy()
    assert 0 < u.min() and u.max() < 1
    assert stats.kstest(u, "uniform").pvalue > 0.01 and stats.kstest(n, "norm").pvalue > 0.01
    for lag in (1, 2, 16, 500):
        assert abs(np.corrcoef(u[:-lag], u[lag:])[0, 1]) < 4 / math.sqrt(len(u))


@pytest.mark.parametrize("other", [(KEYS[1], 0), (KEYS[0], 1), (KEYS[0], 64)])
def test_streams_of_other_steps_and_sites_are_unrelated(other: tuple[torch.Tensor, int]) -> None:
    a, b = uniform(KEYS[0], 0, SHAPE).flatten().numpy(), uniform(*other, SHAPE).flatten().numpy()
    for shift in (-1, 0, 1):
        assert abs(np.corrcoef(a, np.roll(b, shift))[0, 1]) < 4 / math.sqrt(len(a))


def test_bits_are_the_published_integers_in_plain_arithmetic() -> None:
    site, mask = 3, 2**32 - 1
    words = [int(k) & mask for k in KEYS[2]]
    for index, got in enumerate(bits(KEYS[2], site, torch.Size([50])).tolist()):
        x = (index + (words[0] ^ (site * 0x1E3779B1 & mask))) * 0x7FEB352D & mask
        x = (x ^ x >> 15 ^ words[1] ^ (site * 0x3C6EF372 & mask)) * 0x846CA68B & mask
        assert got & mask == x ^ x >> 16


def test_a_lane_draws_what_the_run_alone_draws() -> None:
    stacked = vmap(lambda key: bits(key, 5, SHAPE))(KEYS)
    assert all(torch.equal(stacked[i], bits(KEYS[i], 5, SHAPE)) for i in range(len(KEYS)))


@pytest.mark.skipif(training.compiler() is None, reason="no C++ compiler")
def test_compiled_code_draws_the_same() -> None:
    compiled = torch.compile(lambda keys: vmap(lambda key: bits(key, 1_000_007, SHAPE))(keys), fullgraph=True)
    assert torch.equal(compiled(KEYS), torch.stack([bits(key, 1_000_007, SHAPE) for key in KEYS]))


def test_dropout_drops_the_right_share_and_keeps_the_mean() -> None:
    dropout = KeyedDropout(0.3, 0).train()
    dropout.key = KEYS[0]
    y = dropout(torch.ones(SHAPE))
    assert set(y.unique().tolist()) == {0.0, 1 / 0.7} or np.allclose(sorted(y.unique()), [0, 1 / 0.7])
    assert float((y == 0).float().mean()) == pytest.approx(0.3, abs=4 * math.sqrt(0.21 / SHAPE.numel()))
    assert torch.equal(dropout.eval()(torch.ones(SHAPE)), torch.ones(SHAPE))


def test_keyed_replaces_every_drawing_module_and_gives_each_its_own_site() -> None:
    network = nn.Sequential(nn.Dropout(0.1), nn.Sequential(nn.Dropout(0.0), nn.Dropout(0.2)), GaussianNoise())
    state = network.state_dict()
    keyed(network)
    drawing = [m for m in network.modules() if isinstance(m, KeyedDropout | KeyedGaussianNoise)]
    assert len(drawing) == 3 and len({m.site for m in drawing}) == 3
    assert not any(type(m) in (nn.Dropout, GaussianNoise) for m in network.modules())
    assert all(isinstance(network[place], kind) for place, kind in ((0, nn.Dropout), (2, GaussianNoise)))
    assert network.state_dict().keys() == state.keys()  # keys and rates are no part of a checkpoint
