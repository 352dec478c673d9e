"""Charts are pictures, also of odd values."""

import re
import struct
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from infinito.report import charts, dots
from infinito.report.draw import DARK, LIGHT, draw
from tests.report.pages import CHARTS


def test_every_chart_is_a_picture(study: Path) -> None:
    folder = study / "results/charts"
    assert {file.stem for file in folder.iterdir()} == CHARTS
    for file in folder.iterdir():
        content = file.read_bytes()
        width, _ = struct.unpack(">II", content[16:24])
        assert content.startswith(b"\x89PNG\r\n\x1a\n") and content.rstrip().endswith(b"IEND\xaeB`\x82")
        assert 1300 < width < 1600
    linked = re.findall(r"!\[.*\]\((.*)\)", (study / "results/report.md").read_text(encoding="utf-8"))
    assert len(linked) == len(CHARTS)
    assert {(study / "results" / link).resolve() for link in linked} == {file.resolve() for file in folder.iterdir()}


def test_dots_of_a_stack_do_not_overlap() -> None:
    values = np.random.default_rng(0).normal(size=300)
    level = dots._stack(values, 0.1)
    for k in range(level.max() + 1):
        assert (np.diff(np.sort(values[level == k])) >= 0.1).all()
    assert (level[np.argsort(values)[:1]] == 0).all()


def test_learning_curves_are_means_and_bands_of_finite_values() -> None:
    curves = pd.DataFrame({"arm": "candidate", "step": 5, "value": [*range(11), np.inf]})
    assert charts.learning_curves(curves).to_dict("records") == [
        {"arm": "candidate", "step": 5, "mean": 5.0, "low": 1.0, "high": 9.0}
    ]


@pytest.mark.parametrize("values", [[0.0] * 12, [0.25] * 12, [1e-9, -1e9]])
def test_odd_differences_can_be_drawn(values: list[float]) -> None:
    mean = {"value": float(np.mean(values)), "ci_low": None, "ci_high": None, "n": len(values)}
    figure = draw(
        "odd",
        'a "description"',
        lambda width: dots.differences(
            values,
            mean,
            margin=0.01,
            margin_label="small",
            sides=("worse", "better"),
            colours=(LIGHT["baseline"], LIGHT["candidate"]),
            axis="difference",
            width=width,
        ),
    )
    assert 'aria-label="a &#34;description&#34;"' in figure.wide
    assert "NaN" not in figure.wide and "NaN" not in figure.narrow


@pytest.mark.parametrize("values", [[0.0] * 10, [-5000.0, -30.0, 1.0, 2.0, 90.0], [3.0, 3.0]])
def test_odd_rows_can_be_drawn(values: list[float]) -> None:
    best = int(np.argmax(values))
    row = dots.Row("1–10", values, {"value": float(np.mean(values))}, ("+9%", "p"), ring=best, luck=1e4)
    figure = draw(
        "odd",
        "odd",
        lambda width: dots.rows(
            [row] * 3, heads=("best", "p"), colours=(LIGHT["baseline"], LIGHT["candidate"]), axis="x", width=width
        ),
    )
    assert "NaN" not in figure.wide and "NaN" not in figure.narrow
    low, high = dots._most([row] * 3, None)
    assert low < 0 < high and values[best] < high


def test_colours_have_names_in_light_and_dark(study: Path) -> None:
    assert LIGHT.keys() == DARK.keys() and len(set(LIGHT.values())) == len(LIGHT)
    text = (study / "results/report.html").read_text(encoding="utf-8")
    charts_only = "".join(re.findall(r"<svg.*?</svg>", text, flags=re.S))
    assert "var(--candidate)" in charts_only
    assert not set(re.findall(r"#[0-9a-f]{6}", charts_only)) & set(LIGHT.values())
