"""From an Altair chart to a picture: inline SVG that follows the colours of its page, and PNG. No browser is needed."""

import re
from collections.abc import Callable
from dataclasses import dataclass

import altair as alt
import vl_convert
from markupsafe import Markup, escape

LIGHT = {
    "paper": "#ffffff",
    "ink": "#1d2329",
    "muted": "#626c78",
    "line": "#d8dde3",
    "band": "#edf0f4",
    "candidate": "#0072b2",
    "baseline": "#d55e00",
    "golden": "#a87900",
    "init": "#2b7a6e",
    "data": "#9b5d9e",
    "rest": "#76808c",
}
DARK = {
    "paper": "#15181c",
    "ink": "#e7e9ec",
    "muted": "#9da6b0",
    "line": "#343a42",
    "band": "#23282f",
    "candidate": "#5db8ee",
    "baseline": "#f5913e",
    "golden": "#e0b341",
    "init": "#52b3a3",
    "data": "#c58cc8",
    "rest": "#8a939e",
}
WIDE, NARROW = 720, 348


@dataclass(frozen=True)
class Figure:
    """A drawn chart."""

    name: str
    alt: str  # what it shows, for those who can't see it
    wide: Markup  # SVG
    narrow: Markup  # SVG for a telephone
    png: bytes


def theme(chart: alt.TopLevelMixin) -> alt.TopLevelMixin:
    """Quiet axes, and nothing around the plot."""
    text = {"labelColor": LIGHT["muted"], "titleColor": LIGHT["muted"], "labelFontSize": 12, "titleFontSize": 12}
    axis = {"gridColor": LIGHT["line"], "domain": False, "ticks": False, "labelPadding": 6, "titlePadding": 10}
    return chart.configure(
        font="Liberation Sans, Arial, Helvetica, sans-serif",
        background=LIGHT["paper"],
        padding={"left": 2, "right": 2, "top": 6, "bottom": 2},
        view=alt.ViewConfig(stroke=None),
        axis=alt.AxisConfig(**axis, **text, titleFontWeight="normal", grid=False),
        axisY=alt.AxisConfig(grid=True),
        legend=alt.LegendConfig(**text, labelLimit=300, symbolType="square", orient="top", offset=2, title=None),
        title=alt.TitleConfig(color=LIGHT["ink"], fontSize=13, fontWeight=600, anchor="start"),
        text=alt.MarkConfig(color=LIGHT["ink"], fontSize=12),
        aria=False,
    )


def draw(name: str, alt_text: str, chart: Callable[[int], alt.TopLevelMixin]) -> Figure:
    """Draw a chart, given as a function of its width, for a page, for a telephone and as PNG."""
    wide, narrow = (theme(chart(width)).to_dict() for width in (WIDE, NARROW))
    return Figure(
        name=name,
        alt=alt_text,
        wide=_inline(vl_convert.vegalite_to_svg(wide, allowed_base_urls=[]), f"{name}-wide", alt_text),
        narrow=_inline(vl_convert.vegalite_to_svg(narrow, allowed_base_urls=[]), f"{name}-narrow", alt_text),
        png=vl_convert.vegalite_to_png(wide, scale=2, allowed_base_urls=[]),
    )


def _inline(svg: str, name: str, alt_text: str) -> Markup:
    """An SVG as a part of a page: its own ids, a description, and colours by name, which dark mode can change."""
    size = re.match(r'<svg [^>]*width="([\d.]+)" height="([\d.]+)" viewBox="([^"]+)">', svg)
    assert size, "vl-convert writes the size of an SVG in its first tag"
    width, height, box = size.groups()
    body = svg[size.end() :]
    body = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', body)
    body = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", body)
    for colour, hexadecimal in LIGHT.items():
        body = body.replace(f'"{hexadecimal}"', f'"var(--{colour})"')
    start = f'<svg role="img" aria-label="{escape(alt_text)}" viewBox="{box}" width="{width}" height="{height}">'
    return Markup(start + body)


def css_colours(palette: dict[str, str]) -> Markup:
    """The palette as CSS custom properties."""
    return Markup("".join(f"--{name}: {value}; " for name, value in palette.items()).strip())
