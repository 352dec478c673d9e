"""`infinito runs`: all runs of a store in one table, grouped by everything but the seeds."""

import csv
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from infinito.cli.app import app, console, plain
from infinito.cli.track import StoreName

MOST_COLUMNS = 2  # of settings


@app.command(
    epilog="Examples: infinito runs --where 'lr=0.1 model~gpt' --metric test_loss; infinito runs --show 3f9a2c; a run "
    "a row, to be judged: infinito runs --each --csv > runs.csv; infinito judge runs.csv --baseline mlp"
)
def runs(
    store: StoreName = None,
    where: Annotated[
        str | None, typer.Option(help="Only runs for which this holds: 'lr=0.1 model~gpt steps>=100'; ~ is: contains.")
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(help="Figure of the table; may be repeated.", show_default="those of a test set"),
    ] = None,
    by: Annotated[
        list[str] | None,
        typer.Option(help="Group by this; may be repeated.", show_default="all settings but the seeds"),
    ] = None,
    but: Annotated[list[str] | None, typer.Option(help="Don't group by this setting; may be repeated.")] = None,
    each: Annotated[bool, typer.Option("--each", help="One run a row.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the table as JSON.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print the table as CSV.")] = False,
    show: Annotated[str | None, typer.Option(metavar="ID", help="Print the whole record of a run.")] = None,
    verify: Annotated[
        str | None, typer.Option(metavar="ID", help="Check that the outputs of a run still have their hashes.")
    ] = None,
) -> None:
    """Show the runs of a store: n, mean, 95 % t interval over the seeds, standard deviation and best.

    Runs that failed, run still, or ran on a dirty tree are counted beside it. Exit code: 0; 1 where --verify finds
    outputs that changed; 2 bad input.
    """
    from infinito.machine import git
    from infinito.tracking import register, table, targets
    from infinito.tracking.store import chosen, default

    name = store or default()
    records = list(targets.records(name))
    if show:
        print(json.dumps(chosen(records, show, name).to_json(), indent=2, ensure_ascii=False))
        return
    if verify:
        record = chosen(records, verify, name)
        root = git(Path.cwd(), "rev-parse", "--show-toplevel")
        faults = register.verified(record, Path(root.rstrip("\n")) if root else Path.cwd())
        number = len(record.facts.get("outputs", {}))
        print(*faults, sep="\n") if faults else print(f"run {record.id}: all of {number} outputs have their hashes")
        raise typer.Exit(1 if faults else 0)
    found = table.where(records, where or "")
    metrics = table.metrics(found, metric or [])
    rows = table.each(found) if each else table.groups(found, metrics, by or [], but or [])
    if as_json:
        print(json.dumps([_finite(row) for row in rows], indent=2, ensure_ascii=False, allow_nan=False))
    elif as_csv or each:
        _csv(rows)
    else:
        _table(rows, len(found), by or [])


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    return {key: str(value) if isinstance(value, float) and value - value != 0 else value for key, value in row.items()}


def _csv(rows: list[dict[str, Any]]) -> None:
    flat = [{**row.pop("settings", {}), **row} for row in rows]
    columns = list(dict.fromkeys(key for row in flat for key in row))
    writer = csv.DictWriter(sys.stdout, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)


def _table(rows: list[dict[str, Any]], number: int, by: list[str]) -> None:
    screen = console()
    settings = list(dict.fromkeys(key for row in rows for key in row["settings"]))
    if len(settings) > MOST_COLUMNS:  # as many columns would be too narrow to read
        rows = [{**row, "settings": {"settings": _joined(row["settings"])}} for row in rows]
        settings = ["settings"]
    shown = Table()
    for name in [*map(plain, settings), "metric"]:
        shown.add_column(name, overflow="fold")  # whole, in as many lines as it takes
    for name in ("n", "mean", "95 % interval", "sd", "best", "failed", "running", "dirty"):
        shown.add_column(name, no_wrap=True)
    shown.add_column("")
    for row in rows:
        cells = [_short(row["settings"].get(key)) for key in settings]
        interval = plain(f"[{row['ci_low']:.4g}, {row['ci_high']:.4g}]") if row["ci_low"] is not None else ""
        best = f"{row['best']:.4g} ({row['best_run'][:6]})" if row["best_run"] else ""
        counts = [f"{row[key]:,}" if row[key] else "" for key in ("failed", "running", "dirty")]
        figures = [f"{row['n']:,}", _short(row["value"]), interval, _short(row["sd"]), best]
        shown.add_row(*cells, plain(row["metric"]), *figures, *counts, plain(row["note"]))
    screen.print(shown)
    screen.print(plain(f"{number:,} runs, grouped by {', '.join(by) or 'everything but the seeds'}"))


def _joined(settings: dict[str, Any]) -> str:
    return " ".join(
        f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}"
        for key, value in settings.items()
        if value not in (None, "")
    )


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else plain(str(value))
