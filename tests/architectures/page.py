"""The table of docs/networks.md that says which known architectures which engine takes, out of what was measured."""

import re
from pathlib import Path

from tests.architectures.trial import DRAWING, ENGINES, HOW, SMALL, Outcome, cases

PAGE = Path(__file__).parents[2] / "docs" / "networks.md"
BEGIN, END = "<!-- made by python -m tests.architectures -->", "<!-- end of what is made -->"


def table(found: dict[str, dict[str, Outcome]]) -> str:
    """Markdown: a network a row, an engine a column, compiled or not."""
    ways = [engine + how for engine in ENGINES for how in HOW]
    titles = ["", *ways, "why not stacked"]
    rows = [titles, ["---"] * len(titles)]
    for name, row in found.items():
        family = cases()[name].partition(":")[0].rpartition(".")[2]
        cells = [_cell(row.get(way), name in DRAWING and way == "loop compiled") for way in ways]
        refusals = [_reason(one.line) for one in row.values() if one.line]
        rows.append([f"`{family}.{name}`", *cells, *(refusals[:1] or [""])])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cell(outcome: Outcome | None, draws: bool) -> str:
    if outcome is None:
        return "not measured"
    if outcome.difference is None:
        return f"one line, {outcome.seconds:.1f} s"
    if outcome.difference < SMALL:
        return f"agrees, {outcome.seconds:.1f} s"
    if draws:
        return f"other draws, {outcome.seconds:.1f} s"
    return f"differs by {outcome.difference:.1g}, {outcome.seconds:.1f} s"


def _reason(line: str) -> str:
    """The sentence after where it is, before what to write instead."""
    said = re.sub(r"^network: '[^']*': (\S+\.py:\d+: `.*?`: )?", "", line).partition("; instead: ")[0]
    return said.replace("|", "\\|")


def written(page: str, found: dict[str, dict[str, Outcome]]) -> str:
    """`page` with the table between its two marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table(found)}\n{END}{after}"
