"""A network is tried out before training: what the seeds don't decide, and what does not fit, is one line."""

import functools
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from infinito import params, tasks, training
from infinito.runs import trial
from infinito.stages import STAGES
from infinito.study import load_study
from infinito.training import vectorizable
from tests.conftest import in_process

VOCABULARY, LENGTH = 10, 6


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tasks.Data:
    return dyck(tmp_path_factory.mktemp("data"), max_depth=4)


def dyck(folder: Path, max_depth: int) -> tasks.Data:
    settings = params.Dyck(
        task="dyck", seed=1, pool=99, validation=9, test=9, kinds=3, min_depth=1, max_depth=max_depth, noise=2,
        noise_kinds=2,
    )  # fmt: skip
    tasks.prepare(settings, folder, folder)
    return tasks.load(folder)


@dataclass
class WithLogits:
    logits: Tensor


class Net(nn.Module):
    """Embedding and head, with whatever is asked of its constructor or its outputs."""

    def __init__(
        self,
        draw: Callable[[Any], None] = lambda self: None,
        give: Callable[[Tensor], Any] = lambda x: x,
        vocabulary: int = VOCABULARY,
    ) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(vocabulary, 8), nn.Linear(8, vocabulary)
        self.give = give
        draw(self)

    def forward(self, ids: Tensor) -> Any:
        return self.give(self.head(self.embedding(ids)))


def by_numpy(self: Any) -> None:
    self.head.weight.data = torch.from_numpy(np.random.standard_normal((VOCABULARY, 8)).astype(np.float32))


def by_random(self: Any) -> None:
    self.head.weight.data = torch.tensor([[random.random() for _ in range(8)] for _ in range(VOCABULARY)])


def by_own_generator(self: Any) -> None:
    self.head.weight.data = torch.randn(VOCABULARY, 8, generator=torch.Generator().manual_seed(time.perf_counter_ns()))


def by_own_numpy(self: Any) -> None:
    draws = np.random.default_rng()
    self.register_buffer("table", torch.from_numpy(draws.standard_normal(8)))


def after_a_seed_of_its_own(self: Any) -> None:
    np.random.seed(3)
    by_numpy(self)


@pytest.mark.parametrize("draw", [by_numpy, by_random])
def test_what_the_constructor_draws_by_numpy_or_random_comes_from_the_init_seed(draw: Any, data: tasks.Data) -> None:
    make = functools.partial(Net, draw)
    before = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    trial.try_out("Net", make, data)
    program = training.Program(make, data.task, compile=False)
    weights, state = program.draw([1, 1, 2])
    heads = program.state_dict(weights, state)["head.weight"]
    assert torch.equal(heads[0], heads[1]) and not torch.equal(heads[0], heads[2])
    alone = training.Loop(make, data.task, compile=False).draw(2, data)
    assert torch.equal(alone.state_dict()["head.weight"], heads[2])  # both engines draw the same
    assert random.getstate() == before[0] and torch.equal(torch.get_rng_state(), before[2])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])


@pytest.mark.parametrize("draw, where", [(by_own_generator, "head.weight"), (by_own_numpy, "table")])
def test_what_no_seed_decides_is_refused(draw: Any, where: str, data: tasks.Data) -> None:
    with pytest.raises(ValueError, match=rf"^network: 'Net': two networks of one init seed differ in {where}: .*$"):
        trial.try_out("Net", functools.partial(Net, draw), data)


def test_weights_that_are_the_same_for_every_seed_are_said_once(
    data: tasks.Data, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        trial.try_out("Constant", functools.partial(Net, after_a_seed_of_its_own), data)
    assert caplog.text.count("its initial head.weight is the same for every init seed") == 1
    trial.try_out("Net", Net, data)
    assert "'Net'" not in caplog.text


@pytest.mark.parametrize(
    "give, found",
    [
        (lambda x: (x, x), "gives a tuple; allowed: a tensor (2, 6, 10), or an object with it as .logits"),
        (lambda x: {"logits": x}, "gives a dict; allowed: a tensor (2, 6, 10), or an object with it as .logits"),
        (lambda x: None, "gives a NoneType; allowed: a tensor (2, 6, 10), or an object with it as .logits"),
        (lambda x: x.transpose(1, 2), "gives (2, 10, 6); allowed: (2, 6, 10), as the task has it"),
        (lambda x: x[:, -1], "gives (2, 10); allowed: (2, 6, 10), as the task has it"),
        (lambda x: x[..., :-1], "gives (2, 6, 9); allowed: (2, 6, 10), as the task has it"),
        (lambda x: exit(3), "fails on the task: SystemExit: 3"),
        (lambda x: x.undefined, "fails on the task: AttributeError: 'Tensor' object has no attribute 'undefined'"),
    ],
)
def test_outputs_that_do_not_fit_are_one_line(give: Any, found: str, data: tasks.Data) -> None:
    with pytest.raises(ValueError) as error:
        trial.try_out("Net", functools.partial(Net, give=give), data)
    assert str(error.value) == f"network: 'Net' {found}"


def test_an_object_with_logits_and_a_vocabulary_that_is_filled_up_train(data: tasks.Data) -> None:
    settings = training.Settings(
        steps=2, batch=4, learning_rate=0.01, warmup=0, schedule="constant", weight_decay=0.0, clip_norm=1.0,
        curve_every=2,
    )  # fmt: skip
    plain = training.train(training.Program(Net, data.task, compile=False), data, settings, [1], [2], [3])
    for make in (functools.partial(Net, give=WithLogits), functools.partial(Net, vocabulary=VOCABULARY + 3)):
        trial.try_out("Net", make, data)
        vectorizable.check("Net", make, data, compiled=False)
        stacked = training.train(training.Program(make, data.task, compile=False), data, settings, [1], [2], [3])
        alone = training.loop.train(training.Loop(make, data.task, compile=False), data, settings, [1], [2], [3])
        np.testing.assert_allclose(stacked.test.losses, alone.test.losses, rtol=1e-5)
        assert (stacked.test.loss == plain.test.loss).all() == (stacked.final["head.weight"].shape[1] == VOCABULARY)


class TakesOneLength(Net):
    def forward(self, ids: Tensor) -> Any:
        return super().forward(ids) + torch.zeros(ids.shape[0], self.length, VOCABULARY).transpose(1, 2)

    def __init__(self, length: int, **more: Any) -> None:
        super().__init__(**more)
        self.length = length


def test_a_square_output_is_tried_at_another_length(tmp_path: Path) -> None:
    square = dyck(tmp_path, max_depth=8)
    assert square.task.output == (VOCABULARY, VOCABULARY)
    trial.try_out("Net", Net, square)

    def transposed(x: Tensor) -> Tensor:
        return x.transpose(1, 2)

    with pytest.raises(ValueError, match=r"allowed: \(2, 10, 10\), as the task has it, the vocabulary last"):
        trial.try_out("Net", functools.partial(Net, give=transposed), square)
    make = functools.partial(TakesOneLength, give=transposed)
    with pytest.raises(ValueError, match="the vocabulary last"):
        trial.try_out("Net", functools.partial(make, VOCABULARY), square, functools.partial(make, VOCABULARY - 1))


def frozen() -> nn.Module:
    return Net().requires_grad_(False)


def test_a_network_with_nothing_to_train_is_refused(data: tasks.Data) -> None:
    with pytest.raises(ValueError, match=r"^network: 'Net' has no parameter that can be trained"):
        trial.try_out("Net", frozen, data)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64, torch.complex64])
def test_a_parameter_of_another_type_is_named(dtype: torch.dtype, data: tasks.Data) -> None:
    def make() -> nn.Module:
        network = Net(give=lambda x: x)
        network.scale = nn.Parameter(torch.ones(8, dtype=dtype))
        return network

    name = str(dtype).removeprefix("torch.")
    with pytest.raises(ValueError, match=rf"^network: 'Net': parameter 'scale' is {name}, and all of a run lie in one"):
        vectorizable.check("Net", make, data, compiled=False)
    settings = training.Settings(
        steps=2, batch=4, learning_rate=0.01, warmup=0, schedule="constant", weight_decay=0.0, clip_norm=1.0,
        curve_every=2,
    )  # fmt: skip
    found = training.loop.train(training.Loop(make, data.task, compile=False), data, settings, [1], [2], [3])
    assert found.final["scale"].dtype == dtype and not found.diverged.any()


def test_a_module_asks_the_place_of_an_embedding_for_its_size(data: tasks.Data) -> None:
    class Scaled(Net):
        def forward(self, ids: Tensor) -> Any:
            assert isinstance(self.embedding, nn.Embedding)
            return self.head(self.embedding(ids) * self.embedding.embedding_dim**0.5 / self.embedding.num_embeddings)

    vectorizable.check("Scaled", Scaled, data, compiled=False)


def test_what_a_network_raises_at_a_late_step_is_one_line(write_study: Callable[..., Path]) -> None:
    folder = write_study(
        {
            "train.candidate": {"network": "tests.users:Ends", "settings": {}},
            "train.engine": "loop",
            "train.steps": 60,
        }
    )
    study = load_study(folder)
    STAGES["prepare"](study, in_process)
    with pytest.raises(
        ValueError,
        match=r"^network: 'tests.users:Ends': tests/users.py:\d+: `sys.exit\(\"no more\"\)`: SystemExit: no more "
        r"\(stack candidate-pairs-00, after 10 of 60 steps\)$",
    ):
        STAGES["train"](study, in_process)
