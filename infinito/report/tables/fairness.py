"""What differs between the arms beside the results."""

from infinito.questions.fairness import shown, tuning
from infinito.report.evidence import Json
from infinito.report.tables.table import Table

KEPT = {"last": "of the last step", "best": "of the point that is best on validation"}


def fairness(found: Json) -> Table:
    """Network, settings, all of the recipe in which an arm differs, and how each arm was tuned: a column an arm."""
    arms = found["arms"]
    of_each = list(arms.values())
    if "command" in arms["baseline"]:
        rows = [("Command", *(facts["command"] for facts in of_each))]
        rows += [("Tuned", *(tuning(facts["tuned"]) for facts in of_each))]
        return Table(("", *arms), rows, "l" * (1 + len(arms)))
    settings = list(dict.fromkeys(key for facts in of_each for key in facts["settings"]))
    rows = [("Network", *(facts["network"] for facts in of_each))]
    rows += [(f"Setting {key}", *(shown(facts["settings"].get(key)) for facts in of_each)) for key in settings]
    rows += [
        (f"Recipe: {key}", *(shown(value) for value in values.values()))
        for key, values in found["keys"].items()
        if key not in ("steps", "keep")  # all arms have a row of their own for these
    ]
    rows += [
        ("Steps", *(f"{facts['steps']:,}" for facts in of_each)),
        ("Training examples seen", *(f"{facts['train_examples']:,}" for facts in of_each)),
        ("Tuned", *(tuning(facts["tuned"]) for facts in of_each)),
        ("Weights that count", *(KEPT[facts["keep"]] for facts in of_each)),
    ]
    return Table(("", *arms), rows, "l" * (1 + len(arms)))
