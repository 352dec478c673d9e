"""results/*.json and models/ -> results/report.html, report.md, charts as PNG, metrics.json."""

from infinito import report as reporting
from infinito.report.metrics import metrics
from infinito.runs import FanOut
from infinito.storage import read_json, write_json
from infinito.study import Study


def report(study: Study, fan_out: FanOut) -> None:
    """results/*.json and models/ -> results/report.html, report.md, charts as PNG, metrics.json."""
    reporting.write(study)
    found = {
        name: read_json(study.results / f"{name}.json")
        for name in study.params.stages
        if name in ("compare", "attribute", "golden", "ensemble")
    }
    write_json(study.results / "metrics.json", metrics(**found))
