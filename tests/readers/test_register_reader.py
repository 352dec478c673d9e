"""The store of `infinito track`, judged."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from infinito.readers import Options, read
from infinito.tracking.record import FAILED, FINISHED, Record
from infinito.tracking.store import Folder


def filled(folder: Path) -> Path:
    for place, lr in enumerate(("0.1", "0.01")):
        for seed in range(3):
            record = Record(
                f"{place}{seed:011d}", "train.py", FINISHED, f"2026-01-01T00:00:{seed:02d}+00:00",
                params={"optimizer": lr}, seeds={"seed": seed}, metrics={"accuracy": 0.5 + place + seed},
                curves={"accuracy": [(1, 0.0), (2, 9.0)], "loss": [(1, 3.0), (2, 1.0 + seed)]}, dirty=False,
            )  # fmt: skip
            Folder(folder).put(record)
    Folder(folder).put(replace(record, id="f" * 12, status=FAILED, metrics={}, curves={}, dirty=True))
    return folder


def test_a_store_is_read_as_runs_with_seeds(tmp_path: Path) -> None:
    found = read(str(filled(tmp_path / "store")), Options())
    done = found.table[found.table["status"] == FINISHED]
    final = done[done["metric"] == "accuracy"]
    assert sorted(zip(final["arm"], final["seed"], final["value"], strict=True)) == [
        (lr, str(seed), 0.5 + place + seed) for place, lr in ((1, "0.01"), (0, "0.1")) for seed in range(3)
    ]
    assert final["step"].isna().all() and done[done["metric"] == "loss"]["step"].tolist() == [1, 2] * 6
    assert FAILED in set(found.table["status"]) and "1 of 7 runs had code that no revision holds" in found.remarks[0]


def test_a_record_that_was_changed_is_refused(tmp_path: Path) -> None:
    file = next((filled(tmp_path / "store") / "runs").glob("0*.json"))
    record = json.loads(file.read_text())
    record["metrics"]["accuracy"] = 0.99
    file.write_text(json.dumps(record))
    with pytest.raises(ValueError, match="the record was changed after it was written"):
        read(str(tmp_path / "store"), Options())
