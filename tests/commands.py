"""A tiny study of commands: a script that ends at once, well or badly, as its settings say."""

import shutil
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import ROOT

SCRIPT = """
import json, os, random, signal, sys, time
gain, init, data, out, fault = float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5]
with open("started", "a") as file:
    file.write(f"{os.getpid()}\\n")
chance = random.Random(f"{init} {data}").random()
number = int(fault.partition("@")[2] or -1)
if number in (-1, data % 1000000):
    kind = fault.partition("@")[0]
    if kind == "exit":
        print("no such device")
        sys.exit(3)
    if kind == "silent":
        sys.exit(0)
    if kind == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "nan":
        chance = float("nan")
    if kind == "hang":
        if os.fork() == 0:
            open("child", "w").write(str(os.getpid()))
        time.sleep(100)
    if kind == "once" and not os.path.exists(f"seen-{init}-{data}"):
        open(f"seen-{init}-{data}", "w").close()
        sys.exit(4)
print(f"step 1 accuracy: 0.0\\nstep 2 accuracy: {gain + chance / 10:.12f}")
json.dump({"valid": {"accuracy": gain + chance / 10}}, open(out + "/metrics.json", "w"))
"""
PYTHON = f"{sys.executable} -I -S"


def command(gain: float, fault: str = "none", seeds: str = "{init_seed} {data_seed}") -> dict[str, Any]:
    return {"command": f"{PYTHON} train.py {gain} {seeds} {{out}} {fault}"}


def content(**train: Any) -> dict[str, Any]:
    """A params.yaml, with other keys of `train`; None removes one."""
    sections = {
        "seed": 0,
        "plan": None,
        "candidate": command(0.6),
        "baseline": command(0.5),
        "ablations": {},
        "values": {
            "test": {"stdout": "accuracy: {value}"},
            "validation": {"file": "{out}/metrics.json", "key": "valid.accuracy"},
        },
        "threads": 1,
        "timeout": 20,
        "retries": 0,
        "pilot": 0,
        "pairs": 10,
        "looks": [],
        "grid": None,
    } | train
    metric = {"name": "accuracy", "unit": "share of images", "direction": "higher", "guess": 0.1}
    return {
        "study": "commands",
        "prepare": {"task": "command", "metric": metric, "scores": {}, "files": ["train.py"]},
        "train": sections,
        "compare": {"alpha": 0.05, "smallest_effect": 0.01, "metrics": ["test_loss"]},
        "report": {},
    }


def write(folder: Path, params: dict[str, Any]) -> Path:
    """The study in a folder, with its script."""
    folder.mkdir(exist_ok=True)
    (folder / "train.py").write_text(SCRIPT)
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    shutil.copyfile(ROOT / "dvc.yaml", folder / "dvc.yaml")
    return folder


def starts(folder: Path) -> int:
    """How many commands were started."""
    return len((folder / "started").read_text().split())
