"""The losses are those of torch.nn.functional, and everything that the engine asks of a task holds."""

import math
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from infinito.tasks import label_smoothing
from infinito.tasks.supervised import Classes, Labels, Values

CLASSES, LABELS = Classes((4,), 5, "example"), Labels((4,), 3, "example")
VALUES = Values((4,), 2, True, variance=3.0, scale=(1.0, 1.0), deviation=0.8)
DRAWS = torch.Generator().manual_seed(0)
CASES: dict[str, tuple[Any, torch.Tensor, torch.Tensor]] = {
    "classes": (CLASSES, torch.randn(7, 5, generator=DRAWS) * 9, torch.randint(5, (7,), generator=DRAWS)),
    "labels": (LABELS, torch.randn(7, 3, generator=DRAWS) * 9, torch.randint(2, (7, 3), generator=DRAWS).float()),
    "values": (VALUES, torch.randn(7, 2, generator=DRAWS), torch.randn(7, 2, generator=DRAWS)),
}


def mean(pair: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    return pair[0].sum() / pair[1].sum()


def test_losses_are_those_of_torch() -> None:
    references = {"classes": F.cross_entropy, "labels": F.binary_cross_entropy_with_logits, "values": F.mse_loss}
    for kind, (task, outputs, targets) in CASES.items():
        torch.testing.assert_close(mean(task.losses(outputs, targets)), references[kind](outputs, targets))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_smoothed_losses_are_those_of_torch(smoothing: float) -> None:
    task, logits, targets = CASES["classes"]
    expected = F.cross_entropy(logits, targets, label_smoothing=smoothing)
    torch.testing.assert_close(mean(task.smoothed(logits, targets, smoothing)), expected)
    task, logits, targets = CASES["labels"]
    expected = F.binary_cross_entropy_with_logits(logits, targets * (1 - smoothing) + smoothing / 2)
    torch.testing.assert_close(mean(task.smoothed(logits, targets, smoothing)), expected)
    assert not label_smoothing(VALUES)


def test_scores_by_hand() -> None:
    logits, targets = torch.tensor([[1.0, 2.0], [3.0, 0.0], [0.0, 1.0]]), torch.tensor([1, 1, 1])
    assert float(mean(Classes((1,), 2, "image").measure(logits, targets)["accuracy"])) == pytest.approx(2 / 3)
    logits, targets = torch.tensor([[1.0, -2.0], [3.0, 5.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    found = Labels((1,), 2, "example").measure(logits, targets)
    assert float(mean(found["accuracy"])) == 0.75 and float(mean(found["exact"])) == 0.5
    task = Values((1,), 1, True, variance=100.0, scale=(10.0,), deviation=8.0)
    found = task.measure(torch.tensor([[0.0], [1.0]]), torch.tensor([[0.5], [1.5]]))
    assert float(mean(found["absolute_error"])) == 5.0 and task.scores["absolute_error"].guess == 8.0


@pytest.mark.parametrize("kind", CASES)
def test_a_guess_is_what_a_network_has_that_says_nothing(kind: str) -> None:
    task, outputs, targets = CASES[kind]
    if kind == "values":  # of unit variance, predicted by their mean
        targets = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    loss = mean(task.losses(torch.zeros(len(targets), *task.output), targets))
    assert float(loss) == pytest.approx(task.metric.guess)
    assert Values((1,), 1, False, 3.0, (1.0,), 0.8).metric.guess == 3.0 and math.isfinite(task.metric.guess)


@pytest.mark.parametrize("kind", CASES)
def test_losses_and_scores_under_vmap_and_the_compiler(kind: str) -> None:
    task, outputs, targets = CASES[kind]

    def all_of_it(outputs: torch.Tensor, targets: torch.Tensor) -> dict[str, Any]:
        found = {"losses": task.losses(outputs, targets)} | task.measure(outputs, targets)
        return found | ({"smoothed": task.smoothed(outputs, targets, 0.1)} if hasattr(task, "smoothed") else {})

    alone = all_of_it(outputs, targets)
    stacked, twice = torch.func.vmap, (torch.stack([outputs, outputs]), torch.stack([targets, targets]))
    for function in (stacked(all_of_it), torch.compile(stacked(all_of_it), backend="aot_eager", fullgraph=True)):
        for name, (values, weights) in function(*twice).items():
            torch.testing.assert_close(values[1], alone[name][0])
            assert torch.equal(weights[0], alone[name][1]) and values.shape == weights.shape
    assert set(task.scores) == set(task.measure(outputs, targets))


@pytest.mark.parametrize("kind", CASES)
def test_half_precision_is_widened_for_the_loss(kind: str) -> None:
    task, outputs, targets = CASES[kind]
    half = outputs.bfloat16()
    torch.testing.assert_close(task.losses(half, targets)[0], task.losses(half.float(), targets)[0])
