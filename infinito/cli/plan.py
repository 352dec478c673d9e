"""`infinito plan`: how many pairs does an answer take, how long, and at what cost?"""

import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.table import Table

from infinito.cli.app import StudyFolder, WorkerCount, app, bar, console, duration, naming_flags, worker_count
from infinito.study import Study, load_study


@app.command(epilog="Example: infinito plan --pilot 8 --effect 0.02 --looks obf --price 2.50")
def plan(
    study: StudyFolder = Path("."),
    pilot: Annotated[
        int | None, typer.Option(help="Train so many pilot pairs now, 8 or more.", show_default="use finished runs")
    ] = None,
    effect: Annotated[
        float | None,
        typer.Option(help="Difference to be found, in the unit of the metric.", show_default="compare.smallest_effect"),
    ] = None,
    power: Annotated[float, typer.Option(help="Chance to find it.")] = 0.8,
    pairs: Annotated[
        int | None, typer.Option(help="Plan so many pairs instead, 10 or more.", show_default="what the power takes")
    ] = None,
    looks: Annotated[
        Literal["none", "obf", "anytime"],
        typer.Option(help="Tests before the end: none, 4 planned ones (O'Brien-Fleming), or at any time (e-value)."),
    ] = "none",
    workers: WorkerCount = None,
    price: Annotated[float | None, typer.Option(help="Price of one hour of this machine.", show_default="none")] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace another plan.json, which the ledger keeps.")
    ] = False,
) -> None:
    """Say how many pairs a verdict takes, how long and at what cost, and register it: plan.json, plans.jsonl.

    It plans from pilot pairs: those of a finished study, or those that --pilot trains now (needs `dvc repro prepare`).
    A verdict is called planned only if its runs were trained under the plan, by the code that the first of them were
    trained by; otherwise it is exploratory. `infinito ledger` lists all plans that a study had, and what they said.
    """
    from infinito import tasks
    from infinito.planning import pilot as piloting
    from infinito.planning import plan as planning
    from infinito.planning import preregistration
    from infinito.planning.ledger import Ledger
    from infinito.runs.table import RunTable

    this = load_study(study)
    if pilot is None and not (this.runs / "runs.parquet").is_file():
        raise ValueError(
            f"{this.runs / 'runs.parquet'}: no such file to plan from; train a pilot now: infinito plan --pilot 8, "
            "or the study itself first: dvc repro train"
        )
    data = tasks.measured(this.data)
    unit = data.task.metric.unit
    with (
        tempfile.TemporaryDirectory() as folder,
        naming_flags("pilot", "effect", "power", "pairs", "looks", "workers", "price"),
    ):
        table_folder = this.runs if pilot is None else _train_pilot(this, pilot, Path(folder) / "runs")
        known = piloting.pilot(this, RunTable.load(table_folder), data.sha256)
        content = planning.make(
            this,
            known,
            data_sha256=data.sha256,
            unit=unit,
            seed=planning.fresh_root(this),
            created=datetime.now(UTC).date().isoformat(),
            workers=worker_count() if workers is None else workers,
            effect=effect,
            power=power,
            pairs=pairs,
            looks=looks,
            price=price,
        )
    _print_plan(content, unit)
    registered, name = preregistration.write(this, content, replace=replace)
    screen = console()
    if registered["seed"] != this.params.train.seed:
        screen.print(
            f"\nPairs of the root seed {this.params.train.seed} have been trained already, so the plan takes fresh "
            f"ones: root seed {registered['seed']}."
        )
    which = "; ".join(preregistration.place(Ledger.read(this.ledger), name))
    screen.print(
        f"\n{this.plan}: the plan of {registered['created']}, {which}. To train under it, set in params.yaml:\n"
    )
    print(
        f"train:\n  seed: {registered['seed']}\n  pairs: {registered['pairs']}\n  looks: {registered['looks']}\n"
        f"  plan: {name}"
    )


def _train_pilot(study: Study, n: int, folder: Path) -> Path:
    """Train n pilot pairs in this process; finished stacks stay in the study's scratch folder."""
    import torch

    from infinito import runs, tasks
    from infinito.planning import pilot as piloting
    from infinito.runs.finish import finish

    torch.set_num_threads(1)  # as in the stages' worker processes: their bits, and their time
    jobs = piloting.pilot_jobs(study, tasks.measured(study.data), n)
    folders = []
    for number, job in enumerate(jobs):
        with bar("pilot", jobs, number) as progress:
            folders.append(finish(job, progress))
    runs.collect(folders, folder)
    return folder


def _print_plan(plan: dict[str, Any], unit: str) -> None:
    """The pilot, the power table and the price list of a plan; unit: of the metric."""
    screen, pilot, cost = console(), plan["pilot"], plan["cost"]
    cores = "core-hours" if cost["measured_on"]["device"].startswith("cpu") else "GPU-hours"
    effect, percent = f"{plan['effect']:g}", f"{100 * plan['power']:g} %"
    screen.print(
        f"\nPilot: {pilot['n']} pairs (design {pilot['design']}); standard deviation of the difference "
        f"{pilot['sd']:.3g} {unit}, planned with its upper limit {pilot['sd_upper']:.3g}."
    )
    where = "this machine" if cost["same_machine"] else "ANOTHER MACHINE than this one"
    per_run = ", ".join(f"{arm} {seconds:.3g} s" for arm, seconds in cost["seconds_per_run"].items())
    screen.print(
        f"Time: {per_run} per run, measured on {where} ({cost['measured_on']['processor']}, "
        f"{cost['measured_on']['device']}); {cost['workers']} at a time."
    )
    if plan["hypotheses"] > 1:
        screen.print(f"All power is for alpha / {plan['hypotheses']}, as there are {plan['hypotheses']} hypotheses.")
    table = Table("pairs", f"power to find {effect}", "power to show equivalence", f"difference found with {percent}")
    table.title = "Power of one test at the end"
    for row in cost["power_table"]:
        chosen = row["pairs"] == plan["pairs"]
        table.add_row(
            f"{row['pairs']:,}",
            f"{row['power']:.3f}",
            f"{row['equivalence_power']:.3f}",
            f"{row['minimal_detectable_effect']:.3g}",
            style="bold" if chosen else None,
        )
    screen.print()
    screen.print(table)
    columns = "design", "pairs or cells", "expected, effect / none", "runs", "time", cores
    money = ("price",) if cost["price"] is not None else ()
    table = Table(*columns, *money, "how", title=f"What a power of {percent} costs, to find {effect} {unit}")
    for row in cost["designs"]:
        expected = (
            "" if row["expected_pairs"] is None else f"{row['expected_pairs']:.0f} / {row['expected_pairs_null']:.0f}"
        )
        figures = [
            "out of reach" if row["pairs"] is None else f"{row['pairs']:,}",
            expected,
            "" if row["runs"] is None else f"{row['runs']:,}",
            "" if row["hours"] is None else duration(row["hours"]),
            "" if row["core_hours"] is None else f"{row['core_hours']:.3g}",
        ]
        if money:
            figures.append("" if row["money"] is None else f"{row['money']:.2f}")
        table.add_row(row["design"], *figures, row["note"])
    screen.print(table)
    stop = {"[]": "one test at the end", "anytime": "a look at any time"}.get(str(plan["looks"]))
    screen.print(
        f"\nPlanned: [bold]{plan['pairs']:,} pairs[/bold], {stop or 'looks at ' + ', '.join(map(str, plan['looks']))}, "
        f"power {plan['power_reached']:.2f} for {effect} {unit}; {duration(cost['hours'])}, "
        f"{cost['core_hours']:.3g} {cores}" + ("" if cost["money"] is None else f", {cost['money']:.2f} to pay") + "."
    )
