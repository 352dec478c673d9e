"""`infinito track`: run any command, and register it."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from infinito.cli.app import app

StoreName = Annotated[
    str | None,
    typer.Option(
        "--store",
        help="A folder, or http://SERVER of MLflow.",
        show_default="INFINITO_STORE, or the folder register in the root of the repository",
    ),
]


@app.command(
    context_settings={"ignore_unknown_options": True},
    epilog="Example: infinito track --metrics out/metrics.json --outputs out -- python train.py --lr 0.1 --seed 3",
)
def track(
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND ...", help="What to run.", show_default=False)],
    store: StoreName = None,
    config: Annotated[
        list[Path] | None,
        typer.Option(help="YAML, JSON or TOML file with settings, beside those named in COMMAND; may be repeated."),
    ] = None,
    metrics: Annotated[
        Path | None, typer.Option(help="JSON, JSON Lines or CSV file that COMMAND writes its figures to.")
    ] = None,
    outputs: Annotated[
        list[Path] | None,
        typer.Option(help="File or folder that COMMAND writes to: its hashes are kept; may be repeated."),
    ] = None,
    seed_name: Annotated[
        list[str] | None,
        typer.Option(help="Parameter that is a seed though its name does not say so; may be repeated."),
    ] = None,
) -> None:
    """Run a command and register it: parameters, seeds, code, environment, outputs with hashes, figures, time.

    The command's output passes through, and its exit code is that of infinito track; 2 also where nothing was run.
    Secrets by their names (token, password, api_key) are masked, and environment variables are not kept.
    """
    from infinito.tracking import targets
    from infinito.tracking.register import Wanted, track

    wanted = Wanted(tuple(config or ()), metrics, tuple(outputs or ()), tuple(seed_name or ()))
    folder, others = targets.folder_and_copy(store)
    record, code = track(command, folder, wanted, lambda line: print(f"infinito: {line}", file=sys.stderr))
    seconds = f"{record.seconds:.1f} s" if record.seconds is not None else ""
    print(
        f"infinito: run {record.id} in {folder.path}: {record.status}, exit code {code}, {seconds}; "
        f"{len(record.metrics)} figures, {len(record.facts['outputs'])} outputs (infinito runs --show {record.id})",
        file=sys.stderr,
    )
    if others:
        targets.send_or_warn([record], others, folder.path)
    raise typer.Exit(code)
