"""The charts: pure functions of tables, each for a width in pixels. Colours are those of `draw.LIGHT`."""

import math
import os.path
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from infinito.report import words
from infinito.report.draw import LIGHT, NARROW

ARMS = {"candidate": LIGHT["candidate"], "baseline": LIGHT["baseline"]}
NATS = "nats per token"
LEFT = 58  # pixels for the axis of a panel


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


def _domain(values: Sequence[float | None]) -> tuple[float, float]:
    """The span of the values that are there, with some air."""
    there = [x for x in values if x is not None and math.isfinite(x)]
    low, high = min(there), max(there)
    air = 0.06 * (high - low) or abs(high) or 1.0
    return low - air, high + air


def differences(
    values: ArrayLike,
    mean: Mapping[str, Any],
    *,
    margin: tuple[float, float],
    sides: tuple[str, str],
    colours: tuple[str, str],
    axis: str,
    width: int,
) -> alt.LayerChart:
    """One dot per difference, zero, the mean with its interval, and a band of what is too small to matter.

    Args:
        values: differences [n], positive = better.
        mean: estimate of their mean.
        margin: the band; not drawn to its ends where it is far wider than the differences.
        sides: what negative and positive differences mean.
        colours: of negative and positive differences.
        axis: title of the axis.
        width: of the whole chart, pixels.
    """
    d = np.asarray(values, float)
    reach = max(np.abs(d).max(), *(abs(mean[key] or 0.0) for key in ("ci_low", "ci_high")))
    shown = [x for x in margin if abs(x) <= 16 * reach or reach == 0]
    low, high = _domain([*d, mean["ci_low"], mean["ci_high"], 0.0, *shown])
    height, diameter = _dots(d, high - low, width)
    top = max(height.max() + diameter, 40)
    x_scale, y_scale = alt.Scale(domain=[low, high], nice=False), alt.Scale(domain=[-58, top + 30], nice=False)

    def x(field: str) -> alt.X:
        return alt.X(field, type="quantitative", scale=x_scale).axis(title=axis, tickCount=5, format="~g")

    def y(value: float) -> alt.YDatum:
        return alt.YDatum(value, scale=y_scale, axis=None)

    def text(content: str, at: float, level: float, **settings: Any) -> alt.Chart:
        frame = pd.DataFrame({"x": [min(max(at, low), high)], "text": [content]})
        return alt.Chart(frame).mark_text(**settings).encode(x=x("x"), y=y(level), text="text:N")

    band = pd.DataFrame({"low": [max(margin[0], low)], "high": [min(margin[1], high)]})
    one = pd.DataFrame({"zero": [0.0], **{key: [mean[key]] for key in ("value", "ci_low", "ci_high")}})
    dots = pd.DataFrame({"x": d, "y": height, "colour": np.where(d > 0, colours[1], colours[0])})
    layers: list[alt.Chart] = [
        alt.Chart(band).mark_rect(color=LIGHT["band"]).encode(x=x("low"), x2="high", y=y(-58), y2=alt.Y2Datum(top + 8)),
        alt.Chart(one).mark_rule(color=LIGHT["muted"]).encode(x=x("zero"), y=y(-58), y2=alt.Y2Datum(top + 8)),
        alt.Chart(dots)
        .mark_circle(size=(diameter - 1.5) ** 2, opacity=0.85)
        .encode(x=x("x"), y=alt.Y("y:Q", scale=y_scale, axis=None), color=alt.Color("colour:N", scale=None)),
    ]
    if mean["ci_low"] is not None:
        layers.append(
            alt.Chart(one)
            .mark_rule(color=LIGHT["ink"], strokeWidth=3, strokeCap="round")
            .encode(x=x("ci_low"), x2="ci_high", y=y(-18))
        )
    layers.append(
        alt.Chart(one)
        .mark_point(shape="diamond", filled=True, size=120, color=LIGHT["ink"], opacity=1)
        .encode(x=x("value"), y=y(-18))
    )
    centre = mean["value"] if mean["ci_low"] is None else (max(mean["ci_low"], low) + min(mean["ci_high"], high)) / 2
    side = (centre - low) / (high - low)
    anchor, at = ("left", low) if side < 0.3 else ("right", high) if side > 0.7 else ("center", centre)
    layers.append(text(f"mean {words.estimate(mean)}", at, -40, align=anchor, fontWeight=600))
    layers.append(text(f"← {sides[0]}", low, top + 20, align="left", color=colours[0], fontWeight=600))
    layers.append(text(f"{sides[1]} →", high, top + 20, align="right", color=colours[1], fontWeight=600))
    if (band["high"] - band["low"])[0] / (high - low) * width > 200:
        layers.append(
            text("declared too small to matter", band["low"][0], top, align="left", dx=8, color=LIGHT["muted"])
        )
    return alt.layer(*layers).properties(width=width - 8, height=top + 88)


def last_batch(percent: ArrayLike, best: str, luck: float, *, width: int) -> alt.LayerChart:
    """What a best-seed report looks at: percent per seed, the best one ringed, and what luck alone would show.

    Args:
        percent: improvement per pair [n], percent of the baseline's last training batch.
        best: label of the best.
        luck: expected best of n equally good seeds, percent.
    """
    values = np.asarray(percent, float)
    low, high = _domain([*values, luck, 0.0])
    height, diameter = _dots(values, high - low, width)
    top = max(height.max() + diameter, 30)
    x_scale, y_scale = alt.Scale(domain=[low, high], nice=False), alt.Scale(domain=[-32, top + 24], nice=False)

    def x(field: str) -> alt.X:
        return alt.X(field, type="quantitative", scale=x_scale).axis(
            title="improvement on the last training batch, percent", tickCount=5, format="~g"
        )

    def y(value: float) -> alt.YDatum:
        return alt.YDatum(value, scale=y_scale, axis=None)

    def text(content: str, at: float, level: float, **settings: Any) -> alt.Chart:
        side = (at - low) / (high - low)
        anchor, dx = ("left", 6) if side < 0.5 else ("right", -6)
        frame = pd.DataFrame({"x": [at], "text": [content]})
        mark = alt.Chart(frame).mark_text(align=anchor, dx=dx, **settings)
        return mark.encode(x=x("x"), y=y(level), text="text:N")

    i = int(values.argmax())
    colour = np.where(values > 0, ARMS["candidate"], ARMS["baseline"])
    dots = pd.DataFrame({"x": values, "y": height, "colour": colour})
    ring = pd.DataFrame({"x": [values[i]], "y": [height[i]]})
    rules = pd.DataFrame({"zero": [0.0], "luck": [luck]})
    quantity = alt.Y("y:Q", scale=y_scale, axis=None)
    return alt.layer(
        alt.Chart(rules).mark_rule(color=LIGHT["muted"]).encode(x=x("zero"), y=y(-28), y2=alt.Y2Datum(top)),
        alt.Chart(rules)
        .mark_rule(color=LIGHT["ink"], strokeDash=[4, 3])
        .encode(x=x("luck"), y=y(-28), y2=alt.Y2Datum(top)),
        alt.Chart(dots)
        .mark_circle(size=(diameter - 1.5) ** 2, opacity=0.85)
        .encode(x=x("x"), y=quantity, color=alt.Color("colour:N", scale=None)),
        alt.Chart(ring)
        .mark_point(size=(diameter + 6) ** 2, color=LIGHT["ink"], strokeWidth=1.5)
        .encode(x=x("x"), y=quantity),
        text(best, float(values[i]), top + 12, fontWeight=600),
        text(f"best by luck alone: {words.signed_percent(luck)}", luck, -20, color=LIGHT["muted"]),
    ).properties(width=width - 8, height=top + 56)


def learning_curves(curves: pd.DataFrame) -> pd.DataFrame:
    """Mean and 10-90 % band of the validation loss, per arm and step.

    Args:
        curves: arm, step, value: one row per run and step.

    Returns:
        arm, step, mean, low, high.
    """
    there = curves[np.isfinite(curves["value"])]
    by = there.groupby(["arm", "step"], sort=True)["value"]
    return pd.DataFrame({"mean": by.mean(), "low": by.quantile(0.1), "high": by.quantile(0.9)}).reset_index()


def learning(bands: pd.DataFrame, *, width: int) -> alt.LayerChart:
    """Learning curves: the mean as a line, the middle 80 % of runs as a band. Takes `learning_curves`."""
    height = 300
    low, high = float(bands["low"].min()), float(bands["high"].max())
    logarithmic = low > 0 and high > 3 * low
    scale = alt.Scale(type="log", nice=False) if logarithmic else alt.Scale(zero=False)
    ticks = {"values": _ticks(low, high)} if logarithmic else {"tickCount": 5}
    title = f"validation loss, {NATS}" + (" (log scale)" if logarithmic else "")
    y_axis = alt.Axis(title=title, format="~g", titleAnchor="end", **ticks)
    x = alt.X("step:Q", title="training step", axis=alt.Axis(tickCount=5), scale=alt.Scale(nice=False))
    colour = alt.Color("arm:N", scale=alt.Scale(domain=list(ARMS), range=list(ARMS.values())), legend=None)
    last = bands[bands["step"] == bands["step"].max()].copy()
    last["label"] = _apart(last["mean"].to_numpy(), low, high, 16 / height, logarithmic)
    base = alt.Chart(bands)
    return alt.layer(
        base.mark_area(opacity=0.16).encode(x=x, y=alt.Y("low:Q", scale=scale, axis=y_axis), y2="high:Q", color=colour),
        # the line beneath is the wider one: where the arms agree, both can be seen
        *(
            alt.Chart(bands[bands["arm"] == arm])
            .mark_line(strokeWidth=stroke)
            .encode(x=x, y=alt.Y("mean:Q", scale=scale, axis=y_axis), color=colour)
            for arm, stroke in (("baseline", 4.5), ("candidate", 1.8))
        ),
        alt.Chart(last)
        .mark_text(align="left", dx=6, fontWeight=600)
        .encode(x=x, y=alt.Y("label:Q", scale=scale, axis=y_axis), text="arm:N", color=colour),
    ).properties(width=width - LEFT - 70, height=height)


def _ticks(low: float, high: float) -> list[float]:
    """1, 2, 5 times the powers of ten between two positive numbers; more of them where these are few."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8)):
        ticks = [digit * 10.0**power for power in powers for digit in digits if low <= digit * 10.0**power <= high]
        if len(ticks) >= 4:
            break
    return ticks


def _apart(values: np.ndarray, low: float, high: float, gap: float, logarithmic: bool) -> np.ndarray:
    """Two values moved from each other until `gap` of the axis lies between them, so that their labels can be read."""
    if len(values) != 2:
        return values
    move = np.log if logarithmic else np.asarray
    a, b = (float(x) for x in move(values))
    need = gap * float(move(high) - move(low)) - abs(a - b)
    push = max(need, 0.0) / 2 * (1 if a >= b else -1)
    moved = np.array([a + push, b - push])
    return np.exp(moved) if logarithmic else moved


def shares(table: pd.DataFrame, *, width: int) -> alt.LayerChart:
    """Shares of the variance, one bar per quantity.

    Args:
        table: of (candidate, baseline, difference), source, share, colour; in the order to draw.
    """
    order = list(dict.fromkeys(table["of"]))
    sources = table.drop_duplicates("source")
    shown = table.copy()
    shown["end"] = shown.groupby("of")["share"].cumsum()
    shown["middle"] = shown["end"] - shown["share"] / 2
    shown["start"] = shown["end"] - shown["share"]
    left = 76
    shown["label"] = [words.percent(x) if x * (width - left) > 34 else "" for x in shown["share"]]
    x = alt.X("start:Q", title="share of the variance", scale=alt.Scale(domain=[0, 1], nice=False))
    y = alt.Y("of:N", title=None, sort=order, axis=alt.Axis(grid=False, labelColor=LIGHT["ink"], labelFontSize=13))
    colour = alt.Color(
        "source:N",
        scale=alt.Scale(domain=list(sources["source"]), range=list(sources["colour"])),
        legend=alt.Legend(title=None, columns=1 if width <= NARROW else 3),
    )
    percent = alt.Axis(format="~%", values=[0, 0.25, 0.5, 0.75, 1])
    return alt.layer(
        alt.Chart(shown).mark_bar(height=26).encode(x=x.axis(percent), x2="end:Q", y=y, color=colour),
        alt.Chart(shown)
        .mark_text(color=LIGHT["paper"], fontWeight=600)
        .encode(x=alt.X("middle:Q", axis=percent), y=y, text="label:N"),
    ).properties(width=width - left - 14, height=alt.Step(42))


def heat(
    cells: Mapping[str, ArrayLike], init_seeds: Sequence[int], data_seeds: Sequence[int], *, width: int
) -> alt.HConcatChart | alt.VConcatChart:
    """The grid of seeds: the loss of both arms, and their difference, one cell per run (pair).

    The stronger the colour, the higher the loss; in the difference, the larger, in the colour of the better arm.

    Args:
        cells: candidate, baseline, difference: [init seeds, data seeds], nats per token.
    """
    y = {name: np.asarray(values, float) for name, values in cells.items()}
    losses = np.concatenate([y["candidate"].ravel(), y["baseline"].ravel()])
    lowest, span = losses.min(), np.ptp(losses) or 1.0
    largest = np.abs(y["difference"]).max() or 1.0
    unit = 1000 if largest < 0.01 else 1
    titles = {"difference": f"difference × {unit}" if unit > 1 else "difference"}
    strength = {arm: 0.06 + 0.6 * (y[arm] - lowest) / span for arm in ARMS}
    strength["difference"] = 0.66 * np.abs(y["difference"]) / largest
    stacked = width <= NARROW
    side = (width - LEFT) if stacked else (width - LEFT - 2 * 16) / 3
    panels = [
        _heat_panel(
            titles.get(name, name),
            y[name] * unit if name == "difference" else y[name],
            strength[name],
            ARMS.get(name),
            init_seeds,
            data_seeds,
            side,
            stacked or i == 0,
        )
        for i, name in enumerate(("candidate", "baseline", "difference"))
    ]
    return alt.vconcat(*panels, spacing=18) if stacked else alt.hconcat(*panels, spacing=16)


def _heat_panel(
    title: str,
    y: np.ndarray,
    strength: np.ndarray,
    colour: str | None,
    init_seeds: Sequence[int],
    data_seeds: Sequence[int],
    side: float,
    labelled: bool,
) -> alt.LayerChart:
    """One panel; without a colour of its own it shows signed values, each in the colour of the better arm."""
    rows, columns = y.shape
    decimals = min(max(1 - math.floor(math.log10(np.ptp(y) or 1.0)), 0), 4)
    frame = pd.DataFrame(
        {
            "init": np.repeat(_short(init_seeds)[1], columns),
            "data": np.tile(_short(data_seeds)[1], rows),
            "strength": strength.ravel(),
            "colour": colour or np.where(y.ravel() > 0, ARMS["candidate"], ARMS["baseline"]),
            "text": [f"{v:{'' if colour else '+'}.{decimals}f}".replace("-", words.MINUS) for v in y.ravel()],
        }
    )
    x_axis = alt.Axis(labelAngle=0, grid=False)
    x = alt.X("data:N", sort=None, title=f"data seed {_short(data_seeds)[0]}", axis=x_axis)
    y_axis = alt.Axis(grid=False) if labelled else None
    init = alt.Y("init:N", sort=None, title=f"init seed {_short(init_seeds)[0]}", axis=y_axis)
    layers = [
        alt.Chart(frame)
        .mark_rect(stroke=LIGHT["paper"], strokeWidth=2)
        .encode(
            x=x, y=init, fill=alt.Fill("colour:N", scale=None), fillOpacity=alt.FillOpacity("strength:Q", scale=None)
        )
    ]
    if side / columns >= 38:
        size = 11 if side / columns < 50 else 12
        layers.append(alt.Chart(frame).mark_text(fontSize=size).encode(x=x, y=init, text="text:N"))
    return alt.layer(*layers).properties(
        width=side,
        height=min(side / columns, 44) * rows,
        title=alt.Title(title, color=colour or LIGHT["ink"], frame="group"),
    )


def _short(seeds: Sequence[int]) -> tuple[str, list[str]]:
    """What the names of seeds have in common, and the rest of each."""
    names = [str(seed) for seed in seeds]
    common = os.path.commonprefix(names)
    if len(common) < 4 or any(name == common for name in names):
        return "", names
    return f"{common}…", [f"…{name[len(common) :]}" for name in names]


def ensemble(curves: Mapping[str, Sequence[Mapping[str, Any]]], *, width: int) -> alt.HConcatChart | alt.VConcatChart:
    """What more members bring: the loss, and the gain over the member that looked best on the validation set.

    Args:
        curves: per arm the entries of an ensemble curve.
    """
    stacked = width <= NARROW
    side = (width - LEFT - 10) if stacked else (width - 2 * LEFT - 30) / 2
    panels = [
        _ensemble_panel(curves, "loss", f"test loss, {NATS}", side),
        _ensemble_panel(curves, "gain_over_best_member", f"gain over the best member, {NATS}", side),
    ]
    return alt.vconcat(*panels, spacing=24) if stacked else alt.hconcat(*panels, spacing=30)


def _ensemble_panel(
    curves: Mapping[str, Sequence[Mapping[str, Any]]], key: str, title: str, side: float
) -> alt.LayerChart:
    rows = [
        {"arm": arm, "size": entry["size"], "groups": entry["groups"], "shift": shift, **entry[key]}
        for (arm, curve), shift in zip(curves.items(), (-0.025, 0.025), strict=True)
        for entry in curve
    ]
    frame = pd.DataFrame(rows)
    frame["x"] = frame["size"] * np.exp(2 * frame["shift"])
    sizes = sorted(set(frame["size"]))
    # an interval from 2 groups is so wide that nothing else could be seen: it may leave the chart
    sure = frame[frame["groups"] > 2]
    limits = [*frame["value"], *sure["ci_low"].dropna(), *sure["ci_high"].dropna()]
    low, high = _domain(limits if key == "loss" else [*limits, 0.0])
    frame["low"], frame["high"] = frame["ci_low"].clip(low, high), frame["ci_high"].clip(low, high)
    x_scale = alt.Scale(type="log", domain=[sizes[0] / 1.15, sizes[-1] * 1.15], nice=False)
    x = alt.X("x:Q", title="members of the ensemble", scale=x_scale, axis=alt.Axis(values=sizes, format="~g"))
    y_scale = alt.Scale(domain=[low, high], nice=False)
    y_axis = alt.Axis(title=title, format="~g", tickCount=5, titleAnchor="end")

    def y(field: str) -> alt.Y:
        return alt.Y(field, type="quantitative", scale=y_scale, axis=y_axis)

    legend = alt.Legend(symbolType="circle", symbolStrokeWidth=0, symbolOpacity=1)
    colour = alt.Color("arm:N", scale=alt.Scale(domain=list(ARMS), range=list(ARMS.values())), legend=legend)
    base = alt.Chart(frame)
    layers = [
        alt.Chart(frame.dropna(subset=["ci_low"]))
        .mark_rule(strokeWidth=2, opacity=0.55)
        .encode(x=x, y=y("low"), y2="high", color=colour),
        base.mark_line(strokeWidth=1.6).encode(x=x, y=y("value"), color=colour),
        base.mark_circle(size=60, opacity=1).encode(x=x, y=y("value"), color=colour),
    ]
    if key != "loss":
        zero = alt.Chart(pd.DataFrame({"zero": [0.0]})).mark_rule(color=LIGHT["muted"])
        layers.insert(0, zero.encode(y=y("zero")))
    return alt.layer(*layers).properties(width=side, height=230)
