"""`infinito ledger`: which plans did a study have, and what came out of each?"""

from pathlib import Path
from typing import Any

from infinito.cli.app import StudyFolder, app
from infinito.study import load_study


@app.command(epilog="Example: infinito ledger --study studies/wikitext2")
def ledger(study: StudyFolder = Path(".")) -> None:
    """List what happened to the plans of a study, by plans.jsonl: registered, begun, trained, and what came out.

    A plan is named by the SHA-256 of its plan.json, of which the first 12 digits are shown.
    """
    from infinito.planning.ledger import Ledger, ordinal

    this = load_study(study)
    found = Ledger.read(this.ledger)
    if not found.entries:
        raise ValueError(f"{this.ledger}: no such file; infinito plan registers the first plan in it")
    for entry in found.entries:
        number = found.number(entry["plan"])
        which = f"{ordinal(number)} plan, {entry['plan'][:12]}" if number else entry["plan"][:12]
        by = f", by {entry['by']}" if entry.get("by") else ""
        note = f" ({entry['note']})" if "note" in entry else ""
        print(f"{entry['at']}  {which}: {_what(entry)}{by}{note}")


def _what(entry: dict[str, Any]) -> str:
    if entry["event"] == "plan":
        plan = entry["file"]["plan"]
        return f"registered: {plan['pairs']:,} pairs, root seed {plan['seed']}, effect {plan['effect']:g}"
    if entry["event"] == "began":
        return f"begun, by {len(entry['code'])} files of code"
    if entry["event"] == "trained":
        return f"trained, run table {entry['runs_sha256'][:12]}"
    return (
        f"{entry['verdict']}, {entry['status']}, difference {entry['difference']:.4g} over {entry['n_pairs']:,} pairs"
    )
