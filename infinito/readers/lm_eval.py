"""Results of EleutherAI's lm-evaluation-harness: a model a file, its errors over the items of every task.

Of one model there is one training run, whatever the number of its checkpoints: they are steps of a curve, no seeds.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from infinito.readers.frame import completed
from infinito.readers.results import Options, Results

CHECKPOINT = re.compile(r"(?P<model>.+?)[_-](?:step|iter|checkpoint|ckpt)[_-]?(?P<step>\d+)", re.IGNORECASE)
FIRST = ("acc", "exact_match", "em", "f1", "ppl", "word_perplexity", "perplexity")


def is_one(content: Any) -> bool:
    """Whether a JSON file is of this kind: tasks with figures and their standard errors."""
    results = content.get("results") if isinstance(content, Mapping) else None
    return isinstance(results, Mapping) and any(
        isinstance(task, Mapping) and any("_stderr" in str(key) for key in task) for task in results.values()
    )


def read(contents: Mapping[Path, Any], options: Options) -> Results:
    """All files, each with one model or one checkpoint of it, named by the file.

    Of several metrics of a task one counts, accuracy where there is one, unless --metric says which.

    Raises:
        ValueError: a metric that no task has; no figures.
    """
    rows, left = [], set()
    for path, content in contents.items():
        match = CHECKPOINT.fullmatch(path.stem)
        model, step = (match["model"], float(match["step"])) if match else (path.stem, float("nan"))
        for task, found in content["results"].items():
            figures = {name: value for name, value in _figures(found).items() if "_stderr" not in name}
            chosen = [name for name in options.metric if name in figures] if options.metric else _usual(figures)
            left |= set(figures) - set(chosen)
            for name in chosen:
                error = _figures(found).get(f"{name}_stderr", float("nan"))
                rows.append((model, task, name, step, figures[name], error, path.name))
    if not rows:
        raise ValueError(
            f"--metric: found {', '.join(options.metric)}; allowed: {', '.join(sorted(left)) or 'nothing'}"
        )
    table = pd.DataFrame(rows, columns=["arm", "task", "metric", "step", "value", "stderr", "source"])
    remarks = ["The standard errors are over the items of a test set, not over seeds: one training run an arm."]
    if table.groupby("arm")["step"].nunique().max() > 1:
        remarks.append(
            "Several checkpoints of one training run are no several seeds; of each model its last one counts."
        )
    if left:
        remarks.append(f"{', '.join(sorted(left))}: not taken, one metric a task (--metric says otherwise).")
    last = table["step"].isna() | (table["step"] == table.groupby("arm")["step"].transform("max"))
    return Results(
        completed(table.drop(columns="stderr").assign(run="its one training run"), ""),
        {"arm": "the file's name", "task": "keys of results", "step": "the file's name"},
        remarks,
        None,
        errors=table[last][["arm", "task", "metric", "stderr"]].reset_index(drop=True),
    )


def _figures(found: Any) -> dict[str, float]:
    """Names and figures of a task; newer versions write "acc,none" and "acc_stderr,none"."""
    if not isinstance(found, Mapping):
        return {}
    return {
        str(name).partition(",")[0]: float(value)
        for name, value in found.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _usual(figures: Mapping[str, float]) -> list[str]:
    return [name for name in FIRST if name in figures][:1] or list(figures)[:1]
