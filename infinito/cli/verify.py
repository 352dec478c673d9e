"""`infinito verify`: do recorded runs come out the same when they are trained again?"""

import json
from pathlib import Path
from typing import Annotated

import typer

from infinito.cli.app import StudyFolder, app, bar
from infinito.study import load_study


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
        with bar("verify", jobs, number) as progress:
            results = verifying.verified(stack, progress)
        trained.append(stack.facts | {"changed": changed})
        runs += results
        if not as_json:
            print(*(f"  {verifying.run_line(run)}" for run in results), sep="\n", flush=True)
    equal = all(run["equal"] for run in runs)
    found = {"schema": verifying.SCHEMA, "study": this.params.study, "equal": equal, "stacks": trained, "runs": runs}
    print(json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False) if as_json else verifying.summary(runs))
    raise typer.Exit(0 if equal else 1)
