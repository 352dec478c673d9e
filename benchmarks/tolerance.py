"""Does a verdict depend on the precision or the width of the stacks? `python -m benchmarks.tolerance --out FILE`

Trains the same pairs of a study several times, each time at another precision and width, and compares every variant
with a reference: the first variant, and the study's committed results/runs.parquet if it has these pairs. Chaos
amplifies rounding, so after thousands of steps two trainings from the same seeds may differ visibly; a verdict must
not.
"""

import argparse
import json
import math
import multiprocessing
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from infinito import seeds, tasks
from infinito.questions.compare import compare
from infinito.runs import stacks
from infinito.runs.finish import finish
from infinito.runs.provenance import environment, this_device
from infinito.runs.table import Run
from infinito.storage import write_json
from infinito.study import load_study
from infinito.tasks import Metric

ARMS = ("candidate", "baseline")
NATS = Metric("loss", "nats per token", "lower", guess=math.nan)
WINDOW = 16  # pairs, for a verdict of its own


def train(job: tuple[Path, str, int]) -> pd.DataFrame:
    """The losses of a variant, named as precision:width: columns of arms, a row for every pair."""
    folder, variant, pairs = job
    study = load_study(folder)
    precision, width = variant.split(":")
    data, train = tasks.load(study.data), study.params.train
    how = train.model_copy(update={"precision": precision, "stack": int(width)})
    wanted = [Run(arm, "pairs", seed, seed) for arm in ARMS for seed in seeds.pool(train.seed, "pairs", pairs)]
    folders = [finish(job, lambda steps: None) for job in stacks.plan(study, data, wanted, train=how)]
    return wide(pd.concat([pd.read_parquet(stack / "runs.parquet") for stack in folders]))


def wide(runs: pd.DataFrame) -> pd.DataFrame:
    return runs[runs["design"] == "pairs"].pivot(index="init_seed", columns="arm", values="test_loss")


def comparisons(losses: pd.DataFrame, smallest_effect: float) -> list[dict[str, Any]]:
    """Of all pairs, then of one window of pairs after another."""
    parts = [losses, *(losses[i : i + WINDOW] for i in range(0, len(losses) - WINDOW + 1, WINDOW))]
    return [compare(x["candidate"], x["baseline"], smallest_effect=smallest_effect, metric=NATS) for x in parts]


def against(losses: pd.DataFrame, reference: pd.DataFrame, smallest_effect: float) -> dict[str, Any]:
    """How a variant differs from the reference."""
    differs = losses - reference
    all_found, all_wanted = (comparisons(x, smallest_effect) for x in (losses, reference))
    found, wanted = ([x["verdict"] for x in some] for some in (all_found, all_wanted))
    return {
        "runs_equal_to_the_bit": int((differs == 0).to_numpy().sum()),
        "runs": int(differs.size),
        "largest_change_of_a_loss": float(differs.abs().to_numpy().max()),
        "sd_of_the_change": float(differs.to_numpy().std(ddof=1)),
        "sd_between_seeds": float(reference["candidate"].std(ddof=1)),
        "correlation_of_losses": float(np.corrcoef(losses["candidate"], reference["candidate"])[0, 1]),
        "difference": all_found[0]["difference"],
        "difference_of_reference": all_wanted[0]["difference"],
        "verdict": found[0],
        "verdict_of_reference": wanted[0],
        "windows": len(found) - 1,
        "windows_with_another_verdict": sum(a != b for a, b in zip(found[1:], wanted[1:], strict=True)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tolerance", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--study", type=Path, default=Path("studies/report"), help="folder of params.yaml")
    parser.add_argument("--pairs", type=int, default=64, help="pairs to train (64)")
    default = ["float32:64", "float32:16", "tf32:64", "bfloat16:64"]
    parser.add_argument("--variants", nargs="+", default=default, help=f"precision:width ({' '.join(default)})")
    parser.add_argument("--out", type=Path, required=True, help="file of the results")
    arguments = parser.parse_args()
    study = load_study(arguments.study)
    if not study.data.is_dir():
        from infinito.stages import STAGES

        STAGES["prepare"](study, lambda jobs: [])
    with multiprocessing.get_context("spawn").Pool(len(arguments.variants)) as pool:
        jobs = [(arguments.study, variant, arguments.pairs) for variant in arguments.variants]
        losses = dict(zip(arguments.variants, pool.map(train, jobs, chunksize=1), strict=True))
    first = next(iter(losses))
    references = {first: losses[first]}
    committed = study.results / "runs.parquet"
    if committed.is_file():
        table = wide(pd.read_parquet(committed))
        if set(losses[first].index) <= set(table.index):
            references["committed"] = table.loc[losses[first].index]
    effect = study.params.compare.smallest_effect
    found = {
        "command": "python -m benchmarks.tolerance " + " ".join(sys.argv[1:]),
        "pairs": arguments.pairs,
        "against": {
            name: {variant: against(mine, reference, effect) for variant, mine in losses.items()}
            for name, reference in references.items()
        },
        **environment(this_device()),
    }
    write_json(arguments.out, found)
    print(json.dumps(found["against"], indent=1))


if __name__ == "__main__":
    main()
