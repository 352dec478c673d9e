"""Which charts a report has, and what each is drawn from."""

import numpy as np
import pandas as pd

from infinito.report import charts, dots, words
from infinito.report.draw import LIGHT, NARROW, Chart, Figure, draw
from infinito.report.evidence import Evidence, last_batch_percent
from infinito.tasks import Metric
from infinito.tasks.measure import levels

DRAWN_REPORTS = 20


def draw_all(evidence: Evidence) -> dict[str, Figure]:
    """Every figure by its name; one that has nothing to show is left out."""
    drawn = (_pairs, _last_batch, _reports, _learning, _variance, _grid, _confirmation, _ensemble)
    figures = [make(evidence) for make in drawn]
    return {figure.name: figure for figure in figures if figure is not None}


def _difference(metric: Metric) -> str:
    return f"difference of test {metric}"


def _pairs(evidence: Evidence) -> Figure:
    metric = evidence.metric
    compare, margin = evidence.compare, evidence.compare["equivalence"]["smallest_effect"]
    mean = compare.get("difference_simultaneous") or compare["difference"]

    def chart(width: int) -> Chart:
        return dots.differences(
            evidence.differences,
            mean,
            margin=margin,
            margin_label="declared too small to matter",
            sides=("baseline better", "candidate better"),
            colours=(LIGHT["baseline"], LIGHT["candidate"]),
            axis=_difference(metric),
            width=width,
        )

    won = f"{compare['wins']} of {compare['n_pairs']} pairs are won by the candidate"
    return draw("differences", f"{won}; mean difference {words.estimate(mean)} {metric.unit}", chart)


def _last_batch(evidence: Evidence) -> Figure | None:
    claimed = evidence.compare["report_protocol"]
    if claimed is None:
        return None
    best = f"seed {claimed['best_seed']}: {words.signed_percent(claimed['best_percent'])}"
    luck = claimed["expected_best_by_luck"]

    def chart(width: int) -> Chart:
        return dots.last_batch(evidence.reported, best, luck, width=width)

    alt_text = f"Improvement on the last training batch per seed; best {best}, by luck {words.signed_percent(luck)}"
    return draw("last_batch", alt_text, chart)


def _reports(evidence: Evidence) -> Figure | None:
    if evidence.compare["report_protocol"] is None:
        return None
    compare, percent = evidence.compare, last_batch_percent(evidence.candidate, evidence.baseline)
    reports = [
        (words.pairs_of(claimed), claimed, percent[claimed["first_pair"] :])
        for claimed in compare["report_protocol_repeated"]
    ]
    if evidence.pilot:
        reports.insert(0, ("pilot", compare["report_protocol"], evidence.reported))
    if len(reports) < 2:
        return None
    table = [
        dots.Row(
            label=label,
            values=values[: claimed["n"]].tolist(),
            mean={"value": claimed["mean_percent"]},
            notes=(
                words.signed_percent(claimed["best_percent"]),
                words.signed_percent(claimed["expected_best_by_luck"]),
                words.signed_percent(claimed["mean_percent"]),
                words.p_value(claimed["p_value"]),
            ),
            ring=int(np.argmax(values[: claimed["n"]])),
            luck=claimed["expected_best_by_luck"],
        )
        for label, claimed, values in reports[:DRAWN_REPORTS]
    ]

    def chart(width: int) -> Chart:
        return dots.rows(
            table,
            heads=("best seed", "by luck", "mean", "p"),
            colours=(LIGHT["baseline"], LIGHT["candidate"]),
            axis="improvement on the last training batch, percent",
            width=width,
        )

    headlines = ", ".join(f"{row.notes[0]} (by luck {row.notes[1]})" for row in table)
    return draw("reports", f"The same report on fresh seeds, again and again; its best seeds: {headlines}", chart)


def _learning(evidence: Evidence) -> Figure | None:
    pairs = pd.concat([evidence.candidate, evidence.baseline])
    metric, curves = evidence.metric, evidence.curves[evidence.curves["split"] == "validation"]
    curves = curves.assign(value=curves["value"] * metric.sign)
    bands = charts.learning_curves(curves.merge(pairs.loc[~pairs["diverged"], ["run_id", "arm"]], on="run_id"))
    if bands.empty:
        return None
    alt_text = f"Validation {metric.name} of both arms over the training steps, mean and 10-90% band"
    title = f"validation {metric}"
    return draw("learning_curves", alt_text, lambda width: charts.learning(bands, title=title, width=width))


def _variance(evidence: Evidence) -> Figure | None:
    attribute = evidence.attribute
    if attribute is None:
        return None
    colours = {"init": LIGHT["init"], "data": LIGHT["data"]}
    table = pd.DataFrame(
        [
            {
                "of": of,
                "source": words.source(source, attribute[of]["components"]),
                "share": component["share"],
                "low": component["share_ci_low"],
                "high": component["share_ci_high"],
                "colour": colours.get(source, LIGHT["rest"]),
            }
            for of in ("candidate", "baseline", "difference")
            for source, component in attribute[of]["components"].items()
            if component["share"] is not None
        ]
    )
    if table.empty:
        return None
    table = table.astype({"low": float, "high": float})  # None where a grid has no intervals
    alt_text = (
        f"Shares of the variance of the test {evidence.metric.name} by source, for both arms and their difference"
    )
    return draw("variance", alt_text, lambda width: charts.shares(table, width=width))


def _grid(evidence: Evidence) -> Figure | None:
    attribute, metric = evidence.attribute, evidence.metric
    if attribute is None:
        return None
    cells = {name: np.asarray(attribute[name]["cells"], float) for name in ("candidate", "baseline", "difference")}
    cells |= {arm: cells[arm] * metric.sign for arm in ("candidate", "baseline")}
    inits, datas = attribute["init_seeds"], attribute["data_seeds"]
    alt_text = f"Test {metric.name} of every init seed with every data seed, for both arms, and their difference"
    return draw("grid", alt_text, lambda width: charts.heat(cells, inits, datas, width=width))


def _confirmation(evidence: Evidence) -> Figure | None:
    golden, metric = evidence.golden, evidence.metric
    if golden is None:
        return None
    several, who = len(golden["decisions"]) > 1, words.who(golden)
    colours = (LIGHT["rest"], LIGHT["golden"])
    table = [
        dots.Row(
            label=words.who(decision),
            values=golden["all_differences"][decision["name"]],
            mean=decision["difference"],
            notes=(decision["status"].replace("_", " ").lower(),),
        )
        for decision in golden["decisions"]
    ]

    def all_of_them(width: int) -> Chart:
        axis, margin = f"gain on fresh data seeds, {metric.unit}", golden["margin_useful"]
        heads = ("status",) if width > NARROW else ()
        return dots.rows(table, heads=heads, colours=colours, axis=axis, margin=margin, width=width)

    def one(width: int) -> Chart:
        return dots.differences(
            golden["differences"],
            golden["difference"],
            margin=golden["margin_useful"],
            margin_label="declared too small to be of use",
            sides=("fresh seeds better", f"{who} better"),
            colours=colours,
            axis=_difference(metric),
            width=width,
        )

    won = "; ".join(
        f"{words.who(decision)} wins on {decision['wins']} of {decision['n_data_seeds']} fresh data seeds, "
        f"mean gain {words.estimate(decision['difference'])} {metric.unit}"
        for decision in golden["decisions"]
    )
    return draw("confirmation", won, all_of_them if several else one)


def _ensemble(evidence: Evidence) -> Figure | None:
    found, metric = evidence.ensemble, evidence.metric
    if found is None:
        return None
    curves = {
        arm: [entry | {"loss": levels(metric, entry["loss"])} for entry in found[arm]["curve"]]
        for arm in ("candidate", "baseline")
    }
    if not all(curves.values()):
        return None
    alt_text = f"Test {metric.name} of ensembles by their size, and their gain over the best member"
    return draw("ensemble", alt_text, lambda width: charts.ensemble(curves, metric, width=width))
