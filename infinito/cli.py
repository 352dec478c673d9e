"""`infinito`: the questions people ask of a study, on the command line.

What takes seconds to import is imported by the commands that need it: help and bad arguments answer at once.
"""

import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from infinito.params import Study, load_study

if TYPE_CHECKING:
    from infinito.stacks import StackJob

UsageError: Any = typer.BadParameter.__mro__[1]  # of click, which some versions of typer carry inside

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

StudyFolder = Annotated[Path, typer.Option("--study", help="Folder of the study.", show_default="the current folder")]


def _console() -> Console:
    return Console(soft_wrap=True, highlight=False)


@contextmanager
def _naming_flags(*names: str) -> Iterator[None]:
    """Errors that begin with the name of an argument begin with the flag instead."""
    try:
        yield
    except ValueError as error:
        name, _, rest = str(error).partition(":")
        if name not in names:
            raise
        raise ValueError(f"--{name.replace('_', '-')}:{rest}") from error


@app.command(epilog="Example: infinito check --study studies/wikitext2")
def check(study: StudyFolder = Path(".")) -> None:
    """Read params.yaml, and plan.json if train.plan names it, and say whether they are complete and consistent."""
    from infinito import preregistration

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
    """Judge a published claim from its mean, standard deviation and number of seeds."""
    from infinito.published import judge as judged

    with _naming_flags("mean", "sd", "n", "wins", "best", "seeds_tried", "p"):
        result = judged(mean, sd, n, wins=wins, best=best, seeds_tried=seeds_tried, p=p)
    if as_json:
        print(json.dumps(result, indent=2, ensure_ascii=False, allow_nan=False))
        return
    console = _console()
    verdict, *rest = result["sentences"]
    console.print(f"\n[bold]{result['verdict']}[/bold]{_plain(verdict.removeprefix(result['verdict']))}\n")
    table = Table("", "value", "95 % interval")
    difference, size, rate, top = (result[key] for key in ("difference", "effect_size", "win_rate", "best"))
    table.add_row("mean difference", f"{mean:.4g}", _interval(difference))
    table.add_row(
        "effect size, mean / sd", f"{size['value']:.3g}" if size["value"] is not None else "", _interval(size)
    )
    table.add_row(f"t, {n - 1} degrees of freedom", f"{result['t']:.3f}", "")
    table.add_row("p, from the figures", f"{result['p_value']:.3g}", "")
    if result["printed"]:
        table.add_row("p, as printed", f"{p:.3g}", "" if result["printed"]["agrees"] else "does not follow")
    if rate:
        table.add_row("win rate", f"{rate['value']:.2f}", _interval(rate, ".2f"))
        table.add_row("p, sign test of the wins", f"{rate['sign_test_p']:.3g}", "")
    table.add_row("power, if the true effect is as observed", f"{100 * result['power']:.3g} %", "")
    needed = result["pairs_for_80_percent_power"]
    table.add_row("seeds that give it a power of 80 %", "" if needed is None else f"{needed:,}", "")
    if top:
        table.add_row("claimed best seed", f"{top['value']:.4g}", "")
        table.add_row(f"best of {top['seeds_tried']} by luck, expected", f"{top['expected_by_luck']:.3g}", "")
    console.print(table)
    console.print()
    for sentence in rest:
        console.print(f"- {_plain(sentence)}")


@app.command(epilog="Example: infinito plan --pilot 8 --effect 0.02 --looks obf --price 2.50")
def plan(
    study: StudyFolder = Path("."),
    pilot: Annotated[
        int | None, typer.Option(help="Train so many pilot pairs now, 8 or more.", show_default="use finished runs")
    ] = None,
    effect: Annotated[
        float | None,
        typer.Option(help="Difference to be found, nats per token.", show_default="compare.smallest_effect"),
    ] = None,
    power: Annotated[float, typer.Option(help="Chance to find it.")] = 0.8,
    pairs: Annotated[
        int | None, typer.Option(help="Plan so many pairs instead, 10 or more.", show_default="what the power takes")
    ] = None,
    looks: Annotated[
        Literal["none", "obf", "anytime"],
        typer.Option(help="Tests before the end: none, 4 planned ones (O'Brien-Fleming), or at any time (e-value)."),
    ] = "none",
    workers: Annotated[
        int | None,
        typer.Option(
            envvar="INFINITO_WORKERS", help="Processes that train.", show_default="one per GPU, or else per CPU core"
        ),
    ] = None,
    price: Annotated[float | None, typer.Option(help="Price of one hour of this machine.", show_default="none")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace another plan.json.")] = False,
) -> None:
    """Say how many pairs a verdict takes, how long and at what cost, and register it as plan.json.

    It plans from pilot pairs: those of a finished study, or those that --pilot trains now (needs `dvc repro prepare`).
    A verdict is called planned only if its runs were trained under the plan; otherwise it is exploratory.
    """
    from infinito import pilot as piloting
    from infinito import plan as planning
    from infinito import preregistration, tasks
    from infinito.runs import RunTable

    this = load_study(study)
    if pilot is None and not (this.runs / "runs.parquet").is_file():
        raise ValueError(
            f"{this.runs / 'runs.parquet'}: no such file to plan from; train a pilot now: infinito plan --pilot 8, "
            "or the study itself first: dvc repro train"
        )
    data_sha256 = tasks.load(this.data).sha256
    with (
        tempfile.TemporaryDirectory() as folder,
        _naming_flags("pilot", "effect", "power", "pairs", "looks", "workers", "price"),
    ):
        table_folder = this.runs if pilot is None else _train_pilot(this, pilot, Path(folder) / "runs")
        known = piloting.pilot(this, RunTable.load(table_folder), data_sha256)
        content = planning.make(
            this,
            known,
            data_sha256=data_sha256,
            seed=planning.fresh_root(this),
            created=datetime.now(UTC).date().isoformat(),
            workers=_worker_count() if workers is None else workers,
            effect=effect,
            power=power,
            pairs=pairs,
            looks=looks,
            price=price,
        )
    _print_plan(content)
    registered, name = preregistration.write(this.plan, content, replace=replace)
    console = _console()
    if registered["seed"] != this.params.train.seed:
        console.print(
            f"\nPairs of the root seed {this.params.train.seed} have been trained already, so the plan takes fresh "
            f"ones: root seed {registered['seed']}."
        )
    console.print(f"\n{this.plan}: the plan of {registered['created']}. To train under it, set in params.yaml:\n")
    print(
        f"train:\n  seed: {registered['seed']}\n  pairs: {registered['pairs']}\n  looks: {registered['looks']}\n"
        f"  plan: {name}"
    )


def _worker_count() -> int:
    """As many as the stages' worker processes: one a GPU, or else one a CPU core that this process may use."""
    import os

    import torch

    if torch.cuda.is_available():
        return torch.cuda.device_count()
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _train_pilot(study: Study, n: int, folder: Path) -> Path:
    """Train n pilot pairs in this process; finished stacks stay in the study's scratch folder."""
    import torch

    from infinito import pilot as piloting
    from infinito import runs, stacks, tasks

    torch.set_num_threads(1)  # as in the stages' worker processes: their bits, and their time
    jobs = piloting.pilot_jobs(study, tasks.load(study.data), n)
    folders = []
    for number, job in enumerate(jobs):
        with _bar("pilot", jobs, number) as progress:
            folders.append(stacks.finish(job, progress))
    runs.collect(folders, folder)
    return folder


@contextmanager
def _bar(what: str, jobs: "Sequence[StackJob]", number: int) -> Iterator[Callable[[int], None]]:
    """A progress bar over all jobs while one of them is done; gives what is to be called with its model-steps."""
    columns = (BarColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    done = sum(job.steps for job in jobs[:number])
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        name = f"{what}, stack {number + 1} of {len(jobs)}"
        task = bar.add_task(name, total=sum(job.steps for job in jobs), completed=done)
        yield lambda steps: bar.update(task, completed=done + steps)


def _print_plan(plan: dict[str, Any]) -> None:
    """The pilot, the power table and the price list of a plan."""
    console, pilot, cost = _console(), plan["pilot"], plan["cost"]
    cores = "core-hours" if cost["measured_on"]["device"].startswith("cpu") else "GPU-hours"
    effect, percent = f"{plan['effect']:g}", f"{100 * plan['power']:g} %"
    console.print(
        f"\nPilot: {pilot['n']} pairs (design {pilot['design']}); standard deviation of the difference "
        f"{pilot['sd']:.3g} nats per token, planned with its upper limit {pilot['sd_upper']:.3g}."
    )
    where = "this machine" if cost["same_machine"] else "ANOTHER MACHINE than this one"
    per_run = ", ".join(f"{arm} {seconds:.3g} s" for arm, seconds in cost["seconds_per_run"].items())
    console.print(
        f"Time: {per_run} per run, measured on {where} ({cost['measured_on']['processor']}, "
        f"{cost['measured_on']['device']}); {cost['workers']} at a time."
    )
    if plan["hypotheses"] > 1:
        console.print(f"All power is for alpha / {plan['hypotheses']}, as there are {plan['hypotheses']} hypotheses.")
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
    console.print()
    console.print(table)
    columns = "design", "pairs or cells", "expected, effect / none", "runs", "time", cores
    money = ("price",) if cost["price"] is not None else ()
    table = Table(*columns, *money, "how", title=f"What a power of {percent} costs, to find {effect} nats per token")
    for row in cost["designs"]:
        expected = (
            "" if row["expected_pairs"] is None else f"{row['expected_pairs']:.0f} / {row['expected_pairs_null']:.0f}"
        )
        figures = [
            "out of reach" if row["pairs"] is None else f"{row['pairs']:,}",
            expected,
            "" if row["runs"] is None else f"{row['runs']:,}",
            "" if row["hours"] is None else _duration(row["hours"]),
            "" if row["core_hours"] is None else f"{row['core_hours']:.3g}",
        ]
        if money:
            figures.append("" if row["money"] is None else f"{row['money']:.2f}")
        table.add_row(row["design"], *figures, row["note"])
    console.print(table)
    stop = {"[]": "one test at the end", "anytime": "a look at any time"}.get(str(plan["looks"]))
    console.print(
        f"\nPlanned: [bold]{plan['pairs']:,} pairs[/bold], {stop or 'looks at ' + ', '.join(map(str, plan['looks']))}, "
        f"power {plan['power_reached']:.2f} for {effect} nats per token; {_duration(cost['hours'])}, "
        f"{cost['core_hours']:.3g} {cores}" + ("" if cost["money"] is None else f", {cost['money']:.2f} to pay") + "."
    )


def _duration(hours: float) -> str:
    seconds = 3600 * hours
    if seconds < 120:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if hours < 2 else f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} days"


def _plain(text: str) -> str:
    """Text in which brackets are brackets."""
    return text.replace("[", r"\[")


def _interval(estimate: dict[str, Any], form: str = ".4g") -> str:
    if estimate["ci_low"] is None or estimate["ci_high"] is None:
        return ""
    return _plain(f"[{estimate['ci_low']:{form}}, {estimate['ci_high']:{form}}]")


@app.command(epilog="Example: infinito explain compare.difference.value --study studies/wikitext2")
def explain(
    figure: Annotated[
        str, typer.Argument(metavar="FIGURE", help="A file of results/, then keys: compare.difference.value")
    ],
    study: StudyFolder = Path("."),
    as_json: Annotated[bool, typer.Option("--json", help="Print everything, every run by name.")] = False,
) -> None:
    """Say where a figure comes from: the runs behind it, and the commands that build it again."""
    from infinito.lineage.figure import explain as explained
    from infinito.lineage.text import as_text

    found = explained(study, figure)
    text = json.dumps(found, indent=2, ensure_ascii=False) + "\n" if as_json else as_text(found)
    sys.stdout.write(text)


@app.command(epilog="Example: infinito audit --study studies/wikitext2")
def audit(study: StudyFolder = Path(".")) -> None:
    """Name whatever lacks the record of where it comes from, one line each; exit code 1 if anything does.

    Every output must be what dvc.lock records, with the code, the machine and the time of its stage.
    Every run must have its seeds, its weights and its stack, with the settings it was trained by.
    """
    from infinito.lineage.audit import missing_records
    from infinito.lineage.pipeline import Pipeline
    from infinito.lineage.runs import run_table

    this, pipeline = load_study(study), Pipeline.load(study)
    here = [stage for stage in pipeline.stages if any(map(pipeline.on_disk, pipeline.outputs(stage)))]
    if not here:
        raise ValueError(f"{study}: no stage has left anything to audit; run dvc repro, or dvc pull")
    faults = missing_records(this)
    if faults:
        sys.stdout.write("".join(f"{fault}\n" for fault in faults))
        sys.exit(1)
    print(
        f"study {this.params.study}: nothing lacks its record: {len(here)} of {len(pipeline.stages)} stages, "
        f"{len(run_table(study)):,} runs"
    )


@app.command(epilog="Example: infinito verify 3f2a91c7 --study studies/wikitext2")
def verify(
    run_ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="RUN_ID", help="Runs, by their ids or the beginnings of these.", show_default=False),
    ] = None,
    study: StudyFolder = Path("."),
    sample: Annotated[
        int | None, typer.Option(help="Instead: so many runs, drawn at random.", show_default="none")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Instead: all runs of the study.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print all findings as JSON.")] = False,
) -> None:
    """Train recorded runs again, and say whether they come out the same, bit for bit; else, where they part.

    The whole stack of a run is trained, as it was, beside the recorded one. `infinito explain FIGURE --json` names the
    runs behind a figure. Exit code: 0 all equal, 1 some differ, 2 bad input.
    """
    from infinito import verify as verifying

    this = load_study(study)
    table = verifying.runs_of(this)
    ids = verifying.chosen(table, run_ids or [], sample, every)
    stacks = verifying.recorded(this, table, ids)
    jobs = [stack.job for stack in stacks]
    trained, runs = [], []
    for number, stack in enumerate(stacks):
        changed = verifying.changed_environment(stack)
        if not as_json:  # at once: an interruption leaves what is known by then
            print(verifying.stack_line(stack, changed), flush=True)
        with _bar("verify", jobs, number) as progress:
            results = verifying.verified(stack, progress)
        trained.append(stack.facts | {"changed": changed})
        runs += results
        if not as_json:
            print(*(f"  {verifying.run_line(run)}" for run in results), sep="\n", flush=True)
    equal = all(run["equal"] for run in runs)
    found = {"schema": verifying.SCHEMA, "study": this.params.study, "equal": equal, "stacks": trained, "runs": runs}
    print(json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False) if as_json else verifying.summary(runs))
    raise typer.Exit(0 if equal else 1)


@app.command(epilog="Example: infinito verdict --study studies/wikitext2 --json")
def verdict(
    study: StudyFolder = Path("."),
    as_json: Annotated[bool, typer.Option("--json", help="Print results/compare.json as it is.")] = False,
) -> None:
    """Print the verdict of a finished study, and whether it was planned."""
    from infinito.storage import read_json

    results = load_study(study).results
    compare = read_json(results / "compare.json")
    if as_json:
        sys.stdout.write((results / "compare.json").read_text(encoding="utf-8"))
        return
    golden = read_json(results / "golden.json")
    console = _console()
    console.print(f"\n[bold]{compare['verdict']}[/bold]  {_plain(compare['sentence'])}\n")
    table = Table("", "value", "95 % interval" if compare["alpha"] == 0.05 else "interval")
    for label, key in (
        ("difference of loss, nats per token", "difference"),
        ("loss of the candidate", "candidate"),
        ("loss of the baseline", "baseline"),
        ("probability of improvement", "probability_of_improvement"),
    ):
        table.add_row(label, f"{compare[key]['value']:.4g}", _interval(compare[key]))
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
    console.print(table)
    if "plan" in compare:
        console.print(f"\n[bold]{compare['plan']['status']}[/bold]  {_plain(compare['plan']['reason'])}")
    for decision in golden["decisions"]:
        console.print(f"\n[bold]{decision['status']}[/bold]  {_plain(decision['sentence'])}")
    console.print(f"\nThe whole story: {results / 'report.html'}")


def main() -> None:
    """Run the command line; bad input is one line and exit code 2."""
    try:
        sys.exit(app(sys.argv[1:] or ["--help"], standalone_mode=False))
    except (ValueError, FileNotFoundError) as error:
        message = str(error)
    except UsageError as error:
        message = error.format_message()
    print(f"infinito: {message}", file=sys.stderr)
    sys.exit(2)
