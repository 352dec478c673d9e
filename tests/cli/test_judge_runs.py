"""`infinito judge` on other people's runs."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.cli.test_cli import Infinito

DRAWS = np.random.default_rng(0).normal(0.8, 0.01, (2, 12))


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rows = [f"{arm},{seed},{DRAWS[i, seed] + 0.05 * i:.6f},0.5" for i, arm in enumerate("ab") for seed in range(12)]
    file = tmp_path / "runs.csv"
    file.write_text("model,seed,accuracy,x\n" + "\n".join(rows) + "\n")
    return file


def test_a_table_is_read_said_and_judged(infinito: Infinito, table: Path) -> None:
    said = infinito("judge", str(table), "--baseline", "a")
    assert said.returncode == 0
    first, *rest = said.stdout.split("\n\n")
    assert (
        "read as: arm = column model, seed = column seed, metric = accuracy (higher is better), 12 + 12 runs" in first
    )
    assert "paired by seed" in first and "--arm COLUMN" in first
    assert "BETTER (exploratory): b is better than a in accuracy" in said.stdout and "12 pairs by seed" in said.stdout
    assert "x: numbers whose name says neither" in said.stdout


def test_json_has_all_figures(infinito: Infinito, table: Path) -> None:
    found = json.loads(infinito("judge", str(table), "--baseline", "a", "--json").stdout)
    assert found["schema"] == "infinito/judge/2" and found["status"] == "exploratory"
    assert found["read_as"]["runs"] == {"a": 12, "b": 12} and found["read_as"]["paired"] == "seed"
    one = found["comparisons"][0]
    assert one["difference"]["value"] == pytest.approx(0.05 + DRAWS[1].mean() - DRAWS[0].mean(), abs=1e-6)
    unpaired = json.loads(infinito("judge", str(table), "--baseline", "a", "--unpaired", "--json").stdout)
    assert unpaired["comparisons"][0]["paired"] is None
    assert unpaired["comparisons"][0]["difference"]["value"] == pytest.approx(one["difference"]["value"])


def test_one_arm_is_no_comparison(infinito: Infinito, tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_text("seed,accuracy\n" + "".join(f"{i},{x}\n" for i, x in enumerate(DRAWS[0])))
    said = infinito("judge", str(tmp_path / "one.csv"))
    assert said.returncode == 1
    assert "one arm only: no comparison is possible" in said.stdout and "no golden seed" in said.stdout


def test_a_folder_with_a_file_a_run(infinito: Infinito, tmp_path: Path) -> None:
    for i, arm in enumerate(("base", "new")):
        for seed in range(12):
            folder = tmp_path / "runs" / arm / str(seed)
            folder.mkdir(parents=True)
            (folder / "stats.json").write_text(
                json.dumps({"metrics": {"test": {"rmse": 1 - DRAWS[i, seed] - 0.1 * i}}})
            )
    found = json.loads(infinito("judge", str(tmp_path / "runs"), "--baseline", "base", "--json").stdout)
    assert found["read_as"]["arm"] == "folder 1 of the path" and found["comparisons"][0]["n_pairs"] == 12
    flags = "--pattern", "{arm}/{seed}/stats.json", "--metric", "metrics.test.rmse"
    again = json.loads(infinito("judge", str(tmp_path / "runs"), "--baseline", "base", *flags, "--json").stdout)
    assert again["comparisons"] == found["comparisons"]


def test_a_folder_of_logs(infinito: Infinito, tmp_path: Path) -> None:
    for i, arm in enumerate(("base", "new")):
        for run in range(10):
            folder = tmp_path / "logs" / arm
            folder.mkdir(parents=True, exist_ok=True)
            lines = [
                f"step:{step}/20 val_loss:{DRAWS[i, run] - 0.1 * i + 1 / step:.4f} train_time:{step}ms"
                for step in (10, 20)
            ]
            (folder / f"run{run}.txt").write_text("starting\n" + "\n".join(lines) + "\n")
    found = json.loads(
        infinito("judge", str(tmp_path / "logs"), "--baseline", "base", "--metric", "val_loss", "--json").stdout
    )
    one = found["comparisons"][0]
    assert one["verdict"] == "BETTER" and one["paired"] is None and one["n_candidate"] == 10
    assert any("pairs by file name or row order would be invented" in remark for remark in found["remarks"])


@pytest.mark.parametrize(
    "text, flags, message",
    [
        ("model,seed,accuracy\na,0,1\nb,0,2\n", (), "baseline: found the arms a, b; say which is the baseline"),
        ("model,seed,accuracy\na,0,1\nb,0,2\n", ("--baseline", "c"), "--baseline: found 'c'; allowed: a, b"),
        (
            "model,seed,x\na,0,1\nb,0,2\n",
            ("--baseline", "a"),
            "metric 'x': its name does not say whether higher is bet",
        ),
        ("model,seed,loss\na,0,1\na,0,2\nb,0,2\n", ("--baseline", "a"), "found 1 and 2 for arm a, metric loss, seed 0"),
        ("model,seed,loss\na,0,\nb,0,\n", ("--baseline", "a"), "found no column of numbers"),
        (
            "model,step,seed,loss\na,1,0,1\nb,1,0,2\n",
            ("--baseline", "a", "--at", "x"),
            "--at: found 'x'; allowed: a step",
        ),
    ],
)
def test_what_cannot_be_told_is_asked_for(
    refused: Callable[..., str], tmp_path: Path, text: str, flags: tuple[str, ...], message: str
) -> None:
    (tmp_path / "runs.csv").write_text(text)
    assert message in refused("judge", str(tmp_path / "runs.csv"), *flags)


def test_runs_that_did_not_finish_are_named_and_not_counted(infinito: Infinito, table: Path) -> None:
    lines = table.read_text().splitlines()
    rows = [f"{line},FINISHED" for line in lines[1:]] + ["b,12,0.1,0.5,RUNNING", "b,13,,0.5,FAILED"]
    table.write_text("\n".join([f"{lines[0]},Status", *rows]))
    found = json.loads(infinito("judge", str(table), "--baseline", "a", "--json").stdout)
    assert found["comparisons"][0]["n_candidate"] == 12
    assert any("1 RUNNING (b seed 12); 1 FAILED (b seed 13)" in remark for remark in found["remarks"])


def test_curves_that_end_at_different_steps_say_so(infinito: Infinito, tmp_path: Path) -> None:
    rows = [
        f"{arm},{s},{t},{DRAWS[0, s] + t}" for arm, end in (("a", 3), ("b", 4)) for s in range(10) for t in range(end)
    ]
    (tmp_path / "curves.csv").write_text("model,seed,step,reward\n" + "\n".join(rows))
    found = json.loads(infinito("judge", str(tmp_path / "curves.csv"), "--baseline", "a", "--json").stdout)
    assert "The arms stop at different steps (a at 2, b at 3); of every run its last figure." in found["remarks"]
    assert found["comparisons"][0]["difference"]["value"] == pytest.approx(1)
    equal = json.loads(
        infinito("judge", str(tmp_path / "curves.csv"), "--baseline", "a", "--at", "1:2", "--json").stdout
    )
    assert equal["comparisons"][0]["difference"]["value"] == pytest.approx(0)
