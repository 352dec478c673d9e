"""The page people read: one HTML file that opens offline, the same in Markdown, and the charts as PNG."""

from infinito.storage import replacing, write_text
from infinito.study import Study


def write(study: Study) -> None:
    """results/*.json, the run tables and the manifest -> results/report.html, results/report.md, results/charts/*.png.

    Raises:
        ValueError: a stage before this one has not written its results; or the plotting packages are not installed.
    """
    try:  # the rest of infinito works without the packages that draw
        from infinito.report.evidence import gather
        from infinito.report.figures import draw_all
        from infinito.report.page import html, markdown
    except ModuleNotFoundError as error:
        raise ValueError(f"the report needs the package {error.name}: pip install 'infinito[report]'") from error

    evidence = gather(study)
    figures = draw_all(evidence)
    texts = {"report.md": markdown(evidence, figures), "report.html": html(evidence, figures)}
    with replacing(study.results / "charts") as folder:
        folder.mkdir()
        for figure in figures.values():
            (folder / f"{figure.name}.png").write_bytes(figure.png)
    for name, text in texts.items():
        write_text(study.results / name, text)
