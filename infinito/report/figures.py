"""Which charts a report has, and what each is drawn from."""

import pandas as pd

from infinito.report import charts, dots, words
from infinito.report.draw import LIGHT, Chart, Figure, draw
from infinito.report.evidence import Evidence

DIFFERENCE = f"difference of test loss, {charts.NATS}"


def draw_all(evidence: Evidence) -> dict[str, Figure]:
    """Every figure by its name; one that has nothing to show is left out."""
    figures = [make(evidence) for make in (_pairs, _last_batch, _learning, _variance, _grid, _confirmation, _ensemble)]
    return {figure.name: figure for figure in figures if figure is not None}


def _pairs(evidence: Evidence) -> Figure:
    compare, margin = evidence.compare, evidence.compare["equivalence"]["smallest_effect"]

    def chart(width: int) -> Chart:
        return dots.differences(
            evidence.differences,
            compare["difference"],
            margin=margin,
            margin_label="declared too small to matter",
            sides=("baseline better", "candidate better"),
            colours=(LIGHT["baseline"], LIGHT["candidate"]),
            axis=DIFFERENCE,
            width=width,
        )

    won = f"{compare['wins']} of {compare['n_pairs']} pairs are won by the candidate"
    return draw("differences", f"{won}; mean difference {words.estimate(compare['difference'])} {charts.NATS}", chart)


def _last_batch(evidence: Evidence) -> Figure:
    claimed = evidence.compare["report_protocol"]
    best = f"seed {claimed['best_seed']}: {words.signed_percent(claimed['best_percent'])}"
    luck = claimed["expected_best_by_luck"]

    def chart(width: int) -> Chart:
        return dots.last_batch(evidence.last_batch_percent, best, luck, width=width)

    alt_text = f"Improvement on the last training batch per seed; best {best}, by luck {words.signed_percent(luck)}"
    return draw("last_batch", alt_text, chart)


def _learning(evidence: Evidence) -> Figure | None:
    pairs = pd.concat([evidence.candidate, evidence.baseline])
    curves = evidence.curves[evidence.curves["split"] == "validation"]
    bands = charts.learning_curves(curves.merge(pairs.loc[~pairs["diverged"], ["run_id", "arm"]], on="run_id"))
    if bands.empty:
        return None
    alt_text = "Validation loss of both arms over the training steps, mean and 10-90% band"
    return draw("learning_curves", alt_text, lambda width: charts.learning(bands, width=width))


def _variance(evidence: Evidence) -> Figure | None:
    colours = {"init": LIGHT["init"], "data": LIGHT["data"], "interaction": LIGHT["line"]}
    table = pd.DataFrame(
        [
            {
                "of": of,
                "source": words.SOURCES[source],
                "share": component["share"],
                "colour": colours.get(source, LIGHT["rest"]),
            }
            for of in ("candidate", "baseline", "difference")
            for source, component in evidence.attribute[of]["components"].items()
            if component["share"] is not None
        ]
    )
    if table.empty:
        return None
    alt_text = "Shares of the variance of the test loss by source, for both arms and their difference"
    return draw("variance", alt_text, lambda width: charts.shares(table, width=width))


def _grid(evidence: Evidence) -> Figure:
    cells = {name: evidence.attribute[name]["cells"] for name in ("candidate", "baseline", "difference")}
    inits, datas = evidence.attribute["init_seeds"], evidence.attribute["data_seeds"]
    alt_text = "Test loss of every init seed with every data seed, for both arms, and their difference"
    return draw("grid", alt_text, lambda width: charts.heat(cells, inits, datas, width=width))


def _confirmation(evidence: Evidence) -> Figure:
    golden = evidence.golden

    def chart(width: int) -> Chart:
        return dots.differences(
            golden["differences"],
            golden["difference"],
            margin=golden["margin_useful"],
            margin_label="declared too small to be of use",
            sides=("fresh seeds better", f"seed {golden['golden_init_seed']} better"),
            colours=(LIGHT["rest"], LIGHT["golden"]),
            axis=DIFFERENCE,
            width=width,
        )

    won = f"The selected seed wins on {golden['wins']} of {golden['n_data_seeds']} fresh data seeds"
    return draw("confirmation", f"{won}; mean gain {words.estimate(golden['difference'])} {charts.NATS}", chart)


def _ensemble(evidence: Evidence) -> Figure | None:
    curves = {arm: evidence.ensemble[arm]["curve"] for arm in ("candidate", "baseline")}
    if not all(curves.values()):
        return None
    alt_text = "Test loss of ensembles by their size, and their gain over the best member"
    return draw("ensemble", alt_text, lambda width: charts.ensemble(curves, width=width))
