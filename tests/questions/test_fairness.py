"""What differs between the arms, by params.yaml."""

import json
from typing import Any

from infinito.params import Train
from infinito.questions.fairness import amount, fairness, tuning
from tests.conftest import TINY


def train(candidate: dict[str, Any] | None = None, baseline: dict[str, Any] | None = None, **changes: Any) -> Train:
    arms = {"candidate": TINY["train"]["candidate"] | (candidate or {})}
    arms["baseline"] = TINY["train"]["baseline"] | (baseline or {})
    return Train.model_validate(TINY["train"] | arms | changes)


def test_arms_that_differ_by_their_network_alone() -> None:
    found = fairness(train())
    assert found["keys"] == {} and found["arms"]["candidate"]["sentence"] is None
    assert found["arms"]["candidate"] == {
        "network": "infinito_v52",
        "settings": {"memory_slots": 8},
        "steps": 6,
        "train_examples": 48,
        "tuned": None,
        "keep": "last",
        "differs": [],
        "sentence": None,
    }
    assert amount("candidate", found) == "Both train for as many steps and see as many training examples."


def test_every_key_of_the_recipe_that_differs_is_there_with_both_values() -> None:
    own = {
        "learning_rate": 0.02,
        "trunk": {"width": 16},
        "optimiser": {"name": "sgd", "momentum": 0.9, "nesterov": False},
    }
    found = fairness(train({"train": own}))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["keys"] == {
        "trunk.width": {"candidate": 16, "baseline": 8},
        "optimiser.name": {"candidate": "sgd", "baseline": "adamw"},
        "optimiser.betas": {"candidate": None, "baseline": [0.9, 0.999]},
        "optimiser.epsilon": {"candidate": None, "baseline": 1e-8},
        "learning_rate": {"candidate": 0.02, "baseline": 0.01},
        "optimiser.momentum": {"candidate": 0.9, "baseline": None},
        "optimiser.nesterov": {"candidate": False, "baseline": None},
    }
    said = found["arms"]["candidate"]["sentence"]
    assert said.startswith(
        "The candidate differs from the baseline in more than its network: trunk.width 16 (baseline: 8), "
    )
    assert "optimiser.betas not set (baseline: [0.9, 0.999])" in said
    assert said.endswith("Both train for as many steps and see as many training examples.")


def test_unequal_amounts_are_said_in_words() -> None:
    longer = fairness(train({"train": {"steps": 12}}))["arms"]["candidate"]
    assert longer["sentence"].endswith(
        "It trains for 12 steps (baseline: 6) and sees 96 training examples (baseline: 48)."
    )
    assert "steps 12" not in longer["sentence"] and longer["differs"] == ["steps"]
    smaller = fairness(train({"train": {"steps": 12, "batch": 4}}))["arms"]["candidate"]["sentence"]
    assert smaller.endswith("It trains for 12 steps (baseline: 6) and sees as many training examples (48).")
    assert "batch 4 (baseline: 8)" in smaller


def test_how_the_arms_were_tuned_is_part_of_it() -> None:
    assert [tuning(n) for n in (None, 0, 1, 2000)] == ["not stated", "0 trials", "1 trial", "2,000 trials"]
    found = fairness(train({"tuned": {"trials": 20}}))
    assert found["arms"]["candidate"]["tuned"] == 20 and found["arms"]["candidate"]["differs"] == []
    assert "tuning 20 trials (baseline: not stated)" in found["arms"]["candidate"]["sentence"]
    both = {"tuned": {"trials": 20}}
    assert fairness(train(both, both))["arms"]["candidate"]["sentence"] is None


def test_an_override_of_the_baseline_differs_from_every_other_arm() -> None:
    ablations = {"small": {"network": "infinito_v52", "settings": {"memory_slots": 2}, "train": {"keep": "best"}}}
    found = fairness(train(baseline={"train": {"batch": 4}}, ablations=ablations))
    assert found["keys"]["batch"] == {"candidate": 8, "baseline": 4, "small": 8}
    assert found["keys"]["keep"] == {"candidate": "last", "baseline": "last", "small": "best"}
    assert found["arms"]["candidate"]["differs"] == ["batch"] and found["arms"]["small"]["differs"] == ["batch", "keep"]
    assert found["arms"]["small"]["keep"] == "best"
    assert "sees 48 training examples (baseline: 24)" in found["arms"]["small"]["sentence"]
