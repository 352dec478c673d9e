"""The variance between runs, by source."""

from collections.abc import Iterator

from infinito.report import words
from infinito.report.evidence import Json
from infinito.report.tables.table import ARMS, Table
from infinito.report.words import estimate, number, p_value

QUANTITIES = (*ARMS, "difference")


def _parts(attribute: Json) -> Iterator[tuple[str, str, str, Json, Json]]:
    """Every component of the variance: of what (named once), its source and the source's key, itself, all of them."""
    for of in QUANTITIES:
        components = attribute[of]["components"]
        for i, (key, part) in enumerate(components.items()):
            yield "" if i else of, words.source(key, components), key, part, attribute[of]


def components(attribute: Json) -> Table:
    """The variance by source: shares, standard deviations, and the unbiased estimates before truncation at 0."""
    rows = []
    for of, source, key, part, whole in _parts(attribute):
        sd = part | {end: None if part[end] is None else part[end] ** 0.5 for end in ("value", "ci_low", "ci_high")}
        p = p_value(whole.get(f"p_{key}"))
        rows.append((of, source, words.share(part), estimate(sd, 2), number(part["raw"], 2), p))
    return Table(("Of", "Source", "Share", "Standard deviation", "Raw variance", "p"), rows, "llrrrr")


def variances(attribute: Json) -> Table:
    """The same as variances, by both methods."""
    rows = [
        (of, source, estimate(part, 2), number(part["raw"]), number(part["reml"]), str(part["n"]))
        for of, source, _, part, _ in _parts(attribute)
    ]
    return Table(("Of", "Source", "Variance, at least 0", "Raw", "REML", "Degrees of freedom"), rows, "llrrrr")
