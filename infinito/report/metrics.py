"""The headline figures in one flat table, for `dvc metrics show`, `dvc metrics diff` and `dvc exp show`."""

from typing import Any

from infinito.tasks.measure import metric_of

Json = dict[str, Any]


def metrics(
    compare: Json, attribute: Json | None = None, golden: Json | None = None, ensemble: Json | None = None
) -> dict[str, float | int | str | None]:
    """A figure and the limits of its interval side by side, under short names.

    Args:
        compare, attribute, golden, ensemble: results/<stage>.json; None where a study does without the stage.
    """
    found: dict[str, float | int | str | None] = {
        "verdict": compare["verdict"],
        "planned": compare["plan"]["status"],
        "pairs": compare["n_pairs"],
        "wins": compare["wins"],
        "p": compare["p_adjusted"],
    }

    def add(name: str, estimate: Json) -> None:
        found.update({name: estimate["value"], f"{name}_low": estimate["ci_low"], f"{name}_high": estimate["ci_high"]})

    add("gain", compare["difference"])
    name = metric_of(compare).name.replace(" ", "_")
    for arm in ("candidate", "baseline"):
        add(f"{arm}_{name}", compare[arm])
    if attribute:
        for source in ("init", "data"):
            part = attribute["candidate"]["components"][source]
            found |= {f"{source}_share": part["share"]}
            found |= {f"{source}_share_{limit}": part.get(f"share_ci_{limit}") for limit in ("low", "high")}
    if golden:
        found["golden"] = golden["status"]
        add("golden_gain", golden["difference"])
    if ensemble:
        largest = ensemble["candidate"]["curve"][-1]
        found["ensemble_size"] = largest["size"]
        add("ensemble_gain", largest["gain_over_best_member"])
    return found
