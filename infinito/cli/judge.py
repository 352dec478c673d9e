"""`infinito judge`: what do somebody's runs, or published figures, show?"""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from infinito.cli.app import app, console, interval, naming_flags, plain

OF_RUNS, OF_FIGURES = "Of runs", "Of published figures"


def _column(what: str) -> Any:
    return typer.Option(help=what, rich_help_panel=OF_RUNS, show_default="found by its name")


@app.command(
    epilog="Examples: infinito judge results.csv --baseline mlp; infinito judge runs/ --pattern "
    "'{arm}/{seed}/stats.json' --metric test.rmse --baseline mlp; the report that this project began with: infinito "
    "judge --mean 3.44 --sd 19.55 --n 10 --wins 7 --best 29.14 --p 0.554"
)
def judge(
    source: Annotated[
        str | None,
        typer.Argument(
            help="Runs: a CSV, TSV, JSON, JSON Lines, Parquet or Excel file, a log, a folder with one file a run, a "
            "store of MLflow, TensorBoard, Optuna or Sacred, mlflow:URI; - for standard input.",
            show_default=False,
        ),
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(help="The arm that others are compared with.", rich_help_panel=OF_RUNS)
    ] = None,
    candidate: Annotated[
        list[str] | None, typer.Option(help="Compare this arm only; may be repeated.", rich_help_panel=OF_RUNS)
    ] = None,
    all_pairs: Annotated[
        bool, typer.Option("--all-pairs", help="Compare every arm with every other one.", rich_help_panel=OF_RUNS)
    ] = False,
    metric: Annotated[
        list[str] | None, typer.Option(help="Judge this metric only; may be repeated.", rich_help_panel=OF_RUNS)
    ] = None,
    higher: Annotated[
        list[str] | None, typer.Option(help="This metric is better when it is higher.", rich_help_panel=OF_RUNS)
    ] = None,
    lower: Annotated[
        list[str] | None, typer.Option(help="This metric is better when it is lower.", rich_help_panel=OF_RUNS)
    ] = None,
    arm: Annotated[str | None, _column("Column of the arms.")] = None,
    seed: Annotated[str | None, _column("Column of the seeds, or folds.")] = None,
    task: Annotated[str | None, _column("Column of the tasks.")] = None,
    step: Annotated[str | None, _column("Column of the steps of learning curves.")] = None,
    value: Annotated[str | None, _column("Column of the figures, or key of a JSON file.")] = None,
    status: Annotated[str | None, _column("Column that says whether a run is finished.")] = None,
    run: Annotated[str | None, _column("Column that names the runs.")] = None,
    pattern: Annotated[
        str | None,
        typer.Option(
            help="What paths, names or columns mean: '{arm}/tuned/{seed}/stats.json'.", rich_help_panel=OF_RUNS
        ),
    ] = None,
    match: Annotated[
        str | None, typer.Option(help="What counts in lines of logs: 'val_loss:{value}'.", rich_help_panel=OF_RUNS)
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(help="Of curves the figure at this step, or the mean from 13e6:13.7e6.", rich_help_panel=OF_RUNS),
    ] = None,
    last: Annotated[
        int | None,
        typer.Option(help="Of curves the mean of so many last steps that all have.", min=1, rich_help_panel=OF_RUNS),
    ] = None,
    best_by: Annotated[
        str | None, typer.Option(help="Of curves the step at which this metric is best.", rich_help_panel=OF_RUNS)
    ] = None,
    paired: Annotated[
        bool | None,
        typer.Option(
            "--paired/--unpaired",
            help="Whether equal seeds belong together.",
            rich_help_panel=OF_RUNS,
            show_default="where all arms come from one table or layout",
        ),
    ] = None,
    smallest_effect: Annotated[
        float | None,
        typer.Option(help="Smaller differences don't matter: allows EQUIVALENT.", rich_help_panel=OF_RUNS),
    ] = None,
    mean: Annotated[
        float | None,
        typer.Option(help="Mean difference over the seeds, positive = candidate better.", rich_help_panel=OF_FIGURES),
    ] = None,
    sd: Annotated[
        float | None,
        typer.Option(help="Standard deviation of the differences over the seeds.", rich_help_panel=OF_FIGURES),
    ] = None,
    n: Annotated[int | None, typer.Option(help="Number of seeds.", rich_help_panel=OF_FIGURES)] = None,
    wins: Annotated[
        int | None, typer.Option(help="Seeds with which the candidate was better.", rich_help_panel=OF_FIGURES)
    ] = None,
    best: Annotated[float | None, typer.Option(help="Difference of the best seed.", rich_help_panel=OF_FIGURES)] = None,
    seeds_tried: Annotated[
        int | None,
        typer.Option(help="Seeds that the best one was chosen from.", show_default="n", rich_help_panel=OF_FIGURES),
    ] = None,
    p: Annotated[
        float | None,
        typer.Option(help="The p-value as printed, to be checked against the figures.", rich_help_panel=OF_FIGURES),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            "--report", help="Write the page with tables and pictures: FILE.html or FILE.md.", rich_help_panel=OF_RUNS
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all figures as JSON.")] = False,
) -> None:
    """Judge somebody's runs, or a published claim from its mean, standard deviation and number of seeds.

    What was taken for what is said first, with the flag that says otherwise; what can't be told is asked for. Of
    figures, those that no seeds can have together, each within its rounding, are named as impossible.

    Exit code: 0 judged; 1 not enough to compare; 2 bad input.
    """
    if source is None:
        given = {"--mean": mean, "--sd": sd, "--n": n}
        missing = ", ".join(f"'{flag}'" for flag, figure in given.items() if figure is None)
        if report is not None:
            raise ValueError("--report: found no runs to report on; allowed: with a file or folder of runs")
        if mean is None or sd is None or n is None:
            raise ValueError(f"judge: missing {missing}; allowed: a file or folder of runs, or --mean, --sd and --n")
        _published(mean, sd, n, wins, best, seeds_tried, p, as_json)
        return
    from infinito import readers
    from infinito.cli.judged import show
    from infinito.judging.runs import judged

    options = readers.Options(
        arm, seed, tuple(metric or ()), task, step, value, status, run, pattern, match, _span(at), last, best_by
    )
    result, runs = judged(
        readers.read(source, options), options, baseline=baseline, candidates=candidate or [], all_pairs=all_pairs,
        higher=higher or [], lower=lower or [], paired=paired, smallest_effect=smallest_effect,
    )  # fmt: skip
    if report is not None:
        from infinito.report import judgement

        judgement.write(result, runs, "standard input" if source == "-" else source, report)
    if as_json:
        print(json.dumps(result, indent=2, ensure_ascii=False, allow_nan=False))
    else:
        show(result)
        if report is not None:
            print(f"\n{report}")
    sys.exit(0 if any(found["p_value"] is not None and "over" not in found for found in result["comparisons"]) else 1)


def _span(at: str | None) -> tuple[float, float] | None:
    if at is None:
        return None
    try:
        first, _, last = at.partition(":")
        return float(first), float(last or first)
    except ValueError:
        raise ValueError(f"--at: found {at!r}; allowed: a step, or two as 13e6:13.7e6") from None


def _published(
    mean: float,
    sd: float,
    n: int,
    wins: int | None,
    best: float | None,
    seeds_tried: int | None,
    p: float | None,
    as_json: bool,
) -> None:
    from infinito.judging.published import judge as judged

    with naming_flags("mean", "sd", "n", "wins", "best", "seeds_tried", "p"):
        result = judged(mean, sd, n, wins=wins, best=best, seeds_tried=seeds_tried, p=p)
    if as_json:
        print(json.dumps(result, indent=2, ensure_ascii=False, allow_nan=False))
        return
    screen = console()
    verdict, *rest = result["sentences"]
    screen.print(f"\n[bold]{result['verdict']}[/bold]{plain(verdict.removeprefix(result['verdict']))}\n")
    table = Table("", "value", "95 % interval")
    difference, size, rate, top = (result[key] for key in ("difference", "effect_size", "win_rate", "best"))
    table.add_row("mean difference", f"{mean:.4g}", interval(difference))
    table.add_row("effect size, mean / sd", f"{size['value']:.3g}" if size["value"] is not None else "", interval(size))
    table.add_row(f"t, {n - 1} degrees of freedom", f"{result['t']:.3f}", "")
    table.add_row("p, from the figures", f"{result['p_value']:.3g}", "")
    if result["printed"]:
        table.add_row("p, as printed", f"{p:.3g}", "" if result["printed"]["agrees"] else "does not follow")
    if rate:
        table.add_row("win rate", f"{rate['value']:.2f}", interval(rate, ".2f"))
        table.add_row("p, sign test of the wins", f"{rate['sign_test_p']:.3g}", "")
    table.add_row("power, if the true effect is as observed", f"{100 * result['power']:.3g} %", "")
    needed = result["pairs_for_80_percent_power"]
    table.add_row("seeds that give it a power of 80 %", "" if needed is None else f"{needed:,}", "")
    if top:
        table.add_row("claimed best seed", f"{top['value']:.4g}", "")
        table.add_row(f"best of {top['seeds_tried']} by luck, expected", f"{top['expected_by_luck']:.3g}", "")
    screen.print(table)
    screen.print()
    for sentence in rest:
        screen.print(f"- {plain(sentence)}")
