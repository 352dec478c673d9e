"""`infinito check`: is a study complete and consistent?"""

from pathlib import Path

from infinito.cli.app import StudyFolder, app
from infinito.params import load_study


@app.command(epilog="Example: infinito check --study studies/wikitext2")
def check(study: StudyFolder = Path(".")) -> None:
    """Read params.yaml, and plan.json if train.plan names it, and say whether they are complete and consistent."""
    from infinito.planning import preregistration

    this = load_study(study)
    train, plan = this.params.train, preregistration.registered(this)
    changed = plan and preregistration.changed_setting(plan, this.params)
    if changed:
        raise ValueError(f"{this.plan}: {changed} is not as planned; allowed: as planned, or train.plan: null")
    grid, golden, compute = train.grid, this.params.golden, this.params.ensemble.compute
    runs = len(train.arms) * (train.pairs + train.pilot) + 2 * grid.inits * grid.datas * grid.noises * grid.reps
    runs += golden.data_seeds * (len(golden.forward) + golden.controls) + (2 * compute.runs if compute else 0)
    print(
        f"{study / 'params.yaml'}: study {this.params.study}: {', '.join(train.arms)}; {train.pairs} pairs, a grid of "
        f"{grid.inits} x {grid.datas} seeds; at most {runs} runs, {train.steps} steps each; "
        + (f"under the plan of {plan['created']}" if plan else "no plan: the verdict will be exploratory")
    )
