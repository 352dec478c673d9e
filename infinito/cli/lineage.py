"""`infinito explain` and `infinito audit`: where does a number come from, and does anything lack its record?"""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from infinito.cli.app import StudyFolder, app
from infinito.params import load_study


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
