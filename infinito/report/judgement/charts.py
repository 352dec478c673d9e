"""The charts of a judgement: pure functions of what was judged, each for a width in pixels."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from infinito.report.dots import domain
from infinito.report.draw import LIGHT, NARROW, Chart

COLOURS = [LIGHT[name] for name in ("candidate", "baseline", "init", "data", "golden", "rest")]
VERDICTS = {
    "BETTER": LIGHT["candidate"], "WORSE": LIGHT["baseline"],
    "EQUIVALENT": LIGHT["init"], "INCONCLUSIVE": LIGHT["rest"],
}  # fmt: skip
ROW = 24  # pixels of a line
LETTERS = {True: 18, False: 40}  # of a name that is shown, on a telephone and else


def estimates(
    names: Sequence[str],
    found: Sequence[Mapping[str, Any]],
    colours: Sequence[str],
    axis: str,
    zero: bool,
    width: int,
) -> Chart:
    """Estimates with their intervals beneath one another.

    An interval may leave the chart where it would squeeze the others.

    Args:
        names: of the lines, each once.
        found: estimates, their ci_low and ci_high perhaps None.
        colours: of the lines.
        axis: what is drawn, in which unit.
        zero: whether zero means something.
    """
    labels = _short(names, width)
    table = pd.DataFrame({"label": labels, "colour": colours})
    for key in ("value", "ci_low", "ci_high"):
        table[key] = [np.nan if one[key] is None else float(one[key]) for one in found]
    low, high = _span(table, zero)
    for key in ("value", "ci_low", "ci_high"):
        table[key] = table[key].clip(low, high)
    scale, ticks = alt.Scale(domain=[low, high], nice=False), alt.Axis(tickCount=5)
    y_axis = alt.Axis(grid=False, labelColor=LIGHT["ink"], labelLimit=width)
    y = alt.Y("label:N", sort=None, title=None, axis=y_axis)
    colour = alt.Color("colour:N", scale=None)

    def x(field: str) -> alt.X:
        return alt.X(field, type="quantitative", title=axis, scale=scale, axis=ticks)

    sure = table.dropna(subset=["ci_low", "ci_high"])
    layers = [
        alt.Chart(sure).mark_rule(strokeWidth=2.5).encode(x=x("ci_low"), x2="ci_high", y=y, color=colour),
        alt.Chart(table).mark_point(filled=True, size=70, opacity=1).encode(x=x("value"), y=y, color=colour),
    ]
    if zero:
        line = alt.Chart(pd.DataFrame({"zero": [0.0]})).mark_rule(color=LIGHT["muted"]).encode(x=x("zero"))
        layers.insert(0, line)
    return alt.layer(*layers).properties(width=_side(labels, width), height=ROW * len(names))


def runs(arms: Mapping[str, ArrayLike], axis: str, width: int) -> Chart:
    """Every run as a dot, its arm's mean as a line.

    Args:
        arms: figures by arm, [n] each.
        axis: the metric.
    """
    labels = _short(list(arms), width)
    values = [np.asarray(x, float) for x in arms.values()]
    table = pd.DataFrame({"label": np.repeat(labels, [len(x) for x in values]), "value": np.concatenate(values)})
    table["colour"] = np.repeat(_colours(len(labels)), [len(x) for x in values])
    means = pd.DataFrame({"label": labels, "value": [x.mean() for x in values]})
    x = alt.X("value:Q", title=axis, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=5))
    y = alt.Y("label:N", sort=None, title=None, axis=alt.Axis(grid=False, labelColor=LIGHT["ink"], labelLimit=width))
    return alt.layer(
        alt.Chart(table).mark_circle(size=45, opacity=0.45).encode(x=x, y=y, color=alt.Color("colour:N", scale=None)),
        alt.Chart(means).mark_tick(thickness=2.5, size=18, color=LIGHT["ink"]).encode(x=x, y=y),
    ).properties(width=_side(labels, width), height=(ROW + 4) * len(labels))


def profiles(arms: Sequence[Mapping[str, Any]], axis: str, width: int) -> Chart:
    """Share of the runs above a score, a line an arm with its band (Agarwal et al. 2021, figure 2).

    Args:
        arms: arm, tau, share, low, high, the last three as long as tau.
        axis: what tau is.
    """
    table = pd.concat([pd.DataFrame({key: one[key] for key in ("arm", "tau", "share", "low", "high")}) for one in arms])
    order = [one["arm"] for one in arms]
    x = alt.X("tau:Q", title=axis, scale=alt.Scale(nice=False), axis=alt.Axis(tickCount=5))
    scale = alt.Scale(domain=[0, 1])
    y_axis = alt.Axis(format="~%", title="runs above it", titleAnchor="end")
    legend = alt.Legend(columns=1 if width <= NARROW else 4, symbolType="square")
    colour = alt.Color("arm:N", scale=alt.Scale(domain=order, range=_colours(len(order))), sort=order, legend=legend)
    base = alt.Chart(table)
    return alt.layer(
        alt.Chart(table.astype({"low": float, "high": float}).dropna())
        .mark_area(opacity=0.16)
        .encode(x=x, y=alt.Y("low:Q", scale=scale, axis=y_axis), y2="high:Q", color=colour),
        base.mark_line(strokeWidth=2).encode(x=x, y=alt.Y("share:Q", scale=scale, axis=y_axis), color=colour),
    ).properties(width=width - 58, height=260)


def _colours(n: int) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(n)]


def _short(names: Sequence[str], width: int) -> list[str]:
    """Names that fit, still each once."""
    most = LETTERS[width <= NARROW]
    cut = [name if len(name) <= most else f"{name[: most - 1]}…" for name in names]
    return [f"{name} ({i + 1})" if cut.count(name) > 1 else name for i, name in enumerate(cut)]


def _side(labels: Sequence[str], width: int) -> float:
    return max(width - 7.2 * max(len(label) for label in labels) - 24, 120.0)


def _span(table: pd.DataFrame, zero: bool) -> tuple[float, float]:
    """Of all estimates, and of intervals as far as they are not many times as wide as the others."""
    ends = table[["ci_low", "ci_high"]].to_numpy().ravel()
    ends = ends[np.isfinite(ends)]
    values = table["value"].dropna().to_numpy()
    shown = [*values, *([0.0] if zero else [])]
    if len(ends):
        low, high = np.quantile(ends, [0.1, 0.9])
        reach = high - low
        shown += list(np.clip(ends, low - reach, high + reach))
    return domain(shown)
