"""The page of a judgement, as HTML and as Markdown: one content, judgement.j2, in the templates of the report."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from infinito.escape import markdown as as_markdown
from infinito.report.draw import DARK, LIGHT, Figure, css_colours
from infinito.report.judgement.pictures import LINES, PANELS, shown
from infinito.report.page import HERE, environment
from infinito.report.tables.table import Table
from infinito.report.words import estimate, number, p_value

VERDICTS = ("BETTER", "WORSE", "EQUIVALENT", "INCONCLUSIVE")
WORDS = {
    "BETTER": "The candidate is better: p, adjusted for all that was compared, is below the level.",
    "WORSE": "The baseline is better, by the same rule.",
    "EQUIVALENT": "The difference is shown to be smaller than the smallest one that matters.",
    "INCONCLUSIVE": "Neither is shown; or there are fewer than ten runs an arm. It does not say that there is no "
    "difference.",
}


def html(result: Mapping[str, Any], source: str, figures: Mapping[str, Figure]) -> str:
    """One file that opens offline: styles and charts inside, no script, nothing to fetch."""
    style = Markup((HERE / "report.css").read_text(encoding="utf-8"))
    context = _content(result, source, figures) | {
        "style": style,
        "light": css_colours(LIGHT),
        "dark": css_colours(DARK),
    }
    return environment().get_template("report.html.j2").render(context)


def markdown(result: Mapping[str, Any], source: str, figures: Mapping[str, Figure], folder: str) -> str:
    """The same content, with pictures in a folder."""
    escaping = environment()
    escaping.finalize = lambda x: Markup(as_markdown(x)) if isinstance(x, str) and not isinstance(x, Markup) else x
    text = escaping.get_template("report.md.j2").render(_content(result, source, figures) | {"charts": folder})
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _content(result: Mapping[str, Any], source: str, figures: Mapping[str, Figure]) -> dict[str, Any]:
    comparisons = result["comparisons"]
    counts = {kind: sum(one["verdict"] == kind for one in comparisons) for kind in VERDICTS}
    tested = [one for one in comparisons if one["p_value"] is not None]
    remarks = {
        _place(one, comparisons): [*one["remarks"]]
        for one in comparisons
        if one["remarks"] and one["p_value"] is not None
    }
    return {
        "body": "judgement.j2",
        "title": "What these runs show",
        "source": source,
        "result": result,
        "verdicts": WORDS,
        "counts": ", ".join(f"{n} {kind}" for kind, n in counts.items() if n),
        "untested": [one["sentence"] for one in comparisons if one["p_value"] is None],
        "remarks": remarks,
        "figures": figures,
        "runs": [name for name in figures if name.startswith("runs-")],
        "forests": [name for name in figures if name.startswith("forest-")],
        "hidden": max(0, len(set((one["task"], one["metric"]) for one in result["arms"])) - PANELS),
        "cut": [metric for metric, rows in shown(comparisons).items() if len(rows) == LINES],
        "tables": {
            "comparisons": _comparisons(tested),
            "arms": _arms(result["arms"]),
            "best": _best(result["best"]),
            "over": [_over(entry["comparisons"]) for entry in result["across_tasks"]],
        },
    }


def _place(one: Mapping[str, Any], comparisons: Sequence[Mapping[str, Any]]) -> str:
    parts = [f"{one['candidate']} against {one['baseline']}"]
    parts += [f"on {one['task']}"] if one["task"] else []
    parts += [f"by {one['metric']}"] if len({other["metric"] for other in comparisons}) > 1 else []
    return " ".join(parts)


def _gain(one: Mapping[str, Any]) -> str:
    if one["unit"] == "percentage points":
        return (
            estimate({key: 100 * x if x is not None and key != "n" else x for key, x in one["difference"].items()})
            + " pp"
        )
    return estimate(one["difference"])


def _comparisons(found: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        (
            one["candidate"],
            one["baseline"],
            one["task"],
            one["metric"],
            one["verdict"],
            f"{one['n_pairs']} pairs" if one["paired"] else f"{one['n_candidate']} + {one['n_baseline']}",
            _gain(one),
            p_value(one["p_value"]),
            p_value(one["p_adjusted"]),
            estimate(one["probability_of_improvement"]) if one["probability_of_improvement"] else "",
            "" if one["more_runs_for_80_percent_power"] is None else f"{one['more_runs_for_80_percent_power']:,}",
        )
        for one in found
    ]
    head = (
        "Candidate", "Baseline", "Task", "Metric", "Verdict", "Runs", "Gain", "p", "p, Holm", "P(better run)",
        "More runs",
    )  # fmt: skip
    return _without_empty(Table(head, rows, "lllllrrrrrr"))


def _arms(found: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        (
            one["arm"], one["task"], one["metric"], str(one["n"]), number(one["mean"], 5), number(one["sd"]),
            number(one["median"], 5), str(one["failed"] or ""),
        )
        for one in found
    ]  # fmt: skip
    head = ("Arm", "Task", "Metric", "Runs", "Mean", "SD", "Median", "Without a figure")
    return _without_empty(Table(head, rows, "lllrrrrr"))


def _best(found: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        (
            one["arm"], one["task"], one["metric"], f"{one['run']} of {one['tried']}", number(one["value"], 5),
            f"{one['in_sd']:.2f} sd", f"{one['expected_in_sd']:.2f} sd", f"{100 * one['chance_of_as_much']:.2g}%",
            "; ".join(f"number {other['rank']} of {other['of']} by {other['metric']}" for other in one["elsewhere"]),
        )
        for one in found
    ]  # fmt: skip
    head = ("Arm", "Task", "Metric", "Best run", "Figure", "Above the mean", "By luck", "As much by luck", "By others")
    return _without_empty(Table(head, rows, "llllrrrrl"))


def _over(found: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        (
            one["candidate"], one["baseline"], f"{one['wins']} / {one['ties']} / {one['losses']}",
            p_value(one["sign_test_p_adjusted"]),
            "" if one["wilcoxon_p"] is None else p_value(one["wilcoxon_p_adjusted"]),
            estimate(one["difference"]) if one["difference"] else "", estimate(one["probability_of_improvement"]),
        )
        for one in found
    ]  # fmt: skip
    head = (
        "Candidate", "Baseline", "Tasks won / equal / lost", "Sign test, Holm", "Wilcoxon, Holm",
        "Gain, sd of the runs", "P(better run)",
    )  # fmt: skip
    return _without_empty(Table(head, rows, "llrrrrr"))


def _without_empty(table: Table) -> Table:
    """Without columns in which nothing stands."""
    kept = [i for i in range(len(table.head)) if any(row[i] for row in table.rows)]
    rows = [tuple(row[i] for i in kept) for row in table.rows]
    return Table(tuple(table.head[i] for i in kept), rows, "".join(table.align[i] for i in kept))
