"""The record of a run: what was run by what code, from which settings and seeds, and what came of it."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from infinito.storage import canonical, sha256

SCHEMA = "infinito/run/1"
RUNNING, FINISHED, FAILED, KILLED, DIED = "RUNNING", "FINISHED", "FAILED", "KILLED", "DIED"
TEXT_OF = {math.inf: "inf", -math.inf: "-inf"}  # JSON has no such numbers

Value = str | int | float | bool | None
Curve = list[tuple[float, float]]  # step, value
Json = dict[str, Any]


@dataclass(frozen=True)
class Record:
    """One run.

    Args:
        id: 12 hexadecimal digits, to cite it by.
        name: what runs: a script, or the study.
        status: RUNNING, FINISHED, FAILED (exit code not 0), KILLED (by a signal), or DIED (never came to its end).
        began, ended: times in UTC, ISO 8601. seconds: between them, or of the training alone.
        arm, design: of a run of a study.
        params: settings by their dotted names, without the seeds.
        seeds: all seeds by their names.
        metrics: final figures; not finite where they came out so.
        curves: by metric.
        tags: whatever else is one short text: user, host, device, git.revision, weights_sha256.
        dirty: whether the code differed from the revision; None: there is no repository.
        code: what tells this code from other: the revision and the hash of what differed from it.
        facts: all else, as it was found: command, git, environment, inputs, outputs, exit_code, remarks.
    """

    id: str
    name: str
    status: str
    began: str
    ended: str | None = None
    seconds: float | None = None
    arm: str = ""
    design: str = ""
    params: dict[str, Value] = field(default_factory=dict)
    seeds: dict[str, Value] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    curves: dict[str, Curve] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    dirty: bool | None = None
    code: str = ""
    facts: Json = field(default_factory=dict)

    def to_json(self) -> Json:
        """As it stands in a store: with its schema, and sealed by the hash of all of it."""
        content = {"schema": SCHEMA, **asdict(self)}
        content["metrics"] = {name: _finite(value) for name, value in self.metrics.items()}
        content["curves"] = {
            name: [[step, _finite(value)] for step, value in curve] for name, curve in self.curves.items()
        }
        return {**content, "sha256": seal(content)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any], where: str) -> "Record":
        """Raises ValueError if it is no record, or not as it was sealed."""
        if content.get("schema") != SCHEMA:
            raise ValueError(f"{where}: found schema {content.get('schema')!r}; allowed: {SCHEMA}")
        if seal(content) != content.get("sha256"):
            raise ValueError(f"{where}: the record was changed after it was written: its hash is another one")
        known = {name: content[name] for name in (entry.name for entry in fields(cls))}
        known["metrics"] = {name: float(value) for name, value in known["metrics"].items()}
        known["curves"] = {
            name: [(step, float(value)) for step, value in curve] for name, curve in known["curves"].items()
        }
        return cls(**known)


def seal(content: Mapping[str, Any]) -> str:
    """The hash of a record's content."""
    return sha256(canonical({key: value for key, value in content.items() if key != "sha256"}))


def _finite(value: float) -> float | str:
    return value if math.isfinite(value) else TEXT_OF.get(value, "nan")
