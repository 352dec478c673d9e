"""Folders of Sacred, as its FileStorageObserver writes them."""

import json
from pathlib import Path
from typing import Any

import pytest

from infinito.readers import sacred
from infinito.readers.results import Options


def run(folder: Path, status: str = "COMPLETED", values: Any = (0.8, 0.9), result: Any = None, **config: Any) -> None:
    folder.mkdir(parents=True)
    head = {"experiment": {"name": "covtype"}, "status": status, "result": result}
    (folder / "run.json").write_text(json.dumps(head))
    (folder / "config.json").write_text(json.dumps(config | {"net": {"width": 3}}))
    curve = {"steps": list(range(len(values))), "timestamps": ["t"] * len(values), "values": list(values)}
    (folder / "metrics.json").write_text(json.dumps({"val.accuracy": curve} if values else {}))


def test_what_was_logged_is_what_is_read(tmp_path: Path) -> None:
    run(tmp_path / "1", algorithm="mlp", seed=0)
    numpy = [{"dtype": "float64", "py/object": "numpy.float64", "value": 0.7}, None]
    run(tmp_path / "2", algorithm="ft", seed=0, values=numpy)
    run(tmp_path / "10", "FAILED", algorithm="ft", seed=1, values=[0.1])
    run(tmp_path / "11", "INTERRUPTED", algorithm="mlp", seed=1, values=[])
    assert sacred.is_one(tmp_path)
    found = sacred.read(tmp_path, Options())
    rows = found.table[["arm", "run", "seed", "status", "value"]].fillna(-1).values.tolist()
    assert rows == [
        ["mlp", "1", "0", "COMPLETED", 0.8], ["mlp", "1", "0", "COMPLETED", 0.9], ["ft", "2", "0", "COMPLETED", 0.7],
        ["ft", "2", "0", "COMPLETED", -1], ["ft", "10", "1", "FAILED", 0.1], ["mlp", "11", "1", "INTERRUPTED", -1],
    ]  # fmt: skip
    assert found.read_as["arm"] == "parameter algorithm" and found.pairing == "seed"


def test_the_result_of_a_run_is_a_metric_and_folders_above_are_arms(tmp_path: Path) -> None:
    for arm in ("a", "b"):
        run(tmp_path / arm / "1", values=[], result={"accuracy": 0.5}, seed=3)
    found = sacred.read(tmp_path, Options())
    assert found.table[["arm", "metric", "seed", "value"]].values.tolist() == [
        ["a", "accuracy", "3", 0.5], ["b", "accuracy", "3", 0.5],
    ]  # fmt: skip
    assert found.table["step"].isna().all()


def test_faults_are_named_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="found no run.json"):
        sacred.read(tmp_path, Options())
    run(tmp_path / "1", values=[])
    with pytest.raises(ValueError, match="found 1 run without a metric"):
        sacred.read(tmp_path, Options())
    (tmp_path / "1" / "metrics.json").write_text('{"loss": {"steps": [1, 2], "values": [0.5]}}')
    with pytest.raises(ValueError, match="metrics.json: loss: found no equally long steps and values"):
        sacred.read(tmp_path, Options())
    (tmp_path / "1" / "run.json").write_text("")
    with pytest.raises(ValueError, match="run.json: found an empty file"):
        sacred.read(tmp_path, Options())
