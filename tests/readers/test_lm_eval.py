"""Results of lm-evaluation-harness: one training run an arm, errors over items."""

import json
import math
from pathlib import Path

import pytest

from infinito.judging.runs import asked_of
from infinito.readers import Options, read


def written(folder: Path, name: str, **acc: float) -> None:
    tasks = {
        task: {"acc,none": value, "acc_stderr,none": 0.01, "ppl": 9.0, "ppl_stderr": 0.1} for task, value in acc.items()
    }
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps({"results": tasks, "config": {"model": "hf"}}))


def judged(folder: Path, **options: object) -> dict[str, object]:
    chosen = Options(**options)  # type: ignore[arg-type]
    found = read(str(folder), chosen)
    return asked_of(
        found, chosen, baseline="a", candidates=[], all_pairs=False, higher=[], lower=[], paired=None,
        smallest_effect=None,
    )  # fmt: skip


def test_two_checkpoints_are_compared_over_items_and_no_verdict_is_given(tmp_path: Path) -> None:
    written(tmp_path / "runs", "a_step10.json", piqa=0.6, sciq=0.5)
    written(tmp_path / "runs", "a_step20.json", piqa=0.7, sciq=0.5)
    written(tmp_path / "runs", "b_step20.json", piqa=0.8, sciq=0.5)
    found = judged(tmp_path / "runs")
    one, other = found["comparisons"]  # type: ignore[misc]
    assert one["verdict"] == other["verdict"] == "INCONCLUSIVE" and one["over"] == "items"
    assert one["difference"]["value"] == pytest.approx(0.1)  # of the last checkpoints
    assert one["difference"]["ci_high"] - 0.1 == pytest.approx(1.959964 * math.hypot(0.01, 0.01))
    assert "seeds were not varied" in one["remarks"][0]
    remarks = " ".join(found["remarks"])  # type: ignore[arg-type]
    assert "over the items of a test set, not over seeds" in remarks and "are no several seeds" in remarks
    assert "ppl: not taken" in remarks


def test_another_metric_is_taken_where_it_is_named(tmp_path: Path) -> None:
    written(tmp_path / "runs", "a.json", piqa=0.6)
    written(tmp_path / "runs", "b.json", piqa=0.8)
    assert judged(tmp_path / "runs", metric=("ppl",))["read_as"]["direction"] == {"ppl": "lower"}  # type: ignore[index]
    with pytest.raises(ValueError, match="--metric: found f1; allowed: acc, ppl"):
        judged(tmp_path / "runs", metric=("f1",))
