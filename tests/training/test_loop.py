"""The loop trains what the stacked engine trains, and everything else, from the same seeds."""

import dataclasses
import functools
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from infinito import networks, params, tasks, training
from infinito.training import loop
from infinito.training.gradient import agrees
from infinito.training.optimisers import Muon
from infinito.training.row import RowOptimiser
from infinito.training.run import Run
from tests import users
from tests.conftest import TINY
from tests.reference import train_one

SETTINGS = training.Settings(
    steps=6,
    batch=4,
    learning_rate=0.003,
    warmup=2,
    schedule="cosine",
    weight_decay=0.01,
    clip_norm=1.0,
    curve_every=3,
)
# what draws random numbers in its forward pass, whatever the rate of dropout
DRAWING = {
    "ModuleNoise", "OwnNoise", "OwnUniform", "InPlaceNoise", "GeneratorNoise", "Permuted", "PythonRandom",
    "NumpyRandom", "NumpyGenerator",
}  # fmt: skip
OWN_GENERATOR = {"GeneratorNoise", "NumpyGenerator"}
# what of a network can't be copied to double precision by the plain loop
SINGLE = {"Complex", "FilledIn", "Half", "Lazy", "OneHot", "Spectrum"}
# Unfolded takes lengths that are multiples of 4 only
USERS = [name for name, found in vars(users).items() if isinstance(found, type) and issubclass(found, users.User)][1:]
USERS.remove("Unfolded")
USERS.remove("EvaluatesToNothing")  # of another test
USERS.remove("Ends")  # of another test


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tasks.Data:
    folder = tmp_path_factory.mktemp("data")
    tasks.prepare(params.Dyck(**TINY["prepare"] | {"max_depth": 4}), folder, Path("."))
    return tasks.load(folder)


def maker(name: str, data: tasks.Data, dropout: float = 0.1) -> Callable[[], nn.Module]:
    trunk = {"width": 8, "layers": 1, "heads": 2, "dropout": dropout}
    return functools.partial(networks.build, name, **data.task.given, **trunk)


def double(make: Callable[[], nn.Module]) -> nn.Module:
    return make().double()


def train(make: Callable[[], nn.Module], data: tasks.Data, settings: Any = SETTINGS, seed: int = 5, **more: Any) -> Any:
    """One run; `more` is of the engine (compile, optimiser) and of its training."""
    how = {"compile": False} | {key: more.pop(key) for key in ("compile", "optimiser") if key in more}
    return loop.train(training.Loop(make, data.task, **how), data, settings, [seed], [1], [2], **more)


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.allclose(a[key], b[key], rtol=0, atol=0, equal_nan=True) for key in a)


@pytest.mark.parametrize("keep", ["last", "best"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("name", ["transformer", "infinito_v52"])
def test_it_does_what_the_stacked_engine_does(name: str, keep: str, smoothing: float, data: tasks.Data) -> None:
    """Without noise, which each engine draws in its own way, and in double precision."""
    make = functools.partial(double, maker(name, data, dropout=0.0))
    settings = dataclasses.replace(SETTINGS, keep=keep, learning_rate=0.1)
    if name == "infinito_v52":  # its exploration draws
        make = functools.partial(still, make)
    program = training.Program(make, data.task, compile=False, smoothing=smoothing)
    stack = training.train(program, data, settings, [5, 6], [1, 2], [3, 4])
    runs = training.Loop(make, data.task, compile=False, smoothing=smoothing)
    found = loop.train(runs, data, settings, [5, 6], [1, 2], [3, 4])
    assert equal(stack.initial, found.initial)
    for key, value in stack.final.items():
        torch.testing.assert_close(found.final[key], value, rtol=0, atol=1e-6)
    for which in ("last_batch_loss", "train_curve", "validation_curve", "kept_step", "curve_steps"):
        np.testing.assert_allclose(getattr(found, which), getattr(stack, which), rtol=1e-6)
    for which in ("validation", "test"):
        mine, other = getattr(found, which), getattr(stack, which)
        np.testing.assert_allclose(mine.losses, other.losses, rtol=1e-6)
        assert {key: mine.score(key).tolist() for key in mine.scores} == {
            key: other.score(key).tolist() for key in other.scores
        }
    assert found.trace.shape == stack.trace.shape and found.tensor_trace.shape == stack.tensor_trace.shape
    assert found.tensors == stack.tensors and not found.diverged.any()


def still(make: Callable[[], nn.Module]) -> nn.Module:
    """Without the noise of the exploration."""
    network: Any = make()
    network.explorer.noise = nn.ModuleList(Zeros() for _ in network.explorer.noise)
    return network


class Zeros(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(x)


@pytest.mark.parametrize("name", USERS)
def test_any_network_is_trained(name: str, data: tasks.Data) -> None:
    make = maker(f"tests.users:{name}", data, dropout=0.0)
    if name in DRAWING or name in SINGLE or "Dropout" in name or name == "RateOfModule":
        make = maker(f"tests.users:{name}", data)
        first, again = train(make, data), train(make, data)
        assert equal(first.final, again.final) and torch.equal(first.trace, again.trace)
        assert not first.diverged.any() and not equal(first.initial, first.final)
        return
    found = train(functools.partial(double, make), data)
    alone = train_one(functools.partial(double, make), data, SETTINGS, 5, 1, 2, keyed_noise=False)
    for key, value in alone.final.items():
        torch.testing.assert_close(found.final[key][0], value, rtol=0, atol=1e-9)
    assert not equal(found.initial, found.final)


@pytest.mark.parametrize(
    "name", sorted({*DRAWING, "FunctionalDropout", "SharedDropout"} - {"GeneratorNoise", "NumpyGenerator"})
)
def test_noise_comes_from_the_noise_seed(name: str, data: tasks.Data) -> None:
    """But for those that have a generator of their own, seeded in the constructor."""
    make = training.Loop(maker(f"tests.users:{name}", data), data.task, compile=False)
    one, other = (loop.train(make, data, SETTINGS, [5], [1], [noise]) for noise in (2, 3))
    assert equal(one.initial, other.initial) and not equal(one.final, other.final)


def test_a_run_depends_on_nothing_but_its_seeds(data: tasks.Data) -> None:
    make = maker("tests.users:PlainAttribute", data)
    runs = training.Loop(make, data.task, compile=False)
    both = loop.train(runs, data, SETTINGS, [5, 6], [1, 2], [3, 4])
    alone = loop.train(runs, data, SETTINGS, [6], [2], [4])
    assert all(torch.equal(both.final[key][1], value[0]) for key, value in alone.final.items())
    assert torch.equal(both.trace[1], alone.trace[0])
    np.testing.assert_array_equal(both.test.losses[1], alone.test.losses[0])


def test_the_global_generators_are_given_back(data: tasks.Data) -> None:
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    before = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    flash = torch.backends.cuda.flash_sdp_enabled()
    train(maker("tests.users:NumpyRandom", data), data)
    assert random.getstate() == before[0] and torch.equal(torch.get_rng_state(), before[2])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])
    assert torch.backends.cuda.flash_sdp_enabled() == flash


@pytest.mark.parametrize("name", ["transformer", "tests.users:PythonCounter", "tests.users:NumpyRandom"])
@pytest.mark.parametrize("keep", ["last", "best"])
def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(
    name: str, keep: str, data: tasks.Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "SECONDS", 0)
    monkeypatch.setattr(loop, "PATIENCE", 0)
    settings = dataclasses.replace(SETTINGS, steps=40, keep=keep)
    how = {"optimiser": Muon(0.9, True) if name == "transformer" else None}
    whole, file = train(maker(name, data), data, settings, **how), tmp_path / "snapshot"

    def stop(steps: int) -> None:
        if steps >= 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(maker(name, data), data, settings, snapshot=file, progress=stop, **how)
    done: list[int] = []
    resumed = train(maker(name, data), data, settings, snapshot=file, progress=done.append, **how)
    assert done[0] > 20
    assert equal(whole.final, resumed.final) and torch.equal(whole.trace, resumed.trace)
    assert torch.equal(whole.tensor_trace, resumed.tensor_trace)
    np.testing.assert_array_equal(whole.validation_curve, resumed.validation_curve)
    file.write_bytes(b"half a file")
    again = train(maker(name, data), data, settings, snapshot=file, **how)
    assert equal(whole.final, again.final)


def test_compiled_and_not_it_learns_the_same(data: tasks.Data) -> None:
    make = functools.partial(double, maker("transformer", data, dropout=0.0))
    compiled, plain = train(make, data, compile=True), train(make, data)
    assert compiled.compiled and not plain.compiled
    for key, value in plain.final.items():
        torch.testing.assert_close(compiled.final[key], value, rtol=0, atol=1e-7)


def test_what_torch_does_not_compile_is_trained_as_it_is(data: tasks.Data, caplog: pytest.LogCaptureFixture) -> None:
    make = maker("tests.users:Broken", data)
    found, plain = train(make, data, compile=True), train(make, data)
    assert not found.compiled and equal(found.final, plain.final)
    assert "network Broken is trained uncompiled: " in caplog.text and "\n" not in caplog.messages[0]


def test_the_best_point_is_chosen_on_validation_per_run(data: tasks.Data) -> None:
    """At a rate at which the loss rises again, the kept weights are those of an earlier point, and score as it did."""
    settings = dataclasses.replace(
        SETTINGS, steps=40, learning_rate=1.0, warmup=0, schedule="constant", curve_every=4, keep="best"
    )
    make = maker("transformer", data)
    for found in (
        loop.train(training.Loop(make, data.task, compile=False), data, settings, [5, 6], [1, 2], [3, 4]),
        training.train(training.Program(make, data.task, compile=False), data, settings, [5, 6], [1, 2], [3, 4]),
    ):
        places = found.validation_curve.argmin(1)
        np.testing.assert_array_equal(found.kept_step, found.curve_steps[places])
        np.testing.assert_allclose(found.validation.loss, found.validation_curve.min(1), rtol=1e-6)
        assert (found.kept_step < 40).any()


@pytest.mark.parametrize(
    ("name", "compiled", "recorded"),
    [
        ("ModuleDropout", True, True),
        ("LayerNorm", True, True),
        ("BatchNorm", True, True),  # in place, but for its counter
        ("Assigned", True, False),
        ("PlainAttribute", True, False),
        ("PythonCounter", False, False),
        ("Broken", False, False),
    ],
)
def test_whether_to_compile_and_to_record_is_settled_once(
    name: str, compiled: bool, recorded: bool, data: tasks.Data
) -> None:
    made = training.Loop(maker(f"tests.users:{name}", data), data.task)
    long = dataclasses.replace(SETTINGS, steps=12, curve_every=12)
    found = loop.train(made, data, long, [5, 6], [1, 1], [2, 2])
    assert (made.compiled, made.recorded) == (compiled, recorded) and found.compiled == compiled
    again = loop.train(training.Loop(maker(f"tests.users:{name}", data), data.task), data, long, [6], [1], [2])
    assert torch.equal(found.trace[1], again.trace[0])  # what was compiled and trained before does not matter


def test_a_process_compiles_any_number_of_networks(data: tasks.Data) -> None:
    one = dataclasses.replace(SETTINGS, steps=1, warmup=0)
    with torch._dynamo.config.patch(recompile_limit=1):
        for name in ("ModuleDropout", "LayerNorm", "GroupNorm"):
            assert train(maker(f"tests.users:{name}", data), data, one, compile=True).compiled, name


def test_the_best_network_comes_back_with_all_that_it_holds(data: tasks.Data) -> None:
    """Also with what is in no state_dict: after training, the plain attribute is that of the best point."""
    settings = dataclasses.replace(
        SETTINGS, steps=40, batch=2, learning_rate=0.3, warmup=0, schedule="constant", curve_every=2, keep="best"
    )
    found = train(maker("tests.users:PlainAttribute", data), data, settings)
    assert found.kept_step[0] < 40
    np.testing.assert_array_equal(found.validation.loss, found.validation_curve.min(1))


def test_a_run_without_a_loss_on_validation_has_no_best_point(data: tasks.Data) -> None:
    settings = dataclasses.replace(SETTINGS, keep="best")
    make = maker("tests.users:EvaluatesToNothing", data)
    assert train(make, data, settings).diverged.all()
    stack = training.train(training.Program(make, data.task, compile=False), data, settings, [5], [1], [2])
    assert stack.diverged.all()


def test_evaluation_rounds_alike_whatever_was_trained_before(data: tasks.Data) -> None:
    make = maker("tests.users:EncoderLayer", data)
    torch.backends.mha.set_fastpath_enabled(True)
    first = train(make, data)
    torch.backends.mha.set_fastpath_enabled(False)
    np.testing.assert_array_equal(first.test.losses, train(make, data).test.losses)


@pytest.mark.parametrize("name", ["Lazy", "OwnNoise", "Numpy"])
def test_members_of_any_network_can_be_asked(name: str, data: tasks.Data) -> None:
    make = maker(f"tests.users:{name}", data)
    found = train(make, data)
    says = [training.predict(make, data.task, found.final, data.test, together=False)[0] for _ in range(2)]
    assert torch.equal(*says) and says[0].shape[:2] == (1, len(data.test.inputs))


def test_a_snapshot_that_does_not_fit_leaves_nothing_behind(data: tasks.Data, tmp_path: Path) -> None:
    """Nothing of it, not even what could be read before it was found out."""
    make, file = maker("transformer", data), tmp_path / "snapshot"
    whole = train(make, data)
    made = training.Loop(make, data.task, compile=False)
    run = Run(made, data, SETTINGS, 9)
    torch.save(run.saved() | {"done": 3, "optimiser_state": {"state": {}, "param_groups": []}}, file)
    again = train(make, data, snapshot=file)
    assert equal(whole.final, again.final) and torch.equal(whole.trace, again.trace)


@pytest.mark.parametrize(
    "name, whole",
    [
        ("transformer", True),
        ("tests.users:SharedBlock", True),
        ("tests.users:OwnNoise", True),
        ("tests.users:BatchNorm", False),
        ("tests.users:InPlaceBuffer", False),
        ("tests.users:Assigned", False),
    ],
)
def test_the_gradient_of_a_row_is_that_of_autograd_unless_buffers_change(
    name: str, whole: bool, data: tasks.Data
) -> None:
    runs = training.Loop(maker(name, data), data.task, compile=False, optimiser=Muon(0.95, True))
    runs.whole = True  # draws by keys
    network = runs.draw(3, data)
    objective, optimiser = training.Objective(network, [], data.task), runs.optimiser_of(network, SETTINGS)
    assert isinstance(optimiser, RowOptimiser)
    try:
        found = agrees(objective, optimiser, *data.batch(torch.arange(4)))
    except RuntimeError:
        found = False
    assert found == whole


@pytest.mark.skipif(training.compiler() is None, reason="no C++ compiler")
def test_a_whole_program_trains_as_the_parts_do_and_is_compiled_once(data: tasks.Data) -> None:
    make = maker("tests.users:SharedBlock", data, dropout=0.0)
    runs = training.Loop(make, data.task, compile=True, optimiser=Muon(0.95, True))
    found = loop.train(runs, data, SETTINGS, [5, 6], [1, 1], [2, 2])
    assert runs.whole and found.compiled
    compiled = counters["stats"]["unique_graphs"]
    again = loop.train(runs, data, SETTINGS, [5], [1], [2])
    assert counters["stats"]["unique_graphs"] == compiled
    plain = train(make, data, optimiser=Muon(0.95, True))
    for key, value in plain.final.items():
        assert torch.equal(found.final[key][:1], again.final[key])
        torch.testing.assert_close(again.final[key], value, rtol=0, atol=4e-3)  # Muon multiplies in half precision
