import itertools

import numpy as np
import pytest
import torch

from infinito.networks import build
from infinito.seeds import POOLS, DrawFrom, noise_keys, pool, stream, torch_stream


def test_pools_are_disjoint_also_between_roots() -> None:
    pools = [set(pool(root, name, 3000)) for root in (0, 1, 7) for name in POOLS]
    assert all(not a & b for a, b in itertools.combinations(pools, 2))
    assert pool(0, "pairs", 2) == [1_000_000, 1_000_001]
    with pytest.raises(ValueError, match="a pool has 1000000"):
        pool(0, "grid", 1_000_001)


def test_a_longer_pool_starts_with_the_shorter_one() -> None:
    assert pool(3, "confirm", 20)[:5] == pool(3, "confirm", 5)


def test_streams_are_named_not_numbered() -> None:
    draws = [
        stream(s, *n).random(4).tolist() for s, *n in ((1, "order"), (1, "noise"), (2, "order"), (1, "order", "x"))
    ]
    assert all(a != b for a, b in itertools.combinations(draws, 2))
    assert stream(1, "order").random(4).tolist() == draws[0]


def test_the_streams_never_change() -> None:
    # Frozen: a change here would silently make every recorded run irreproducible.
    assert stream(1, "order").integers(1000, size=4).tolist() == FROZEN_ORDER
    assert noise_keys(5, 2).tolist() == FROZEN_KEYS


def test_a_network_draws_its_weights_from_the_given_generator_alone() -> None:
    settings = {"vocabulary": 7, "width": 8, "layers": 1, "heads": 2, "length": 5, "causal": False, "dropout": 0.1}
    before = torch.get_rng_state()
    with DrawFrom(torch_stream(3, "init")):
        a = build("infinito_v52", **settings).state_dict()
    with DrawFrom(torch_stream(3, "init")):
        b = build("infinito_v52", **settings).state_dict()
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a[name], b[name]) for name in a)
    with torch.random.fork_rng():
        torch.manual_seed(torch_stream(3, "init").initial_seed())
        c = build("infinito_v52", **settings).state_dict()
    assert all(torch.equal(a[name], c[name]) for name in a)  # what the constructor alone would have drawn


@pytest.mark.parametrize(
    "draw",
    [
        lambda: torch.randn(9),
        lambda: torch.rand(9),
        lambda: torch.randint(1000, (9,)),
        lambda: torch.randint(5, 1000, (9,)),
        lambda: torch.randperm(50),
        lambda: torch.empty(9).normal_(),
        lambda: torch.nn.init.trunc_normal_(torch.empty(9)),
        lambda: torch.nn.init.orthogonal_(torch.empty(4, 4)),
        lambda: torch.bernoulli(torch.full((50,), 0.5)),
        lambda: torch.multinomial(torch.ones(50), 9),
        lambda: torch.randn_like(torch.empty(9)),
        lambda: torch.nn.functional.rrelu(-torch.ones(9), training=True),
        lambda: torch.nn.functional.dropout(torch.ones(50)),
    ],
)
def test_every_kind_of_draw_is_seeded(draw: object) -> None:
    assert callable(draw)
    before = torch.get_rng_state()
    values = []
    for seed in (1, 1, 2):
        with DrawFrom(torch_stream(seed, "init")):
            values.append(draw())
    assert torch.equal(values[0], values[1]) and not torch.equal(values[0], values[2])
    assert torch.equal(before, torch.get_rng_state())


def test_noise_keys_look_random() -> None:
    keys = noise_keys(1, 2000).numpy()
    assert len(np.unique(keys)) == keys.size and abs((keys > 0).mean() - 0.5) < 0.04


FROZEN_ORDER = [464, 271, 647, 827]
FROZEN_KEYS = [[-1429647654, -1720994208], [1916943034, 685339553]]
