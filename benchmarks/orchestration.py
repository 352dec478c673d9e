"""What Prefect and DVC cost, in seconds: `python -m benchmarks.orchestration --repeats 3`; prints one JSON object.

Chains of stages that write one file each, in repositories of their own, against a Prefect server of its own, with
everything on this machine. What a stage or a stack adds is the slope between a small number of them and a large one,
so that nothing that is paid once is in it. The references are the same commands run one after the other without DVC,
and the same stacks fanned out without Prefect.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infinito.flows import stage
from tests import toy

STAGES = (2, 12)
STACKS = (4, 204)  # far apart: the start of the worker processes varies by a second
PYTHON = Path(sys.executable).parent


@dataclass(frozen=True)
class Nothing:
    """A stack that takes no time."""

    name: str
    steps: int = 1
    unit: str = "model-steps"


def do_nothing(job: Nothing, progress: Callable[[int], None]) -> Path:
    return Path(job.name)


def fan_out(count: int) -> None:
    """The stage that is measured: `count` stacks, and how long they took in the file `seconds`."""
    began = time.perf_counter()
    stage.fan_out([Nothing(f"stack-{i}") for i in range(count)], do_nothing)
    Path("seconds").write_text(str(time.perf_counter() - began))


def chain(folder: Path, count: int) -> list[str]:
    """A study of `count` stages, each of which reads the file of the one before; gives their commands."""
    toy.make_repository(folder)
    commands = [f"python -c \"open('out-{i}', 'w').write('{i}')\"" for i in range(count)]
    stages = {
        f"stage-{i}": {"cmd": command, "outs": [f"out-{i}"]} | ({"deps": [f"out-{i - 1}"]} if i else {})
        for i, command in enumerate(commands)
    }
    (folder / "dvc.yaml").write_text(json.dumps({"stages": stages}))
    return commands


def seconds_of(command: list[str], folder: Path, environment: dict[str, str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    return time.perf_counter() - began


def slope(sizes: tuple[int, int], seconds: tuple[float, float]) -> float:
    return (seconds[1] - seconds[0]) / (sizes[1] - sizes[0])


@contextmanager
def fresh(parent: Path, name: str) -> Iterator[Path]:
    folder = parent / name
    yield folder
    shutil.rmtree(folder)


def measure(parent: Path, environment: dict[str, str], url: str) -> dict[str, float]:
    """Every figure once."""
    dvc = [sys.executable, "-m", "dvc", "repro", "-q"]
    found: dict[str, float] = {}
    built: dict[str, list[float]] = {"plain": [], "dvc": [], "flow": []}
    for count in STAGES:
        for how in built:
            with fresh(parent, f"{how}-{count}") as folder:
                commands = chain(folder, count)
                flow = [sys.executable, "-m", "infinito.flows.pipeline", "--study", str(folder)]
                if how == "plain":
                    seconds = sum(seconds_of(["sh", "-c", command], folder, environment) for command in commands)
                else:
                    seconds = seconds_of(dvc if how == "dvc" else flow, folder, environment)
                built[how].append(seconds)
                if count == STAGES[1] and how != "plain":
                    found[f"nothing_to_do_{how}_seconds"] = seconds_of(
                        dvc if how == "dvc" else flow, folder, environment
                    )
    plain, by_dvc, by_flow = (slope(STAGES, (x[0], x[1])) for x in built.values())
    found |= {
        "stage_plain_seconds": plain,
        "stage_added_by_dvc_seconds": by_dvc - plain,
        "stage_added_by_flow_seconds": by_flow - plain,
    }
    with urllib.request.urlopen(
        urllib.request.Request(
            f"{url}/flow_runs/filter", b'{"sort": "START_TIME_DESC", "limit": 1}', {"Content-Type": "application/json"}
        )
    ) as answer:
        # without starting Python, importing, and Prefect's last words
        found["nothing_to_do_flow_run_seconds"] = json.load(answer)[0]["total_run_time"]

    stacks: dict[str, list[float]] = {"plain": [], "flow": []}
    for count in STACKS:
        for how, seconds_by in stacks.items():
            with fresh(parent, f"stacks-{how}-{count}") as folder:
                toy.make_repository(folder)
                command = f"python -m benchmarks.orchestration --stacks {count}"
                (folder / "dvc.yaml").write_text(
                    json.dumps({"stages": {"train": {"cmd": command, "outs": ["seconds"]}}})
                )
                flow = [sys.executable, "-m", "infinito.flows.pipeline", "--study", str(folder)]
                seconds_of(dvc if how == "plain" else flow, folder, environment)
                seconds_by.append(float((folder / "seconds").read_text()))
    plain, by_flow = (slope(STACKS, (x[0], x[1])) for x in stacks.values())
    return found | {"stack_plain_seconds": plain, "stack_added_by_flow_seconds": by_flow - plain}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.orchestration",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--repeats", type=int, default=3, help="measurements, of which the median is printed (3)")
    parser.add_argument("--stacks", type=int, help=argparse.SUPPRESS)  # as a stage of the study that is measured
    arguments = parser.parse_args()
    if arguments.stacks is not None:
        fan_out(arguments.stacks)
        return
    if arguments.repeats < 1:
        parser.error("allowed: --repeats of 1 or more")
    with tempfile.TemporaryDirectory() as temporary:
        parent, home = Path(temporary), Path(temporary) / "prefect"
        with toy.prefect_server(home) as url:
            environment = toy.toy_environment(
                PREFECT_API_URL=url,
                PREFECT_HOME=str(home),
                PATH=f"{PYTHON}{os.pathsep}{os.environ['PATH']}",
                PREFECT_LOGGING_TO_CONSOLE_LEVEL="ERROR",
            )
            measure(parent, environment, url)  # the first time files are read from the disk, and tables are empty
            measured = [measure(parent, environment, url) for _ in range(arguments.repeats)]
    result: dict[str, Any] = {
        key: {"median": statistics.median(values), "all": values}
        for key in measured[0]
        for values in [[once[key] for once in measured]]
    }
    result |= {"stages": STAGES, "stacks": STACKS, "processes": 2, "cores": os.cpu_count()}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
