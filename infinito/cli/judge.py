"""`infinito judge`: what do somebody's published figures show?"""

import json
from typing import Annotated

import typer
from rich.table import Table

from infinito.cli.app import app, console, interval, naming_flags, plain


@app.command(
    epilog="Example, the report that this project began with: infinito judge --mean 3.44 --sd 19.55 --n 10 "
    "--wins 7 --best 29.14 --p 0.554"
)
def judge(
    mean: Annotated[float, typer.Option(help="Mean difference over the seeds, positive = candidate better; any unit.")],
    sd: Annotated[float, typer.Option(help="Standard deviation of the differences over the seeds.")],
    n: Annotated[int, typer.Option(help="Number of seeds.")],
    wins: Annotated[int | None, typer.Option(help="Seeds with which the candidate was better.")] = None,
    best: Annotated[float | None, typer.Option(help="Difference of the best seed.")] = None,
    seeds_tried: Annotated[
        int | None, typer.Option(help="Seeds that the best one was chosen from.", show_default="n")
    ] = None,
    p: Annotated[float | None, typer.Option(help="The p-value as printed, to be checked against the figures.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all figures as JSON.")] = False,
) -> None:
    """Judge a published claim from its mean, standard deviation and number of seeds.

    Figures that no seeds can have together, each within its rounding, are named as impossible.
    """
    from infinito.questions.judge import judge as judged

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
