"""The text of a study's dvc.yaml, made from the one there is: less some stages, or with more that they read."""

import json
import re
from collections.abc import Sequence

from infinito.params import Params

PLAIN_PATH = re.compile(r"[\w./-]+")  # others stand in quotes


def without(text: str, stages: Sequence[str]) -> str:
    """Less some stages, and what the others know of them: their parameters and outputs."""
    head, *blocks = re.split(r"(?m)^(?=  \w+:$)", text)
    gone = {block for block in blocks if block.split(":")[0].strip() in stages}
    outputs = {name for block in gone for name in re.findall(r"(?m)^      - ([\w/.]+):?$", block.partition("outs:")[2])}
    kept = "".join(block for block in blocks if block not in gone)
    kept = "".join(line for line in kept.splitlines(True) if line.strip().removeprefix("- ") not in outputs)
    keys = re.compile(r"params: \[(.*)\]")
    left = [stage for stage in Params.model_fields if stage not in stages]

    def restricted(match: re.Match[str]) -> str:
        return f"params: [{', '.join(key for key in match[1].split(', ') if key.split('.')[0] in left)}]"

    return head + keys.sub(restricted, kept).rstrip("\n") + "\n"


def depending(text: str, stage: str, paths: Sequence[str]) -> str:
    """With further files that a stage reads."""
    before, head, after = text.partition(f"  {stage}:\n")
    lines = "".join(f"      - {path if PLAIN_PATH.fullmatch(path) else json.dumps(path)}\n" for path in paths)
    return before + head + after.replace("    deps:\n", f"    deps:\n{lines}", 1)
