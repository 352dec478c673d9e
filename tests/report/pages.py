"""What a rendered report shows, and reports of results that are changed as asked."""

import copy
import dataclasses
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from infinito.report.draw import Figure
from infinito.report.evidence import Evidence
from infinito.report.page import html, markdown

CHARTS = {"differences", "last_batch", "learning_curves", "variance", "grid", "confirmation", "ensemble"}


class Page(HTMLParser):
    """What a page shows and what it refers to; charts and the list of runs are left out of the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.references: list[str] = []
        self.ids: list[str] = []
        self.rows: list[list[str]] = []
        self.words: list[str] = []
        self._inside: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attributes:
            if name in ("src", "href", "xlink:href", "srcset", "data", "action", "poster", "background"):
                self.references.append(value or "")
            elif name == "id":
                self.ids.append(value or "")
            else:
                self.references += re.findall(r"url\(([^)]*)\)", value or "")
        if tag in ("svg", "style", "td", "th"):
            self._inside.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if self._inside and self._inside[-1] == tag:
            self._inside.pop()

    def handle_data(self, data: str) -> None:
        if "svg" in self._inside or "style" in self._inside:
            return
        self.words.append(data)
        if self._inside:
            self.rows[-1][-1] += data.replace("\u00a0", " ")

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def row(self, *cells: str) -> list[str]:
        """The first row that begins so."""
        return next(row for row in self.rows if tuple(row[: len(cells)]) == cells)

    def below(self, *head: str) -> list[list[str]]:
        """The rows under a head, and whatever comes after its table."""
        return self.rows[self.rows.index(list(head)) + 1 :]


def numbers(text: str) -> list[str]:
    return re.findall(r"−?\d[\d,]*(?:\.\d+)?", text)


def shows(text: str, *values: float) -> bool:
    """Whether the numbers in `text` are these values, each to the decimals that are shown."""
    found = numbers(text)
    return len(found) == len(values) and all(
        float(shown.replace("−", "-").replace(",", ""))
        == pytest.approx(value, abs=0.5000001 * 10 ** -len(shown.partition(".")[2]))
        for shown, value in zip(found, values, strict=True)
    )


def ci(estimate: dict[str, Any]) -> tuple[float, float, float]:
    return estimate["value"], estimate["ci_low"], estimate["ci_high"]


def rendered(evidence: Evidence, figures: dict[str, Figure]) -> tuple[Page, str]:
    """The page and the Markdown; neither shows a value of Python."""
    page, text = Page(html(evidence, figures)), markdown(evidence, figures)
    for words_of_it in (page.text, text):
        assert not re.search(r"\b(None|nan|inf|True|False)\b", words_of_it.partition("All settings")[0])
    return page, text


def rendered_texts(evidence: Evidence, figures: dict[str, Figure]) -> tuple[str, str]:
    page, text = rendered(evidence, figures)
    return page.text, text


def changed(evidence: Evidence, **changes: dict[str, Any]) -> Evidence:
    """Evidence with results changed as asked: `compare={"verdict": "WORSE"}`; dots in keys go deeper."""
    parts = {}
    for part, values in changes.items():
        parts[part] = copy.deepcopy(getattr(evidence, part))
        for key, value in values.items():
            *path, last = key.split(".")
            section = parts[part]
            for name in path:
                section = section[name]
            section[last] = value
    return dataclasses.replace(evidence, **parts)


def losses(evidence: Evidence, n: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    return evidence.candidate["test_loss"].to_numpy()[:n], evidence.baseline["test_loss"].to_numpy()[:n]
