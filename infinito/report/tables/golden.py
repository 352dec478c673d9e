"""Golden seeds: from the ranking on the grid to the decision on fresh seeds."""

from infinito.report import words
from infinito.report.evidence import Json
from infinito.report.tables.table import Table
from infinito.report.words import estimate, interval, number, p_value, signed
from infinito.tasks import Metric
from infinito.tasks.measure import level


def selected(golden: Json) -> tuple[int, Json | None]:
    """The init seed that the grid puts first, and the decision on it, if it was forwarded."""
    seed = golden["selection"]["init_seeds"][golden["selection"]["best"]["index"]]
    return seed, next((found for found in golden["decisions"] if found["golden_init_seed"] == seed), None)


def winner(golden: Json, metric: Metric) -> Table:
    """The gain of the selected seed: from what was hoped to what held."""
    best, selection = golden["selection"]["best"], golden["selection"]
    seed, decision = selected(golden)
    rows = [
        ("On the grid it was selected on", signed(best["naive_gain"]), best["naive_gain_is"]),
        (
            "Best of the grid expected by luck alone",
            signed(selection["expected_best_by_luck"]),
            "if no seed were better",
        ),
        ("Shrunken estimate (BLUP)", signed(best["blup_gain"]), "the grid’s best guess, selection allowed for"),
    ]
    if decision:
        bounds = f"{100 * (1 - decision['bound_alpha']):g}% bounds"
        worth = "proves nothing" if decision["status"] == "INVALID" else "the claim"
        holm = f" ({words.p_is(decision['p_holm'])} by Holm)" if decision["forwarded"] > 1 else ""
        rows.append(
            (
                "Confirmation on fresh data seeds",
                signed(decision["difference"]["value"]),
                f"{bounds} {interval(decision['difference'])}, {words.p_is(decision['p_value'])}{holm}: {worth}",
            )
        )
    return Table((f"Gain of init seed {seed}", words.capital(metric.unit), ""), rows, "lrl")


def decisions(golden: Json, metric: Metric) -> Table:
    """All that was put to the golden rule."""
    rows = [
        (
            words.who(found),
            words.found_by(found["name"], metric),
            found["status"].replace("_", " "),
            estimate(found["difference"]),
            f"{found['wins']} of {found['n_data_seeds']}",
            p_value(found["p_holm"]),
        )
        for found in golden["decisions"]
    ]
    return Table(("", "Found by", "Status", "Gain on fresh data seeds", "Wins", "p, Holm"), rows, "lllrrr")


def ranking(golden: Json, metric: Metric) -> Table:
    """All init seeds of the grid, best first."""
    seeds = golden["selection"]["init_seeds"]
    rows = [
        (
            str(place),
            str(seeds[entry["index"]]),
            number(level(metric, entry["mean_loss"]), 4),
            signed(entry["naive_gain"]),
            signed(entry["blup_gain"]),
            signed(entry["james_stein_gain"]),
        )
        for place, entry in enumerate(golden["selection"]["ranking"], 1)
    ]
    gains = ("Gain, selection-biased", "Gain, BLUP", "Gain, James–Stein")
    return Table(("", "Init seed", f"Mean validation {metric.name}", *gains), rows, "lrrrrr")
