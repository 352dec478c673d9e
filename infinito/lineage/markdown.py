"""The lineage of a study as Markdown."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from infinito.escape import code, markdown
from infinito.lineage.settings import flat
from infinito.lineage.words import circumstances

Json = dict[str, Any]


def as_markdown(found: Json, states: Mapping[str, str] | None = None) -> str:
    """A `lineage` as Markdown: the stages, the files they read and wrote, their runs and parameters.

    `states`: what became of the stages in a flow run.
    """
    stages, tree = found["stages"], found["git"]
    dirty = [*tree["changed"], *tree["untracked"]]
    lines = ["```mermaid", "graph TD", *[f"    {name}" for name in stages]]
    lines += [f"    {need} --> {name}" for name, stage in stages.items() for need in stage["needs"]]
    lines += ["```", "", f"Study **{markdown(found['study'])}**, git revision {code(tree['revision'] or 'none')}"]
    lines += ["", f"Changed since: {', '.join(map(code, dirty))}"] if dirty else []
    lines += _table(
        ("stage", "in this flow run", "files and parameters", "ran (UTC)"),
        [
            (
                markdown(name),
                markdown((states or {}).get(name, "")),
                markdown(stage["status"] + (": " if stage["changed"] else "") + ", ".join(stage["changed"])),
                _ran(stage["record"]) if stage["record"] else "not recorded",
            )
            for name, stage in stages.items()
        ],
    )
    lines += _machines(stages)
    tables = [table for stage in stages.values() for table in stage["runs"]]
    for table in tables:
        numbers = ", ".join(f"{x['runs']:,} {x['design']} of the {x['arm']}" for x in table["designs"])
        lines += ["", f"**Runs in {code(table['table'])}**: {markdown(numbers)}", ""]
        lines.append(f"* {table['stacks']:,} stacks, {table['wall_seconds']:,.0f} s together")
        lines += [f"* {markdown(line)}" for line in circumstances(table)]
    lines += _table(("file", "kind", "MD5", "bytes", "state", "written by", "read by"), _files(stages))
    lines += _table(
        ("stage", "parameter", "value"),
        [
            (markdown(name), markdown(key), markdown(str(value)))
            for name, stage in stages.items()
            for key, value in flat(stage["params"])
        ],
    )
    return "\n".join(lines) + "\n"


def _ran(record: Json) -> str:
    """When, how long and at which revision, as short as a column wants it."""
    changed = " with changes" if record["git_diff_sha256"] else ""
    moment = record["finished"][:16].replace("T", " ")
    return f"{moment}, {record['seconds']:,.1f} s, `{(record['git_revision'] or 'unknown')[:8]}`{changed}"


def _machines(stages: Json) -> list[str]:
    """On what stages ran, one line a machine."""
    names: dict[str, list[str]] = {}
    for name, stage in stages.items():
        if record := stage["record"]:
            names.setdefault(f"{record['device']} ({record['processor']})", []).append(name)
    lines = [f"{', '.join(ran)} ran on {machine}" for machine, ran in names.items()]
    return ["", *[f"* {markdown(line)}" for line in lines]] if lines else []


def _files(stages: Json) -> list[tuple[str, ...]]:
    """All files that the stages read or wrote, one row for every content."""
    readers: dict[tuple[str, str], list[str]] = {}
    entries: dict[tuple[str, str], Json] = {}
    for stage, content in stages.items():
        for entry in [*content["outputs"], *content["inputs"]]:
            key = entry["name"], entry["md5"] or ""
            entries.setdefault(key, entry)
            readers.setdefault(key, [])
        for entry in content["inputs"]:
            readers[entry["name"], entry["md5"] or ""].append(stage)
    return [
        (
            code(name),
            markdown(entry["kind"]),
            code(md5) if md5 else "",
            "" if entry["size"] is None else f"{entry['size']:,}",
            markdown(entry["state"]),
            markdown(entry["of"] or ""),
            markdown(", ".join(readers[name, md5])),
        )
        for (name, md5), entry in entries.items()
    ]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Cells are Markdown already."""
    lines = [f"| {' | '.join(row)} |" for row in [head, *rows]]
    return ["", lines[0], "|" + "---|" * len(head), *lines[1:]]
