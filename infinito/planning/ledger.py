"""The ledger of plans: plans.jsonl beside plan.json, kept in git, to which lines are only ever added.

A line is an event of a plan, as JSON, with the hash of the line before it:

* plan: it was registered; the line holds the whole plan.json;
* began: runs were begun under it, and by which code;
* trained: its run table was finished, with the hash of that file;
* verdict: what came out.

So no plan is lost when another takes its place, and none is begun twice without a word. Whoever removes the file and
rewrites the history of git as well can't be found out from within.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from infinito.machine import git
from infinito.storage import pretty, sha256, write_text

Json = dict[str, Any]

EVENTS = {  # and what their lines must have
    "plan": {"file"},
    "began": {"code"},
    "trained": {"runs_sha256"},
    "verdict": {"verdict", "status"},
}
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")


@dataclass(frozen=True)
class Ledger:
    """The lines of a ledger, the oldest first; [] where there is none."""

    file: Path
    entries: list[Json]

    @classmethod
    def read(cls, file: Path) -> "Ledger":
        """The lines, each checked against the one before it, and against those that git has in its last commit.

        Raises:
            ValueError: a line that is no event or does not follow the one before it, a plan that is not the one that
                its hash names, or a line of the last commit that was changed or is gone.
        """
        text = read_text(file)
        for fault in [*chain_faults(file, text), *rewritten(file, text, "HEAD", "the last commit")]:
            raise ValueError(fault)
        return cls(file, [json.loads(line) for line in text.splitlines()])

    @property
    def plans(self) -> list[Json]:
        """The plans in the order in which they were registered, each once."""
        return [entry for entry in self.entries if entry["event"] == "plan"]

    def of(self, event: str, plan: str) -> list[Json]:
        """The events of one kind of a plan."""
        return [entry for entry in self.entries if entry["event"] == event and entry["plan"] == plan]

    def number(self, plan: str) -> int | None:
        """Which plan of the study it is, from 1; None: the ledger has no such plan."""
        names = [entry["plan"] for entry in self.plans]
        return names.index(plan) + 1 if plan in names else None

    def said(self, plan: str) -> str:
        """What came out of a plan: its verdicts, in their order."""
        words = [
            entry["verdict"] + ("" if entry["status"] == "planned" else " (exploratory)")
            for entry in self.of("verdict", plan)
        ]
        return " then ".join(dict.fromkeys(words)) or "nothing yet"

    def others(self, plan: str | None) -> list[Json]:
        """All plans but one: {number, plan, created, said}."""
        return [
            {
                "number": number,
                "plan": entry["plan"],
                "created": entry["file"]["plan"]["created"],
                "said": self.said(entry["plan"]),
            }
            for number, entry in enumerate(self.plans, 1)
            if entry["plan"] != plan
        ]

    def record(self, event: str, plan: str, facts: Mapping[str, Any], **about: Any) -> "Ledger":
        """The ledger with one more line, written whole or not at all; the same one if its last such line says that.

        Args:
            event: one of `EVENTS`.
            plan: SHA-256 of plan.json.
            facts: what the line says.
            about: other values than who (the user of git) and when (now), for what is carried over.
        """
        before = self.of(event, plan)
        if before and all(before[-1].get(key) == value for key, value in facts.items()):
            return self
        text = read_text(self.file)
        entry = {
            "event": event,
            "plan": plan,
            **facts,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "by": user(self.file.parent),
            **about,
            "previous": sha256(text.splitlines()[-1]) if text else None,
        }
        write_text(self.file, text + json.dumps(entry, allow_nan=False) + "\n")
        return Ledger(self.file, [*self.entries, entry])


def user(folder: Path) -> str | None:
    """Who git says is working; None where it does not say."""
    name, address = ((git(folder, "config", key) or "").strip() for key in ("user.name", "user.email"))
    return f"{name} <{address}>" if name and address else name or address or None


def ordinal(number: int) -> str:
    if number <= len(ORDINALS):
        return ORDINALS[number - 1]
    end = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th") if number % 100 not in (11, 12, 13) else "th"
    return f"{number}{end}"


def read_text(file: Path) -> str:
    """All lines; "" where there is no file. Raises ValueError if it is no text."""
    try:
        return file.read_text(encoding="utf-8") if file.is_file() else ""
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: not a text: {error}") from error


def chain_faults(file: Path, text: str) -> list[str]:
    """The first line that is no event or does not follow the one before it, in words; [] is good."""
    previous, known = None, set()
    for number, line in enumerate(text.splitlines(), 1):
        where = f"{file}: line {number}"
        try:
            entry = json.loads(line)
        except json.JSONDecodeError as error:
            return [f"{where}: not valid JSON: {error}"]
        if not isinstance(entry, dict) or not isinstance(entry.get("plan"), str) or not _is_event(entry):
            return [f"{where}: found no event of a plan; allowed: what infinito wrote"]
        if entry.get("previous") != previous:
            return [f"{where}: does not follow the line before it: a line was changed, removed or put in between"]
        if entry["event"] == "plan":
            if sha256(pretty(entry.get("file"))) != entry["plan"]:
                return [f"{where}: holds another plan than the one that its hash {entry['plan'][:12]} names"]
            known.add(entry["plan"])
        elif entry["plan"] not in known:
            return [f"{where}: {entry['event']} of the plan {entry['plan'][:12]}, which no line before it registers"]
        previous = sha256(line)
    if text and not text.endswith("\n"):
        return [f"{file}: its last line is not whole"]
    return []


def _is_event(entry: Json) -> bool:
    if not EVENTS.get(str(entry.get("event")), {""}) <= entry.keys():
        return False
    plan = entry["file"].get("plan") if entry["event"] == "plan" and isinstance(entry["file"], dict) else None
    return entry["event"] != "plan" or isinstance(plan, dict) and {"created", "seed", "pilot"} <= plan.keys()


def rewritten(file: Path, text: str, revision: str, called: str) -> list[str]:
    """The first line that a git revision has and `text` lacks or has otherwise, in words; [] is good."""
    then = git(file.resolve().parent, "show", f"{revision}:./{file.name}") or ""
    if text.startswith(then):
        return []
    lines = text.splitlines()
    number = next(n for n, line in enumerate([*then.splitlines(), ""]) if n >= len(lines) or lines[n] != line)
    what = "is gone" if number >= len(lines) else "is another"
    return [
        f"{file}: line {number + 1}, which {called} of git has, {what}; lines are only ever added "
        f"(git checkout {revision} -- {file.name} brings it back)"
    ]


def history_faults(file: Path) -> list[str]:
    """Every commit of git that has a line which the file lacks or has otherwise, in words; [] is good."""
    text = read_text(file)
    folder = file.resolve().parent
    commits = (git(folder, "log", "--full-history", "--format=%H", "--", file.name) or "").split()
    return [fault for commit in commits for fault in rewritten(file, text, commit[:12], f"commit {commit[:12]}")]
