"""Text from outside does nothing wherever it is written."""

import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from infinito import escape
from infinito.stages import STAGES
from infinito.study import load_study
from tests.conftest import in_process

HOSTILE = "<img src=x onerror=alert(1)> ![a](http://b.c/d) | `x` *y* </script><script>z</script>"


def tags(text: str) -> list[str]:
    """All HTML elements of a text that is no code."""
    found: list[str] = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: found.append(tag)  # type: ignore[method-assign]
    parser.feed(re.sub(r"(?s)```.*?```", "", text))
    return found


@pytest.mark.parametrize(
    "text, shown",
    [
        ("p < 0.001, a [0, 1]", "p < 0.001, a [0, 1]"),
        ("infinito_v52", "infinito_v52"),
        ("<b>x</b>", "&lt;b>x&lt;/b>"),
        ("&lt;b>", "&amp;lt;b>"),
        ("![x](y)", r"![x]\(y)"),
        ("a | b\n# c", r"a \| b # c"),
        ("# c", r"\# c"),
        ("- c", r"\- c"),
        ("> c", r"\> c"),
        ("1. c", r"1\. c"),
        ("1.5 c", "1.5 c"),
        ("__x__ *y* `z` ~w~", r"\_\_x\_\_ \*y\* \`z\` \~w\~"),
    ],
)
def test_markdown_shows_just_the_text(text: str, shown: str) -> None:
    assert escape.markdown(text) == shown


def test_code_stays_in_its_span_and_cell() -> None:
    assert escape.code("a`b|c\nd") == r"`a'b\|c d`"


@pytest.fixture(scope="module")
def hostile(_finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study with a hostile name and title; its runs, which know of neither, are those of the other one."""
    folder = Path(shutil.copytree(_finished, tmp_path_factory.mktemp("hostile") / "study"))
    content = yaml.safe_load((folder / "params.yaml").read_text())
    (folder / "params.yaml").write_text(yaml.safe_dump(content | {"study": HOSTILE, "report": {"title": HOSTILE}}))
    for stage in STAGES.values():
        stage(load_study(folder), in_process)
    return folder


def test_nothing_that_a_study_writes_has_elements_of_its_name(hostile: Path) -> None:
    written = [file for file in hostile.rglob("*") if file.suffix in (".md", ".html", ".svg")]
    assert {"README.md", "report.md", "report.html"} <= {file.name for file in written}
    for file in written:
        text = file.read_text()
        assert "alert(1)" in text, file
        assert not {"img", "script"} & set(tags(text)), file
        assert file.suffix == ".html" or "![a](http" not in text, file
    rows = [line for line in (hostile / "models/golden/README.md").read_text().splitlines() if "alert(1)" in line]
    assert rows and all(row.replace(r"\|", "").count("|") == 3 for row in rows)


def test_lineage_and_artifacts_have_no_elements_of_its_name(hostile: Path) -> None:
    from infinito.flows import artifacts
    from infinito.lineage.markdown import as_markdown
    from infinito.lineage.stages import lineage
    from tests.conftest import ROOT

    (hostile / "dvc.yaml").write_text((ROOT / "dvc.yaml").read_text())
    text = as_markdown(lineage(hostile))
    assert "alert(1)" in text and "img" not in tags(text) and "![a](http" not in text
    text = artifacts.figures({"sentence": HOSTILE, "verdict": HOSTILE, HOSTILE: 1.0})
    assert text.count("alert(1)") == 4 and not {"img", "script"} & set(tags(text))
    rows = text.partition("|---|---|\n")[2].splitlines()
    assert len(rows) == 2 and all(row.replace(r"\|", "").count("|") == 3 for row in rows)


def test_a_chart_has_no_elements_of_its_words() -> None:
    import altair as alt

    from infinito.report.draw import draw

    def chart(width: int) -> alt.Chart:
        axis = alt.X("x:N", axis=alt.Axis(title=HOSTILE))
        return alt.Chart(alt.Data(values=[{"x": HOSTILE}]), title=HOSTILE, width=width).mark_point().encode(x=axis)

    figure = draw("some", HOSTILE, chart)
    for drawn in (figure.wide, figure.narrow):
        assert "alert(1)" in drawn and {"svg", "text"} <= {*tags(f"<svg>{drawn}")}
        assert not {"img", "script"} & {*tags(drawn)}


@pytest.mark.parametrize("key", ["study", "report.title"])
@pytest.mark.parametrize("text", ["", "a\nb", "a\x1b[31mb", "a\x7f", "a\x9bb"])
def test_a_name_is_one_line_without_control_characters(write_study: Callable[..., Path], key: str, text: Any) -> None:
    with pytest.raises(ValueError, match=f"{key}: string should match pattern"):
        load_study(write_study({key: text}))
