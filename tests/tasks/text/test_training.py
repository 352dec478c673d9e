"""Networks on text: nothing is seen before its time, something is learned, and the verdict says how much."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from infinito import networks, training
from infinito.operations.noise import keyed, restart, sites
from infinito.runs.table import RunTable
from infinito.stages import STAGES
from infinito.storage import read_json
from infinito.study import load_study
from infinito.tasks import text
from tests.conftest import OF_TOKENS, in_process
from tests.tasks.text.corpus import SETTINGS, scored

pytest.importorskip("datasets")
pytest.importorskip("tokenizers")


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize("name", OF_TOKENS)
def test_no_logit_depends_on_a_later_token(name: str, training: bool, data: text.Text) -> None:
    """In training too, where the same noise falls on both texts."""
    torch.manual_seed(0)
    network = networks.build(
        name,
        vocabulary=data.task.vocabulary,
        width=16,
        layers=2,
        heads=2,
        length=16,
        causal=data.task.causal,
        dropout=0.3,
    )
    network = keyed(network).train(training)
    inputs, _ = data.batch(data.order(1, 1, 4)[0])
    for changed in (1, 8, 15):
        other = inputs.clone()
        other[:, changed:] = (other[:, changed:] + 7) % data.task.vocabulary
        with torch.no_grad():
            restart(sites(network).values())
            logits = network(inputs)
            restart(sites(network).values())
            others = network(other)
        assert torch.equal(logits[:, :changed], others[:, :changed])
        assert not torch.allclose(logits[:, changed:], others[:, changed:])


def test_the_engine_learns_it(data: text.Text) -> None:
    program = training.Program(
        lambda: networks.build(
            "transformer", vocabulary=300, width=16, layers=1, heads=2, length=16, causal=True, dropout=0.1
        ),
        data.task,
        compile=False,
    )
    settings = training.Settings(
        steps=60,
        batch=8,
        learning_rate=0.02,
        warmup=5,
        schedule="cosine",
        weight_decay=0.0,
        clip_norm=1.0,
        curve_every=60,
    )
    trained = training.train(program, data, settings, [1, 2], [1, 2], [1, 2])
    assert trained.test.loss.max() < 0.75 * np.log(300)
    assert trained.test.weights.sum() == len(scored(data.test))


def test_the_verdict_states_perplexities_and_bits_of_the_same_nats(
    study: Path, write_study: Callable[..., Path]
) -> None:
    prepare = SETTINGS.model_dump() | {"source": str(study / "corpus"), "test_tokens": 200}
    folder = write_study({"prepare": prepare, "train.pairs": 4})
    for stage in ("prepare", "train", "compare"):
        STAGES[stage](load_study(folder), in_process)
    entry = read_json(folder / "data/prepared/manifest.json")["splits"]["test"]
    scores = read_json(folder / "results/compare.json")["scores"]
    table = RunTable.load(folder / "models/runs")
    for arm, runs in zip(("candidate", "baseline"), table.pairs(), strict=True):
        nats = runs["test_loss"].mean() * entry["scored_tokens"]
        assert scores[arm]["test_perplexity_per_token"]["value"] == pytest.approx(np.exp(runs["test_loss"].mean()))
        assert scores[arm]["test_perplexity_per_word"]["value"] == pytest.approx(np.exp(nats / entry["words"]))
        assert scores[arm]["test_bits_per_byte"]["value"] == pytest.approx(nats / np.log(2) / entry["bytes"])
    assert table.items(list(runs["run_id"]))[1].sum() == entry["scored_tokens"] <= 200
