"""What `explain` found, for a terminal."""

import json
from collections.abc import Sequence
from typing import Any

from infinito.lineage.settings import flat
from infinito.lineage.stages import NOT_HERE
from infinito.lineage.words import circumstances, ran

Json = dict[str, Any]

LISTED = 3


def as_text(found: Json) -> str:
    """What `explain` found, as lines for a terminal."""
    stage, rebuild, hardware = found["stage"], found["rebuild"], found["hardware"]
    lines = [f"{found['figure']} = {_shown(found['value'])}"]
    lines += [f"  {place}: {_pairs(entry)}" for place, entry in found["entries"].items() if entry]
    lines += ["", f"{found['file']}, written by stage {stage['name']} of study {found['study']}: {stage['status']}"]
    lines += [f"  changed since: {', '.join(stage['changed'])}"] if stage["changed"] else []
    lines += [f"  {NOT_HERE}: {', '.join(stage['absent'])}; dvc pull brings them"] if stage["absent"] else []
    if stage["record"]:
        lines.append(f"  {ran(stage['record'])}")
    count = f"{sum(group['count'] for group in found['runs']):,}"
    lines += [
        "",
        f"Runs behind it: {count if found['runs'] or not stage['absent'] else f'{NOT_HERE}: dvc pull brings them'}",
    ]
    for group in found["runs"]:
        seeds = "; ".join(f"{name} {_span(values)}" for name, values in group["seeds"].items() if any(values))
        lines.append(f"  {group['count']:,} of the {group['arm']}, {group['design']}, in {group['table']}: {seeds}")
    if found["runs"]:
        lines.append(f"  every run and stack by name: infinito explain {found['figure']} --json")
        lines += ["", f"Trained in {len(found['stacks']):,} stacks, {hardware['wall_seconds']:,.0f} s together"]
        lines += [f"  {line}" for line in circumstances(hardware)]
    lines += ["", "Parameters"] + [f"  {key}: {_shown(value)}" for key, value in flat(stage["params"])]
    lines += ["", "Inputs"] + [
        f"  {x['name']}  {x['md5'] or ''}" + ("" if x["state"] == "same" else f"  ({x['state']})")
        for x in stage["inputs"]
    ]
    lines += ["", "To build it again, in the root of the repository"]
    if not rebuild["exact"]:
        lines.append(f"  not exactly: {'; '.join(rebuild['differs'])}")
    width = max(len(step["command"]) for step in rebuild["commands"])
    lines += [f"  {step['command']:{width}}  # {step['what']}" for step in rebuild["commands"]]
    return "\n".join(lines) + "\n"


def _shown(value: Any) -> str:
    if isinstance(value, dict) and "value" in value and value.get("ci_low") is not None:
        return f"{value['value']} [{value['ci_low']}, {value['ci_high']}]"
    if isinstance(value, dict) and value:
        return ", ".join(value)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)


def _pairs(entry: Json) -> str:
    return ", ".join(f"{key} {value}" for key, value in entry.items())


def _span(values: Sequence[int]) -> str:
    different = sorted(set(values))
    if len(different) <= LISTED:
        return ", ".join(map(str, different))
    return f"{different[0]} to {different[-1]} ({len(different):,})"
