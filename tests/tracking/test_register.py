"""`infinito track` as people run it, in processes of its own; and the table of what it registered."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infinito.tracking.parameters import of_command
from infinito.tracking.record import FINISHED, Record
from infinito.tracking.store import Folder
from infinito.tracking.table import groups
from tests.conftest import ROOT, Infinito

SCRIPT = """
import argparse, json, pathlib
parser = argparse.ArgumentParser()
for name in ("--lr", "--seed", "--api-key"):
    parser.add_argument(name)
given = parser.parse_args()
pathlib.Path("out").mkdir(exist_ok=True)
pathlib.Path("out/metrics.json").write_text(json.dumps({"test_loss": float(given.seed) + float(given.lr)}))
print("trained ä")
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "train.py").write_text(SCRIPT)
    for words in ("init -q", "add -A", "-c user.name=a -c user.email=a@b commit -qm first"):
        subprocess.run(["git", *words.split()], cwd=tmp_path, check=True)
    return tmp_path


def begun(folder: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "infinito", "track", "--store", "store", *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=pipe, stderr=pipe, text=True)


def tracked(folder: Path, *words: str) -> tuple[int, str, str]:
    process = begun(folder, *words)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def records(folder: Path) -> list[Record]:
    return list(Folder(folder / "store").records())


def test_a_run_is_registered_with_all_that_it_was(repository: Path) -> None:
    words = ["--metrics", "out/metrics.json", "--outputs", "out", "--", sys.executable, "train.py", "--lr", "1e-1"]
    code, out, err = tracked(repository, *words, "--seed=3", "--api-key", "very-secret")
    assert (code, out) == (0, "trained ä\n") and "DIRTY" not in err, err
    (record,) = records(repository)
    assert (record.status, record.name, record.dirty) == (FINISHED, "train.py", False)
    assert record.params == {"lr": 0.1, "api_key": "***"} and record.seeds == {"seed": 3}
    assert record.metrics == {"test_loss": 3.1} and list(record.facts["outputs"]) == ["out/metrics.json"]
    assert "torch" in record.facts["environment"]["packages"]
    kept = "".join(file.read_text() for file in (repository / "store").rglob("*.*"))
    assert "very-secret" not in kept and "trained ä" in kept


def test_a_dirty_tree_is_said_twice_and_its_difference_kept(repository: Path) -> None:
    (repository / "train.py").write_text(SCRIPT + "print('changed')\n")
    code, _, err = tracked(repository, "--", sys.executable, "train.py", "--lr", "1", "--seed", "1")
    (record,) = records(repository)
    assert code == 0 and record.dirty and err.count("THE TREE IS DIRTY: 1 file (train.py) differs") == 2
    assert "+print('changed')" in (repository / "store" / record.facts["git"]["diff"]).read_text()


def test_a_failure_keeps_its_exit_code_and_its_log(tmp_path: Path) -> None:
    code, _, err = tracked(tmp_path, "--", sys.executable, "-c", "raise SystemExit(7)", "--seed", "1")
    (record,) = records(tmp_path)
    assert (code, record.status, record.facts["exit_code"]) == (7, "FAILED", 7) and "NO GIT REPOSITORY" in err


def test_no_such_command_registers_nothing(tmp_path: Path) -> None:
    code, _, err = tracked(tmp_path, "--", "no-such-program", "--lr", "1")
    assert code == 2 and err.count("\n") == 1 and "'no-such-program'" in err and not (tmp_path / "store").exists()


def test_a_tracker_that_was_killed_leaves_a_run_that_died(tmp_path: Path) -> None:
    process = begun(tmp_path, "--", "sleep", "30")
    deadline = time.monotonic() + 60
    while not list((tmp_path / "store").glob("logs/*.log")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    assert [record.status for record in records(tmp_path)] == ["RUNNING"]
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert [record.status for record in records(tmp_path)] == ["DIED"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_told_to_end_is_killed_and_says_so(number: signal.Signals, tmp_path: Path) -> None:
    process = begun(tmp_path, "--", "sh", "-c", "echo up; exec sleep 30")
    assert process.stdout is not None and process.stdout.readline() == "up\n"
    if number == signal.SIGINT:  # a terminal sends it to both
        for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
            if Path(f"/proc/{child}/comm").read_text().strip() in ("sh", "sleep"):
                os.kill(int(child), number)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    (record,) = records(tmp_path)
    assert process.returncode == record.facts["exit_code"] == 128 + number and "Traceback" not in err
    assert record.status == "KILLED" and record.facts["remarks"] == [f"ended by {number.name}"]


def test_runs_are_shown_chosen_and_verified(
    repository: Path, infinito: Infinito, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--metrics", "out/metrics.json", "--outputs", "out", "--", sys.executable, "train.py", "--lr", "0.1"]
    assert tracked(repository, *words, "--seed", "3")[0] == 0
    (record,) = records(repository)
    monkeypatch.chdir(repository)
    store = ("--store", "store")
    assert json.loads(infinito("runs", *store, "--show", record.id[:4]).stdout)["seeds"] == {"seed": 3}
    assert "all of 1 outputs have their hashes" in infinito("runs", *store, "--verify", record.id).stdout
    (repository / "out/metrics.json").write_text("{}")
    changed = infinito("runs", *store, "--verify", record.id)
    assert (changed.returncode, changed.stdout) == (1, "out/metrics.json: changed since the run wrote it\n")
    for conditions, number in (("lr=0.1", 1), ("lr>0.1", 0), ("lr<=0.1 name~TRAIN seed!=4", 1), ("seed=4", 0)):
        found = infinito("runs", *store, "--where", conditions, "--each", "--json")
        assert found.returncode == 0 and len(json.loads(found.stdout)) == number, conditions
    assert "--where: found 'depth'; allowed: " in refused("runs", *store, "--where", "depth=3")
    assert "--where: found 'lr'; allowed: NAME=VALUE" in refused("runs", *store, "--where", "lr")
    assert "found no 'zz' among the 1 runs of store" in refused("runs", *store, "--show", "zz")


def test_a_store_is_copied_with_logs_and_differences(repository: Path, infinito: Infinito) -> None:
    (repository / "train.py").write_text(SCRIPT + "print('changed')\n")
    tracked(repository, "--", sys.executable, "train.py", "--lr", "1", "--seed", "1")
    source, target = repository / "store", repository / "team"
    (record,) = records(repository)
    Folder(target).put(replace(record, status="RUNNING"))  # as it was there before its end
    done = infinito("log", "--store", str(source), "--to", str(target))
    assert f"{target}: 1 runs logged, 0 were there" in done.stdout, done
    names = [sorted(path.relative_to(top) for path in top.rglob("*.*")) for top in (source, target)]
    assert names[0] == names[1] and len(names[0]) == 3 and list(Folder(target).records()) == [record]


def test_five_at_once_are_five_runs(repository: Path) -> None:
    words = ["--metrics", "out/metrics.json", "--", sys.executable, "train.py", "--lr", "0.1", "--seed"]
    processes = [begun(repository, *words, str(seed)) for seed in range(5)]
    assert [process.wait(timeout=120) for process in processes] == [0] * 5
    assert sorted(str(record.seeds["seed"]) for record in records(repository)) == list("01234")


def test_a_changed_record_is_refused(tmp_path: Path) -> None:
    Folder(tmp_path / "store").put(run(1, 0.5))
    (file,) = (tmp_path / "store" / "runs").glob("*.json")
    content: dict[str, Any] = json.loads(file.read_text())
    content["metrics"]["test_loss"] = 0.1
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="changed after it was written"):
        records(tmp_path)


def run(seed: int, loss: float, **other: Any) -> Record:
    name = f"{seed:06x}{len(other):06x}"
    known: dict[str, Any] = {"params": {"lr": 0.1}, "seeds": {"seed": seed}, "code": "a"}
    return Record(name, "train.py", FINISHED, "", metrics={"test_loss": loss}, **{**known, **other})


def test_groups_by_everything_but_the_seed() -> None:
    (row,) = groups([run(1, 1.0), run(2, 2.0), run(3, 3.0)], ["test_loss"])
    assert (row["n"], row["value"], row["sd"], row["best"]) == (3, 2.0, 1.0, 1.0)
    assert row["ci_low"] == pytest.approx(2 - 4.302652729911275 / 3**0.5)  # t quantile, 2 degrees of freedom
    two = groups([run(1, 1.0), run(2, 2.0, params={"lr": 0.2})], ["test_loss"])
    assert [row["settings"] for row in two] == [{"lr": 0.1}, {"lr": 0.2}]
    assert {row["note"] for row in two} == {"1 run: no interval"} and two[0]["ci_low"] is None


def test_equal_seeds_count_once_and_shared_ones_give_no_interval() -> None:
    (row,) = groups([run(1, 1.0), run(1, 3.0, code="b"), run(2, 4.0)], ["test_loss"])
    assert (row["n"], row["value"]) == (2, 3.0) and "2 states of the code" in row["note"]
    cells = [run(i, 1.0 + i * j, seeds={"init": i, "data": j}) for i in (1, 2) for j in (1, 2)]
    (grid,) = groups(cells, ["test_loss"])
    assert grid["n"] == 4 and grid["ci_low"] is None and grid["note"] == "runs share seeds: no interval"


@pytest.mark.parametrize(
    "words, params",
    [
        ("python train.py --lr 0.1 -x 3 --flag", {"lr": 0.1, "x": 3, "flag": True}),
        ("python -m pkg.train lr=1e-1 ++model.width=64", {"lr": 0.1, "model.width": 64}),
        ("torchrun --nproc 2 train.py data --shift -3", {"argument.1": "data", "shift": -3}),
        ("python train.py --hf-token abc --pad-token x", {"hf_token": "***", "pad_token": "x"}),
    ],
)
def test_parameters_of_a_command_line(words: str, params: dict[str, Any], tmp_path: Path) -> None:
    found = of_command(words.split(), tmp_path)
    assert found.params == params and "abc" not in found.shown
