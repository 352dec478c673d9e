"""results/*.json and models/ -> results/report.html, report.md, charts as PNG, metrics.json."""

from infinito import report as reporting
from infinito.report.metrics import metrics
from infinito.runs import FanOut
from infinito.storage import Lacking, read_json, write_json
from infinito.study import Study


def report(study: Study, fan_out: FanOut) -> None:
    """results/*.json and models/ -> results/report.html, report.md, charts as PNG, metrics.json.

    Raises:
        ValueError: a result is missing, corrupt, or not of the shape that its stage writes.
    """
    from jinja2 import UndefinedError  # not above: the library is imported without the templates' engine too

    results = [name for name in study.params.stages if name in ("compare", "attribute", "golden", "ensemble")]
    try:
        reporting.write(study)
        found = metrics(**{name: read_json(study.results / f"{name}.json") for name in results})
    except (LookupError, TypeError, AttributeError, UndefinedError) as error:
        if isinstance(error, Lacking):  # which names the file
            raise
        files = ", ".join(f"{name}.json" for name in results)
        raise ValueError(
            f"{study.results}: one of {files} is not of the shape that its stage writes "
            f"({type(error).__name__}: {' '.join(str(error).split())}); run that again (dvc repro)"
        ) from error
    write_json(study.results / "metrics.json", found)
