"""What must be right for the figures to be worth reading, and whether it is."""

from dataclasses import dataclass

from infinito.report import words
from infinito.report.evidence import Evidence, Json
from infinito.report.tables.origin import recorded
from infinito.report.tables.table import ARMS, Table
from infinito.report.words import number
from infinito.storage import canonical


@dataclass(frozen=True)
class Check:
    """One thing that must be right for the figures to be worth reading; ok is None where it can't be told."""

    what: str
    found: str
    goal: str
    ok: bool | None


def checks(evidence: Evidence) -> list[Check]:
    """Can these numbers be trusted?"""
    compare, runs, stacks = evidence.compare, evidence.runs, evidence.stacks
    noise, skewness = compare["evaluation_noise"]["ratio"], compare["skewness"]
    diverged = int(runs["diverged"].sum())
    data = {compare["data_sha256"]} | recorded(stacks, "data_sha256")
    if evidence.protocol:
        data.add(evidence.protocol["protocol"]["data_sha256"])
    arms = {canonical(record["arm"]) for record in stacks}
    code = max(len({r["code_sha256"] for r in stacks if canonical(r["arm"]) == arm}) for arm in arms)
    versions, devices = len({record["versions"]["torch"] for record in stacks}), len(recorded(stacks, "device"))
    seen = evidence.manifest["overlap"].get("test", {}).get("train")  # a command alone knows its examples
    plan, look = compare["plan"], compare.get("sequential")
    pairs = Check("Pairs of runs", str(compare["n_pairs"]), "at least 10", compare["n_pairs"] >= 10)
    if look:
        done = look["stop"] or look["n"] == look["planned"]
        pairs = Check(
            "Pairs of runs", f"{look['n']} of at most {look['planned']}", "until the test stops, or all", done
        )
    return [
        Check(
            "Plan of the comparison",
            "registered before its runs, and kept" if plan["status"] == "planned" else "none that holds",
            "registered and kept",
            plan["status"] == "planned",
        ),
        pairs,
        *(_of_the_grid(evidence.attribute) if evidence.attribute else []),
        Check(
            "Noise of the test set, relative to the spread between seeds",
            number(noise, 2),
            "below 0.1",
            None if noise is None else noise < 0.1,
        ),
        Check(
            "Test examples that also stand in the training split",
            words.UNKNOWN if seen is None else f"{number(100 * seen, 2)} %",
            "at most 1 %",
            None if seen is None else seen <= 0.01,
        ),
        Check("Diverged runs", f"{diverged} of {len(runs):,}", "0", diverged == 0),
        Check(
            "Skewness of the differences",
            number(skewness, 2),
            f"{words.MINUS}1 to 1",
            None if skewness is None else abs(skewness) <= 1,
        ),
        *([_of_the_confirmation(evidence.golden)] if evidence.golden else []),
        Check("Data behind all runs and results", _distinct(len(data), "version"), "1 version", len(data) == 1),
        Check(
            "Code, PyTorch and device behind all runs",
            f"{_distinct(code, 'version')} of code, {versions} of PyTorch, {_distinct(devices, 'device')}",
            "1 of each",
            code == versions == devices == 1,
        ),
    ]


def _of_the_grid(attribute: Json) -> list[Check]:
    crossed = attribute["difference"]["crossed"]
    equal = [attribute[arm]["deterministic"] for arm in ARMS]
    deterministic = None if None in equal else all(equal)
    return [
        Check(
            "Seeds of the grid",
            f"{len(attribute['init_seeds'])} init, {len(attribute['data_seeds'])} data seeds",
            "all runs of at least 5 and 5",
            bool(crossed and crossed["reliable"]),
        ),
        Check(
            "Reruns of identical seeds",
            {True: "equal bit for bit", False: "not equal", None: "none"}[deterministic],
            "equal bit for bit",
            deterministic,
        ),
    ]


def _of_the_confirmation(golden: Json) -> Check:
    return Check(
        "Protocol of the confirmation",
        "registered before its runs" if golden["registered"] else "not registered before its runs",
        "registered",
        bool(golden["registered"]),
    )


def _distinct(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def check_table(found: list[Check]) -> Table:
    mark = {True: "✓\u00a0met", False: "✗\u00a0not\u00a0met", None: words.UNKNOWN}
    rows = [(check.what, check.found, check.goal, mark[check.ok]) for check in found]
    return Table(("Check", "Found", "Goal", ""), rows, "llll")
