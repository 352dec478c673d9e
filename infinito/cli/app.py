"""The command line's application, and what its topics share: how they print, and where a study is."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from infinito import __version__

if TYPE_CHECKING:
    from infinito.runs.stacks import Job

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Is the candidate really better, or was it a lucky seed?\n\n"
    "A study is a folder with a params.yaml (what to do) and a dvc.yaml (in which order). `infinito plan` says how "
    "many pairs of runs it takes, `dvc repro` in that folder rebuilds whatever is out of date, `infinito verdict` says "
    "what came out, and results/report.html says why. `infinito judge` needs no study: it judges figures that somebody "
    "published.",
    epilog="Every command has its own help and an example: infinito plan --help",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"infinito {__version__}")
        raise typer.Exit()


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Say which infinito this is.")
    ] = False,
) -> None:
    """What every command has."""


StudyFolder = Annotated[Path, typer.Option("--study", help="Folder of the study.", show_default="the current folder")]

WorkerCount = Annotated[
    int | None,
    typer.Option(
        envvar="INFINITO_WORKERS", help="Processes that train.", show_default="one per GPU, or else per CPU core"
    ),
]


def console() -> Console:
    return Console(soft_wrap=True, highlight=False)


@contextmanager
def naming_flags(*names: str) -> Iterator[None]:
    """Errors that begin with the name of an argument begin with the flag instead."""
    try:
        yield
    except ValueError as error:
        name, _, rest = str(error).partition(":")
        if name not in names:
            raise
        raise ValueError(f"--{name.replace('_', '-')}:{rest}") from error


@contextmanager
def bar(what: str, jobs: "Sequence[Job]", number: int) -> Iterator[Callable[[int], None]]:
    """A progress bar over all jobs while one of them is done; gives what is to be called with its steps."""
    columns = (BarColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    done = sum(job.steps for job in jobs[:number])
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        name = f"{what}, stack {number + 1} of {len(jobs)}"
        task = bar.add_task(name, total=sum(job.steps for job in jobs), completed=done)
        begins = f"{name}, compiling" if jobs[number].compiled else name
        yield lambda steps: bar.update(task, completed=done + steps, description=name if steps else begins)


def worker_count() -> int:
    """As many as the stages' worker processes: one a GPU, or else one a CPU core that this process may use."""
    import os

    import torch

    if torch.cuda.is_available():
        return torch.cuda.device_count()
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def duration(hours: float) -> str:
    seconds = 3600 * hours
    if seconds < 120:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if hours < 2 else f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} days"


def plain(text: str) -> str:
    """Text in which brackets are brackets."""
    return text.replace("[", r"\[")


def interval(estimate: dict[str, Any], form: str = ".4g") -> str:
    if estimate["ci_low"] is None or estimate["ci_high"] is None:
        return ""
    return plain(f"[{estimate['ci_low']:{form}}, {estimate['ci_high']:{form}}]")
