"""The figures that a command has reported: in a file, in what it printed, by MLflow, or by TensorBoard."""

import csv
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infinito import params
from infinito.mistakes import one_line

NUMBER = r"(?P<value>[-+]?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?|nan|inf(?:inity)?))"
STORE = "mlruns"  # of MLflow, below {out}


def environment(values: Mapping[str, params.Value], out: Path) -> dict[str, str]:
    """What a command must be told for its figures to come where they are looked for."""
    if not any(isinstance(value, params.InMlflow) for value in values.values()):
        return {}
    return {"MLFLOW_TRACKING_URI": (out / STORE).as_uri(), "MLFLOW_ALLOW_FILE_STORE": "true"}


def figure(value: params.Value, out: Path, log: Path, folder: Path) -> float:
    """One figure of a run.

    Args:
        value: where it is.
        out: the folder {out} of the run.
        log: what it printed.
        folder: of the study, from which relative files are.

    Raises:
        ValueError: it is not there, or is no number; in one line.
    """
    if isinstance(value, params.InFile):
        file = folder / value.file.replace("{out}", str(out))
        return _number(_in_file(file, value), value.key, value.file)
    if isinstance(value, params.InOutput):
        found = [*pattern(value.stdout).finditer(log.read_text(encoding="utf-8", errors="replace"))]
        if not found:
            raise ValueError(f"found no line {value.stdout!r} in its output")
        return float(found[-1]["value"])
    if isinstance(value, params.InMlflow):
        files = sorted((out / STORE).glob(f"*/*/metrics/{value.mlflow}"))
        if len(files) != 1:
            raise ValueError(f"found {len(files)} MLflow runs with a metric {value.mlflow!r}; allowed: 1")
        return _number(files[0].read_text().split("\n")[:-1][-1].split()[1], value.mlflow, "MLflow")
    return _scalar(value.tensorboard, out)


def pattern(text: str) -> re.Pattern[str]:
    """What finds a figure in lines like `text`, in which {value} stands for it and spaces may be any.

    Raises:
        ValueError: {value} does not stand there once.
    """
    parts = text.split("{value}")
    if len(parts) != 2 or not text.replace("{value}", "").strip():
        raise ValueError(f"found {text!r}; allowed: a piece of a line with {{value}} once, as 'accuracy: {{value}}'")
    before, after = (r"\s+".join(map(re.escape, re.split(r"\s+", part))) for part in parts)
    return re.compile(f"{before}{NUMBER}{after}", re.IGNORECASE)


def _in_file(file: Path, value: params.InFile) -> Any:
    if not file.is_file():
        raise ValueError(f"{value.file}: no such file")
    try:
        text = file.read_text(encoding="utf-8")
        if file.suffix in (".csv", ".tsv"):
            rows: list[Any] = list(csv.DictReader(text.splitlines(), delimiter="\t" if file.suffix == ".tsv" else ","))
            content = rows[-1] if rows else {}
        elif file.suffix == ".jsonl":
            content = json.loads(text.strip().splitlines()[-1])
        else:
            content = json.loads(text)
    except (ValueError, IndexError, csv.Error) as error:
        raise ValueError(f"{value.file}: not readable as {file.suffix[1:] or 'JSON'}: {one_line(error)}") from error
    if isinstance(content, dict) and value.key in content:
        return content[value.key]
    for part in value.key.split("."):
        if isinstance(content, list) and part.isdecimal() and int(part) < len(content):
            content = content[int(part)]
        elif isinstance(content, dict) and part in content:
            content = content[part]
        else:
            has = f"; it has {', '.join(map(str, content))[:200]}" if isinstance(content, dict) else ""
            raise ValueError(f"{value.file}: found no {value.key!r}{has}")
    return content


def _scalar(tag: str, out: Path) -> float:
    from infinito.readers import tensorboard

    files = sorted(out.rglob(tensorboard.EVENTS))
    scalars = (scalar for file in files for scalar in tensorboard.scalars(file))
    found = [(step, time, number) for name, step, time, number in scalars if name == tag]
    if not found:
        raise ValueError(f"found no scalar {tag!r} in {len(files)} event files below {{out}}")
    return max(found)[2]


def _number(found: Any, key: str, where: str) -> float:
    try:
        if isinstance(found, bool):
            raise ValueError
        return float(found)
    except (TypeError, ValueError):
        raise ValueError(f"{where}: {key}: found {str(found)[:60]!r}; allowed: a number") from None
