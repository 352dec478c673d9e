"""Every optimiser, stacked and in the loop, against torch.optim by the plain loop, in double precision."""

import functools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from infinito import params, tasks, training
from infinito.networks import build
from infinito.training import loop
from infinito.training.optimisers import SGD, AdamW, Muon, Optimiser, orthogonal
from tests.conftest import TINY
from tests.reference import train_one

SETTINGS = training.Settings(
    steps=12,
    batch=8,
    learning_rate=0.01,
    warmup=3,
    schedule="cosine",
    weight_decay=0.1,
    clip_norm=1.0,
    curve_every=5,
)
RATE, DECAY = {"lr": 0.01}, {"weight_decay": 0.1}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tasks.Data:
    folder = tmp_path_factory.mktemp("data")
    tasks.prepare(params.Dyck(**TINY["prepare"]), folder, Path("."))
    return tasks.load(folder)


@pytest.fixture(scope="module")
def make(data: tasks.Data) -> Callable[[], nn.Module]:
    shape = {"width": 8, "layers": 1, "heads": 2, "dropout": 0.0}
    plain = functools.partial(build, "transformer", **data.task.given, **shape)
    return lambda: plain().double()


def adamw(network: nn.Module) -> list[torch.optim.Optimizer]:
    return [torch.optim.AdamW(network.parameters(), betas=(0.8, 0.9), eps=1e-6, **RATE, **DECAY)]


def sgd(network: nn.Module, nesterov: bool) -> list[torch.optim.Optimizer]:
    return [torch.optim.SGD(network.parameters(), momentum=0.9, nesterov=nesterov, **RATE, **DECAY)]


def muon(network: nn.Module, nesterov: bool) -> list[torch.optim.Optimizer]:
    named = dict(network.named_parameters())
    matrices = {n for n, p in named.items() if p.ndim == 2 and "embedding" not in n and "output" not in n}
    assert len(matrices) == 6  # q, k, v, out and two of the feed-forward
    how = {"momentum": 0.9, "nesterov": nesterov, "adjust_lr_fn": "match_rms_adamw"}
    rest = [p for n, p in named.items() if n not in matrices]
    return [
        torch.optim.Muon([named[n] for n in sorted(matrices)], **how, **RATE, **DECAY),
        torch.optim.AdamW(rest, betas=(0.8, 0.9), eps=1e-6, **RATE, **DECAY),
    ]


CASES: dict[str, tuple[Optimiser, Callable[[nn.Module], list[torch.optim.Optimizer]]]] = {
    "adamw": (AdamW((0.8, 0.9), 1e-6), adamw),
    "sgd": (SGD(0.9, nesterov=False), functools.partial(sgd, nesterov=False)),
    "nesterov": (SGD(0.9, nesterov=True), functools.partial(sgd, nesterov=True)),
    "muon": (Muon(0.9, False, (0.8, 0.9), 1e-6), functools.partial(muon, nesterov=False)),
    "muon nesterov": (Muon(0.9, True, (0.8, 0.9), 1e-6), functools.partial(muon, nesterov=True)),
}
SEEDS = [5, 6], [1, 2], [1, 2]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("engine", ["stacked", "loop"])
def test_it_is_the_one_of_torch(name: str, engine: str, make: Callable[[], nn.Module], data: tasks.Data) -> None:
    ours, theirs = CASES[name]
    if engine == "stacked":
        found = training.train(training.Program(make, data.task, compile=False, optimiser=ours), data, SETTINGS, *SEEDS)
    else:
        found = loop.train(training.Loop(make, data.task, compile=False, optimiser=ours), data, SETTINGS, *SEEDS)
    # Muon multiplies in bfloat16, where another order of additions may turn a last bit
    close = 2e-3 if name.startswith("muon") and engine == "stacked" else 1e-6
    for lane, seeds in enumerate(zip(*SEEDS, strict=True)):
        alone = train_one(make, data, SETTINGS, *seeds, optimisers=theirs)
        moved = max(float((value - alone.initial[key]).abs().max()) for key, value in alone.final.items())
        assert moved > 10 * close
        for key, value in alone.final.items():
            assert torch.equal(found.initial[key][lane], alone.initial[key])
            torch.testing.assert_close(found.final[key][lane], value, rtol=0, atol=close)


@pytest.mark.parametrize("engine", ["stacked", "loop"])
def test_decay_of_matrices_spares_the_rest(engine: str, make: Callable[[], nn.Module], data: tasks.Data) -> None:
    """At a rate that shrinks by half in a step, what is not decayed is as without decay."""
    finals, initial = {}, {}
    for decayed, decay in (("matrices", 50.0), ("all", 0.0), ("all", 50.0)):
        how = SETTINGS.__class__(**{**vars(SETTINGS), "steps": 1, "warmup": 0, "weight_decay": decay})
        if engine == "stacked":
            program = training.Program(make, data.task, compile=False, decayed=decayed)
            found = training.train(program, data, how, [5], [1], [1])
        else:
            plain = training.Loop(make, data.task, compile=False, decayed=decayed)
            found = loop.train(plain, data, how, [5], [1], [1])
        finals[decayed, decay], initial = found.final, found.initial
    spared, none, all_of_it = finals.values()
    for key in spared:
        shrinks = spared[key].ndim == 3 and "embedding" not in key  # axis 0 is the run
        same, other = (all_of_it, none) if shrinks else (none, all_of_it)
        torch.testing.assert_close(spared[key], same[key], rtol=0, atol=1e-12)
        if float(initial[key].abs().max()) > 1e-3:
            assert not torch.allclose(spared[key], other[key], rtol=0, atol=1e-6), key


def test_what_is_made_orthogonal_is_nearly_so() -> None:
    draws = torch.Generator().manual_seed(0)
    for shape in ((3, 8, 20), (2, 20, 8)):
        values = torch.linalg.svdvals(orthogonal(torch.randn(shape, generator=draws)).double())
        assert 0.4 < float(values.min()) <= float(values.max()) < 1.4


def test_runs_of_a_stack_may_differ_in_their_rates(make: Callable[[], nn.Module], data: tasks.Data) -> None:
    for ours, _ in CASES.values():
        program = training.Program(make, data.task, compile=False, optimiser=ours)
        rates = SETTINGS.__class__(**{**vars(SETTINGS), "learning_rate": [0.01, 0.03], "weight_decay": [0.0, 0.1]})
        both = training.train(program, data, rates, [5, 5], [1, 1], [1, 1])
        one = SETTINGS.__class__(**{**vars(SETTINGS), "learning_rate": 0.03, "weight_decay": 0.1})
        alone = training.train(program, data, one, [5], [1], [1])
        for key, value in alone.final.items():
            torch.testing.assert_close(both.final[key][1], value[0], rtol=0, atol=2e-3)
