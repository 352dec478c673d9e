"""A task of the user's own: prepared, loaded again from the folder alone, refused in one line."""

from pathlib import Path
from typing import Any

import pytest
import torch

from infinito import params, tasks
from infinito.storage import read_json
from infinito.tasks.pool import Pool
from tests.tasks.arrays import mine


def own(name: str, **settings: Any) -> params.Own:
    task = name if ":" in name else f"{mine.__name__}:{name}"
    return params.Own(task=task, settings=settings)


def loaded(folder: Path) -> Pool:
    found = tasks.load(folder)
    assert isinstance(found, Pool)
    return found


def test_what_is_prepared_is_loaded(tmp_path: Path) -> None:
    tasks.prepare(own("Waves", n=20, length=5), tmp_path, tmp_path)
    data = loaded(tmp_path)
    assert data.inputs.shape == (20, 5) and data.inputs.dtype == data.targets.dtype == torch.int64
    assert torch.equal(data.test.targets, (data.test.inputs > 4).long()) and len(data.test.inputs) == 5
    assert data.task.given == {"length": 5} and data.task.output == (5, 2) and data.test.outputs == 10
    assert data.task.scores == {} and data.task.averaged is None and not tasks.label_smoothing(data.task)
    assert data.task.measure(torch.zeros(3, 5, 2), data.targets[:3]) == {}
    assert float(data.task.losses(torch.zeros(3, 5, 2), data.targets[:3])[0].mean()) == pytest.approx(0.6931, abs=1e-4)
    manifest = read_json(tmp_path / "manifest.json")
    assert manifest["settings"] == {"task": f"{mine.__name__}:Waves", "settings": {"n": 20, "length": 5}}
    assert manifest["splits"]["train"]["examples"] == 20


def test_what_a_task_offers_besides_is_kept(tmp_path: Path) -> None:
    tasks.prepare(own("Scored"), tmp_path, tmp_path)
    task = loaded(tmp_path).task
    assert task.averaged == "probabilities" and set(task.scores) == {"right"} and tasks.label_smoothing(task)


def test_a_source_that_has_changed_is_prepared_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tmp_path / "just_mine.py"
    module.write_text(Path(str(mine.__file__)).read_text())
    monkeypatch.syspath_prepend(tmp_path)
    tasks.prepare(own("just_mine:Waves"), tmp_path / "data", tmp_path)
    tasks.load(tmp_path / "data")
    module.write_text(module.read_text() + "\n")
    with pytest.raises(ValueError, match="source of 'just_mine:Waves' has changed; run the stage prepare again"):
        tasks.load(tmp_path / "data")


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("no.module:Task", {}, "'no.module:Task' can't be imported: ModuleNotFoundError"),
        ("Nothing", {}, "can't be imported: AttributeError"),
        ("number", {}, "is a int; it must be a class"),
        ("Waves", {"m": 3}, "refuses its settings: TypeError: .*unexpected keyword"),
        ("Lossless", {}, "found no losses; needed: examples, given, metric, output, losses"),
        ("Unmeasured", {}, "metric: found str; needed: infinito.tasks.Metric"),
        ("Formless", {}, "found 'int' object is not iterable; needed: given, a mapping, and output, a tuple"),
        ("Strange", {}, "averaged: found 'medians'; allowed: probabilities, outputs, or None"),
        ("Absolute", {}, "averaged: found 'outputs' with another loss than the squared error of each output; allowed"),
        ("Weighted", {}, "averaged: found weights other than 0 and 1; allowed: those, or averaged left out"),
        ("Unscored", {}, "measure: found right; needed: nothing, as scores says"),
        ("Scalar", {}, "losses: found Tensor; needed: a pair of tensors, values and weights"),
        ("Short", {}, r"losses: found values of shape \(2, 6\), weights of \(2,\); allowed: the same for both"),
        ("Failing", {}, "fails on its examples: RuntimeError: no losses"),
        ("Raising", {}, "examples raises OSError: no file"),
        ("Changed", {"change": "int"}, "examples: found int; needed: a mapping of train, validation, test"),
        ("Changed", {"change": "no test"}, "examples: found train, validation; needed: a mapping of train, valid"),
        ("Changed", {"change": "single"}, r"examples, train: found ndarray; needed: a pair \(inputs, targets\)"),
        ("Changed", {"change": "unequal"}, "examples, train: found 12 inputs, 11 targets; allowed: as many of both"),
        ("Changed", {"change": "none"}, "examples, test: found 0 inputs, 0 targets; allowed: .* at least one"),
        ("Changed", {"change": "nan"}, "examples, train: inputs, example 3: found nan; allowed: finite numbers"),
        ("Changed", {"change": "text"}, "examples, train: targets: found <U1 of shape .*; allowed: arrays of numbers"),
        ("Changed", {"change": "shape"}, r"found inputs of shape \(6,\) and .* in train, \(2,\) and .* in test"),
    ],
)
def test_bad_tasks(tmp_path: Path, name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        tasks.prepare(own(name, **settings), tmp_path, tmp_path)
    assert "\n" not in str(caught.value) and str(caught.value).startswith("prepare.task: ")
    assert not list(tmp_path.iterdir())
