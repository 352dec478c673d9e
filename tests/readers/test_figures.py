"""One figure a run: which part of a curve counts."""

from pathlib import Path

import pytest

from infinito.readers import Options, read
from infinito.readers.figures import figures

CURVES = "algo,env,seed,step,reward,loss\n" + "".join(
    f"{algo},{env},{seed},{step},{step + seed},{1 / step}\n"
    for algo in "ab"
    for env, end in (("ant", 3), ("hopper", 5))
    for seed in range(2)
    for step in range(1, end + 1)
)


def test_every_task_has_an_end_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "curves.csv").write_text(CURVES)
    found, remarks = figures(read(str(tmp_path / "curves.csv"), Options()), Options())
    reward = found[found["metric"] == "reward"]
    assert reward.groupby("task")["value"].max().to_dict() == {"ant": 4, "hopper": 6}
    assert "ant loss, ant reward: Of every curve its last figure, up to step 3." in remarks


def test_a_figure_without_steps_stands_beside_curves(tmp_path: Path) -> None:
    rows = [("a", 0, m, s, v) for m, s, v in (("loss", 1, 3), ("loss", 2, 1), ("accuracy", "", 0.5))]
    rows += [("b", 0, m, s, v) for m, s, v in (("loss", 1, 4), ("loss", 2, 2), ("accuracy", "", 0.6))]
    text = "arm,seed,metric,step,value\n" + "".join(",".join(map(str, row)) + "\n" for row in rows)
    (tmp_path / "long.csv").write_text(text)
    found, _ = figures(read(str(tmp_path / "long.csv"), Options()), Options())
    assert dict(zip(found["arm"] + " " + found["metric"], found["value"], strict=True)) == {
        "a accuracy": 0.5, "b accuracy": 0.6, "a loss": 1, "b loss": 2,
    }  # fmt: skip


def test_a_run_without_a_figure_where_it_counts_is_missing_not_gone(tmp_path: Path) -> None:
    (tmp_path / "curves.csv").write_text(CURVES.replace("a,ant,1,3,4", "a,ant,1,3,"))
    found, _ = figures(read(str(tmp_path / "curves.csv"), Options()), Options(at=(3, 3)))
    one = found[(found["arm"] == "a") & (found["task"] == "ant") & (found["metric"] == "reward")]
    assert sorted(one["seed"]) == ["0", "1"] and one["value"].isna().sum() == 1


def test_a_step_that_no_run_has_is_refused(tmp_path: Path) -> None:
    (tmp_path / "curves.csv").write_text(CURVES)
    with pytest.raises(ValueError, match="--at: found no figure there; allowed: 1 to 5"):
        figures(read(str(tmp_path / "curves.csv"), Options()), Options(at=(9, 9)))
