"""`infinito log`: runs that are done, into the trackers of a team."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track as bar

from infinito.cli.app import app


@app.command(epilog="Example: infinito log --study . --to http://localhost:5000")
def log(
    study: Annotated[
        Path | None, typer.Option(help="Folder of a study, whose runs are logged.", show_default="the current folder")
    ] = None,
    store: Annotated[str | None, typer.Option(help="Instead: a store, as infinito track has written it.")] = None,
    to: Annotated[
        list[str] | None,
        typer.Option(
            help="http://SERVER of MLflow, a folder, tensorboard:FOLDER or wandb:FOLDER; may be repeated.",
            show_default="what params.yaml says under tracking",
        ),
    ] = None,
) -> None:
    """Log finished runs to MLflow, a store, TensorBoard or W&B (offline). What is there already is left alone."""
    from infinito.study import load_study
    from infinito.tracking import study as studies
    from infinito.tracking import targets

    if store is None:
        this = load_study(study or Path("."))
        names = to or studies.targets(this)
        if not names:
            raise ValueError(f"{this.folder / 'params.yaml'}: no section tracking; allowed: one, or --to TARGET")
        records = list(studies.records(this.folder))
    else:
        names = to or []
        if not names:
            raise ValueError(f"--to: missing; allowed: {targets.ALLOWED}")
        records = list(targets.records(store))
    if not records:
        raise ValueError(f"{store or study or '.'}: found no runs; train first (dvc repro train)")
    source = Path(store) if store and targets.kind(store) == "folder" else None
    for name in names:
        console = Console(stderr=True)
        progress = bar(
            range(len(records)), f"log to {name}", console=console, transient=True, disable=not console.is_terminal
        )
        steps = iter(progress)
        next(steps, None)
        sent = targets.send(records, name, lambda done, steps=steps: next(steps, None), source)  # type: ignore[misc]
        print(f"{name}: {sent.new:,} runs logged, {sent.known:,} were there")
