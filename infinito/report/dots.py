"""Dots along a line: one dot per pair of runs, so that every run behind a mean can be seen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from infinito.report import words
from infinito.report.draw import ARMS, LIGHT, NARROW, Chart


def _stack(values: np.ndarray, distance: float) -> np.ndarray:
    """Levels 0, 1, ... [n] that keep dots apart which are nearer than `distance`."""
    level = np.zeros(len(values), int)
    last: list[float] = []  # the rightmost dot of every level
    for i in np.argsort(values, kind="stable"):
        free = next((k for k, x in enumerate(last) if values[i] - x >= distance), len(last))
        last[free:] = [float(values[i]), *last[free + 1 :]]
        level[i] = free
    return level


def _dots(values: np.ndarray, span: float, width: int) -> tuple[np.ndarray, int]:
    """Heights of stacked dots [n] and their diameter, in pixels: small enough for a stack to stay low."""
    for diameter in (12, 9, 7, 5, 4, 3):
        level = _stack(values, span * diameter / width)
        if (level.max() + 1) * diameter <= 150:
            break
    return (level + 0.5) * diameter, diameter


def domain(values: Sequence[float]) -> tuple[float, float]:
    """The span of values, with some air."""
    low, high = float(min(values)), float(max(values))
    air = 0.06 * (high - low) or abs(high) or 1.0
    return low - air, high + air


@dataclass(frozen=True)
class _Strip:
    """A plot of one quantity along x; heights, in pixels above the lowest dots, carry no meaning."""

    low: float
    high: float
    bottom: float
    top: float
    axis: str

    def x(self, field: str) -> alt.X:
        scale = alt.Scale(domain=[self.low, self.high], nice=False)
        return alt.X(field, type="quantitative", scale=scale, axis=alt.Axis(title=self.axis, tickCount=5))

    @property
    def heights(self) -> alt.Scale:
        return alt.Scale(domain=[self.bottom, self.top], nice=False)

    def y(self, height: float) -> alt.YDatum:
        return alt.YDatum(height, scale=self.heights, axis=None)

    def rule(self, x: float, bottom: float, top: float, **settings: Any) -> alt.Chart:
        mark = alt.Chart(pd.DataFrame({"x": [x]})).mark_rule(**settings)
        return mark.encode(x=self.x("x"), y=self.y(bottom), y2=alt.Y2Datum(top))

    def dots(self, values: np.ndarray, height: np.ndarray, diameter: float, colours: tuple[str, str]) -> alt.Chart:
        """Values [n] as dots, in the colours of negative and positive ones; zeros in neither."""
        colour = np.select([values < 0, values > 0], colours, LIGHT["rest"])
        frame = pd.DataFrame({"x": values, "y": height, "colour": colour})
        mark = alt.Chart(frame).mark_circle(size=(diameter - 1.5) ** 2, opacity=0.85)
        y = alt.Y("y:Q", scale=self.heights, axis=None)
        return mark.encode(x=self.x("x"), y=y, color=alt.Color("colour:N", scale=None))

    def text(self, content: str, x: float, height: float, **settings: Any) -> alt.Chart:
        mark = alt.Chart(pd.DataFrame({"x": [x], "text": [content]})).mark_text(**settings)
        return mark.encode(x=self.x("x"), y=self.y(height), text="text:N")

    def place(self, x: float) -> float:
        """Where a value lies, from 0 at the left to 1 at the right."""
        return (x - self.low) / (self.high - self.low)


def differences(
    values: ArrayLike,
    mean: Mapping[str, Any],
    *,
    margin: float,
    margin_label: str,
    sides: tuple[str, str],
    colours: tuple[str, str],
    axis: str,
    width: int,
) -> Chart:
    """One dot per difference, zero, the mean with its interval, and a band of what is too small to matter.

    Args:
        values: differences [n], positive = better.
        mean: estimate of their mean.
        margin: half the width of the band; not drawn to its ends where it is far wider than the differences.
        margin_label: what lies inside it.
        sides: what negative and positive differences mean.
        colours: of negative and positive differences.
        axis: title of the axis.
        width: of the whole chart, pixels.
    """
    d = np.asarray(values, float)
    limits = [x for x in (mean["ci_low"], mean["ci_high"]) if x is not None]
    reach = np.abs([*d, *limits]).max()
    shown = [-margin, margin] if margin <= 16 * reach or reach == 0 else []
    low, high = domain([*d, *limits, 0.0, *shown])
    height, diameter = _dots(d, high - low, width)
    top = max(float(height.max()) + diameter, 40.0)
    strip = _Strip(low, high, -58, top + 30, axis)
    band = pd.DataFrame({"low": [max(-margin, low)], "high": [min(margin, high)]})
    estimate = pd.DataFrame([mean])
    layers = [
        alt.Chart(band)
        .mark_rect(color=LIGHT["band"])
        .encode(x=strip.x("low"), x2="high", y=strip.y(-58), y2=alt.Y2Datum(top + 8)),
        strip.rule(0, -27, top + 8, color=LIGHT["muted"]),
        strip.dots(d, height, diameter, colours),
        alt.Chart(estimate)
        .mark_point(shape="diamond", filled=True, size=120, color=LIGHT["ink"], opacity=1)
        .encode(x=strip.x("value"), y=strip.y(-18)),
    ]
    middle = mean["value"]
    if limits:
        middle = sum(limits) / 2
        bar = alt.Chart(estimate).mark_rule(color=LIGHT["ink"], strokeWidth=3, strokeCap="round")
        layers.append(bar.encode(x=strip.x("ci_low"), x2="ci_high", y=strip.y(-18)))
    label, place = f"mean {words.estimate(mean)}", strip.place(middle)
    if place < 0.3:
        layers.append(strip.text(label, low, -40, align="left", fontWeight=600))
    elif place > 0.7:
        layers.append(strip.text(label, high, -40, align="right", fontWeight=600))
    else:
        layers.append(strip.text(label, middle, -40, align="center", fontWeight=600))
    layers.append(strip.text(f"← {sides[0]}", low, top + 20, align="left", color=colours[0], fontWeight=600))
    layers.append(strip.text(f"{sides[1]} →", high, top + 20, align="right", color=colours[1], fontWeight=600))
    if (strip.place(0) - strip.place(band["low"][0])) * width > 190:  # there is room for the label
        layers.append(strip.text(margin_label, band["low"][0], top, align="left", dx=8, color=LIGHT["muted"]))
    return alt.layer(*layers).properties(width=width - 8, height=top + 88)


def last_batch(percent: ArrayLike, best: str, luck: float, *, width: int) -> Chart:
    """What a best-seed report looks at: percent per seed, the best one ringed, and what luck alone would show.

    Args:
        percent: improvement per pair [n], percent of the baseline's last training batch.
        best: label of the best.
        luck: expected best of n equally good seeds, percent.
    """
    values = np.asarray(percent, float)
    low, high = domain([*values, luck, 0.0])
    height, diameter = _dots(values, high - low, width)
    top = max(float(height.max()) + diameter, 30.0)
    strip = _Strip(low, high, -32, top + 24, "improvement on the last training batch, percent")
    i = int(values.argmax())
    layers = [
        strip.rule(0, -28, top, color=LIGHT["muted"]),
        strip.rule(luck, -28, top, color=LIGHT["ink"], strokeDash=[4, 3]),
        strip.dots(values, height, diameter, (ARMS["baseline"], ARMS["candidate"])),
        alt.Chart(pd.DataFrame({"x": [values[i]]}))
        .mark_point(size=(diameter + 6) ** 2, color=LIGHT["ink"], strokeWidth=1.5)
        .encode(x=strip.x("x"), y=strip.y(float(height[i]))),
    ]
    by_luck = f"best of {len(values)} by luck: {words.signed_percent(luck)}"
    for label, x, level, look in (
        (best, float(values[i]), top + 12, {"fontWeight": 600}),
        (by_luck, luck, -20.0, {"color": LIGHT["muted"]}),
    ):
        side = {"align": "left", "dx": 6} if strip.place(x) < 0.5 else {"align": "right", "dx": -6}
        layers.append(strip.text(label, x, level, **side, **look))
    return alt.layer(*layers).properties(width=width - 8, height=top + 56)


@dataclass(frozen=True)
class Row:
    """One line of a chart of several experiments, each with its own dots."""

    label: str
    values: Sequence[float]
    mean: Mapping[str, Any]  # estimate
    notes: Sequence[str]  # what stands to its right; the first one in bold
    ring: int | None = None  # index of the value to ring
    luck: float | None = None  # what the best value would be by luck alone


def rows(
    table: Sequence[Row],
    *,
    heads: Sequence[str],
    colours: tuple[str, str],
    axis: str,
    margin: float | None = None,
    width: int,
) -> Chart:
    """Experiments beneath one another on one scale: every value, the mean (with its interval), the best one ringed.

    What lies far outside of what most of them show is drawn as a triangle at the edge.

    Args:
        heads: what the notes of the rows are; the first one only on a telephone.
        colours: of negative and positive values.
        margin: half the width of a band of what is too small to matter.
    """
    count = len(heads) if width > NARROW else min(len(heads), 1)
    left, height = 7.0 * max(len(row.label) for row in table) + 12, 30
    columns = [7.2 * max(len(text) for text in (heads[k], *(r.notes[k] for r in table))) + 14 for k in range(count)]
    side = width - left - sum(columns) - 8
    low, high = _most(table, margin)
    bottom = len(table) * height
    middle = [(i + 0.4) * height for i in range(len(table))]
    beneath = [(i + 0.76) * height for i in range(len(table))]  # the mean, where it hides no dot
    x_scale, y_scale = alt.Scale(domain=[low, high], nice=False), alt.Scale(domain=[bottom, -20], nice=False)
    x = alt.X("x:Q", scale=x_scale, axis=alt.Axis(title=axis, tickCount=5))
    y = alt.Y("y:Q", scale=y_scale, axis=None)

    def points(values: ArrayLike, heights: ArrayLike, at: str = "circle", **settings: Any) -> alt.Chart:
        v = np.asarray(values, float)
        shape = np.select([v < low, v > high], ["triangle-left", "triangle-right"], at)
        frame = pd.DataFrame({"x": np.clip(v, low, high), "y": heights, "shape": shape})
        return alt.Chart(frame).mark_point(**settings).encode(x=x, y=y, shape=alt.Shape("shape:N", scale=None))

    def rules(x1: ArrayLike, y1: ArrayLike, end: ArrayLike, towards: str, **settings: Any) -> alt.Chart:
        frame = pd.DataFrame({"x": np.asarray(x1, float), "y": y1, "end": end})
        return alt.Chart(frame).mark_rule(**settings).encode(**{"x": x, "y": y, towards: "end"})

    def texts(content: Sequence[str], place: float, heights: ArrayLike, **settings: Any) -> alt.Chart:
        frame = pd.DataFrame({"text": content, "y": heights})
        return alt.Chart(frame).mark_text(align="right", **settings).encode(x=alt.value(place), y=y, text="text:N")

    values = np.concatenate([np.asarray(row.values, float) for row in table])
    heights = np.repeat(middle, [len(row.values) for row in table])
    ringed = [(row.values[row.ring], h) for row, h in zip(table, middle, strict=True) if row.ring is not None]
    lucky = [(i * height, row.luck) for i, row in enumerate(table) if row.luck is not None and low <= row.luck <= high]
    sure = [(row.mean, h) for row, h in zip(table, beneath, strict=True) if row.mean.get("ci_low") is not None]
    layers = [rules([0.0], [0], [bottom], "y2", color=LIGHT["muted"])]
    if margin:
        band = pd.DataFrame({"x": [max(-margin, low)], "end": [min(margin, high)], "y": [0], "bottom": [bottom]})
        layers.insert(0, alt.Chart(band).mark_rect(color=LIGHT["band"]).encode(x=x, x2="end", y=y, y2="bottom"))
    for sign, colour in ((-1, colours[0]), (1, colours[1]), (0, LIGHT["rest"])):
        here = np.sign(values) == sign
        layers.append(points(values[here], heights[here], filled=True, size=60, opacity=0.6, color=colour))
    ring_values, ring_heights = [v for v, _ in ringed], [h for _, h in ringed]
    layers.append(points(ring_values, ring_heights, size=190, color=LIGHT["ink"], strokeWidth=1.6))
    tops = np.array([top for top, _ in lucky])
    layers.append(rules([luck for _, luck in lucky], tops + 1, tops + 23, "y2", color=LIGHT["ink"], strokeDash=[3, 2]))
    lows, highs = ([np.clip(mean[end], low, high) for mean, _ in sure] for end in ("ci_low", "ci_high"))
    bars = {"color": LIGHT["ink"], "strokeWidth": 2.5, "strokeCap": "round"}
    layers.append(rules(lows, [h for _, h in sure], highs, "x2", **bars))
    means = [row.mean["value"] for row in table]
    layers.append(points(means, beneath, at="diamond", filled=True, size=90, color=LIGHT["ink"], opacity=1))
    layers.append(texts([row.label for row in table], -10, middle, color=LIGHT["muted"]))
    for k in range(count):
        place = side + sum(columns[: k + 1])
        look = {"fontWeight": 600} if k == 0 else {"color": LIGHT["muted"]}
        layers.append(texts([row.notes[k] for row in table], place, middle, **look))
        layers.append(texts([heads[k]], place, [-10.0], color=LIGHT["muted"]))
    return alt.layer(*layers).properties(width=side, height=bottom + 20)


def _most(table: Sequence[Row], margin: float | None) -> tuple[float, float]:
    """The span of what is worth showing: without the few values that would squeeze all others into one spot."""
    values = np.concatenate([np.asarray(row.values, float) for row in table])
    ends = [row.mean.get(key) for row in table for key in ("ci_low", "ci_high")]
    other = [x for x in (*ends, *(row.luck for row in table), margin, -margin if margin else None) if x is not None]
    most = np.quantile(values, [0.05, 0.95])
    reach = float(most[1] - most[0])
    limits = [float(np.clip(x, most[0] - reach, most[1] + reach)) for x in (*values, *other)]
    return domain([0.0, *limits, *(float(row.values[row.ring]) for row in table if row.ring is not None)])
