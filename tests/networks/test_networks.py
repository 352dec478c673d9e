import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.func import functional_call

from infinito.networks import build, infinito_v52, load_v52, transformer
from infinito.networks.infinito_v52 import COMPONENTS, IITGuidedMemory, InfinitoV52
from infinito.networks.transformer import Transformer
from infinito.operations.noise import KeyedGaussianNoise, keyed
from infinito.tasks import IGNORE
from infinito.tasks.tokens import token_nats
from tests.conftest import OF_TOKENS

SETTINGS = {"vocabulary": 11, "width": 16, "layers": 2, "heads": 2, "length": 12, "causal": False, "dropout": 0.1}
ORIGINAL = Path(os.environ.get("INFINITO_DATA", "no-such-folder")) / "infinito-v5.2"


@pytest.mark.parametrize("name", OF_TOKENS)
def test_gives_logits_for_any_length_up_to_its_own(name: str) -> None:
    network = build(name, **SETTINGS).eval()
    for length in (1, 2, 3, 7, 12):
        logits = network(torch.randint(11, (3, length)))
        assert logits.shape == (3, length, 11) and bool(logits.isfinite().all())


@pytest.mark.parametrize("gate, parameters", [(True, 71_630_232), (False, 71_629_207)])
def test_has_the_published_number_of_parameters(gate: bool, parameters: int) -> None:
    with torch.device("meta"):
        network = build(
            "infinito_v52",
            vocabulary=50_257,
            width=512,
            layers=6,
            heads=8,
            length=1000,
            causal=False,
            dropout=0.1,
            gate=gate,
        )
    assert sum(p.numel() for p in network.parameters()) == parameters


@pytest.mark.skipif(not ORIGINAL.is_dir(), reason="INFINITO_DATA does not hold the original checkpoint")
def test_the_original_checkpoint_gives_the_original_outputs() -> None:
    network = load_v52(ORIGINAL / "golden_seed2_init.pt")
    reference = np.load(ORIGINAL / "golden_seed2_reference.npz")
    for k in range(4):
        inputs = torch.tensor(reference[f"input_{k}"].astype(np.int64))
        logits = network(inputs).detach().numpy()
        np.testing.assert_allclose(logits, reference[f"logits_{k}"], rtol=0, atol=1e-5)
        integration = network.integration(inputs)
        assert list(integration) == [*COMPONENTS, "phi"]
        for name, value in integration.items():
            np.testing.assert_allclose(value.numpy(), reference[f"{name}_{k}"], rtol=0, atol=1e-5)


def test_a_checkpoint_survives_saving_and_loading(tmp_path: Path) -> None:
    network = InfinitoV52(**SETTINGS).eval()
    config = {"vocab_size": 11, "hidden_dim": 16, "num_layers": 2, "num_heads": 2}
    torch.save({"config": config, "model_state_dict": network.state_dict()}, tmp_path / "a.pt")
    loaded, inputs = load_v52(tmp_path / "a.pt"), torch.randint(11, (2, 12))
    assert torch.equal(loaded(inputs), network(inputs)) and not loaded.training


def test_a_bad_checkpoint_is_one_clear_error(tmp_path: Path) -> None:
    network = InfinitoV52(**SETTINGS)
    wrong = {"vocab_size": 11, "hidden_dim": 32, "num_layers": 2, "num_heads": 2}
    torch.save({"config": wrong, "model_state_dict": network.state_dict()}, tmp_path / "shape.pt")
    torch.save({"something": 1}, tmp_path / "other.pt")
    (tmp_path / "corrupt.pt").write_bytes(b"not a checkpoint")
    (tmp_path / "empty.pt").write_bytes(b"")
    (tmp_path / "evil.pt").write_bytes(pickle.dumps(print))
    for name in ("shape", "other", "corrupt", "empty", "evil"):
        with pytest.raises(ValueError, match=f"{name}.pt: not an INFINITO V5.2 checkpoint") as error:
            load_v52(tmp_path / f"{name}.pt")
        assert "\n" not in str(error.value)
    with pytest.raises(FileNotFoundError):
        load_v52(tmp_path / "missing.pt")


@pytest.mark.parametrize(
    "name, settings, message",
    [
        (
            "lstm",
            SETTINGS,
            "'lstm' is unknown; allowed: transformer, infinito_v52, mlp, convolutional, or package.module",
        ),
        ("no.such.module:Net", SETTINGS, "can't be imported: ModuleNotFoundError"),
        ("torch.nn:NoSuchClass", SETTINGS, "can't be imported: AttributeError"),
        ("math:sqrt", SETTINGS, "must be a torch.nn.Module class"),
        ("transformer", SETTINGS | {"colour": 1}, "unexpected keyword argument 'colour'"),
        ("transformer", {"width": 8}, "missing a required"),
        ("transformer", SETTINGS | {"heads": 3}, "16 is not a multiple of heads"),
    ],
)
def test_a_bad_name_or_setting_is_one_clear_error(name: str, settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match="network: ") as error:
        build(name, **settings)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", OF_TOKENS)
@pytest.mark.parametrize("training", [False, True])
def test_a_causal_network_does_not_see_the_future(name: str, training: bool) -> None:
    network = build(name, **(SETTINGS | {"causal": True, "dropout": 0.0})).train(training)
    if isinstance(network, InfinitoV52):
        network.explorer.eval()  # its noise would drown the comparison
        network.memory.threshold_logit.data.fill_(-9.0)  # let the memory write
        network.memory_gate.data.fill_(5.0)
        network.memory.memory_values.normal_()
        network.memory.memory_keys.normal_()
    a = torch.randint(11, (4, 12))
    b = a.clone()
    b[:, 7:] = (b[:, 7:] + 1) % 11
    memory = {name: buffer.clone() for name, buffer in network.named_buffers()}
    before, after = network(a), functional_call(network, memory, (b,))
    torch.testing.assert_close(before[:, :7], after[:, :7])
    assert not torch.allclose(before[:, 7:], after[:, 7:])


def test_the_published_memory_never_writes_and_its_threshold_gets_no_gradient() -> None:
    network = InfinitoV52(**SETTINGS).train()
    for _ in range(5):
        network(torch.randint(11, (16, 12))).sum().backward()
    assert int(network.memory.write_count) == 0 and int(network.memory.global_time) == 5
    assert network.memory.memory_values.abs().sum() == 0
    assert network.memory.threshold_logit.grad is None
    phi = torch.linspace(-5, 50, 100)
    assert float(network.memory.priority(phi).max()) <= 0.9 < float(network.memory.threshold_logit.exp())


def test_a_memory_with_a_reachable_threshold_writes_in_turn_and_reads_what_it_wrote() -> None:
    memory = IITGuidedMemory(width=4, slots=3, initial_threshold=0.5).train()
    h = torch.arange(2 * 5 * 4, dtype=torch.float32).view(2, 5, 4)
    memory.write(h, torch.tensor([0.1, 9.0]))  # priorities 0.108 and 0.82: only the second is stored
    assert int(memory.write_count) == 1 and memory.phi_scores.tolist() == [0.0, 9.0, 0.0][1:] + [0.0]
    torch.testing.assert_close(memory.memory_values[0], h[1].mean(0))
    memory.write(h, torch.tensor([9.0, 9.0]))
    memory.write(h, torch.tensor([8.0, 1.0]))
    assert int(memory.write_count) == 4 and memory.phi_scores.tolist() == [8.0, 9.0, 9.0]  # slot 0 was taken again
    expected = memory.memory_values.mean(0).expand(2, 1, 4)
    torch.testing.assert_close(memory(h), expected)  # 3 slots, 5 to read: all of them


def test_a_write_survives_functional_call() -> None:
    network = InfinitoV52(**SETTINGS, initial_threshold=0.01).train()
    state = dict(network.named_parameters()) | dict(network.named_buffers())
    functional_call(network, state, (torch.randint(11, (4, 12)),))
    assert int(state["memory.write_count"]) == 4 and int(network.memory.write_count) == 0


def test_exploration_is_noise_in_training_and_nothing_in_evaluation() -> None:
    network = InfinitoV52(**(SETTINGS | {"dropout": 0.0}))
    inputs = torch.randint(11, (2, 12))
    assert not torch.equal(network.train()(inputs), network(inputs))
    assert torch.equal(network.eval()(inputs), network(inputs))


def test_delta_phi_objective_by_hand() -> None:
    network = InfinitoV52(**SETTINGS, lambda_phi=0.1).eval()
    inputs = torch.randint(11, (3, 12))
    logits, penalty = network.forward_with_penalty(inputs)
    m = network.integration(inputs)
    fixed = 0.3 * m["temporal_coherence"] + 0.3 * m["integration_strength"]
    fixed = fixed + 0.2 * m["complexity"] + 0.2 * m["attention_diversity"]
    torch.testing.assert_close(m["phi"], fixed)  # the weights start at the fixed ones
    expected = 0.1 * (((m["phi"] - 1.2) ** 2).mean() + (3 * fixed - m["phi"]).clamp(min=0).mean())
    torch.testing.assert_close(penalty.detach(), expected)
    assert torch.equal(logits, network(inputs))
    assert float(InfinitoV52(**SETTINGS).forward_with_penalty(inputs)[1].detach()) == 0


def test_every_layer_explores_with_its_own_noise() -> None:
    network = keyed(InfinitoV52(**SETTINGS)).train()
    sites = [m for m in network.modules() if isinstance(m, KeyedGaussianNoise)]
    assert len(sites) == 2
    a, b = (m(torch.zeros(64, 12, 16)).flatten() for m in sites)
    assert abs(float(torch.corrcoef(torch.stack([a, b]))[0, 1])) < 4 / len(a) ** 0.5


@pytest.mark.parametrize("vocabulary, filled", [(13, 16), (transformer.LARGE + 5, transformer.LARGE + 64)])
def test_a_vocabulary_is_filled_up_for_the_product_only(vocabulary: int, filled: int) -> None:
    network = Transformer(vocabulary=vocabulary, width=8, layers=1, heads=1, length=4, causal=True, dropout=0.0)
    head, h = network.output_projection, torch.randn(2, 4, 8)
    products = network.products(h)
    assert products.shape == (2, 4, filled) and not products[..., vocabulary:].any()
    logits = products[..., :vocabulary] + head.bias
    torch.testing.assert_close(logits, head(h))
    logits.square().sum().backward()
    found = head.weight.grad
    assert found is not None and found.shape == (vocabulary, 8)
    network.zero_grad()
    head(h).square().sum().backward()
    torch.testing.assert_close(found, head.weight.grad)


def test_the_largest_are_found_one_after_the_other() -> None:
    score = torch.randn(3, 5, 40)
    assert torch.equal(infinito_v52.one_after_the_other(score, 6), torch.topk(score, 6).indices)


@pytest.mark.parametrize("name", ["transformer", "infinito_v52"])
def test_a_network_s_own_way_to_the_loss_is_that_of_its_logits(name: str) -> None:
    network = (Transformer if name == "transformer" else InfinitoV52)(**SETTINGS).eval()
    inputs, targets = torch.randint(11, (3, 12)), torch.randint(11, (3, 12))
    targets[0, :5] = IGNORE
    nats, penalty = network.nats_with_penalty(inputs, targets)
    torch.testing.assert_close(nats, token_nats(network(inputs), targets))
    assert float(penalty.detach()) == 0
