"""The kernels run on a GPU, or in Triton's interpreter: TRITON_INTERPRET=1, with triton and numpy below 2.4.

Elsewhere the plain code is held to torch's own functions, and the way an operator enters torch is tried with a toy.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap
from torch.nn import functional as F

from infinito import training
from infinito.networks.transformer import feed_forward
from infinito.operations.fused import attention, cross_entropy, gelu, operator
from infinito.operations.noise import KeyedDropout, restart, sites
from infinito.tasks import IGNORE
from infinito.tasks.tokens import token_nats

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
RUNS_KERNELS = operator.HAS_KERNELS and (DEVICE == "cuda" or os.environ.get("TRITON_INTERPRET") == "1")
kernels = pytest.mark.skipif(not RUNS_KERNELS, reason="no GPU, and not TRITON_INTERPRET=1")
compiles = pytest.mark.skipif(training.compiler() is None, reason="no C++ compiler")
RUNS, BATCH = 2, 3


# --- an operator of our own under vmap, grad and torch.compile


def _toy_forward(x: Tensor, bias: Tensor, power: int) -> tuple[Tensor, Tensor]:
    per_run = len(x) // len(bias)
    return x**power + bias.repeat_interleave(per_run, 0), x.sum(-1)


def _toy_shapes(x: Tensor, bias: Tensor, power: int) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), x.new_empty(x.shape[:-1])


def _toy_backward(gradient: Tensor | None, of_sum: Tensor | None, x: Tensor, bias: Tensor, power: int) -> list[Tensor]:
    gradient = torch.zeros_like(x) if gradient is None else gradient
    into = gradient * power * x ** (power - 1)
    if of_sum is not None:
        into = into + of_sum[..., None]
    return [into, gradient.unflatten(0, (len(bias), -1)).sum(1)]


def _toy_backward_shapes(gradient: Tensor, of_sum: Tensor, x: Tensor, bias: Tensor, power: int) -> list[Tensor]:
    return [torch.empty_like(x), torch.empty_like(bias)]


toy = operator.define(
    "toy",
    operator.Kernel("(Tensor x, Tensor bias, int power) -> (Tensor, Tensor)", _toy_forward, _toy_shapes),
    operator.Kernel(
        "(Tensor? gradient, Tensor? of_sum, Tensor x, Tensor bias, int power) -> Tensor[]",
        _toy_backward,
        _toy_backward_shapes,
    ),
    saved=lambda arguments, results: (arguments[:2], arguments[2:]),
    differentiable=(0, 1),
)


def _with_toy(x: Tensor, bias: Tensor, both: bool) -> Tensor:
    y, total = toy(x, bias[None], 3)
    return y.square().mean() + (total.sum() if both else 0.0)


def _without(x: Tensor, bias: Tensor, both: bool) -> Tensor:
    return (x**3 + bias).square().mean() + (x.sum() if both else 0.0)


@pytest.mark.parametrize("both", [True, False], ids=["both results", "one result"])
@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=compiles)], ids=["eager", "compiled"])
def test_an_operator_is_stacked_differentiated_and_compiled(both: bool, compiled: bool) -> None:
    x, bias = torch.randn(RUNS, BATCH, 4, dtype=torch.float64), torch.randn(RUNS, 4, dtype=torch.float64)

    def gradients(loss: Callable[..., Tensor]) -> Callable[..., tuple[tuple[Tensor, Tensor], Tensor]]:
        return lambda x, bias: vmap(grad_and_value(lambda a, b: loss(a, b, both), argnums=(0, 1)))(x, bias)

    call = gradients(_with_toy)
    (dx, dbias), loss = (torch.compile(call, fullgraph=True) if compiled else call)(x, bias)
    (wanted_dx, wanted_dbias), wanted = gradients(_without)(x, bias)
    for found, expected in ((loss, wanted), (dx, wanted_dx), (dbias, wanted_dbias)):
        torch.testing.assert_close(found, expected)


def test_an_operator_works_without_any_transform() -> None:
    x = torch.randn(BATCH, 4, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(4, dtype=torch.float64)
    found = torch.autograd.grad(_with_toy(x, bias, True), x)[0]
    torch.testing.assert_close(found, torch.autograd.grad(_without(x, bias, True), x)[0])


# --- attention


def _dropout(rate: float, key: Tensor | None = None) -> nn.Module:
    if rate == 0:
        return nn.Identity()
    dropout = KeyedDropout(rate, site=3).to(DEVICE)
    if key is not None:
        dropout.key = key
    return dropout


@pytest.mark.parametrize("causal", [True, False])
def test_plain_attention_is_that_of_torch(causal: bool) -> None:
    qkv = torch.randn(BATCH, 7, 3 * 8, dtype=torch.float64)
    mixed, weights = attention.attend(qkv, 2, causal, nn.Identity(), True)
    q, k, v = (x.unflatten(-1, (2, 4)).transpose(1, 2) for x in qkv.chunk(3, -1))
    expected = F.scaled_dot_product_attention(q, k, v, is_causal=causal).transpose(1, 2).flatten(2)
    torch.testing.assert_close(mixed, expected)
    assert weights is not None
    torch.testing.assert_close(weights.sum(-1), torch.ones(BATCH, 2, 7, dtype=torch.float64))
    assert attention.attend(qkv, 2, causal, nn.Identity(), False)[1] is None


def test_a_coin_says_all_that_a_kernel_needs() -> None:
    dropout = KeyedDropout(0.3, site=5)
    dropout.key = torch.tensor([123456789, -987654321], dtype=torch.int32)
    start, between, lowest = (int(word) for word in dropout.coin())

    def signed(word: int) -> int:
        return (word + 2**31) % 2**32 - 2**31

    kept = []
    for element in range(200):
        x = signed((element + start) * 0x7FEB352D)
        x = signed((x ^ ((x >> 15) & 0x1FFFF) ^ between) * 0x846CA68B)
        kept.append(x >= lowest)
    other = dropout(torch.ones(200)) > 0  # of the second call
    restart([dropout])
    assert torch.equal(dropout(torch.ones(200)) > 0, torch.tensor(kept))
    assert not torch.equal(other, torch.tensor(kept))
    assert 100 < sum(kept) < 170


@kernels
@pytest.mark.parametrize("keep", [True, False], ids=["weights", "no weights"])
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "full"])
@pytest.mark.parametrize("rate", [0.0, 0.2])
@pytest.mark.parametrize("length, wide", [(7, 8), (18, 16), (64, 16), (80, 16), (130, 24)])
def test_fused_attention_is_the_plain_one(length: int, wide: int, rate: float, causal: bool, keep: bool) -> None:
    if length > attention.LONGEST_KEPT and keep:
        pytest.skip("the large kernels don't give the weights")
    heads, width = 2, 2 * wide
    draws = torch.Generator().manual_seed(0)
    qkv = torch.randn(RUNS, BATCH, length, 3 * width, generator=draws).to(DEVICE)
    keys = torch.randint(-(2**31), 2**31, (RUNS, 2), generator=draws).to(torch.int32).to(DEVICE)
    into = torch.randn(RUNS, BATCH, length, width, generator=draws).to(DEVICE)
    into_weights = torch.randn(RUNS, BATCH, heads, length, length, generator=draws).to(DEVICE)

    def loss(fused: bool) -> Callable[..., tuple[Tensor, Tensor]]:
        def call(qkv: Tensor, key: Tensor, into: Tensor, into_weights: Tensor) -> tuple[Tensor, Tensor]:
            dropout = _dropout(rate, key)
            if fused:
                tossed = isinstance(dropout, KeyedDropout)
                coin, scale = (dropout.coin()[None], dropout.scale()[None]) if tossed else (None, None)
                mixed, _, weights = attention.attention(qkv, coin, scale, heads, causal, keep)
            else:
                mixed, weights = attention.attend(qkv, heads, causal, dropout, keep)
            return (mixed * into).sum() + ((weights * into_weights).sum() if keep else 0.0), mixed

        return call

    def gradient(fused: bool) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        step = vmap(grad_and_value(loss(fused), has_aux=True))
        found: tuple[Tensor, tuple[Tensor, Tensor]] = step(qkv, keys, into, into_weights)
        return found

    has_kernels, operator.HAS_KERNELS = operator.HAS_KERNELS, False
    try:
        expected = gradient(False)
    finally:
        operator.HAS_KERNELS = has_kernels
    found = gradient(True)
    torch.testing.assert_close(found[1][1], expected[1][1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-4, atol=1e-4)


@kernels
def test_a_run_is_mixed_alike_alone_and_beside_others() -> None:
    qkv = torch.randn(4, BATCH, 18, 3 * 32, device=DEVICE)
    keys = torch.randint(-(2**31), 2**31, (4, 2)).to(torch.int32).to(DEVICE)

    def mix(qkv: Tensor, key: Tensor) -> Tensor:
        dropout = _dropout(0.2, key)
        assert isinstance(dropout, KeyedDropout)
        mixed: Tensor = attention.attention(qkv, dropout.coin()[None], dropout.scale()[None], 2, False, False)[0]
        return mixed

    together = vmap(mix)(qkv, keys)
    assert all(torch.equal(mix(qkv[i], keys[i]), together[i]) for i in range(4))


# --- cross-entropy


def test_plain_nats_are_the_cross_entropy_of_torch() -> None:
    logits, targets = torch.randn(3, 5, 7, dtype=torch.float64), torch.randint(7, (3, 5))
    targets[0, 1] = IGNORE
    expected = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE, reduction="none")
    torch.testing.assert_close(token_nats(logits, targets).flatten(), expected)


@kernels
@pytest.mark.parametrize("words, filled", [(100, 112), (300, 300), (4500, 4544)])
def test_fused_nats_are_the_plain_ones(words: int, filled: int) -> None:
    draws = torch.Generator().manual_seed(0)
    products = (3 * torch.randn(RUNS, BATCH, 9, filled, generator=draws)).to(DEVICE)
    bias = torch.randn(RUNS, words, generator=draws).to(DEVICE)
    targets = torch.randint(words, (RUNS, BATCH, 9), generator=draws).to(DEVICE)
    targets[:, 0, :4] = IGNORE

    def gradient(nats: Callable[[Tensor, Tensor, Tensor], Tensor]) -> tuple[tuple[Tensor, Tensor], Tensor]:
        def loss(products: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
            return nats(products, bias, targets).sum() / (targets != IGNORE).sum()

        found: tuple[tuple[Tensor, Tensor], Tensor] = vmap(grad_and_value(loss, argnums=(0, 1)))(
            products, bias, targets
        )
        return found

    found = gradient(cross_entropy.fused_token_nats)
    expected = gradient(lambda products, bias, targets: token_nats(products[..., :words] + bias, targets))
    torch.testing.assert_close(found[1], expected[1])
    for mine, plain in zip(found[0], expected[0], strict=True):
        torch.testing.assert_close(mine, plain, rtol=1e-4, atol=1e-7)
    assert not found[0][0][..., words:].any()


# --- GELU and dropout


def test_gelu_and_its_slope_are_those_of_torch() -> None:
    x = torch.cat([torch.linspace(-12, 12, 100_001), torch.tensor([0.0, -0.0, 1e-30, -1e30, 1e30])])
    exact = x.double().requires_grad_()
    truth = F.gelu(exact)
    (slope,) = torch.autograd.grad(truth.sum(), exact)
    found = gelu.value_and_slope(x)
    for one, other in zip(found, (truth, slope), strict=True):
        torch.testing.assert_close(one.double(), other.detach(), rtol=1e-6, atol=1e-6)
    assert all(torch.isnan(part).all() for part in gelu.value_and_slope(torch.tensor([torch.nan])))


class Activation(nn.Module):
    def __init__(self, dropout: nn.Module) -> None:
        super().__init__()
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        restart(sites(self).values())
        return gelu.gelu_dropout(x, self.dropout)


@compiles
@pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_compiled_gelu_and_dropout_have_value_and_gradient_of_the_plain_ones(rate: float, half: bool) -> None:
    network = Activation(KeyedDropout(rate, 3) if rate else nn.Identity())
    x = torch.randn(RUNS, 5, 7, 9).to(torch.bfloat16 if half else torch.float32)
    weight, keys = torch.randn(RUNS, 5, 7, 9), torch.tensor([[1, 2], [3, 4]], dtype=torch.int32)

    def loss(x: Tensor, weight: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        mixed = functional_call(network, {"dropout.key": key} if rate else {}, (x,))
        return (mixed * weight).sum(), mixed

    step = vmap(grad_and_value(loss, has_aux=True))
    slope, (_, value) = step(x, weight, keys)
    compiled_slope, (_, compiled_value) = torch.compile(step, fullgraph=True)(x, weight, keys)
    within = 1e-2 if half else 1e-6
    torch.testing.assert_close(compiled_value, value, rtol=within, atol=within)
    torch.testing.assert_close(compiled_slope, slope, rtol=within, atol=within)
    dropped = value == 0
    assert dropped.any() == (rate > 0)
    assert not compiled_value[dropped].any() and not compiled_slope[dropped].any()


@compiles
def test_compiled_code_takes_the_slope_of_the_forward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gelu, "value_and_slope", lambda x: (x, 3 * x))
    step = torch.compile(grad_and_value(lambda x: gelu.gelu_dropout(x, nn.Identity()).sum()), fullgraph=True)
    slope, value = step(torch.arange(4.0))
    assert slope.tolist() == [0, 3, 6, 9] and value == 6


class Sometimes(nn.Dropout):
    """Dropout that draws on its own."""


@compiles
@pytest.mark.parametrize(
    "x, dropout",
    [
        (torch.linspace(-2, 2, 9, dtype=torch.float64), nn.Identity()),
        (torch.linspace(-2, 2, 9), nn.Identity().eval()),
        (torch.linspace(-2, 2, 9), KeyedDropout(0.5, 1).eval()),
        (torch.linspace(-2, 2, 9), Sometimes(0.0)),
    ],
    ids=["double precision", "evaluation", "evaluation with dropout", "dropout of another kind"],
)
def test_elsewhere_compiled_code_is_the_plain_one(
    x: Tensor, dropout: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gelu, "value_and_slope", None)
    found = torch.compile(lambda x: gelu.gelu_dropout(x, dropout), fullgraph=True)(x)
    torch.testing.assert_close(found, F.gelu(x), rtol=1e-6, atol=1e-6)


def test_a_block_with_another_activation_keeps_it() -> None:
    block = nn.Sequential(nn.Linear(4, 8), nn.SiLU(), nn.Dropout(0.0), nn.Linear(8, 4))
    h = torch.randn(2, 4)
    torch.testing.assert_close(feed_forward(block, h), block(h), rtol=0, atol=0)
    block[1] = nn.GELU(approximate="tanh")
    torch.testing.assert_close(feed_forward(block, h), block(h), rtol=0, atol=0)
    block[1] = nn.GELU()
    torch.testing.assert_close(feed_forward(block, h), block(h), rtol=0, atol=0)


def test_a_torch_without_the_private_names_runs_the_plain_code() -> None:
    """In a process of its own: the operators are made when they are imported."""
    program = """
import torch
del torch._C._AutoDispatchBelowAutograd
from infinito.networks import build
network = build("transformer", vocabulary=7, width=8, layers=1, heads=2, length=5, causal=True, dropout=0.1)
print(network(torch.zeros(2, 5, dtype=torch.long)).shape)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "torch.Size([2, 5, 7])"
    assert done.stderr.count("lacks what the kernels stand on") == 1 and "Traceback" not in done.stderr
