"""docs/tasks.md: its task works as it stands."""

import re
import sys
from pathlib import Path

import pytest
import torch
import yaml
from torch.nn import functional as F

from infinito import networks, params, tasks
from infinito.tasks.pool import Pool
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "tasks.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_the_task_of_the_page_can_be_learned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = [block for block in blocks("python") if "class Arrows" in block]
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "arrows.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    settings = next(yaml.safe_load(block)["prepare"] for block in blocks("yaml") if "Arrows" in block)
    try:
        tasks.prepare(params.Own.model_validate(settings), tmp_path / "data", tmp_path)
        data = tasks.load(tmp_path / "data")
    finally:
        sys.modules.pop("my_package.arrows", None)
    assert isinstance(data, Pool)
    torch.manual_seed(0)
    network = networks.build("mlp", **data.task.given, width=16, layers=1, dropout=0.0)
    optimiser = torch.optim.AdamW(network.parameters(), 0.01)
    for rows in data.order(0, 60, 32):
        inputs, targets = data.batch(rows)
        values, weights = data.task.losses(network(inputs), targets)
        optimiser.zero_grad()
        (values.sum() / weights.sum()).backward()
        optimiser.step()
    with torch.no_grad():
        outputs = network(data.test.inputs)
    values, _ = data.task.losses(outputs, data.test.targets)
    torch.testing.assert_close(values, 1 - F.cosine_similarity(outputs, data.test.targets))
    assert float(values.mean()) < 0.2 * data.task.metric.guess
