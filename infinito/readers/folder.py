"""A folder with one file a run, or one table an arm: arm, seed and run come from the paths."""

import dataclasses
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from infinito.readers import delimited, json_files, lm_eval, logs, parquet
from infinito.readers.direction import direction
from infinito.readers.pattern import compiled
from infinito.readers.results import Options, Results, completed

TABLES = {**dict.fromkeys(delimited.SUFFIXES[:3], delimited), **dict.fromkeys(parquet.SUFFIXES, parquet)}


def read(folder: Path, options: Options) -> Results:
    """All files below a folder, or those that --pattern fits.

    Raises:
        ValueError: no files, or of several kinds; one that can't be read; paths that don't say which arm is which.
    """
    paths = sorted((p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")), key=_natural)
    names = {path: path.relative_to(folder).as_posix() for path in paths}
    if options.pattern:
        fits = compiled(options.pattern)
        names = {path: name for path, name in names.items() if fits.fullmatch(name)}
        if not names:
            some = next(iter(path.relative_to(folder).as_posix() for path in paths), "nothing")
            raise ValueError(f"--pattern: {options.pattern!r} fits no file below {folder}, which has {some}")
    if not names:
        raise ValueError(f"{folder}: found no files; allowed: one a run, or a table an arm")
    suffixes = {path.suffix.lower() for path in names}
    if len(suffixes) > 1:
        raise ValueError(
            f"{folder}: found {', '.join(sorted(suffixes))} files; allowed: of one kind, or --pattern '{{arm}}/*.csv'"
        )
    suffix = suffixes.pop()
    if suffix in TABLES:
        return _tables(folder, names, TABLES[suffix], options)
    if suffix == ".json" and lm_eval.is_one(json_files.content(next(iter(names)))):
        return lm_eval.read({path: json_files.content(path) for path in names}, options)
    if suffix in json_files.SUFFIXES:
        return runs_of(names, _of_json, "keys of the files", options, str(folder))
    return runs_of(names, _of_log, "names in lines", options, str(folder))


def _natural(path: Path) -> list[tuple[int, str]]:
    """Numbers in their order: 2 before 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.as_posix())]


def _known(names: Mapping[Path, str], pattern: str | None) -> tuple[dict[Path, dict[str, str]], dict[str, str]]:
    """arm, seed, run of every path; and what they were taken from.

    Without a pattern: of the parts of the paths that differ, one of whole numbers is the seed, the first other one the
    arm, the last one the run.
    """
    if pattern:
        fits = compiled(pattern)
        found = {path: {k: v for k, v in fits.fullmatch(name).groupdict().items()} for path, name in names.items()}  # type: ignore[union-attr]
        return found, {key: f"--pattern {pattern}" for key in next(iter(found.values()))}
    parts = {path: Path(name).with_suffix("").parts for path, name in names.items()}
    if len({len(part) for part in parts.values()}) > 1:
        raise ValueError("the files lie at different depths; say what their paths mean: --pattern '{arm}/{seed}.json'")
    table = pd.DataFrame(list(parts.values()), index=list(parts))
    differing = [place for place in table.columns if table[place].nunique() > 1]
    read_as: dict[str, str] = {}
    roles: dict[str, Any] = {}
    seeds = [p for p in differing if table[p].str.fullmatch(r"(seed|s)?[ _=-]?\d+").all()]
    if seeds:
        roles["seed"] = seeds[-1]
    rest = [place for place in differing if place not in roles.values()]
    groups = [place for place in rest if table[place].nunique() < len(table) or len(rest) == 1]
    if groups:
        roles["arm"] = groups[0]
    others = [place for place in rest if place not in roles.values()]
    if others:
        roles["run"] = others[-1]
        if len(others) > 1:
            raise ValueError(
                f"paths differ in {len(differing)} places, as {next(iter(names.values()))}; say what they mean: "
                "--pattern '{arm}/{task}/{seed}.json'"
            )
    for key, place in roles.items():
        read_as[key] = f"folder {place + 1} of the path" if place < len(table.columns) - 1 else "the file's name"
    found = {path: {key: str(part[place]) for key, place in roles.items()} for path, part in parts.items()}
    for known in found.values():
        if "seed" in known:
            known["seed"] = re.sub(r"\D", "", known["seed"]).lstrip("0") or "0"
    return found, read_as


def _tables(folder: Path, names: dict[Path, str], reader: Any, options: Options) -> Results:
    """A table an arm, each with seeds of its own; they say nothing about those of another arm."""
    if len(names) == 1:
        return reader.read(next(iter(names)), dataclasses.replace(options, pattern=None))
    known, read_as = _known(names, options.pattern)
    pieces, remarks = [], []
    units: dict[str, str] = {}
    for path in names:
        found = reader.read(path, dataclasses.replace(options, pattern=None))
        remarks += found.remarks
        units |= found.units
        read_as = found.read_as | read_as
        pieces.append(found.table.assign(**known[path], source=names[path]))
    table = pd.concat(pieces, ignore_index=True)
    pairing = "seed" if "seed" in known[next(iter(names))] else None
    return Results(completed(table, str(folder)), read_as, list(dict.fromkeys(remarks)), pairing, units)  # type: ignore[arg-type]


# a run's figures (metric, step, value), their units, and names of those that are no metrics
Run = tuple[pd.DataFrame, dict[str, str], list[str]]


def runs_of(
    names: Mapping[Path, str], read: Callable[[Path, Options], Run], taken: str, options: Options, source: str
) -> Results:
    """A file a run.

    Args:
        names: the files, and what is said of them in their paths.
        read: what reads one.
        taken: what the metrics are taken for, in words.
        options: what the user says of them.
        source: for messages.

    Raises:
        ValueError: no figures in any; paths that don't say which arm is which.
    """
    known, read_as = _known(names, options.pattern)
    pieces, left, empty = [], [], []
    units: dict[str, str] = {}
    for path in names:
        piece, more, others = read(path, options)
        units |= more
        left += others
        if piece.empty:
            empty.append(names[path])
            piece = pd.DataFrame({"metric": [pd.NA], "value": [np.nan]})
        pieces.append(piece.assign(**({"run": names[path]} | known[path]), source=names[path]))
    table = pd.concat(pieces, ignore_index=True)
    metrics = [m for m in table["metric"].dropna().unique()]
    if not metrics:
        raise ValueError(
            f"{source}: found no figures in {', '.join(empty[:3])}; say which: --metric NAME or --match TEXT"
        )
    remarks = []
    if empty:
        remarks.append(f"{len(empty)} files have no figures: {', '.join(empty[:5])}.")
        lost = table[table["metric"].isna()]
        every = [lost.assign(metric=metric, status="no figure") for metric in metrics]
        table = pd.concat([table.dropna(subset=["metric"]), *every])
    if left:
        remarks.append(f"{', '.join(dict.fromkeys(left))}: not taken for metrics (--metric says otherwise).")
    read_as["metric"] = taken
    pairing = "seed" if "seed" in known[next(iter(names))] else None
    return Results(completed(table, source), read_as, remarks, pairing, units)  # type: ignore[arg-type]


def _of_log(path: Path, options: Options) -> Run:
    with path.open(encoding="utf-8", errors="replace") as file:
        return logs.read_run(file, options)


def _of_json(path: Path, options: Options) -> Run:
    """The figures of a JSON file by their dotted keys: those that are named, or those whose names are metrics'."""
    found = json_files.content(path)
    if isinstance(found, list):
        found = found[-1] if found and isinstance(found[-1], dict) else {}
    flat = {k: v for k, v in json_files.flat(found).items() if isinstance(v, int | float) and not isinstance(v, bool)}
    wanted = options.metric or ((options.value,) if options.value else ())
    if wanted:
        absent = [name for name in wanted if name not in flat]
        if len(absent) == len(wanted):
            return pd.DataFrame({"metric": [], "value": []}), {}, []
        chosen = {name: flat[name] for name in wanted if name in flat}
    else:
        chosen = {name: value for name, value in flat.items() if direction(name)}
        held_out = {name: value for name, value in chosen.items() if re.search(r"(^|[._/])test([._/]|$)", name)}
        chosen = held_out or chosen
    others = [] if wanted else [name for name in flat if name not in chosen]
    return pd.DataFrame({"metric": list(chosen), "value": list(chosen.values())}), {}, others
