"""How long a million rows take to be judged: `python -m benchmarks.judge`.

Three tables as people have them: many arms and tasks, few of both with many seeds, learning curves. Beside each stands
the time of what anybody would do by hand, pandas.read_csv and the mean and standard deviation by arm and task, in a
process of its own too, so that a ratio can be carried to another machine.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from infinito.machine import processor
from infinito.storage import write_json

ROWS = 1_000_000
BY_HAND = """
import sys, pandas as pd
frame = pd.read_csv(sys.argv[1])
print(frame.groupby([c for c in ("algorithm", "task") if c in frame])["score"].agg(["mean", "std", "count"]))
"""


def tables() -> dict[str, pd.DataFrame]:
    rng = np.random.default_rng(0)
    score = rng.normal(0.5, 0.01, ROWS)

    def grid(**levels: int) -> dict[str, np.ndarray]:
        places = np.indices(tuple(levels.values())).reshape(len(levels), -1)
        return dict(zip(levels, places, strict=True))

    wide, deep, curves = (
        grid(algorithm=20, task=50, seed=1000), grid(algorithm=2, seed=500_000), grid(algorithm=10, seed=100, step=1000)
    )  # fmt: skip
    return {
        "20 arms, 50 tasks, 1,000 seeds": pd.DataFrame(wide | {"score": score}),
        "2 arms, 500,000 seeds": pd.DataFrame(deep | {"score": score}),
        "10 arms, 100 seeds, curves of 1,000 steps": pd.DataFrame(curves | {"score": score}),
    }


def seconds(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write the figures there, as JSON")
    out: Path | None = parser.parse_args().out
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "runs.csv")
        for name, frame in tables().items():
            frame.assign(algorithm="a" + frame["algorithm"].astype(str)).to_csv(file, index=False)
            ours = min(
                seconds([sys.executable, "-m", "infinito", "judge", file, "--baseline", "a0", "--higher", "score"])
                for _ in range(2)
            )
            by_hand = min(seconds([sys.executable, "-c", BY_HAND, file]) for _ in range(2))
            found.append(
                {"table": name, "rows": len(frame), "seconds": ours, "by_hand": by_hand, "ratio": ours / by_hand}
            )
            print(json.dumps(found[-1]), flush=True)
    if out is not None:
        write_json(out, {"command": "python -m benchmarks.judge", "processor": processor(), "tables": found})


if __name__ == "__main__":
    main()
