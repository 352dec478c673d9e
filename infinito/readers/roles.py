"""Which column of a table is what: the arm, the seed, the task, the metrics; by their names, and by what is in them."""

import re
import unicodedata
from collections.abc import Iterable, Sequence

import pandas as pd

from infinito.readers.direction import direction
from infinito.readers.numbers import numbers
from infinito.readers.results import Options

# by how sure a name is of its meaning; in English and German
ARM = (
    "arm", "algorithm", "algo", "method", "methode", "verfahren", "model", "modell", "framework", "agent", "approach",
    "system", "variant", "variante", "architecture", "arch", "network", "optimizer", "optimiser", "learner",
    "classifier", "estimator", "condition", "treatment", "group", "config", "setting", "model_name", "exp_name",
    "experiment", "name", "backbone", "encoder", "configuration", "agent_name", "loss_fn", "loss_function", "modele",
    "strategy", "policy", "recipe", "ablation", "trainer", "algorithme", "verfahrensname",
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
NOTES = ("info", "error", "exception", "failure", "note", "notes", "comment", "tags", "host", "hostname", "device")
ONE = "-"  # --arm: all runs are of one arm
SPREAD = re.compile(r"(^|.*_)(std|sd|stdev|stddev|stderr|sem|se|var|variance|ci|ci_low|ci_high)(_.*|$)")
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
    """A column's name in one spelling: Run ID -> run_id, Modèle -> modele."""
    name = unicodedata.normalize("NFKD", str(name)).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9_]+", "_", re.sub(r"([a-z])([A-Z])", r"\1_\2", str(name)).lower()).strip("_")


def named(columns: Iterable[str], names: Sequence[str]) -> list[str]:
    """The columns of these names, or that end with one of them after a dot (config.seed, params/seed), surest first."""
    spelled = {column: plain(re.split(r"[./:]", str(column))[-1]) for column in columns}
    return [column for name in names for column, other in spelled.items() if other == name]


def told(flag: str, wanted: str | None, columns: Sequence[str]) -> str | None:
    """The column that the user names.

    Raises:
        ValueError: there is none of that name.
    """
    if wanted is None or wanted in columns:
        return wanted
    if flag == "arm" and wanted == ONE:
        return None
    alike = [column for column in columns if plain(column) == plain(wanted)]
    if len(alike) == 1:
        return alike[0]
    raise ValueError(f"--{flag}: found {wanted!r}; allowed: a column: {', '.join(map(str, columns))}")


def arm_of(frame: pd.DataFrame, taken: Sequence[str | None], options: Options) -> str | None:
    """The column of arms, or None where nothing tells runs of one apart from those of another, or --arm - says so.

    Raises:
        ValueError: several columns might be it, and they tell the runs apart in different ways.
    """
    if options.arm == ONE:
        return None
    columns = [column for column in frame.columns if column not in taken]
    found = [column for column in named(columns, ARM) if frame[column].nunique() > 1 and not _all_differ(frame[column])]
    sure = [column for column in found if plain(column) not in ("name", "experiment", "group", "config")] or found
    if not sure:
        return _other_arm(frame, columns)
    if len(sure) < 2:
        return sure[0]
    first = pd.factorize(frame[sure[0]])[0]
    if all((pd.factorize(frame[other])[0] == first).all() for other in sure[1:]):
        return sure[0]
    raise ValueError(
        f"arm: found {', '.join(sure)}, any of which may say which runs belong together; say which: --arm {sure[0]}"
    )


def _other_arm(frame: pd.DataFrame, columns: Sequence[str]) -> str | None:
    """A column called as arms are, with one arm in it; else none, if no other column of words could be it.

    Raises:
        ValueError: one might be, though its name does not say so.
    """
    named_so = [column for column in named(columns, ARM[:-4]) if frame[column].nunique() == 1]
    words = [
        column
        for column in columns
        if not NO_METRIC.match(plain(column))
        and plain(column) not in (*RUN, *STATUS, *METRIC, *NOTES)
        and 1 < frame[column].nunique() <= max(2, len(frame) // 2)
        and pd.api.types.infer_dtype(frame[column], skipna=True) in ("string", "categorical")
        and numbers(frame[column]) is None
    ]  # fmt: skip
    if words:
        values = ", ".join(map(str, frame[words[0]].dropna().unique()[:3]))
        raise ValueError(
            f"arm: found the column {words[0]} ({values}), which may say which arm a run is of; say it: --arm "
            f"{words[0]}, or --arm - if all are of one"
        )
    return named_so[0] if named_so else None


def _all_differ(column: pd.Series) -> bool:
    return bool(column.nunique() == len(column) and len(column) > 2)


def metrics_of(frame: pd.DataFrame, numeric: Sequence[str], options: Options) -> tuple[list[str], list[str]]:
    """(the columns of metrics, those that are numbers too and not taken for metrics).

    Raises:
        ValueError: one that the user names is not there; none whose name says that it is one.
    """
    if options.metric:
        return [str(told("metric", name, list(frame.columns))) for name in options.metric], []
    usual = [name for name in numeric if not NO_METRIC.match(plain(name)) and not SPREAD.fullmatch(plain(name))]
    known = [name for name in usual if direction(name)]
    if known:
        return known, [name for name in usual if name not in known]
    if len(usual) == 1:
        return usual, []
    if not usual:
        spread = [c for c in frame.columns if frame[c].astype(str).str.contains(r"\d\s*(?:±|\+/-|\+-)\s*\d").any()]
        if spread:
            raise ValueError(
                f"metric: found {frame[spread[0]].dropna().iloc[0]!r} in the column {spread[0]}: a mean with its "
                "spread; allowed: the figure of every run; or, of published figures, infinito judge --mean --sd --n"
            )
        raise ValueError(f"metric: found no column of numbers beside {', '.join(map(str, frame.columns))}")
    raise ValueError(
        f"metric: found {', '.join(usual)}; say which: --metric {usual[0]}; or, where a column is an arm, what their "
        "names mean: --pattern '{arm}' or '{arm}_{metric}'"
    )
