"""Tables that invite a wrong answer: what is no run, no metric, no curve, and what must be asked for."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infinito.judging.comparison import _further_pairs
from infinito.judging.runs import asked_of
from infinito.readers import Options, read
from infinito.readers.direction import direction
from infinito.statistics import paired

DRAWS = np.random.default_rng(0).normal(0.8, 0.01, (2, 12))


def judged(folder: Path, text: str, name: str = "runs.csv", **flags: Any) -> dict[str, Any]:
    file = folder / name
    file.write_text(text)
    asked = {
        "baseline": "b", "candidates": [], "all_pairs": False, "higher": [], "lower": [], "paired": None,
        "smallest_effect": None,
    }  # fmt: skip
    options = Options(**{key: value for key, value in flags.items() if key not in asked})
    return asked_of(read(str(file), options), options, **asked | {k: v for k, v in flags.items() if k in asked})


def table(head: str = "arm,seed,accuracy", more: str = "", shift: float = 0.05) -> str:
    rows = [f"{arm},{seed},{DRAWS[i, seed] + shift * i:.6f}{more}" for i, arm in enumerate("ba") for seed in range(12)]
    return head + "\n" + "\n".join(rows) + "\n"


def said(found: dict[str, Any]) -> str:
    return " ".join([*found["remarks"], *(remark for c in found["comparisons"] for remark in c["remarks"])])


@pytest.mark.parametrize("step", ["_step", "epoch"])
def test_a_row_a_run_is_no_curve(tmp_path: Path, step: str) -> None:
    lines = table().splitlines()
    text = "\n".join([f"{lines[0]},{step}", *(f"{line},{500 + 37 * i % 400}" for i, line in enumerate(lines[1:]))])
    found = judged(tmp_path, text)
    assert found["comparisons"][0]["n_pairs"] == 12 and "curve" not in said(found)


@pytest.mark.parametrize("column", ["kind of net", "Ansatz"])
def test_a_column_that_may_be_the_arm_is_asked_about(tmp_path: Path, column: str) -> None:
    text = table(f"{column},seed,accuracy")
    with pytest.raises(ValueError, match=f"arm: found the column {column} .b, a., which may say which arm"):
        judged(tmp_path, text)
    assert judged(tmp_path, text, arm=column)["comparisons"][0]["verdict"] == "BETTER"


@pytest.mark.parametrize("column", ["backbone", "agent_name", "Modèle", "configuration", "params.yaml:model"])
def test_names_of_arms(tmp_path: Path, column: str) -> None:
    assert judged(tmp_path, table(f"{column},seed,accuracy"))["comparisons"][0]["verdict"] == "BETTER"


@pytest.mark.parametrize("label", ["n", "95% CI", "Mean±SD", "best", "Gesamt", "mean (10 seeds)"])
def test_a_row_with_a_word_for_its_seed_is_no_run(tmp_path: Path, label: str) -> None:
    found = judged(tmp_path, table() + f"a,{label},10\n")
    assert found["comparisons"][0]["n_candidate"] == 12 and f"whose seed is {label}: summaries" in said(found)


def test_shares_beside_percentages_are_refused(tmp_path: Path) -> None:
    lines = table().splitlines()
    rows = [
        line if line[0] == "b" else f"a,{line.split(',')[1]},{100 * float(line.split(',')[2])}" for line in lines[1:]
    ]
    with pytest.raises(ValueError, match="accuracy: found .* of b beside .* of a: shares beside percentages"):
        judged(tmp_path, "\n".join([lines[0], *rows]))


def test_spreads_are_no_metrics(tmp_path: Path) -> None:
    found = judged(tmp_path, table("arm,seed,mean_reward,std_reward", ",0.1"))
    assert found["read_as"]["metric"] == ["mean_reward"]
    with pytest.raises(ValueError, match="a mean with its spread"):
        judged(tmp_path, "arm,seed,accuracy\na,0,0.91 ± 0.01\nb,0,0.90 ± 0.02\n")


def test_another_scale_of_a_metric_is_one_hypothesis(tmp_path: Path) -> None:
    rows = [line.split(",") for line in table().splitlines()[1:]]
    text = "arm,seed,accuracy,error,accuracy_pct\n" + "\n".join(
        f"{arm},{seed},{value},{1 - float(value):.6f},{100 * float(value):.4f}" for arm, seed, value in rows
    )
    found = judged(tmp_path, text)
    assert found["hypotheses"] == 1 and "error is 1 - 1 times accuracy: one hypothesis" in said(found)


def test_runs_that_diverged_stand_in_the_verdict(tmp_path: Path) -> None:
    lines = table().splitlines()
    lines[15] = "a,2,inf"
    found = judged(tmp_path, "\n".join(lines))
    arm = next(arm for arm in found["arms"] if arm["arm"] == "a")
    assert (arm["failed"], arm["diverged"]) == (1, 1)
    assert "; without 1 of 12 runs of a." in found["comparisons"][0]["sentence"] and "1 diverged" in said(found)


@pytest.mark.parametrize(
    "flags, message",
    [
        ({"higher": ["accuracy"], "lower": ["accuracy"]}, "--higher: found 'accuracy', and --lower too"),
        ({"smallest_effect": -1.0}, "--smallest-effect: found -1; allowed: a number above 0"),
        ({"all_pairs": True}, "--all-pairs: found --baseline 'b' beside it"),
        ({"candidates": ["b"]}, "--candidate: found 'b', which is the baseline"),
    ],
)
def test_flags_that_contradict_each_other(tmp_path: Path, flags: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        judged(tmp_path, table(), **flags)


def test_a_name_twice_in_the_header_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="found two columns 'accuracy'"):
        judged(tmp_path, table("arm,seed,accuracy,accuracy", ",0.5"))


def test_the_step_may_be_chosen_by_a_metric_that_is_not_judged(tmp_path: Path) -> None:
    rows = [
        f"{arm},{seed},{step},{DRAWS[i, seed] + 0.05 * i + step:.6f},{abs(step - 2)}"
        for i, arm in enumerate("ba") for seed in range(12) for step in range(5)
    ]  # fmt: skip
    text = "arm,seed,step,accuracy,val_loss\n" + "\n".join(rows)
    found = judged(tmp_path, text, metric=("accuracy",), best_by="val_loss")
    assert [c["metric"] for c in found["comparisons"]] == ["accuracy"]
    assert found["comparisons"][0]["mean_baseline"] == pytest.approx(DRAWS[0].mean() + 2, abs=1e-5)


def test_of_seeds_with_folds_the_mean_counts(tmp_path: Path) -> None:
    rows = [f"{arm},{seed},{fold},{DRAWS[i, seed] + 0.05 * i + fold:.6f}" for i, arm in enumerate("ba")
            for seed in range(12) for fold in range(3)]  # fmt: skip
    found = judged(tmp_path, "arm,seed,fold,accuracy\n" + "\n".join(rows))
    one = found["comparisons"][0]
    assert one["n_pairs"] == 12 and one["paired"] == "seed" and "the mean over its folds" in said(found)
    assert one["mean_baseline"] == pytest.approx(DRAWS[0].mean() + 1, abs=1e-5)


def test_json_of_many_depths(tmp_path: Path) -> None:
    matrix = {arm: [[x, x + 1] for x in DRAWS[i] + 0.05 * i] for i, arm in enumerate("ba")}
    found = judged(tmp_path, json.dumps(matrix), "m.json", higher=["value"])
    assert {c["task"] for c in found["comparisons"]} == {"task 0", "task 1"}
    assert found["comparisons"][0]["difference"]["value"] == pytest.approx(np.diff(DRAWS.mean(1))[0] + 0.05)
    nested = {
        arm: {t: {f"seed_{s}": {"acc": x} for s, x in enumerate(DRAWS[i])} for t in "xy"} for i, arm in enumerate("ba")
    }
    found = judged(tmp_path, json.dumps(nested), "n.json")
    assert {(c["task"], c["n_pairs"]) for c in found["comparisons"]} == {("x", 12), ("y", 12)}
    lists = {arm: {t: list(DRAWS[i]) for t in ("Ant", "Hopper")} for i, arm in enumerate("ba")}
    found = judged(tmp_path, json.dumps(lists), "l.json", higher=["value"])
    assert {(c["task"], c["n_candidate"], c["paired"]) for c in found["comparisons"]} == {
        ("Ant", 12, None), ("Hopper", 12, None),
    }  # fmt: skip


def test_a_line_that_is_a_mean_is_no_run(tmp_path: Path) -> None:
    head = ",".join(
        f'"{name}"' for arm in ("adam-1", "sgd-1") for name in (f"{arm} - acc{end}" for end in ("", "__MIN"))
    )
    head = f'"Step",{head}'
    with pytest.raises(ValueError, match="a band apart from it: a mean of several runs"):
        judged(tmp_path, head + '\n"1","0.7","0.6","0.7","0.6"\n')


def test_seeds_that_no_two_arms_share_are_not_called_pairs(tmp_path: Path) -> None:
    rows = [f"{arm},{seed + 100 * i},{DRAWS[i, seed]:.6f}" for i, arm in enumerate("ba") for seed in range(12)]
    found = judged(tmp_path, "arm,seed,accuracy\n" + "\n".join(rows))
    assert "not paired" in found["read_as"]["sentence"] and found["read_as"]["paired"] is None
    assert "0 seeds are in both arms" in said(found) and "left out of the pairs" not in said(found)


@pytest.mark.parametrize("shift, words", [(0.0, "the same runs under two names?"), (0.25, "differ by the same amount")])
def test_pairs_without_a_spread_are_said(tmp_path: Path, shift: float, words: str) -> None:
    rows = [f"{arm},{seed},{seed / 8 + shift * i}" for i, arm in enumerate("ba") for seed in range(12)]
    assert words in said(judged(tmp_path, "arm,seed,reward\n" + "\n".join(rows)))


def test_one_arm_by_its_name(tmp_path: Path) -> None:
    rows = "\n".join(f"a,{seed},{x}" for seed, x in enumerate(DRAWS[0]))
    found = judged(tmp_path, "arm,seed,accuracy\n" + rows, baseline="a")
    assert not found["comparisons"] and found["arms"][0]["arm"] == "a"


def test_arms_may_be_called_as_summaries_are(tmp_path: Path) -> None:
    text = table().replace("\nb,", "\nmean,").replace("\na,", "\nmax,")
    found = judged(tmp_path, text, baseline="mean")
    assert found["comparisons"][0]["n_pairs"] == 12 and found["comparisons"][0]["candidate"] == "max"


def test_the_smallest_effect_is_in_the_unit_that_is_printed(tmp_path: Path) -> None:
    rows = [
        f"{arm},{seed},{100 * (DRAWS[i, seed] + 0.03 * i):.3f} %" for i, arm in enumerate("ba") for seed in range(12)
    ]
    text = "arm,seed,accuracy\n" + "\n".join(rows)
    assert judged(tmp_path, text, smallest_effect=0.5)["comparisons"][0]["verdict"] == "BETTER"
    assert judged(tmp_path, text, smallest_effect=10.0)["comparisons"][0]["verdict"] == "EQUIVALENT"


@pytest.mark.parametrize(
    "name, way", [("neg_mean_squared_error", "higher"), ("f1_negative", None), ("win_loss_ratio", None)]
)
def test_a_word_of_negation_turns_a_name_only_in_front(name: str, way: str | None) -> None:
    assert direction(name) == way


def test_a_curve_that_ends_in_nothing_is_a_lost_run_and_shortens_no_other(tmp_path: Path) -> None:
    rows = [
        f"{arm},{seed},{step},{'nan' if arm == 'a' and seed == 3 and step > 2 else 10 - step + DRAWS[i, seed]}"
        for i, arm in enumerate("ba") for seed in range(12) for step in range(1, 6)
    ]  # fmt: skip
    found = judged(tmp_path, "arm,seed,step,loss\n" + "\n".join(rows))
    one = found["comparisons"][0]
    assert one["n_pairs"] == 11 and one["mean_baseline"] == pytest.approx(5 + DRAWS[0].mean(), abs=1e-9)
    assert one["without_a_figure"] == {"a": [1, 12]} and "a: 1 have no figure from some step on" in said(found)


def test_a_seed_that_lacks_a_fold_has_no_mean(tmp_path: Path) -> None:
    rows = [f"{arm},{seed},{fold},{'' if arm == 'a' and seed == fold == 0 else fold + seed / 100}"
            for arm in "ba" for seed in range(12) for fold in range(4)]  # fmt: skip
    found = judged(tmp_path, "arm,seed,fold,accuracy\n" + "\n".join(rows))
    assert found["comparisons"][0]["n_pairs"] == 11 and found["comparisons"][0]["difference"]["value"] == 0
    assert "1 seeds lack a fold" in said(found)


def test_rounding_wins_no_task(tmp_path: Path) -> None:
    arms = (("a", (0.1, 0.2, 0.3)), ("b", (0.3, 0.2, 0.1)))
    rows = [f"{arm},{task},{seed},{x}" for task in ("t", "u") for arm, xs in arms
            for seed, x in enumerate(xs)]  # fmt: skip
    (over,) = judged(tmp_path, "arm,task,seed,accuracy\n" + "\n".join(rows))["across_tasks"]
    assert (over["comparisons"][0]["wins"], over["comparisons"][0]["ties"]) == (0, 2)


def test_further_pairs_are_those_that_have_the_power() -> None:
    for effect in (0.05, 0.2, 0.5, 1.0, 3.0):
        ours = _further_pairs(effect, 1.0, 2, 0.05)
        assert ours is not None and ours + 2 == max(2, math.ceil(paired.pairs_needed(effect)))
