"""Logging runs to a real MLflow server with SQLite: seconds, and the CPU time of both sides.

`python -m benchmarks.tracking MLFLOW_PROGRAM [RUNS]` writes benchmarks/results/tracking.json.
"""

import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.request import urlopen

import psutil

from infinito.storage import write_json
from infinito.tracking import targets
from infinito.tracking.record import FINISHED, Record

POINTS = 20  # of each of 2 curves


def runs(number: int) -> list[Record]:
    """Runs as a study has them: 15 settings, 4 seeds, 5 figures, 2 curves, 10 tags."""
    return [
        Record(
            id=f"{seed:012x}",
            name="benchmark",
            status=FINISHED,
            began="2026-01-01T00:00:00+00:00",
            ended="2026-01-01T00:01:00+00:00",
            params={f"setting{i}": i / 10 for i in range(15)},
            seeds={name: seed for name in ("init_seed", "data_seed", "noise_seed", "rep")},
            metrics={f"metric{i}": seed / 7 + i for i in range(5)},
            curves={name: [(10.0 * i, 1 / (i + 1)) for i in range(POINTS)] for name in ("train_loss", "val_loss")},
            tags={f"tag{i}": f"value {seed}" for i in range(10)},
        )
        for seed in range(number)
    ]


def main() -> None:
    """Measure once, and once more when everything is there."""
    program, number = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1000
    with socket.socket() as free, tempfile.TemporaryDirectory() as folder:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        uri = f"http://127.0.0.1:{port}"
        words = f"server --backend-store-uri sqlite:///{folder}/runs.db --workers 1 --port {port}".split()
        server = subprocess.Popen([program, *words], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            _wait(uri, server)
            targets.send(runs(1), uri)  # the first request sets up much
            began, own, its = time.perf_counter(), time.process_time(), _cpu(server.pid)
            targets.send(runs(number + 1), uri)
            seconds = time.perf_counter() - began
            cpu = {"here": time.process_time() - own, "server": _cpu(server.pid) - its}
            began = time.perf_counter()
            again = targets.send(runs(number + 1), uri)
            assert again.new == 0
            found = {
                "runs": number,
                "points_per_run": 2 * POINTS,
                "seconds": round(seconds, 2),
                "cpu_seconds": {name: round(value, 2) for name, value in cpu.items()},
                "seconds_when_all_are_there": round(time.perf_counter() - began, 2),
                "cpus": os.cpu_count(),
                "load_of_the_machine": [round(value, 1) for value in os.getloadavg()],
            }
        finally:
            for child in psutil.Process(server.pid).children(recursive=True):
                child.terminate()
            server.terminate()
            server.wait()
    write_json(Path(__file__).parent / "results" / "tracking.json", found)
    print(found)


def _wait(uri: str, server: subprocess.Popen[bytes]) -> None:
    while server.poll() is None:
        try:
            urlopen(f"{uri}/health", timeout=5).close()
            return
        except OSError:
            time.sleep(0.5)
    raise OSError("the server did not start")


def _cpu(pid: int) -> float:
    process = psutil.Process(pid)
    return sum(sum(one.cpu_times()[:2]) for one in (process, *process.children(recursive=True)))


if __name__ == "__main__":
    main()
