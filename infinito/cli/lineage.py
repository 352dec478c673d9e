"""`infinito explain` and `infinito audit`: where does a number come from, and does the chain behind it hold?"""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from infinito.cli.app import StudyFolder, app
from infinito.study import load_study


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


@app.command(epilog="Example: infinito audit --study studies/wikitext2 --strict")
def audit(
    study: StudyFolder = Path("."),
    strict: Annotated[bool, typer.Option("--strict", help="Reserves count too: for a gate in CI.")] = False,
) -> None:
    """Check the chain from the plan to the results, and name the first link that does not hold, then all else.

    The links are git, ledger, plan, data, stages, runs and results (docs/lineage.md says what is checked in each).
    A reserve is what can't be known here (no git, a shallow clone) or does not hold yet (not committed, out of date).

    Exit code: 0 all holds; 1 something does not, or, with --strict, there is a reserve; 2 bad input.
    """
    from infinito.lineage.audit import audit as audited
    from infinito.lineage.pipeline import Pipeline
    from infinito.lineage.runs import run_table

    this, pipeline = load_study(study), Pipeline.load(study)
    here = [stage for stage in pipeline.stages if any(map(pipeline.on_disk, pipeline.outputs(stage)))]
    if not here and not pipeline.recorded:
        raise ValueError(f"{study}: no stage has left anything to audit; run dvc repro, or dvc pull")
    findings = audited(this)
    faults = [finding for finding in findings if strict or not finding.reserve]
    if faults:
        print(f"study {this.params.study}: the chain does not hold; first at {faults[0].link}")
    else:
        runs = f"{len(here)} of {len(pipeline.stages)} stages, {len(run_table(study)):,} runs"
        print(f"study {this.params.study}: the chain holds: {runs}")
    for finding in findings:
        print(f"{'reserve: ' if finding.reserve else ''}{finding}")
    if faults:
        sys.exit(1)
