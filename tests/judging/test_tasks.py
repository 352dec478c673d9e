"""What holds over tasks: tasks count alike, their units do not matter, and no test pools their runs."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from infinito.judging.asked import Asked
from infinito.judging.judge import judge
from infinito.judging.tasks import OWN

SHIFTS = {"base": 0.0, "worse": -1.0, "better": 1.0}


def runs(tasks: int = 8, n: int = 10, scale: bool = True) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = [
        {"arm": arm, "task": f"t{task}", "metric": "reward", "run": f"{arm}{i}", "seed": "", "status": "",
         "value": (100 * task + (task + 1) * rng.normal(shift, 1)) if scale else rng.normal(shift, 1)}
        for task in range(tasks) for arm, shift in SHIFTS.items() for i in range(n)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def asked(**changes: object) -> Asked:
    return Asked(**({"baseline": "base", "higher": {"reward": True}, "units": {}, "pairing": None} | changes))  # type: ignore[arg-type]


def over(table: pd.DataFrame, **changes: object) -> dict[str, object]:
    (found,) = judge(table, asked(**changes))["across_tasks"]
    return found


def test_wins_and_wilcoxon_are_those_of_task_means() -> None:
    table = runs()
    found = {one["candidate"]: one for one in over(table)["comparisons"]}  # type: ignore[attr-defined]
    means = table.groupby(["task", "arm"])["value"].mean().unstack()
    d = means["better"] - means["base"]
    assert found["better"]["wins"] == (d > 0).sum() and found["better"]["losses"] == (d < 0).sum()
    assert found["better"]["wilcoxon_p"] == pytest.approx(stats.wilcoxon(d).pvalue)
    adjusted = 2 * min(one["wilcoxon_p"] for one in found.values())
    assert min(one["wilcoxon_p_adjusted"] for one in found.values()) == pytest.approx(adjusted)


def test_units_of_tasks_do_not_matter() -> None:
    table = runs()
    other = table.assign(
        value=[1e3 * v if t == "t3" else v for t, v in zip(table["task"], table["value"], strict=True)]
    )
    for one, two in zip(over(table)["comparisons"], over(other)["comparisons"], strict=True):  # type: ignore[arg-type]
        for key in ("difference", "probability_of_improvement"):
            assert one[key] == pytest.approx(two[key], rel=1e-6)
    assert over(table)["ranks"] == over(other)["ranks"]


def test_the_direction_turns_everything() -> None:
    table = runs()
    one, two = over(table), over(table.assign(value=-table["value"]), higher={"reward": False})
    assert one["ranks"] == two["ranks"] and one["comparisons"] == two["comparisons"]


def test_ranks_and_profiles_have_an_order() -> None:
    found = over(runs())
    ranks = {one["arm"]: one["mean"] for one in found["ranks"]}  # type: ignore[attr-defined]
    assert ranks["better"]["value"] < ranks["base"]["value"] < ranks["worse"]["value"]
    assert all(one["ci_low"] <= one["value"] <= one["ci_high"] for one in ranks.values())
    for one in found["profiles"]:  # type: ignore[attr-defined]
        assert all(a >= b for a, b in zip(one["share"], one["share"][1:], strict=False))
    middle = {one["arm"]: one["value"] for one in found["interquartile_means"]}  # type: ignore[attr-defined]
    assert middle["base"] == pytest.approx(0, abs=0.1) and 0.7 < middle["better"] < 1.3


def test_a_task_that_an_arm_lacks_is_said_and_the_rest_is_used() -> None:
    table = runs()
    found = over(table[~((table["task"] == "t1") & (table["arm"] == "worse"))])
    tasks = {one["candidate"]: one["tasks"] for one in found["comparisons"]}  # type: ignore[attr-defined]
    assert tasks == {"worse": 7, "better": 8} and len(found["ranks"][0]["tasks"]) == 7  # type: ignore[index]
    assert found["remarks"] == ["t1: no run of worse; left out of what needs all arms."]


def test_below_six_tasks_there_is_no_wilcoxon_and_with_one_nothing() -> None:
    one = over(runs(5))["comparisons"][0]  # type: ignore[index]
    assert one["wilcoxon_p"] is None and "5 tasks are too few for a test over tasks" in one["sentence"]
    assert judge(runs(1), asked())["across_tasks"] == []


def test_tasks_with_a_metric_each_meet_in_the_spread_of_their_runs() -> None:
    table = runs(scale=False)
    own = table.assign(metric="metric of " + table["task"])
    higher = dict.fromkeys(own["metric"].unique(), True)
    found = over(own, higher=higher)
    assert found["metric"] == OWN and found["ranks"] == over(table)["ranks"]
    assert over(table)["comparisons"][1]["difference"] == found["comparisons"][1]["difference"]  # type: ignore[index]


def test_dunnett_stands_beside_holm_where_variances_agree() -> None:
    found = judge(runs(scale=False), asked())["comparisons"]
    for task in {one["task"] for one in found}:
        table = runs(scale=False)
        here = {arm: rows["value"].to_numpy() for arm, rows in table[table["task"] == task].groupby("arm")}
        test = stats.dunnett(here["worse"], here["better"], control=here["base"], random_state=0)
        ours = [one["p_dunnett"] for one in found if one["task"] == task and "p_dunnett" in one]
        assert not ours or ours == pytest.approx(list(test.pvalue), abs=2e-3)
    assert sum("p_dunnett" in one for one in found) >= 10
    wild = runs(scale=False).assign(value=lambda t: t["value"] * np.where(t["arm"] == "better", 100, 1))
    assert not any("p_dunnett" in one for one in judge(wild, asked())["comparisons"])
