"""Users' networks: those that can be stacked are trained as by the plain loop, the others are refused in one line."""

import dataclasses
import functools
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from infinito import networks, params, tasks, training
from infinito.operations.noise import keyed, restart, sites
from infinito.runs import stacks
from infinito.runs.table import Run
from infinito.stages import STAGES
from infinito.study import load_study
from infinito.training import vectorizable
from tests.conftest import OF_TOKENS, in_process
from tests.reference import THREE_STEPS as SETTINGS
from tests.reference import train_one

WORKING = [
    "Assigned",
    "AttentionWithoutDropout",
    "BatchNorm",
    "BatchNormWithoutState",
    "BufferByIndex",
    "ComparedHot",
    "Convolution",
    "CumulativeSum",
    "Einsum",
    "EncoderLayerWithoutDropout",
    "FilledLike",
    "Gathered",
    "GroupNorm",
    "GruCell",
    "InPlaceBuffer",
    "LayerNorm",
    "ModuleDropout",
    "ModuleNoise",
    "OwnAttention",
    "OwnGru",
    "PaddedEmbedding",
    "Penalised",
    "RMSNorm",
    "RateOfModule",
    "Reused",
    "ScaledDotProduct",
    "SharedBlock",
    "SharedDropout",
    "Sinusoids",
    "Sorted",
    "Spectrum",
    "TopK",
    "TwoNames",
    "Where",
]
# which line, what is the matter, what to write instead
REFUSED = [
    ("FunctionalDropout", "`return F.dropout(", "random numbers that all runs would share", "torch.nn.Dropout"),
    ("ChannelDropout", "`return self.drop(x)`", "random numbers that all runs would share", "not its relatives"),
    ("AlphaDropout", "`return self.drop(x)`", "random numbers that all runs would share", "not its relatives"),
    (
        "OwnNoise",
        "torch.randn_like(x)",
        "random numbers that all runs would share",
        "infinito.operations.GaussianNoise",
    ),
    ("OwnUniform", "torch.rand(", "random numbers that all runs would share", "torch.nn.Dropout"),
    (
        "InPlaceNoise",
        ".normal_()",
        "random numbers that all runs would share",
        "infinito.operations.GaussianNoise",
    ),
    ("GeneratorNoise", "generator=self.generator", "random numbers that all runs would share", "GaussianNoise"),
    ("Permuted", "torch.randperm(", "random numbers that all runs would share", "torch.nn.Dropout"),
    ("Attention", "self.attention(x, x, x", "dropout of nn.MultiheadAttention", "dropout=0.0"),
    ("EncoderLayer", "self.layer(x)", "dropout of nn.MultiheadAttention", "layer.self_attn.dropout = 0.0"),
    ("ScaledDotProductDropout", "F.scaled_dot_product_attention(", "dropout_p draws random", "dropout_p=0.0"),
    ("Item", ".item()`", "a Python number or a condition of a tensor", "tensors for .item()"),
    ("If", "`if x.mean() > 0:`", "a Python number or a condition of a tensor", "torch.where(condition, a, b) for if"),
    ("Steps", "int(x.abs().max())", "a Python number or a condition of a tensor", "int()"),
    ("EvaluationOnly", "x.max().item()`", "a Python number or a condition of a tensor", "tensors for .item()"),
    ("OneHot", "F.one_hot(ids", "F.one_hot looks at the values", "ids[..., None] == torch.arange("),
    ("MaskIndexing", "x[ids != 0]", "picks elements by a condition", "torch.where(mask, x, 0.0)"),
    ("MaskAssignment", "`x[ids == 0] = 0.0`", "picks elements by a condition", "torch.where(mask, x, 0.0)"),
    ("NonZero", "torch.nonzero(", "picks elements by a condition", "torch.where(mask, x, 0.0)"),
    ("Listed", "ids.tolist()", "takes the numbers out of torch", "operations of torch only"),
    ("Numpy", ".numpy()", "takes the numbers out of torch", "operations of torch only"),
    ("NumpyIds", "ids.numpy()", "takes the numbers out of torch", "operations of torch only"),
    ("InPlaceAttribute", "self.mean.mul_(0.9)", "writes in place into a tensor that all runs share", "register_buffer"),
    ("FilledIn", "`out[:, t] = ", "writes in place into a tensor that all runs share", "torch.stack(parts, 1)"),
    ("Lstm", "`return self.cell(x)[0]`", "nn.LSTM, nn.LSTMCell, nn.GRU and nn.RNN can't be", "docs/networks.md"),
    (
        "Gru",
        "`return self.cell(x)[0]`",
        "nn.LSTM, nn.LSTMCell, nn.GRU and nn.RNN can't be",
        "written out with nn.Linear",
    ),
    ("LstmCell", "self.cell(x[:, t], state)`", "nn.LSTM, nn.LSTMCell, nn.GRU and nn.RNN can't be", "with nn.Linear"),
    ("DataWritten", ".weight.data.div_(", "past autograd, by .data", "F.normalize(weight, dim=1)"),
    ("DataReplaced", "`self.layer.weight.data = ", "past autograd, by .data", "F.normalize(weight, dim=1)"),
    ("Checkpointed", "checkpoint(", "torch.utils.checkpoint", "the plain call"),
    ("OwnGradient", "Doubled.apply(x)", "torch.autograd.Function", "generate_vmap_rule = True"),
    ("Unfolded", "F.fold(", "fails when runs are trained together: RuntimeError: ", "docs/networks.md"),
]
# these would not fail, but train wrongly
SILENT = [
    ("PythonRandom", "random numbers that all runs would share (of random, numpy or torch)", "torch.nn.Dropout"),
    ("NumpyRandom", "random numbers that all runs would share (of random, numpy or torch)", "torch.nn.Dropout"),
    ("NumpyGenerator", "taken twice, gives two results", "infinito.operations.GaussianNoise"),
    ("PythonCounter", "taken twice, gives two results", "self.register_buffer"),
    ("PlainAttribute", "taken twice, gives two results", "self.register_buffer"),
    ("Alone", "a run alone has a loss of", "forward mixes up the runs"),
]
NOT_COMPILED = [
    ("Printing", "`print(", "builtin operator `print`"),
    ("Broken", "`torch._dynamo.graph_break()`", "User-inserted graph break"),
    ("Clock", "time.process_time()", "time.process_time"),
    ("FileReader", "`with open(", "builtin operator `open`"),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tasks.Data:
    folder = tmp_path_factory.mktemp("data")
    settings = params.Dyck(
        task="dyck", seed=1, pool=99, validation=9, test=9, kinds=3, min_depth=1, max_depth=4, noise=2, noise_kinds=2
    )
    tasks.prepare(settings, folder, folder)
    return tasks.load(folder)


def maker(name: str, data: tasks.Data) -> Callable[[], nn.Module]:
    trunk = {"width": 16, "layers": 2, "heads": 2, "dropout": 0.1}
    return functools.partial(
        networks.build, name, vocabulary=data.task.vocabulary, length=data.task.length, causal=False, **trunk
    )


def double(make: Callable[[], nn.Module]) -> nn.Module:
    return make().double()


def refusal(name: str, data: tasks.Data, compiled: bool = False) -> str:
    with pytest.raises(ValueError) as error:
        vectorizable.check(name, maker(name, data), data, compiled=compiled)
    line = str(error.value)
    assert "\n" not in line and line.startswith(f"network: '{name}': ")
    return line


@pytest.mark.parametrize("name", WORKING)
def test_what_passes_is_trained_as_by_the_plain_loop(
    name: str, data: tasks.Data, caplog: pytest.LogCaptureFixture
) -> None:
    make = maker(f"tests.users:{name}", data)
    vectorizable.check(name, make, data, compiled=False)
    slow = [record.getMessage() for record in caplog.records]
    assert [line for line in slow if "aten::gru_cell: done for one run after the other" in line] == slow
    assert len(slow) == (name == "GruCell")
    twice = functools.partial(double, make)
    stack = training.train(training.Program(twice, data.task, compile=False), data, SETTINGS, [5, 6], [1, 2], [3, 4])
    for lane, seeds in enumerate([(5, 1, 3), (6, 2, 4)]):
        alone = train_one(twice, data, SETTINGS, *seeds)
        for key, value in alone.final.items():
            torch.testing.assert_close(stack.final[key][lane], value, rtol=0, atol=1e-6)
        moved = max(float((value - alone.initial[key]).abs().max()) for key, value in alone.final.items())
        assert moved > 1e-3


def test_a_module_under_several_names_is_as_before_afterwards(data: tasks.Data) -> None:
    make = maker("tests.users:SharedBlock", data)
    program = training.Program(make, data.task, compile=False)
    held = {name: value for name, value in program.network.state_dict(keep_vars=True).items()}
    training.train(program, data, SETTINGS, [5, 6], [1, 2], [3, 4])
    after = program.network.state_dict(keep_vars=True)
    assert all(after[name] is value for name, value in held.items())
    assert all(np.isfinite(value.detach().numpy()).all() for value in after.values())  # a tensor like any other


def test_every_call_of_a_dropout_tosses_coins_of_its_own(data: tasks.Data) -> None:
    network = keyed(maker("tests.users:SharedDropout", data)()).train()
    [place] = sites(network).values()
    restart([place])
    x = torch.ones(50, 50)
    first, second = place(x), place(x)
    assert not torch.equal(first, second)
    restart([place])
    assert torch.equal(place(x), first) and torch.equal(place(x), second)


@pytest.mark.parametrize("name", OF_TOKENS)
def test_the_built_in_networks_pass(name: str, data: tasks.Data, caplog: pytest.LogCaptureFixture) -> None:
    vectorizable.check(name, maker(name, data), data)
    assert not [said for said in caplog.records if said.name == vectorizable.__name__]  # no warning either


@pytest.mark.parametrize("name, line, problem, advice", REFUSED)
def test_a_refusal_says_where_what_and_what_instead(
    name: str, line: str, problem: str, advice: str, data: tasks.Data
) -> None:
    found = refusal(f"tests.users:{name}", data)
    where, _, rest = found.partition("users.py:")
    assert where and rest.split(":")[0].isdecimal()
    assert line in found and problem in found and advice in found


@pytest.mark.parametrize("name, problem, advice", SILENT)
def test_what_would_train_wrongly_is_refused_too(name: str, problem: str, advice: str, data: tasks.Data) -> None:
    make = maker(f"tests.users:{name}", data)
    stack = training.train(training.Program(make, data.task, compile=False), data, SETTINGS, [5, 6], [1, 2], [3, 4])
    assert not stack.diverged.any()  # nothing else would have stopped it
    found = refusal(f"tests.users:{name}", data)
    assert problem in found and advice in found


def test_a_refused_network_leaves_the_generators_as_they_were(data: tasks.Data) -> None:
    before = random.getstate(), np.random.get_state()[1].copy(), np.random.get_state()[2], torch.get_rng_state()
    for name in ("PythonRandom", "NumpyRandom", "OwnNoise"):
        refusal(f"tests.users:{name}", data)
    assert random.getstate() == before[0] and np.random.get_state()[2] == before[2]
    assert np.array_equal(np.random.get_state()[1], before[1]) and torch.equal(torch.get_rng_state(), before[3])


@pytest.mark.parametrize("name, line, problem", NOT_COMPILED)
def test_what_only_compiling_minds_is_refused_only_then(name: str, line: str, problem: str, data: tasks.Data) -> None:
    vectorizable.check(name, maker(f"tests.users:{name}", data), data, compiled=False)
    found = refusal(f"tests.users:{name}", data, compiled=True)
    assert "users.py:" in found and line in found
    assert "can't be compiled" in found and problem in found and "INFINITO_COMPILE=0" in found


def test_a_constant_that_the_first_call_keeps_is_no_hindrance(data: tasks.Data) -> None:
    for compiled in (False, True):
        vectorizable.check("Cached", maker("tests.users:Cached", data), data, compiled=compiled)


@pytest.mark.skipif(training.compiler() is None, reason="no C++ compiler")
def test_the_engine_itself_says_in_one_line_what_it_cannot_compile(data: tasks.Data) -> None:
    for name, words in (("Printing", "builtin operator `print`"), ("If", "torch.where(condition, a, b) for if")):
        program = training.Program(maker(f"tests.users:{name}", data), data.task)
        with pytest.raises(ValueError, match=f"^network: '{name}': .*users.py:[0-9]+: ") as error:
            training.train(program, data, SETTINGS, [1], [1], [1])
        assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.skipif(training.compiler() is None, reason="no C++ compiler")
@torch._dynamo.config.patch(recompile_limit=1)
def test_one_process_compiles_any_number_of_programs(data: tasks.Data) -> None:
    one = dataclasses.replace(SETTINGS, steps=1)
    for name in ("ModuleDropout", "LayerNorm"):
        program = training.Program(maker(f"tests.users:{name}", data), data.task)
        trained = training.train(program, data, one, [1], [1], [1])
        assert trained.compiled and not trained.diverged.any(), name
        assert any(not torch.equal(trained.initial[key], trained.final[key]) for key in trained.initial), name


def test_a_study_is_refused_before_any_worker_starts(write_study: Callable[..., Path]) -> None:
    folder = write_study({"train.candidate": {"network": "tests.users:FunctionalDropout", "settings": {}}})
    study = load_study(folder)
    STAGES["prepare"](study, in_process)
    wanted = [Run(arm, "pairs", 1, 1) for arm in ("candidate", "baseline")]
    with pytest.raises(ValueError, match="users.py:.*F.dropout"):
        stacks.plan(study, tasks.load(study.data), wanted)
    with pytest.raises(ValueError, match="or train.engine: auto, or loop, which trains it as it is"):
        stacks.plan(study, tasks.load(study.data), wanted[1:])  # a study has one engine


def test_a_study_tries_a_network_once(write_study: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    study = load_study(write_study({"train.candidate": {"network": "tests.users:ModuleDropout", "settings": {}}}))
    STAGES["prepare"](study, in_process)
    tried: list[str] = []
    monkeypatch.setattr(vectorizable, "check", lambda name, *_, **settings: tried.append(name))
    for seed in (1, 2):
        stacks.plan(study, tasks.load(study.data), [Run(arm, "pairs", seed, seed) for arm in ("candidate", "baseline")])
    assert tried == ["tests.users:ModuleDropout"]
