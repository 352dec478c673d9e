"""What a flow run leaves in Prefect: its lineage, its runs, its verdict and its golden seed, each with its history.

Prefect keeps every version of an artifact under its key: /v2/artifacts/key/verdict lists them all, each with its flow
run. All of it is read from the study's files, so that plain `dvc repro` needs no Prefect.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from prefect import get_run_logger
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.client.schemas.objects import State

from infinito.escape import markdown
from infinito.lineage.markdown import as_markdown
from infinito.lineage.runs import run_table
from infinito.lineage.stages import lineage
from infinito.storage import read_json

RUNS = 1000  # as many rows as a page can show
COLUMNS = (
    "design", "arm", "init_seed", "data_seed", "noise_seed", "rep", "steps", "val_loss", "test_loss", "diverged",
    "wall_seconds", "device", "run_id", "stack_id",
)  # fmt: skip
DIGITS = 5  # significant ones of a number in that table
FIRST = ("verdict", "status", "difference", "p_adjusted")  # of the figures of a result
LEFT_OUT = ("schema", "study", "sentence", "plan")  # the description and the line above the figures have them
DEPTH = 2  # keys of a result that are shown: `difference`, `equivalence.p_value`


def create(study: Path, states: Mapping[str, State[Any]]) -> None:
    """Create the artifacts of a flow run when its stages have ended.

    What a stage has not brought up to date in this flow run is left out, for it would be of an earlier one. A file that
    can't be read is a warning in the flow run's log, not a failure.

    Args:
        study: its folder.
        states: how its stages have ended, by name.
    """
    about = markdown(str(study.resolve()))
    try:
        text = as_markdown(lineage(study), {name: state.name or "" for name, state in states.items()})
        create_markdown_artifact(text, key="lineage", description=f"Files, runs and parameters of {about}")
        if _done(states, "train"):
            table = runs(study)
            create_table_artifact(table, key="runs", description=f"Runs of {about}: {_first(len(table))}")
        for stage, key in (("compare", "verdict"), ("golden", "golden")):
            file = study / "results" / f"{stage}.json"
            if _done(states, stage) and file.is_file():
                found = read_json(file)
                said = f"{markdown(heading(found))}: {markdown(found['sentence'])} ({file.name} of {about})"
                create_markdown_artifact(figures(found), key=key, description=said)
    except (ValueError, FileNotFoundError) as error:
        get_run_logger().warning("no artifacts: %s", error)


def _done(states: Mapping[str, State[Any]], stage: str) -> bool:
    return stage in states and states[stage].is_completed()


def _first(n: int) -> str:
    return f"the first {RUNS:,}" if n == RUNS else f"{n:,}"


def runs(study: Path) -> list[dict[str, Any]]:
    """The runs of a study, the first thousand: one row per run."""
    table = run_table(study)
    return [
        {str(key): _rounded(value) for key, value in row.items() if value is not None}
        for row in table[[column for column in COLUMNS if column in table]].head(RUNS).to_dict("records")
    ]


def _rounded(value: Any) -> Any:
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def heading(found: dict[str, Any]) -> str:
    """What came out, and whether it was planned: `exploratory: BETTER`; of a golden seed its status."""
    verdict: str = found["verdict"] if "verdict" in found else found["status"]
    return f"{found['plan']['status']}: {verdict}" if "plan" in found else verdict


def figures(found: dict[str, Any]) -> str:
    """A result as Markdown: what came out as its heading, what its plan is, and its figures as a table."""
    head = [f"# {markdown(heading(found))}", ""] if found.keys() & {"verdict", "status"} else []
    head += [f"**{markdown(found['sentence'])}**", ""] if "sentence" in found else []
    head += [markdown(found["plan"]["label"]), ""] if "plan" in found else []
    ordered = {key: found[key] for key in (*FIRST, *found) if key in found and key not in LEFT_OUT}
    rows = [f"| {markdown(key)} | {value} |" for key, value in _figures(ordered)]
    return "\n".join([*head, "| figure | value |", "|---|---|", *rows])


def _figures(found: Mapping[str, Any], prefix: str = "", depth: int = DEPTH) -> Iterator[tuple[str, str]]:
    for key, value in found.items():
        if isinstance(value, dict) and {"value", "ci_low", "ci_high"} <= value.keys():
            middle, low, high = (_number(value[x]) for x in ("value", "ci_low", "ci_high"))
            yield f"{prefix}{key}", f"{middle} [{low}, {high}]"
        elif isinstance(value, dict) and depth > 1:
            yield from _figures(value, f"{prefix}{key}.", depth - 1)
        elif isinstance(value, str | int | float):
            yield f"{prefix}{key}", markdown(_number(value))


def _number(value: Any) -> str:
    return "–" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
