"""Every page fits the screen of a telephone: nothing scrolls sideways but tables, inside their own frames."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from infinito import report
from infinito.study import load_study
from tests.browser import CHROMIUM, Page, browser

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="needs a browser")]

SIZES = (360, 375, 620, 621, 1600)
# elements that reach beyond the window, unless they are inside something that scrolls or is not shown
TOO_WIDE = """[...document.querySelectorAll("body *")].filter(x => {
    const box = x.getBoundingClientRect();
    return box.width && box.right > innerWidth + 0.5 && !x.closest(".scroll") && !x.closest("svg");
}).map(x => x.tagName + "." + x.className + " " + x.textContent.trim().slice(0, 60))"""


@pytest.fixture(scope="module")
def screen() -> Iterator[Page]:
    with browser() as page:
        yield page


def check(screen: Page, file: Path) -> None:
    screen.open(file.resolve().as_uri())
    screen.run("document.querySelectorAll('details').forEach(x => x.open = true)")
    for width in SIZES:
        screen.resize(width)
        assert screen.run("innerWidth") == width
        assert screen.run("document.documentElement.scrollWidth") <= width, (width, screen.run(TOO_WIDE))
        assert screen.run(TOO_WIDE) == [], width


@pytest.mark.parametrize("which", ["study", "rich_study"])
def test_the_report_fits_a_telephone(which: str, request: pytest.FixtureRequest, screen: Page) -> None:
    check(screen, request.getfixturevalue(which) / "results" / "report.html")


def test_long_commands_and_names_fit_too(recorded_study: Path, screen: Page) -> None:
    """The report of a study in git has the commands that build it again."""
    file = recorded_study / "params.yaml"
    name = "a_name_that_nobody_would_want_to_type_twice_in_a_row"
    file.write_text(file.read_text().replace("title: A tiny study", f"title: {name}/{name}"))
    report.write(load_study(recorded_study))
    page = recorded_study / "results" / "report.html"
    assert name in page.read_text() and "git checkout" in page.read_text()
    check(screen, page)
