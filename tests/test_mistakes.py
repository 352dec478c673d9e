"""What people get wrong in a params.yaml: named with what was meant, or put right and said once."""

import logging
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from infinito import mistakes
from infinito.params import RECIPE, Params
from infinito.study import load_study
from tests.conftest import TINY
from tests.recorded import dvc, git

KEYS = list(mistakes._keys(Params, ""))


def test_every_key_that_is_suggested_can_be_there() -> None:
    trunk = {f"train.trunk.{name}" for name in TINY["train"]["trunk"]}
    named = {key for keys in mistakes.MEANT.values() for key in keys.split(" or ")}
    assert named <= {*KEYS, *trunk}
    assert not set(mistakes.MEANT) & set(mistakes.ELSEWHERE)


@pytest.mark.parametrize(
    "key, value, hint",
    [
        ("train.optimizer", "adam", "did you mean train.optimiser?"),
        ("train.learning_rates", 1.0, "did you mean train.learning_rate?"),
        ("train.lr", 1.0, "did you mean train.learning_rate?"),
        ("train.batch-size", 8, "did you mean train.batch?"),
        ("train.epochs", 3, "did you mean train.steps?"),
        ("train.Steps", 3, "did you mean train.steps?"),
        ("train.early_stopping", True, "train.keep: best takes the weights that are best on validation"),
        ("train.device", "cuda", "CUDA_VISIBLE_DEVICES"),
        ("train.alpha", 0.05, "did you mean compare.alpha or attribute.alpha or golden.alpha?"),
        ("train.network", "mlp", "did you mean train.candidate.network or train.baseline.network?"),
        ("train.dropout", 0.1, "did you mean train.trunk.dropout?"),
        ("train.optimiser.beta", 0.1, "did you mean train.optimiser.betas?"),
        ("train.optimiser.momentum", 0.1, "allowed: name, betas, epsilon"),
        ("train.optimiser.weight_decay", 0.1, "did you mean train.weight_decay?"),
        ("train.candidate.learning_rate", 0.1, "did you mean train.candidate.train.learning_rate, of this arm's own"),
        ("train.candidate.lr", 0.1, "did you mean train.candidate.train.learning_rate, of this arm's own recipe?"),
        ("train.candidate.dropout", 0.1, "did you mean train.candidate.train.trunk.dropout, of this arm's own recipe?"),
        ("train.candidate.netwrk", "x", "did you mean train.candidate.network?"),
        ("train.candidate.slots", 3, "a setting of the network is train.candidate.settings.slots"),
        ("train.ablations.plain.steps", 3, "did you mean train.ablations.plain.train.steps, of this arm's own recipe?"),
        ("train.candidate.train.lr", 0.1, "an arm may not set it; did you mean train.candidate.train.learning_rate"),
        ("train.candidate.train.step", 1, "an arm may not set it; did you mean train.candidate.train.steps?"),
        ("train.candidate.train.pairs", 1, f"an arm may not set it; allowed: {', '.join(RECIPE)}"),
        ("train.grid.init", 3, "did you mean train.grid.inits?"),
        ("compare.metric", "f1", "compare.metrics is a list with test_loss first"),
        ("compare.f1", True, "compare.metrics is a list with test_loss first"),
        ("compare.smallest-effect", 0.1, "did you mean compare.smallest_effect?"),
        ("golden.confirm", 0.1, "allowed: forward, checkpoint"),
        ("ensemble.compute.sise", 3, "did you mean ensemble.compute.size?"),
        ("prepare.pol", 3, "did you mean prepare.pool?"),
        ("prepare.source", "x", "allowed: overlap_allowed, task, seed, pool"),
        ("evaluate", {}, "allowed: study, prepare"),
        ("seed", 1, "did you mean prepare.seed or train.seed?"),
        ("title", "x", "did you mean report.title?"),
    ],
)
def test_an_unknown_key_says_what_was_meant(write_study: Callable[..., Path], key: str, value: Any, hint: str) -> None:
    changes: dict[str, Any] = {"train.ablations": {"plain": {"network": "mlp", "settings": {}}}}
    if key.startswith("train.candidate.train."):
        changes["train.candidate.train"] = {}
    with pytest.raises(ValueError) as error:
        load_study(write_study(changes | {key: value}))
    assert f"{key}: " in str(error.value) and hint in str(error.value) and "\n" not in str(error.value)


def written(folder: Path, *changes: tuple[str, str]) -> None:
    file = folder / "params.yaml"
    text = file.read_text()
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    file.write_text(text)


def test_a_number_in_scientific_notation_is_taken_as_one_and_said_once(
    write_study: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    changes = {
        "train.candidate.train": {"learning_rate": 0.5, "steps": 77},
        "train.candidate.settings": {"memory_slots": 8, "note": "as text", "scales": [0.5, 0.125]},
    }
    folder = write_study(changes)
    written(
        folder,
        ("learning_rate: 0.01", "learning_rate: 1e-06"),
        ("learning_rate: 0.5", "learning_rate: '2E-6'"),
        ("steps: 77", "steps: 1e2"),
        ("note: as text", "note: '5e-4'"),
        ("- 0.125", "- 1e-3"),
        ("pool: 400", "pool: 4e2"),
        ("study: tiny", "study: 1e3"),
        ("title: A tiny study", "title: 2e-06"),
    )
    with caplog.at_level(logging.WARNING):
        params = load_study(folder).params
        assert load_study(folder).params == params
    assert params.train.learning_rate == 1e-6 and params.prepare.model_dump()["pool"] == 400
    own = params.train.candidate.train
    assert own == {"learning_rate": 2e-6, "steps": 100} and type(own["steps"]) is int
    assert params.train.of("candidate").steps == 100
    settings = params.train.candidate.settings
    assert settings == {"memory_slots": 8, "note": "5e-4", "scales": [0.5, 1e-3]}
    assert type(settings["scales"][1]) is float
    assert (params.study, params.report.title) == ("1e3", "2e-06")
    said = [re.search(r"params.yaml: ([\w.]+): (\S+) is taken as the number", line) for line in caplog.messages]
    assert sorted(match.groups() for match in said if match) == [
        ("prepare.pool", "4e2"),
        ("train.candidate.settings.scales.1", "1e-3"),
        ("train.candidate.train.learning_rate", "2E-6"),
        ("train.candidate.train.steps", "1e2"),
        ("train.learning_rate", "1e-06"),
    ]


@pytest.mark.parametrize("text", ["many", "1e", "e3", "1e3 steps", "0x1e3", "1.5e0"])
def test_other_text_is_no_number(write_study: Callable[..., Path], text: str) -> None:
    with pytest.raises(ValueError, match="train.steps: input should be a valid integer, found "):
        load_study(write_study({"train.steps": text}))


def test_an_experiment_may_set_a_small_learning_rate(write_study: Callable[..., Path]) -> None:
    folder = write_study()
    (folder / ".gitignore").write_text("/read\n")
    program = "from pathlib import Path; from infinito.study import load_study; "
    program += "print(load_study(Path()).params.train.learning_rate)"
    command = f'{sys.executable} -c "{program}" > read'
    stages = {"read": {"cmd": command, "params": ["train"], "outs": [{"read": {"cache": False}}]}}
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    git(folder, "init", "-q", ".")
    dvc(folder, "init", "--quiet")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "study")
    dvc(folder, "exp", "run", "-S", "train.learning_rate=1.0e-6", "-S", "train.optimiser.epsilon=1e-10")
    assert "1e-06" in (folder / "params.yaml").read_text()
    train = load_study(folder).params.train
    assert (train.learning_rate, train.optimiser.model_dump()["epsilon"]) == (1e-6, 1e-10)
    assert (folder / "read").read_text() == "1e-06\n"
