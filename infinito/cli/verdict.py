"""`infinito verdict`: what came out?"""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from infinito.cli.app import StudyFolder, app, console, interval, plain
from infinito.study import load_study


@app.command(epilog="Example: infinito verdict --study studies/wikitext2 --json")
def verdict(
    study: StudyFolder = Path("."),
    as_json: Annotated[bool, typer.Option("--json", help="Print results/compare.json as it is.")] = False,
) -> None:
    """Print the verdict of a finished study, and whether it was planned."""
    from infinito.storage import read_json
    from infinito.tasks.measure import metric_of

    this = load_study(study)
    results = this.results
    compare = read_json(results / "compare.json")
    if as_json:
        sys.stdout.write((results / "compare.json").read_text(encoding="utf-8"))
        return
    metric, screen = metric_of(compare), console()
    screen.print(f"\n[bold]{compare['verdict']}[/bold]  {plain(compare['sentence'])}\n")
    table = Table("", "value", "95 % interval" if compare["alpha"] == 0.05 else "interval")
    for label, key in (
        (f"difference of {metric.name}, {metric.unit}", "difference"),
        (f"{metric.name} of the candidate", "candidate"),
        (f"{metric.name} of the baseline", "baseline"),
        ("probability of improvement", "probability_of_improvement"),
    ):
        table.add_row(label, f"{compare[key]['value']:.4g}", interval(compare[key]))
    look = compare.get("sequential")
    if look is None:
        table.add_row("p, paired t", f"{compare['p_value']:.3g}", "")
    elif look["level"] is None:
        table.add_row("p, from the e-value", f"{compare['p_value']:.3g}", "")
    else:
        table.add_row("p, paired t; level of this look", f"{compare['p_value']:.3g}; {look['level']:.3g}", "")
    if compare.get("hypotheses", 1) > 1:
        table.add_row(f"p, adjusted for {compare['hypotheses']} hypotheses", f"{compare['p_adjusted']:.3g}", "")
    table.add_row("wins", f"{compare['wins']} of {compare['n_pairs']}", "")
    if compare["minimal_detectable_effect"] is not None:
        table.add_row("smallest difference these runs could detect", f"{compare['minimal_detectable_effect']:.4g}", "")
    screen.print(table)
    if "plan" in compare:
        plan = compare["plan"]
        label = plan.get("label", plan["status"])  # which results of older versions lack
        why = "" if ":" in label else f"  {plain(plan['reason'])}"  # a label with a colon holds it
        screen.print(f"\n[bold]{plan['status']}[/bold]{plain(label.removeprefix(plan['status']))}{why}")

    if unlike := compare.get("fairness", {}).get("arms", {}).get("candidate", {}).get("sentence"):
        screen.print(f"\n[bold]unlike[/bold]  {plain(unlike)}")
    if this.params.golden:
        for decision in read_json(results / "golden.json")["decisions"]:
            screen.print(f"\n[bold]{decision['status']}[/bold]  {plain(decision['sentence'])}")
    screen.print(f"\nThe whole story: {results / 'report.html'}")
