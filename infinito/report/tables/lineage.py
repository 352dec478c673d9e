"""The lineage on the page: what went into every stage and came out, when and where it ran, and by which code.

All of it is of the stages before the report, as dvc.lock and results/records have them. The stage of the report itself
is "this page": DVC records it, and its record is written, when the page is finished.
"""

from collections import Counter
from collections.abc import Mapping

from infinito.lineage.words import revision
from infinito.report import words
from infinito.report.evidence import THIS_PAGE, Json
from infinito.report.tables.table import Table

RECORDS = "results/records/"
PARAMETER = "params.yaml: "  # before a key that has changed
DIGITS = 8  # of a hash; as many as tell the files of a study apart
KINDS = ("data", "environment", "code")
LINE = ",\n"  # between the files of a cell


def stages(found: Json) -> Table:
    """Every stage with the data it read and wrote."""
    rows = [(name, _status(stage), _read(stage), _written(stage)) for name, stage in found.items()]
    return Table(("Stage", "Status", "Read", "Wrote"), rows, "llll")


def _read(stage: Json) -> str:
    inputs = _went_in(stage)
    kinds = Counter({kind: sum(entry["files"] or 1 for entry in inputs if entry["kind"] == kind) for kind in KINDS})
    data = [_named(entry) for entry in inputs if entry["kind"] == "data"]
    code = [f"{kinds['code']} {'file' if kinds['code'] == 1 else 'files'} of code"] if kinds["code"] else []
    return LINE.join([*data, *code, *(["package versions"] if kinds["environment"] else [])]) or words.UNKNOWN


def _went_in(stage: Json) -> list[Json]:
    """What is recorded, data first; all that is declared where nothing is recorded."""
    recorded = [entry for entry in stage["inputs"] if entry["md5"]]
    return sorted(recorded or stage["inputs"], key=lambda entry: KINDS.index(entry["kind"]))


def _written(stage: Json) -> str:
    results = [_named(entry) for entry in stage["outputs"] if not entry["path"].startswith(RECORDS)]
    return THIS_PAGE if stage["status"] == THIS_PAGE else LINE.join(results)


def _status(stage: Json) -> str:
    return "not recorded by DVC" if stage["status"] == "not run" else str(stage["status"])


def _named(entry: Json) -> str:
    return f"{_path(entry)} {_short(entry['md5'])}"


def _path(entry: Json) -> str:
    """From the study, where it is inside."""
    path: str = entry["path"] if entry["kind"] == "data" else entry["name"]
    return path + ("/" if (entry["md5"] or "").endswith(".dir") else "")


def _short(md5: str | None) -> str:
    return md5[:DIGITS] if md5 else words.UNKNOWN


def executions(found: Json) -> Table:
    """When every stage ran, how long, and at which revision."""
    rows = [
        (
            name,
            record["finished"][:16].replace("T", " "),
            words.duration(record["seconds"]) if record["seconds"] >= 1 else "<\u00a01 s",
            revision(record["git_revision"], record["git_diff_sha256"]) + _untracked(record),
        )
        if record
        else (name, THIS_PAGE if stage["status"] == THIS_PAGE else "not recorded", "", "")
        for name, stage in found.items()
        for record in [stage["record"]]
    ]
    return Table(("Stage", "Finished (UTC)", "Took", "Git revision"), rows, "llrl")


def _untracked(record: Json) -> str:
    files = record.get("git_untracked") or []
    return f", {len(files)} untracked {'file' if len(files) == 1 else 'files'}" if files else ""


def environments(found: Json) -> Table:
    """The machines and package versions that stages ran with, each once."""
    ran: dict[tuple[str, str], list[str]] = {}
    recorded = {name: stage["record"] for name, stage in found.items() if stage["record"]}
    for name, record in recorded.items():
        ran.setdefault((f"{record['processor']}, {record['device']}", _versions(record["versions"])), []).append(name)
    rows = [
        ("all of these" if len(names) == len(recorded) else ", ".join(names), machine, versions)
        for (machine, versions), names in ran.items()
    ]
    return Table(("Stages", "Machine", "Versions"), rows, "lll")


def _versions(versions: Mapping[str, str | None]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items() if version)


def files(stage: Json) -> Table:
    """All that a stage read and wrote, and what is no longer as it was then."""
    inputs = _went_in(stage)
    later = [entry for entry in stage["inputs"] if entry not in inputs]
    rows = [
        (direction, _short(entry["md5"]), _path(entry), _kind(entry), _since(entry, stage))
        for direction, entries in (("in", [*inputs, *later]), ("out", stage["outputs"]))
        for entry in entries
    ]
    if stage["keys"]:
        keys = [change.removeprefix(PARAMETER) for change in stage["changed"] if change.startswith(PARAMETER)]
        since = f"changed since: {', '.join(keys)}" if keys else ""
        rows.insert(len(stage["inputs"]), ("in", "", f"params.yaml: {', '.join(stage['keys'])}", "parameters", since))
    return Table(("", "MD5", "File", "Kind", ""), rows, "lllll")


def _since(entry: Json, stage: Json) -> str:
    if entry["name"] not in stage["changed"]:
        return ""
    return f"{entry['state']} since" if entry["md5"] else "declared since"


def _kind(entry: Json) -> str:
    if entry["path"].startswith(RECORDS):
        return "record"
    return f"{entry['kind']}, of {entry['of']}" if entry["of"] and entry["kind"] == "data" else str(entry["kind"])
