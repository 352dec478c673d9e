"""The headline figures in one flat table, for `dvc metrics show`, `dvc metrics diff` and `dvc exp show`."""

from typing import Any

Json = dict[str, Any]


def metrics(compare: Json, attribute: Json, golden: Json, ensemble: Json) -> dict[str, float | int | str | None]:
    """A figure and the limits of its interval side by side, under short names; losses in nats per token.

    Args:
        compare, attribute, golden, ensemble: results/<stage>.json.
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
    add("candidate_loss", compare["candidate"])
    add("baseline_loss", compare["baseline"])
    for source in ("init", "data"):
        part = attribute["candidate"]["components"][source]
        found |= {f"{source}_share": part["share"]}
        found |= {f"{source}_share_{limit}": part.get(f"share_ci_{limit}") for limit in ("low", "high")}
    found["golden"] = golden["status"]
    add("golden_gain", golden["difference"])
    largest = ensemble["candidate"]["curve"][-1]
    found["ensemble_size"] = largest["size"]
    add("ensemble_gain", largest["gain_over_best_member"])
    return found
