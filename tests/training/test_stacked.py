import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from infinito import params, tasks, training
from infinito.networks import build
from infinito.networks.transformer import Transformer
from infinito.operations import embedding
from infinito.storage import write_weights
from infinito.tasks.tokens import Tokens, token_nats
from infinito.training import snapshot, trace
from infinito.training.objective import way
from infinito.training.schedule import Schedule, rates
from tests.reference import train_one

BETAS = 0.9, 0.999
SETTINGS = training.Settings(
    steps=20,
    batch=8,
    learning_rate=0.003,
    warmup=4,
    schedule="cosine",
    weight_decay=0.01,
    clip_norm=1.0,
    curve_every=8,
)
TRUNK = {"width": 16, "layers": 2, "heads": 2, "dropout": 0.1}


class Recurrent(nn.Module):
    """A user's network: knows nothing of infinito, has a buffer that changes in training, and plain torch dropout."""

    def __init__(
        self, vocabulary: int, width: int, layers: int, heads: int, length: int, causal: bool, dropout: float
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.mix = nn.Linear(width, width, bias=False)
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(width, vocabulary)
        self.register_buffer("mean", torch.zeros(width))

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        x = self.embedding(input_ids)
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * x.detach().mean((0, 1))
        state, states = torch.zeros_like(x[:, 0]), []
        for t in range(x.shape[1]):
            state = torch.tanh(x[:, t] - self.mean + self.mix(state))
            states.append(state)
        return self.head(self.drop(torch.stack(states, 1)))


class Tied(Recurrent):
    """A network whose output weights are its embedding, and with a layer that is not trained."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.head = nn.Linear(settings["width"], settings["vocabulary"], bias=False)
        self.head.weight = self.embedding.weight
        self.mix.weight.requires_grad_(False)


NETWORKS = ["transformer", "infinito_v52", "tests.training.test_stacked:Recurrent", "tests.training.test_stacked:Tied"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tasks.Data:
    folder = tmp_path_factory.mktemp("data")
    settings = params.Dyck(
        task="dyck",
        seed=1,
        pool=500,
        validation=40,
        test=300,
        kinds=3,
        min_depth=1,
        max_depth=4,
        noise=2,
        noise_kinds=2,
    )
    tasks.prepare(settings, folder, folder)
    return tasks.load(folder)


def maker(name: str, data: tasks.Data, **more: object) -> Callable[[], nn.Module]:
    return functools.partial(
        build, name, vocabulary=data.task.vocabulary, length=data.task.length, causal=False, **(TRUNK | more)
    )


def double(make: Callable[[], nn.Module]) -> nn.Module:
    return make().double()


def same(a: dict[str, torch.Tensor], lane: int, b: dict[str, torch.Tensor], other: int) -> bool:
    return all(torch.equal(a[name][lane], b[name][other]) for name in a)


@pytest.mark.parametrize("name", NETWORKS)
def test_agrees_with_the_plain_loop(name: str, data: tasks.Data) -> None:
    # In double precision: a gradient that is zero but for rounding (the keys' bias) is blown up by Adam in single.
    make = functools.partial(double, maker(name, data))
    stack = training.train(
        training.Program(make, data.task, compile=False), data, SETTINGS, [5, 6, 7], [1, 2, 2], [3, 3, 4]
    )
    for lane, seeds in enumerate([(5, 1, 3), (6, 2, 3), (7, 2, 4)]):
        alone = train_one(make, data, SETTINGS, *seeds)
        for key, value in alone.final.items():
            assert torch.equal(stack.initial[key][lane], alone.initial[key])
            torch.testing.assert_close(stack.final[key][lane], value, rtol=0, atol=1e-6)
        assert stack.last_batch_loss[lane] == pytest.approx(float(alone.losses[-1]), abs=1e-6)
        moved = max(float((value - alone.initial[key]).abs().max()) for key, value in alone.final.items())
        assert moved > 1e-3  # it did train


def test_agrees_with_the_plain_loop_where_there_is_a_penalty(data: tasks.Data) -> None:
    make = functools.partial(double, maker("infinito_v52", data, lambda_phi=0.1))
    stack = training.train(training.Program(make, data.task, compile=False), data, SETTINGS, [5, 6], [1, 2], [3, 4])
    without = training.Program(functools.partial(double, maker("infinito_v52", data)), data.task, compile=False)
    other = training.train(without, data, SETTINGS, [5, 6], [1, 2], [3, 4])
    alone = train_one(make, data, SETTINGS, 6, 2, 4)
    for key, value in alone.final.items():
        torch.testing.assert_close(stack.final[key][1], value, rtol=0, atol=1e-6)
    assert not same(stack.final, 1, other.final, 1)  # the penalty does something


class HandsOn(Recurrent):
    """Keeps the mean of this batch's inputs and of the last one's, in buffers that change places."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.register_buffer("now", torch.zeros(()))
        self.register_buffer("before", torch.zeros(()))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        self.before = self.now
        self.now = ids.float().mean()
        return super().forward(ids) + 0.01 * self.before


@pytest.mark.parametrize("name", [*NETWORKS, "tests.training.test_stacked:HandsOn"])
def test_a_recorded_step_is_a_plain_one(name: str, data: tasks.Data) -> None:
    # what a GPU records, taken one after the other on a CPU
    program = training.Program(maker(name, data), data.task, compile=False)
    schedule = Schedule(data, SETTINGS, [1, 2], [3, 4], program.device, BETAS)
    fixed = rates(SETTINGS, 2, program.device)
    weights, buffers = program.draw([5, 6])
    plain = [weights, torch.zeros_like(weights), torch.zeros_like(weights), buffers]
    recorded: list[Any] = [value.clone() for value in plain[:3]]
    state = {key: value.clone() for key, value in buffers.items()}
    clock, steps = torch.zeros(1, dtype=torch.int64), SETTINGS.steps
    losses, checks = torch.zeros(steps, 2), torch.zeros(steps, 2, dtype=torch.int32)
    block = schedule.block(0, steps)
    for step in range(steps):
        loss, check, *plain = program._step(*plain, schedule.block(step, 1), fixed)
        program._recorded_step(*recorded, state, block, fixed, clock, losses, checks)
        assert torch.equal(losses[step], loss) and torch.equal(checks[step], check)
    assert int(clock) == steps
    assert all(torch.equal(a, b) for a, b in zip(plain[:3], recorded, strict=True))
    assert all(torch.equal(plain[3][key], state[key]) for key in state)


def test_behind_the_last_step_a_block_repeats_it(data: tasks.Data) -> None:
    schedule = Schedule(data, SETTINGS, [1, 2], [3, 4], torch.device("cpu"), BETAS)
    block = schedule.block(SETTINGS.steps - 2, 4)
    for value in block:
        assert len(value) == 4 and torch.equal(value[1], value[2]) and torch.equal(value[1], value[3])


def test_what_a_class_overrides_is_what_it_is_trained_by() -> None:
    class Own(Transformer):
        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(ids)

    class Penalised(Transformer):
        def forward_with_penalty(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self(ids), torch.ones(())

    task = Tokens(5, 4, causal=False, exact=True)
    found = [way(network, task) for network in (Transformer, Own, Penalised, Recurrent)]
    assert found == ["nats_with_penalty", "forward", "forward_with_penalty", "forward"]
    # nats of its own are those of tokens: not of smoothed ones
    assert way(Transformer, task, smoothing=0.1) == "forward"


@pytest.mark.parametrize("name", NETWORKS)
def test_agrees_with_the_plain_loop_in_single_precision(name: str, data: tasks.Data) -> None:
    make, settings = maker(name, data), dataclasses.replace(SETTINGS, learning_rate=0.0005)
    stack = training.train(training.Program(make, data.task, compile=False), data, settings, [5, 6], [1, 2], [3, 4])
    alone = train_one(make, data, settings, 6, 2, 4)
    for key, value in alone.final.items():
        if "k_proj.bias" not in key:  # its gradient is zero but for rounding
            torch.testing.assert_close(stack.final[key][1], value, rtol=0, atol=1e-5)
    assert stack.last_batch_loss[1] == pytest.approx(float(alone.losses[-1]), abs=1e-6)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_run_depends_on_nothing_but_its_seeds(name: str, data: tasks.Data) -> None:
    program = training.Program(maker(name, data), data.task, compile=False)
    first = training.train(program, data, SETTINGS, [1, 2, 3], [1, 2, 3], [1, 2, 3])
    again = training.train(program, data, SETTINGS, [1, 2, 3], [1, 2, 3], [1, 2, 3])
    mixed = training.train(program, data, SETTINGS, [3, 9, 1], [3, 8, 1], [3, 7, 1])
    assert all(same(first.final, lane, again.final, lane) for lane in range(3))
    assert same(first.final, 2, mixed.final, 0) and same(first.final, 0, mixed.final, 2)
    assert not same(first.final, 1, mixed.final, 1)
    np.testing.assert_array_equal(first.test.losses[2], mixed.test.losses[0])
    np.testing.assert_array_equal(first.validation_curve[0], mixed.validation_curve[2])


@pytest.mark.skipif(training.compiler() is None, reason="no C++ compiler")
@pytest.mark.parametrize("name", NETWORKS)
def test_the_compiled_step_keeps_both_laws(name: str, data: tasks.Data) -> None:
    program = training.Program(maker(name, data), data.task)
    assert program.compiled
    settings = dataclasses.replace(SETTINGS, learning_rate=0.0005)
    first = training.train(program, data, settings, [1, 2, 3], [1, 2, 3], [1, 2, 3])
    mixed = training.train(program, data, settings, [3, 9, 1], [3, 8, 1], [3, 7, 1])
    assert same(first.final, 2, mixed.final, 0) and same(first.final, 0, mixed.final, 2)
    alone = train_one(maker(name, data), data, settings, 3, 3, 3)
    for key, value in alone.final.items():
        if "k_proj.bias" not in key:
            torch.testing.assert_close(first.final[key][2], value, rtol=0, atol=1e-5)
    assert first.last_batch_loss[2] == pytest.approx(float(alone.losses[-1]), abs=1e-6)


class Killed(Exception):
    pass


@pytest.mark.parametrize("name", ["transformer", "tests.training.test_stacked:Recurrent"])
def test_an_interrupted_training_ends_with_the_same_bits(
    name: str, data: tasks.Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "SECONDS", 0.0)
    monkeypatch.setattr(snapshot, "PATIENCE", 0.0)
    program = training.Program(maker(name, data), data.task, compile=False)
    whole = training.train(program, data, SETTINGS, [1, 2], [1, 2], [1, 2])
    file = tmp_path / "snapshot.safetensors"

    def die(step: int) -> None:
        if step == 10:
            raise Killed

    with pytest.raises(Killed):
        training.train(program, data, SETTINGS, [1, 2], [1, 2], [1, 2], progress=die, snapshot=file)
    calls: list[int] = []
    resumed = training.train(program, data, SETTINGS, [1, 2], [1, 2], [1, 2], progress=calls.append, snapshot=file)
    assert calls == [11, 20]  # the first half was not trained again
    assert all(torch.equal(whole.final[key], resumed.final[key]) for key in whole.final)
    assert torch.equal(whole.trace, resumed.trace) and torch.equal(whole.tensor_trace, resumed.tensor_trace)
    np.testing.assert_array_equal(whole.train_curve, resumed.train_curve)
    np.testing.assert_array_equal(whole.validation_curve, resumed.validation_curve)


def test_a_snapshot_that_does_not_fit_is_left_aside(
    data: tasks.Data, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    program = training.Program(maker("transformer", data), data.task, compile=False)
    whole = training.train(program, data, SETTINGS, [1], [1], [1])
    file = tmp_path / "snapshot.safetensors"
    for content, words in ((b"no weights", "not a readable"), (None, "of another training")):
        if content is None:
            write_weights(file, {"clock": torch.ones(3)})
        else:
            file.write_bytes(content)
        anew = training.train(program, data, SETTINGS, [1], [1], [1], snapshot=file)
        assert torch.equal(whole.trace, anew.trace)
        assert words in caplog.text


@pytest.mark.parametrize("name", NETWORKS)
def test_the_trace_tells_where_two_trainings_part(name: str, data: tasks.Data) -> None:
    program = training.Program(maker(name, data), data.task, compile=False)
    one = training.train(program, data, SETTINGS, [1, 2], [1, 2], [1, 2])
    again = training.train(program, data, SETTINGS, [2, 1], [2, 1], [2, 1])
    assert torch.equal(one.trace, again.trace.flip(0)) and torch.equal(one.tensor_trace, again.tensor_trace.flip(0))
    assert len(one.trace[0].unique()) == SETTINGS.steps
    # equal but for a learning rate that is an ulp larger
    rate = float(np.nextafter(np.float32(0.003), np.float32(1)))
    other = training.train(program, data, dataclasses.replace(SETTINGS, learning_rate=rate, warmup=0), [1], [1], [1])
    plain = training.train(program, data, dataclasses.replace(SETTINGS, warmup=0), [1], [1], [1])
    assert (other.trace != plain.trace)[0, -1]
    assert one.tensor_trace.shape == (2, 3, len(one.tensors))


def test_digests_of_tensors_add_up_to_that_of_all() -> None:
    weights = torch.randn(3, 48)
    parts = trace.digests(weights, [16, 32])
    assert torch.equal(parts.sum(1, dtype=torch.int32), trace.digest(weights))
    changed = weights.clone()
    changed[1, 20] = changed[1, 20].nextafter(torch.tensor(9.0))
    differs = trace.digests(changed, [16, 32]) != parts
    assert differs.tolist() == [[False, False], [False, True], [False, False]]
    swapped = weights[:, [1, 0, *range(2, 48)]]  # the same numbers in other places
    assert (trace.digest(swapped) != trace.digest(weights)).all()


def test_embeddings_by_comparison_are_the_same_to_the_bit() -> None:
    plain = nn.Embedding(9, 4)
    ids = torch.randint(0, 9, (5, 7))
    holder = nn.Sequential(plain)
    expected = plain(ids)
    (found,) = embedding.compared(holder)
    assert torch.equal(found(ids), expected)
    found(ids).square().sum().backward()
    gradient = plain.weight.grad
    assert gradient is not None
    plain.weight.grad = None
    plain(ids).square().sum().backward()
    torch.testing.assert_close(gradient, plain.weight.grad)
    for kept in (nn.Embedding(9, 4, padding_idx=0), nn.Embedding(1000, 4), nn.Embedding(9, 4, max_norm=1.0)):
        assert embedding.compared(nn.Sequential(kept))[0] is kept


def test_half_precision_products_change_the_result_a_little(data: tasks.Data) -> None:
    settings = dataclasses.replace(SETTINGS, learning_rate=0.0005)
    single = training.train(
        training.Program(maker("transformer", data), data.task, compile=False), data, settings, [1], [1], [1]
    )
    half = training.train(
        training.Program(maker("transformer", data), data.task, compile=False, precision="bfloat16"),
        data,
        settings,
        [1],
        [1],
        [1],
    )
    difference = abs(float(half.test.loss[0] - single.test.loss[0]))
    assert 0 < difference < 0.02
    assert all(value.dtype == torch.float32 for value in half.final.values())


@pytest.mark.parametrize("stream", ["init", "data", "noise"])
def test_every_seed_matters(stream: str, data: tasks.Data) -> None:
    program = training.Program(maker("transformer", data), data.task, compile=False)
    seeds = {name: [1, 2 if name == stream else 1] for name in ("init", "data", "noise")}
    stack = training.train(program, data, SETTINGS, seeds["init"], seeds["data"], seeds["noise"])
    assert not same(stack.final, 0, stack.final, 1)
    assert same(stack.initial, 0, stack.initial, 1) == (stream != "init")


def test_a_diverging_run_leaves_the_others_untouched(data: tasks.Data) -> None:
    program = training.Program(maker("infinito_v52", data), data.task, compile=False)
    calm = training.train(program, data, SETTINGS, [1, 2, 3], [1, 2, 3], [1, 2, 3])
    wild = dataclasses.replace(SETTINGS, learning_rate=[0.003, 1e30, 0.003], clip_norm=[1.0, 1e30, 1.0])
    stack = training.train(program, data, wild, [1, 2, 3], [1, 2, 3], [1, 2, 3])
    assert stack.diverged.tolist() == [False, True, False]
    assert same(calm.final, 0, stack.final, 0) and same(calm.final, 2, stack.final, 2)


def test_rates_may_differ_from_run_to_run(data: tasks.Data) -> None:
    program = training.Program(maker("transformer", data), data.task, compile=False)
    names = ("learning_rate", "weight_decay", "clip_norm", "dropout")
    values = {"learning_rate": 0.001, "weight_decay": 0.5, "clip_norm": 0.01, "dropout": 0.4}
    plain = {"learning_rate": 0.003, "weight_decay": 0.01, "clip_norm": 1.0, "dropout": 0.1}
    for name in names:
        mixed = dataclasses.replace(SETTINGS, **{name: [plain[name], values[name]]})
        only = dataclasses.replace(SETTINGS, **{name: [values[name]] * 2})
        a = training.train(program, data, mixed, [1, 1], [1, 1], [1, 1])
        b = training.train(program, data, only, [1, 1], [1, 1], [1, 1])
        assert same(a.final, 1, b.final, 1) and not same(a.final, 0, a.final, 1), name


def test_a_setting_per_run_must_fit_the_stack(data: tasks.Data) -> None:
    program = training.Program(maker("transformer", data), data.task, compile=False)
    settings = dataclasses.replace(SETTINGS, learning_rate=[0.1, 0.2])
    with pytest.raises(ValueError, match="learning_rate: 2 values for 3 runs"):
        training.train(program, data, settings, [1, 2, 3], [1, 2, 3], [1, 2, 3])


def test_learning_rate() -> None:
    factors = [training.learning_rate(t, 100, 10, "cosine") for t in range(100)]
    assert factors[0] == 0.1 and factors[9] == factors[10] == 1.0 and factors[55] == pytest.approx(0.5)
    assert all(a >= b for a, b in zip(factors[10:], factors[11:], strict=False)) and 0 < factors[-1] < 1e-3
    assert training.learning_rate(99, 100, 10, "constant") == 1.0


def test_token_nats_by_hand() -> None:
    logits = torch.tensor([[[0.0, 0.0], [np.log(3.0), 0.0]]], dtype=torch.float32)
    nats = token_nats(logits, torch.tensor([[1, 0]]))
    torch.testing.assert_close(nats, torch.tensor([[np.log(2.0), np.log(4 / 3)]], dtype=torch.float32))
    assert token_nats(logits, torch.tensor([[tasks.IGNORE, 0]]))[0, 0] == 0


def test_predict_gives_what_evaluate_scored(data: tasks.Data) -> None:
    make = maker("infinito_v52", data)
    stack = training.train(training.Program(make, data.task, compile=False), data, SETTINGS, [1, 2], [1, 2], [1, 2])
    log_probability, _ = training.predict(make, data.task, stack.final, data.test)
    np.testing.assert_allclose(-log_probability.sum(-1).numpy(), stack.test.losses, rtol=1e-5, atol=1e-6)


def test_tied_weights_stay_tied_and_frozen_ones_stay_put(data: tasks.Data) -> None:
    make = maker("tests.training.test_stacked:Tied", data)
    stack = training.train(training.Program(make, data.task, compile=False), data, SETTINGS, [1, 2], [1, 2], [1, 2])
    assert torch.equal(stack.final["head.weight"], stack.final["embedding.weight"])
    assert torch.equal(stack.final["mix.weight"], stack.initial["mix.weight"])
    assert not torch.equal(stack.final["head.weight"], stack.initial["head.weight"])
    log_probability, _ = training.predict(make, data.task, stack.final, data.test)
    np.testing.assert_allclose(-log_probability.sum(-1).numpy(), stack.test.losses, rtol=1e-5, atol=1e-6)


def test_the_recorded_loss_is_without_penalty(data: tasks.Data) -> None:
    one, losses = dataclasses.replace(SETTINGS, steps=1, warmup=0), []
    for penalty in (0.0, 5.0):
        make = maker("infinito_v52", data, lambda_phi=penalty)
        stack = training.train(training.Program(make, data.task, compile=False), data, one, [1], [1], [1])
        losses.append(float(stack.last_batch_loss[0]))
    assert losses[0] == losses[1]


def test_a_dropout_rate_needs_a_network_with_dropout(data: tasks.Data) -> None:
    program = training.Program(maker("transformer", data, dropout=0.0), data.task, compile=False)
    with pytest.raises(ValueError, match="dropout: the network has no dropout"):
        training.train(program, data, dataclasses.replace(SETTINGS, dropout=[0.1]), [1], [1], [1])


def test_without_a_compiler_it_says_so_and_trains(
    data: tasks.Data, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(training.program, "compiler", lambda: None)
    program = training.Program(maker("transformer", data), data.task)
    assert not program.compiled and caplog.text.count("no C++ compiler found") == 1
    assert not training.train(program, data, SETTINGS, [1], [1], [1]).diverged.any()


def test_a_checkpoint_of_another_shape_is_refused(data: tasks.Data) -> None:
    make = maker("transformer", data)
    stack = training.train(training.Program(make, data.task, compile=False), data, SETTINGS, [1], [1], [1])
    with pytest.raises(ValueError, match=r"checkpoint does not fit the network: .* is \(.*16"):
        training.predict(maker("transformer", data, width=32), data.task, stack.final, data.test)


def test_nothing_draws_from_a_global_generator(
    data: tasks.Data, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import random

    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    for module, name in ((np.random, "random"), (random, "random")):

        def refuse(*args: object, **kwargs: object) -> None:
            raise AssertionError("a global generator was used")

        monkeypatch.setattr(module, name, refuse)
    tasks.prepare(
        params.Dyck(
            task="dyck",
            seed=1,
            pool=50,
            validation=9,
            test=9,
            kinds=3,
            min_depth=1,
            max_depth=4,
            noise=2,
            noise_kinds=2,
        ),
        tmp_path,
        tmp_path,
    )
    for name in NETWORKS:
        training.train(
            training.Program(maker(name, data), data.task, compile=False), data, SETTINGS, [1, 2], [1, 2], [1, 2]
        )
    assert torch.equal(before[0], torch.get_rng_state())
    np.testing.assert_array_equal(before[1], np.random.get_state()[1])
    assert before[2] == random.getstate()
