"""The page of a judgement on somebody's runs: the look of a study's report, and what such runs allow to be said."""

from pathlib import Path
from typing import Any

import pandas as pd

from infinito.storage import write_text

SUFFIXES = (".html", ".md")


def write(result: dict[str, Any], runs: pd.DataFrame, source: str, to: Path) -> None:
    """One file that opens offline, or Markdown with its pictures in a folder beside it.

    Args:
        result: of `infinito.judging.runs.judged`.
        runs: a run a row: arm, task, metric, run, seed, value.
        source: what was read, as the user called it.
        to: ending in .html or .md.

    Raises:
        ValueError: another ending; no such folder; the plotting packages are not installed.
    """
    if to.suffix not in SUFFIXES:
        raise ValueError(f"--report: found {str(to)!r}; allowed: a file that ends in {' or '.join(SUFFIXES)}")
    if not to.absolute().parent.is_dir():
        raise ValueError(
            f"--report: found {str(to)!r}, and no folder {to.absolute().parent}; allowed: one that is there"
        )
    try:  # the rest of infinito works without the packages that draw
        from infinito.report.judgement.page import html, markdown
        from infinito.report.judgement.pictures import draw_all
    except ModuleNotFoundError as error:
        raise ValueError(f"--report needs the package {error.name}: pip install 'infinito[report]'") from error
    figures = draw_all(result, runs)
    if to.suffix == ".html":
        write_text(to, html(result, source, figures))
        return
    folder = to.with_suffix("")
    folder.mkdir(exist_ok=True)
    for figure in figures.values():
        (folder / f"{figure.name}.png").write_bytes(figure.png)
    write_text(to, markdown(result, source, figures, folder.name))
