import functools
from collections.abc import Callable

import pytest
import torch
from torch import nn

from infinito.networks import build
from infinito.tasks import Split
from infinito.tasks.pool import Pool
from infinito.tasks.tokens import Tokens
from infinito.training import memory


def maker(**settings: int) -> Callable[[], nn.Module]:
    shape = {"vocabulary": 17, "width": 32, "layers": 2, "heads": 2, "length": 12, "causal": False, "dropout": 0.1}
    return functools.partial(build, "transformer", **(shape | settings))


def pool(length: int) -> Pool:
    ids = torch.zeros(2, length, dtype=torch.int64)
    task, split = Tokens(17, length, causal=False, exact=True), Split(ids, ids, length * 17)
    return Pool(task, "", ids, ids, split, split)


def test_more_of_anything_takes_more_memory() -> None:
    base = memory.bytes_per_run(maker(), pool(12), 100, 8)
    assert memory.bytes_per_run(maker(width=64), pool(12), 100, 8) > 1.5 * base
    assert memory.bytes_per_run(maker(layers=4), pool(12), 100, 8) > 1.5 * base
    assert memory.bytes_per_run(maker(), pool(12), 100, 16) > 1.5 * base
    assert memory.bytes_per_run(maker(), pool(12), 10_100, 8) == base + 10_000 * 9 * 8  # batches and keys
    assert memory.bytes_per_run(maker(), pool(12), 100, 8, "bfloat16") < base


def test_the_prediction_is_the_same_every_time() -> None:
    make = functools.partial(
        build, "infinito_v52", vocabulary=17, width=32, layers=2, heads=2, length=12, causal=False, dropout=0.1
    )  # replaces buffers as it goes
    assert len({memory.bytes_per_run(make, pool(12), 100, 8) for _ in range(20)}) == 1


def test_rows_count_four_times() -> None:
    network = maker()()
    rows = 4 * sum(p.numel() * 4 for p in network.parameters())
    assert rows < memory.bytes_per_run(maker(), pool(1), 0, 1) < 1.1 * rows  # one token needs next to nothing


class Drawn(nn.Module):
    """Its constructor looks at what it draws, and copies a layer."""

    def __init__(self, width: int, vocabulary: int = 17) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        nn.init.trunc_normal_(self.embedding.weight, std=0.02)
        layer = nn.TransformerEncoderLayer(width, 2, width, 0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(self.embedding(ids)))


def test_any_constructor_will_do() -> None:
    before = torch.get_rng_state()
    small, large = (memory.bytes_per_run(functools.partial(Drawn, width), pool(12), 100, 8) for width in (32, 64))
    assert large > 1.5 * small
    assert torch.equal(torch.get_rng_state(), before)


def test_width_on_a_cpu() -> None:
    assert [memory.width(n, 10**6, "cpu") for n in (1, 3, 20)] == [1, 3, memory.CPU_WIDTH]


def test_stacks_on_a_gpu_are_even_and_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    class Device:
        total_memory = 80 * 10**9

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: Device)
    assert memory.width(1025, 10**6, "cuda") == 513  # two stacks instead of one of 1024 and one of 1
    assert memory.width(20, 10**6, "cuda") == 20
    fit = int(memory.SHARE * 80 / memory.MARGIN)
    assert memory.width(fit, 10**9, "cuda") == fit
    assert memory.width(fit + 1, 10**9, "cuda") == -(-(fit + 1) // 2)
    with pytest.raises(ValueError, match="one run takes about 116.4 GiB, the device has 74.5"):
        memory.width(1, 10**11, "cuda")
