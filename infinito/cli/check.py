"""`infinito check`: is a study complete and consistent?"""

from pathlib import Path

from infinito.cli.app import StudyFolder, app
from infinito.params import load_study


@app.command(epilog="Example: infinito check --study studies/wikitext2")
def check(study: StudyFolder = Path(".")) -> None:
    """Read params.yaml, and plan.json if train.plan names it, and say whether they are complete and consistent."""
    from infinito.planning import preregistration

    this = load_study(study)
    train, found = this.params.train, preregistration.registered(this)
    plan = found and found[0]
    changed = plan and preregistration.changed_setting(plan, this.params)
    if changed:
        raise ValueError(f"{this.plan}: {changed} is not as planned; allowed: as planned, or train.plan: null")
    grid, golden, ensemble = train.grid, this.params.golden, this.params.ensemble
    runs = len(train.arms) * (train.pairs + train.pilot)
    if grid:
        runs += 2 * grid.inits * grid.datas * grid.noises * grid.reps
    if golden:
        runs += golden.data_seeds * (len(golden.forward) + golden.controls)
    if ensemble and ensemble.compute:
        runs += 2 * ensemble.compute.runs
    steps = sorted({train.of(arm).steps for arm in train.arms})
    print(
        f"{study / 'params.yaml'}: study {this.params.study}: {', '.join(train.arms)}; {train.pairs} pairs, "
        + (f"a grid of {grid.inits} x {grid.datas} seeds" if grid else "no grid of seeds")
        + f"; at most {runs} runs, {' or '.join(map(str, steps))} steps each; "
        + (f"under the plan of {plan['created']}" if plan else "no plan: the verdict will be exploratory")
    )
