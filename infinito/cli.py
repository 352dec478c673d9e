"""`infinito`: the questions people ask of a study, on the command line."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from infinito.params import load_study
from infinito.storage import read_json

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Is the candidate really better, or was it a lucky seed?\n\n"
    "A study is a folder with a params.yaml (what to do) and a dvc.yaml (in which order). `dvc repro` in that folder "
    "rebuilds whatever is out of date; `infinito verdict` says what came out; results/report.html says why.",
)

StudyFolder = Annotated[Path, typer.Option("--study", help="Folder of the study.", show_default="the current folder")]


@app.callback()
def infinito() -> None:
    """A typer application needs this to keep its verbs, even when there is one."""


@app.command()
def check(study: StudyFolder = Path(".")) -> None:
    """Read params.yaml and say whether it is complete and consistent."""
    params = load_study(study).params
    runs = 2 * (params.train.pairs + params.train.grid.inits * params.train.grid.datas)
    runs += params.golden.data_seeds * (1 + params.golden.controls)
    print(f"{study / 'params.yaml'}: study {params.study}, {runs} runs of {params.train.steps} steps")


@app.command()
def verdict(
    study: StudyFolder = Path("."),
    json: Annotated[bool, typer.Option("--json", help="Print results/compare.json as it is.")] = False,
) -> None:
    """Print the verdict of a finished study."""
    results = load_study(study).results
    compare = read_json(results / "compare.json")
    if json:
        sys.stdout.write((results / "compare.json").read_text(encoding="utf-8"))
        return
    golden = read_json(results / "golden.json")
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"\n[bold]{compare['verdict']}[/bold]  {compare['sentence']}\n")
    table = Table("", "value", "95 % interval" if compare["alpha"] == 0.05 else "interval")
    for label, key in (
        ("difference of loss, nats per token", "difference"),
        ("loss of the candidate", "candidate"),
        ("loss of the baseline", "baseline"),
        ("probability of improvement", "probability_of_improvement"),
    ):
        e = compare[key]
        table.add_row(label, f"{e['value']:.4g}", f"[{e['ci_low']:.4g}, {e['ci_high']:.4g}]".replace("[", r"\["))
    table.add_row("p, paired t", f"{compare['p_value']:.3g}", "")
    table.add_row("wins", f"{compare['wins']} of {compare['n_pairs']}", "")
    table.add_row("smallest difference these runs could detect", f"{compare['minimal_detectable_effect']:.4g}", "")
    console.print(table)
    console.print(f"\n[bold]{golden['status']}[/bold]  {golden['sentence']}")
    console.print(f"\nThe whole story: {results / 'report.html'}")


def main() -> None:
    """Run the command line; bad input is one line and exit code 2."""
    try:
        app()
    except (ValueError, FileNotFoundError) as error:
        print(f"infinito: {error}", file=sys.stderr)
        sys.exit(2)
