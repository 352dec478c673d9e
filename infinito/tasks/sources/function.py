"""`package.module:function`, which is called without arguments."""

import importlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from infinito.mistakes import one_line
from infinito.tasks.sources.source import Columns, Source, split_of

BUNCH = ("data", "target")  # what scikit-learn calls inputs and targets
ALLOWED = "a mapping of arrays, a pair (inputs, targets), or a mapping of splits to either"


def read(name: str) -> Source:
    """What the function gives: arrays by name, or a pair; of all examples, or for every split.

    Raises:
        ValueError: it can't be imported, is not callable, raises, or gives something else.
    """
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # importing runs foreign code, which may raise anything
        raise ValueError(
            f"prepare.source: {name!r} can't be imported: {type(error).__name__}: {one_line(error)}"
        ) from error
    if not callable(found):
        raise ValueError(f"prepare.source: {name!r} is a {type(found).__name__}; allowed: a function")
    try:
        given = found()
    except Exception as error:
        raise ValueError(f"prepare.source: {name!r} raises {type(error).__name__}: {one_line(error)}") from error
    if isinstance(given, Mapping) and given and all(split_of(str(key)) for key in given):
        parts = {str(split_of(str(key))): _columns(value, name) for key, value in given.items()}
    else:
        parts = {"all": _columns(given, name)}
    names = next(iter(parts.values()))
    said = next((pair for pair in (("inputs", "targets"), BUNCH) if set(pair) <= names.keys()), None)
    return Source(name, parts, [said[0]] if said else None, [said[1]] if said else None)


def _columns(given: Any, name: str) -> Columns:
    """All that can be arrays of a mapping, or a pair."""
    if isinstance(given, tuple | list) and len(given) == 2:
        given = {"inputs": given[0], "targets": given[1]}
    if not isinstance(given, Mapping):
        raise ValueError(f"prepare.source: {name!r} gives a {type(given).__name__}; allowed: {ALLOWED}")
    found = {}
    for key, value in given.items():
        if isinstance(value, str) or not hasattr(value, "__len__"):
            continue  # a description, a file name
        try:
            array = np.asarray(value)
        except (ValueError, TypeError) as error:
            raise ValueError(f"prepare.source: {name!r}: {key}: not an array: {one_line(error)}") from error
        found[str(key)] = array.astype(object) if array.dtype.kind in "US" else array
    if not found:
        raise ValueError(f"prepare.source: {name!r} gives no arrays; allowed: {ALLOWED}")
    return found
