"""Results of EleutherAI's lm-evaluation-harness: a model a file, its errors over the items of every task.

Of one model there is one training run, whatever the number of its checkpoints: they are steps of a curve, no seeds.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from infinito.readers.pattern import parts_of_path
from infinito.readers.results import Options, Results, completed

CHECKPOINT = re.compile(r"(?P<model>.+?)[_-](?:step|iter|checkpoint|ckpt)[_-]?(?P<step>\d+)", re.IGNORECASE)
FIRST = ("acc", "exact_match", "em", "f1", "ppl", "word_perplexity", "perplexity")


def is_one(content: Any) -> bool:
    """Whether a JSON file is of this kind: tasks with figures and their standard errors."""
    results = content.get("results") if isinstance(content, Mapping) else None
    return isinstance(results, Mapping) and any(
        isinstance(task, Mapping) and any("_stderr" in str(key) for key in task) for task in results.values()
    )


def read(contents: Mapping[Path, Any], options: Options) -> Results:
    """All files, each with a model or a checkpoint of it; with several trainings of one, where --pattern says so.

    Of several metrics of a task one counts, accuracy where there is one, unless --metric says which.

    Raises:
        ValueError: a metric that no task has; no figures; a pattern that does not fit.
    """
    rows, left = [], set()
    for path, content in contents.items():
        known = _model(path, content, options.pattern)
        for task, found in content["results"].items():
            figures = {name: value for name, value in _figures(found).items() if "_stderr" not in name}
            chosen = [name for wanted in options.metric or FIRST for name in _named(figures, wanted)]
            chosen = chosen if options.metric else chosen[:1] or list(figures)[:1]
            left |= set(figures) - set(chosen)
            for name in chosen:
                error = _figures(found).get(_stderr(name), float("nan"))
                own = {"task": task, "metric": name, "value": figures[name], "stderr": error, "source": path.name}
                rows.append(own | known)
    if not rows:
        raise ValueError(
            f"--metric: found {', '.join(options.metric)}; allowed: {', '.join(sorted(left)) or 'nothing'}"
        )
    table = pd.DataFrame(rows)
    read_as = {"arm": "--pattern" if options.pattern else "the file's name", "task": "keys of results"}
    remarks = []
    if left:
        remarks.append(f"{', '.join(sorted(left))}: not taken, one metric a task (--metric says otherwise).")
    if "seed" in table or "run" in table:
        remarks.append("The standard errors over the items of a test set are no spread over seeds, and are not used.")
        tidy = completed(table.drop(columns="stderr"), "")
        return Results(tidy, read_as | {"seed": "--pattern"}, remarks, "seed" if "seed" in table else None)
    remarks.append("The standard errors are over the items of a test set, not over seeds: one training run an arm.")
    if table.groupby("arm")["step"].nunique().max() > 1:
        remarks.append(
            "Several checkpoints of one training run are no several seeds; of each model its last one counts."
        )
        read_as["step"] = "the file's name"
    last = table["step"].isna() | (table["step"] == table.groupby("arm")["step"].transform("max"))
    return Results(
        completed(table.drop(columns="stderr").assign(run="its one training run"), ""),
        read_as,
        remarks,
        None,
        errors=table[last][["arm", "task", "metric", "stderr"]].reset_index(drop=True),
    )


def _model(path: Path, content: Mapping[str, Any], pattern: str | None) -> dict[str, Any]:
    """Arm, step and perhaps seed and run: by the pattern, else the model and its checkpoint.

    The harness calls files by the time, in a folder called by the model; before, people called them by the model.
    """
    if pattern:
        return {"step": float("nan")} | parts_of_path(path, pattern)
    name = path.stem
    if name.startswith("results"):
        name = str(content.get("model_name") or path.parent.name)
    match = CHECKPOINT.fullmatch(name)
    return {"arm": match["model"], "step": float(match["step"])} if match else {"arm": name, "step": float("nan")}


def _figures(found: Any) -> dict[str, float]:
    """Names and figures of a task; newer versions write "acc,none", and a filter instead of none where there is one."""
    if not isinstance(found, Mapping):
        return {}
    return {
        str(name).removesuffix(",none"): float(value)
        for name, value in found.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _stderr(name: str) -> str:
    """exact_match,strict-match -> exact_match_stderr,strict-match."""
    metric, comma, chosen = name.partition(",")
    return f"{metric}_stderr{comma}{chosen}"


def _named(figures: Mapping[str, float], wanted: str) -> list[str]:
    """A metric by its name; of its filters the first one, as the harness orders them, or the one that is named."""
    return [name for name in figures if wanted in (name, name.partition(",")[0])][:1]
