"""The other charts: pure functions of tables, each for a width in pixels. Colours are those of `draw.LIGHT`."""

import math
import os.path
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from infinito.report import words
from infinito.report.dots import domain
from infinito.report.draw import ARMS, LIGHT, NARROW, Chart
from infinito.tasks import Metric

LEFT = 58  # pixels for the axis of a panel


def learning_curves(curves: pd.DataFrame) -> pd.DataFrame:
    """Mean and 10-90 % band of a metric, per arm and step.

    Args:
        curves: arm, step, value: one row per run and step.

    Returns:
        arm, step, mean, low, high.
    """
    there = curves[np.isfinite(curves["value"])]
    by = there.groupby(["arm", "step"], sort=True)["value"]
    return pd.DataFrame({"mean": by.mean(), "low": by.quantile(0.1), "high": by.quantile(0.9)}).reset_index()


def learning(bands: pd.DataFrame, *, title: str, width: int) -> Chart:
    """Learning curves: the mean as a line, the middle 80 % of runs as a band. Takes `learning_curves`."""
    height = 300
    low, high = float(bands["low"].min()), float(bands["high"].max())
    logarithmic = low > 0 and high > 3 * low
    scale = alt.Scale(type="log", nice=False) if logarithmic else alt.Scale(zero=False)
    ticks = {"values": _ticks(low, high), "format": "~g"} if logarithmic else {"tickCount": 5}
    title += " (log scale)" if logarithmic else ""
    y_axis = alt.Axis(title=title, titleAnchor="end", **ticks)
    x = alt.X("step:Q", title="training step", axis=alt.Axis(tickCount=5, tickMinStep=1), scale=alt.Scale(nice=False))
    colour = alt.Color("arm:N", scale=alt.Scale(domain=list(ARMS), range=list(ARMS.values())), legend=None)
    last = bands[bands["step"] == bands["step"].max()].copy()
    last["label"] = _apart(last["mean"].to_numpy(), low, high, 16 / height, logarithmic)
    base = alt.Chart(bands)
    return alt.layer(
        base.mark_area(opacity=0.16).encode(x=x, y=alt.Y("low:Q", scale=scale, axis=y_axis), y2="high:Q", color=colour),
        *(
            alt.Chart(bands[bands["arm"] == arm])
            .mark_line(strokeWidth=stroke)
            .encode(x=x, y=alt.Y("mean:Q", scale=scale, axis=y_axis), color=colour)
            for arm, stroke in (("baseline", 4.5 if _coincide(bands, logarithmic) else 2.2), ("candidate", 2.2))
        ),
        alt.Chart(last)
        .mark_text(align="left", dx=6, fontWeight=600)
        .encode(x=x, y=alt.Y("label:Q", scale=scale, axis=y_axis), text="arm:N", color=colour),
    ).properties(width=width - LEFT - 62, height=height)


def _coincide(bands: pd.DataFrame, logarithmic: bool) -> bool:
    """Whether one line would hide the other; then the one beneath has to be wider."""
    mean = bands.pivot(index="step", columns="arm", values="mean")
    if len(mean.columns) < 2:
        return False
    seen = np.log(mean) if logarithmic else mean
    apart = (seen["candidate"] - seen["baseline"]).abs().median()
    return bool(apart <= 0.01 * (seen.max().max() - seen.min().min()))


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


def shares(table: pd.DataFrame, *, width: int) -> Chart:
    """Shares of the variance with their intervals, one panel per quantity and one bar per source.

    Args:
        table: of (candidate, baseline, difference), source, share, low, high (not a number without an interval),
            colour; in the order to draw.
    """
    stacked = width <= NARROW
    labels = 8.0 * table["source"].str.len().max()
    figures = 40.0  # to the right of the bars
    panels = list(dict.fromkeys(table["of"]))
    side = width - labels - figures if stacked else (width - labels) / len(panels) - figures
    drawn = [
        _share_panel(of, table[table["of"] == of], side, stacked or of == panels[0])  # one reading of the labels
        for of in panels
    ]
    return alt.vconcat(*drawn, spacing=18) if stacked else alt.hconcat(*drawn, spacing=figures)


def _share_panel(title: str, table: pd.DataFrame, side: float, labelled: bool) -> Chart:
    shown = table.assign(label=[words.percent(x) for x in table["share"]], zero=0.0)
    percent = alt.Axis(format="~%", values=[0, 0.5, 1], title="share of the variance", titleAnchor="start")
    scale = alt.Scale(domain=[0, 1], nice=False)
    axis = alt.Axis(grid=False, labelColor=LIGHT["ink"], labelLimit=300) if labelled else None
    y = alt.Y("source:N", title=None, sort=list(table["source"]), axis=axis)

    def x(field: str) -> alt.X:
        return alt.X(field, type="quantitative", scale=scale, axis=percent)

    base = alt.Chart(shown)
    return alt.layer(
        base.mark_bar(height=12, opacity=0.9).encode(
            x=x("zero"), x2="share", y=y, color=alt.Color("colour:N", scale=None)
        ),
        alt.Chart(shown.dropna(subset=["low"]))
        .mark_rule(color=LIGHT["ink"], strokeWidth=1.6)
        .encode(x=x("low"), x2="high", y=y),
        base.mark_text(align="left", fontWeight=600).encode(x=alt.value(side + 6), y=y, text="label:N"),
    ).properties(
        width=side,
        height=alt.Step(28),
        title=alt.Title(title, color=ARMS.get(title, LIGHT["ink"]), frame="group"),
    )


def heat(cells: Mapping[str, ArrayLike], init_seeds: Sequence[int], data_seeds: Sequence[int], *, width: int) -> Chart:
    """The grid of seeds: the metric of both arms, and their difference, one cell per run (pair).

    The stronger the colour, the higher the metric; in the difference, the larger, in the colour of the better arm.

    Args:
        cells: candidate, baseline, difference: [init seeds, data seeds]; None or not a number where a
            run is missing.
    """
    y = {name: np.asarray(values, float) for name, values in cells.items()}
    losses = np.concatenate([y["candidate"].ravel(), y["baseline"].ravel()])
    lowest, span = np.nanmin(losses), np.nanmax(losses) - np.nanmin(losses) or 1.0
    largest = np.nanmax(np.abs(y["difference"])) or 1.0
    unit = 1000 if largest < 0.01 else 1
    titles = {"difference": f"difference × {unit}" if unit > 1 else "difference"}
    strength = {arm: 0.06 + 0.6 * (y[arm] - lowest) / span for arm in ARMS}
    strength["difference"] = 0.66 * np.abs(y["difference"]) / largest
    stacked = width <= NARROW
    side = (width - LEFT) if stacked else (width - LEFT - 2 * 16 - 4) / 3
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
) -> Chart:
    """One panel; without a colour of its own it shows signed values, each in the colour of the better arm."""
    rows, columns = y.shape
    largest = np.nanmax(y) - np.nanmin(y) if colour else np.nanmax(np.abs(y))
    decimals = min(max((2 if colour else 1) - math.floor(math.log10(largest or 1.0)), 0), 4)
    frame = pd.DataFrame(
        {
            "init": np.repeat(_short(init_seeds)[1], columns),
            "data": np.tile(_short(data_seeds)[1], rows),
            "strength": np.nan_to_num(strength.ravel()),
            "colour": colour or np.where(y.ravel() > 0, ARMS["candidate"], ARMS["baseline"]),
            "text": [
                words.UNKNOWN if np.isnan(v) else ("+" if v > 0 and not colour else "") + words.fixed(v, decimals)
                for v in y.ravel()
            ],
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


def ensemble(curves: Mapping[str, Sequence[Mapping[str, Any]]], metric: Metric, *, width: int) -> Chart:
    """What more members bring: the metric, and the gain over the member that looked best on the validation set.

    Args:
        curves: per arm the entries of an ensemble curve, their `loss` as the metric.
        metric: for its words.
    """
    stacked = width <= NARROW
    side = (width - LEFT - 14) if stacked else (width - 2 * LEFT - 48) / 2
    panels = [
        _ensemble_panel(curves, "loss", f"test {metric.name}", metric.unit, side),
        _ensemble_panel(curves, "gain_over_best_member", "gain over the best member", metric.unit, side),
    ]
    return alt.vconcat(*panels, spacing=24) if stacked else alt.hconcat(*panels, spacing=30)


def _ensemble_panel(
    curves: Mapping[str, Sequence[Mapping[str, Any]]], key: str, title: str, unit: str, side: float
) -> Chart:
    rows = [
        {"arm": arm, "size": entry["size"], "x": entry["size"] * beside, "groups": entry["groups"], **entry[key]}
        for (arm, curve), beside in zip(curves.items(), (0.95, 1.05), strict=True)
        for entry in curve
    ]
    frame = pd.DataFrame(rows)
    sizes = sorted(set(frame["size"]))
    # an interval from 2 groups is so wide that nothing else could be seen: it may leave the chart
    sure = frame[frame["groups"] > 2]
    limits = [*frame["value"], *sure["ci_low"].dropna(), *sure["ci_high"].dropna()]
    low, high = domain(limits if key == "loss" else [*limits, 0.0])
    frame["low"], frame["high"] = frame["ci_low"].clip(low, high), frame["ci_high"].clip(low, high)
    x_scale = alt.Scale(type="log", domain=[sizes[0] / 1.15, sizes[-1] * 1.15], nice=False)
    x = alt.X("x:Q", title="members of the ensemble", scale=x_scale, axis=alt.Axis(values=sizes, format="~g"))
    y_scale = alt.Scale(domain=[low, high], nice=False)
    y_axis = alt.Axis(title=unit, tickCount=5)

    def y(field: str) -> alt.Y:
        return alt.Y(field, type="quantitative", scale=y_scale, axis=y_axis)

    legend = alt.Legend(symbolType="circle", symbolStrokeWidth=0, symbolOpacity=1, offset=12)
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
    return alt.layer(*layers).properties(width=side, height=230, title=alt.Title(title, frame="group"))
