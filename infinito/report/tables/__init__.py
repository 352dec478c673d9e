"""The tables of the report: pure functions of results, every cell a text."""

from infinito.report.tables.comparison import ablations, arms, claims, hypotheses, reports, secondary
from infinito.report.tables.ensembles import ensemble, equal_compute
from infinito.report.tables.fairness import fairness
from infinito.report.tables.golden import decisions, ranking, selected, winner
from infinito.report.tables.origin import LISTED_RUNS, provenance, runs, settings
from infinito.report.tables.table import ARMS, Table
from infinito.report.tables.trust import Check, check_table, checks
from infinito.report.tables.variance import QUANTITIES, components, variances

__all__ = [
    "ARMS",
    "LISTED_RUNS",
    "QUANTITIES",
    "Check",
    "Table",
    "ablations",
    "arms",
    "check_table",
    "checks",
    "claims",
    "components",
    "decisions",
    "ensemble",
    "equal_compute",
    "fairness",
    "hypotheses",
    "provenance",
    "ranking",
    "reports",
    "runs",
    "secondary",
    "selected",
    "settings",
    "variances",
    "winner",
]
