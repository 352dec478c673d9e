"""From an Altair chart to a picture: inline SVG that follows the colours of its page, and PNG. No browser is needed."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import altair as alt
import vl_convert
from markupsafe import Markup, escape

Chart = alt.LayerChart | alt.FacetChart | alt.HConcatChart | alt.VConcatChart
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
ARMS = {arm: LIGHT[arm] for arm in ("candidate", "baseline")}
WIDE, NARROW = 720, 348  # pixels

TEXT = {"labelColor": LIGHT["muted"], "titleColor": LIGHT["muted"], "labelFontSize": 12, "titleFontSize": 12}
QUIET: dict[str, Any] = {
    "font": "Liberation Sans, Arial, Helvetica, sans-serif",
    "background": LIGHT["paper"],
    "padding": {"left": 2, "right": 2, "top": 6, "bottom": 2},
    "view": {"stroke": None},
    "axis": TEXT
    | {"gridColor": LIGHT["line"], "grid": False, "domain": False, "ticks": False}
    | {"labelPadding": 6, "titlePadding": 10, "titleFontWeight": "normal"},
    "axisY": {"grid": True},
    "legend": TEXT | {"labelLimit": 300, "symbolType": "square", "orient": "top", "offset": 2, "title": None},
    "title": {"color": LIGHT["ink"], "fontSize": 13, "fontWeight": 600, "anchor": "start"},
    "text": {"color": LIGHT["ink"], "fontSize": 12},
    "aria": False,
}


@dataclass(frozen=True)
class Figure:
    """A drawn chart."""

    name: str
    alt: str  # what it shows, for those who can't see it
    wide: Markup  # SVG
    narrow: Markup  # SVG for a telephone
    png: bytes


def draw(name: str, alt_text: str, chart: Callable[[int], Chart]) -> Figure:
    """Draw a chart, given as a function of its width, for a page, for a telephone and as PNG."""
    with alt.data_transformers.enable("default", max_rows=None):
        wide, narrow = (chart(width).configure(**QUIET).to_dict() for width in (WIDE, NARROW))
    return Figure(
        name=name,
        alt=alt_text,
        wide=_inline(wide, WIDE, alt_text),
        narrow=_inline(narrow, NARROW, alt_text),
        png=vl_convert.vegalite_to_png(wide, scale=2, allowed_base_urls=[]),
    )


def _inline(spec: dict[str, Any], width: int, alt_text: str) -> Markup:
    """A chart as a part of a page: with a description, and colours by name, which dark mode can change."""
    svg = vl_convert.vegalite_to_svg(spec, allowed_base_urls=[])
    size = re.match(r'<svg [^>]*width="([\d.]+)" height="([\d.]+)"[^>]*>', svg)
    assert size, "vl-convert writes the size of an SVG in its first tag"
    body = svg[size.end() :]
    for colour, hexadecimal in LIGHT.items():
        body = body.replace(f'"{hexadecimal}"', f'"var(--{colour})"')
    # one width for all: then their text has one size on the page
    box = f"0 0 {max(width, float(size[1])):g} {float(size[2]):g}"
    return Markup(f'<svg role="img" aria-label="{escape(alt_text)}" viewBox="{box}">{body}')


def css_colours(palette: dict[str, str]) -> Markup:
    """The palette as CSS custom properties."""
    return Markup("".join(f"--{name}: {value}; " for name, value in palette.items()).strip())
