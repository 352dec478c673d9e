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


def test_a_filter_is_part_of_a_metrics_name(tmp_path: Path) -> None:
    for arm, strict, flexible in (("a", 0.2, 0.5), ("b", 0.3, 0.4)):
        task = {
            "exact_match,strict-match": strict, "exact_match_stderr,strict-match": 0.01,
            "exact_match,flexible-extract": flexible, "exact_match_stderr,flexible-extract": 0.02,
        }  # fmt: skip
        (tmp_path / arm).mkdir()
        file = tmp_path / arm / "results_2026-01-01T00-00-00.json"  # as the harness calls it, in the model's folder
        file.write_text(json.dumps({"results": {"gsm8k": task}, "config": {}}))
    for metric in ((), ("exact_match",), ("exact_match,strict-match",)):
        (one,) = judged(tmp_path, metric=metric)["comparisons"]  # type: ignore[misc]
        assert one["metric"] == "exact_match,strict-match" and one["difference"]["value"] == pytest.approx(0.1)
    (other,) = judged(tmp_path, metric=("exact_match,flexible-extract",))["comparisons"]  # type: ignore[misc]
    assert other["difference"]["value"] == pytest.approx(-0.1)
    assert other["difference"]["ci_high"] + 0.1 == pytest.approx(1.959964 * math.hypot(0.02, 0.02))


def test_trainings_that_a_pattern_tells_apart_are_runs_over_seeds(tmp_path: Path) -> None:
    for arm, shift in (("a", 0.0), ("b", 0.1)):
        for seed in range(10):
            written(tmp_path / "runs", f"{arm}-{seed}.json", piqa=0.5 + shift + seed % 3 / 100)
    (found,) = judged(tmp_path / "runs", pattern="{arm}-{seed}.json")["comparisons"]  # type: ignore[misc]
    assert found["verdict"] == "BETTER" and found["paired"] == "seed" and found["n_pairs"] == 10
