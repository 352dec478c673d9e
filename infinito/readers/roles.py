"""Which column of a table is what: the arm, the seed, the task, the metrics; by their names, and by what is in them."""

import re
from collections.abc import Iterable, Sequence

import pandas as pd

from infinito.readers.direction import direction
from infinito.readers.results import Options

# by how sure a name is of its meaning; in English and German
ARM = (
    "arm", "algorithm", "algo", "method", "methode", "verfahren", "model", "modell", "framework", "agent", "approach",
    "system", "variant", "variante", "architecture", "arch", "network", "optimizer", "optimiser", "learner",
    "classifier", "estimator", "condition", "treatment", "group", "config", "setting", "model_name", "exp_name",
    "experiment", "name",
)  # fmt: skip
SEED = ("seed", "random_seed", "random_state", "rng_seed", "train_seed", "init_seed", "seeds", "seed_id", "saat")
FOLD = ("fold", "cv_fold", "fold_id", "split_id")
TASK = (
    "task", "dataset", "data_set", "datensatz", "benchmark", "env", "environment", "env_name", "env_id", "game",
    "domain", "problem", "aufgabe", "subtask",
)  # fmt: skip
METRIC = ("metric", "metrik", "metric_name", "measure", "kennzahl", "tag", "score_name")
VALUE = ("value", "wert", "result", "ergebnis", "score", "metric_value")
STEP = (
    "step",
    "global_step",
    "_step",
    "timestep",
    "timesteps",
    "total_timesteps",
    "epoch",
    "iteration",
    "iter",
    "schritt",
)
STATUS = ("status", "state", "zustand")
RUN = ("run", "run_id", "run_name", "runs", "trial", "id", "lauf", "uuid")
NO_METRIC = re.compile(
    r"^(unnamed.*|index|created|start_time|end_time|utc|timestamp|date|user|source.*|_.*|wall_?time|relative_time.*|"
    r"num_.*|n_.*|models|params?|git.*|commit|version|host.*|gpu.*|batch_size|lr|learning_rate|width|layers|depth)$"
)
WIDE = re.compile(r"(seed|run|fold|trial|rep|replicate|saat|lauf)[ _\-.#]*(\d+)", re.IGNORECASE)
SUMMARY = re.compile(
    r"(minimum|maximum|min|max|mean|average|avg|median|std|stdev|std\.?\s*dev\.?|standard deviation|sd|sem|stderr|"
    r"variance|var|total|sum|count|mittelwert|mittel|standardabweichung|summe)\.?:?",
    re.IGNORECASE,
)


def plain(name: str) -> str:
    """A column's name in one spelling: Run ID -> run_id."""
    return re.sub(r"[^a-z0-9_]+", "_", re.sub(r"([a-z])([A-Z])", r"\1_\2", str(name)).lower()).strip("_")


def named(columns: Iterable[str], names: Sequence[str]) -> list[str]:
    """The columns of these names, or that end with one of them after a dot (config.seed, params/seed), surest first."""
    spelled = {column: plain(re.split(r"[./]", str(column))[-1]) for column in columns}
    return [column for name in names for column, other in spelled.items() if other == name]


def told(flag: str, wanted: str | None, columns: Sequence[str]) -> str | None:
    """The column that the user names.

    Raises:
        ValueError: there is none of that name.
    """
    if wanted is None or wanted in columns:
        return wanted
    alike = [column for column in columns if plain(column) == plain(wanted)]
    if len(alike) == 1:
        return alike[0]
    raise ValueError(f"--{flag}: found {wanted!r}; allowed: a column: {', '.join(map(str, columns))}")


def arm_of(frame: pd.DataFrame, taken: Sequence[str | None], options: Options) -> str | None:
    """The column of arms, or None where nothing tells runs of one apart from those of another.

    Raises:
        ValueError: several columns might be it, and they tell the runs apart in different ways.
    """
    columns = [column for column in frame.columns if column not in taken]
    found = [column for column in named(columns, ARM) if frame[column].nunique() > 1 and not _all_differ(frame[column])]
    sure = [column for column in found if plain(column) not in ("name", "experiment", "group", "config")] or found
    if len(sure) < 2:
        return sure[0] if sure else None
    first = pd.factorize(frame[sure[0]])[0]
    if all((pd.factorize(frame[other])[0] == first).all() for other in sure[1:]):
        return sure[0]
    raise ValueError(
        f"arm: found {', '.join(sure)}, any of which may say which runs belong together; say which: --arm {sure[0]}"
    )


def _all_differ(column: pd.Series) -> bool:
    return bool(column.nunique() == len(column) and len(column) > 2)


def metrics_of(frame: pd.DataFrame, numeric: Sequence[str], options: Options) -> tuple[list[str], list[str]]:
    """(the columns of metrics, those that are numbers too and not taken for metrics).

    Raises:
        ValueError: one that the user names is not there; none whose name says that it is one.
    """
    if options.metric:
        return [str(told("metric", name, list(frame.columns))) for name in options.metric], []
    usual = [name for name in numeric if not NO_METRIC.match(plain(name))]
    known = [name for name in usual if direction(name)]
    if known:
        return known, [name for name in usual if name not in known]
    if len(usual) == 1:
        return usual, []
    if not usual:
        raise ValueError(f"metric: found no column of numbers beside {', '.join(map(str, frame.columns))}")
    raise ValueError(
        f"metric: found {', '.join(usual)}; say which: --metric {usual[0]}; or, where a column is an arm, what their "
        "names mean: --pattern '{arm}' or '{arm}_{metric}'"
    )
