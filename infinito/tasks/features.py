"""Columns of a source as the inputs and targets of a task, with every value looked at."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from infinito.tasks.sources import Columns

Kind = Literal["classes", "labels", "values"]


def chosen(key: str, columns: Columns, names: Sequence[str], where: str) -> list[np.ndarray]:
    """The columns of those names, as many examples each.

    Args:
        key: inputs or targets.
        columns, where: of one split, and its name for messages.

    Raises:
        ValueError: a missing column, no examples, columns of several lengths.
    """
    missing = [name for name in names if name not in columns]
    if missing or not names:
        found = ", ".join(columns)
        raise ValueError(
            f"prepare.{key}: {where}: found the columns {found}; needed: {', '.join(missing) or 'at least one'}"
        )
    arrays = [columns[name] for name in names]
    for name, array in zip(names, arrays, strict=True):
        if len(array) != len(arrays[0]):
            raise ValueError(
                f"prepare.{key}: {where}: found {len(arrays[0])} examples in {names[0]}, {len(array)} in {name}; "
                "allowed: as many in each"
            )
    if not len(arrays[0]):
        raise ValueError(f"prepare.source: {where}: found no examples; allowed: at least one")
    return arrays


def numbers(key: str, columns: Columns, names: Sequence[str], where: str) -> np.ndarray:
    """Columns side by side, [N, F], or the single one that has several axes, as it is.

    Raises:
        ValueError: see `chosen`; text, NaN or infinite values; several columns of several axes.
    """
    arrays = chosen(key, columns, names, where)
    for name, array in zip(names, arrays, strict=True):
        _check_numbers(f"prepare.{key}: {where}: column {name}", array)
    if len(arrays) == 1 and arrays[0].ndim > 1:
        return arrays[0]
    if any(array.ndim > 2 for array in arrays):
        shapes = ", ".join(f"{name} {array.shape[1:]}" for name, array in zip(names, arrays, strict=True))
        raise ValueError(f"prepare.{key}: {where}: found {shapes}; allowed: one array, or columns of numbers")
    return np.concatenate([array.reshape(len(array), -1) for array in arrays], 1)


def _check_numbers(where: str, array: np.ndarray) -> None:
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{where}: found {_said(array)}; allowed: numbers")
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        row, value = int(bad[0, 0]), array[tuple(bad[0])]
        raise ValueError(f"{where}, row {row}: found {value}; allowed: finite numbers, none missing")


def _said(array: np.ndarray) -> str:
    """What is there in the place of numbers."""
    first = next((value for value in array.ravel() if value is not None), None)
    return f"text ({first!r})" if isinstance(first, str) else f"{type(first).__name__} ({str(first)[:40]})"


def targets(kind: Kind, columns: Columns, names: Sequence[str], where: str) -> np.ndarray:
    """What is to be predicted: whole numbers or text [N] for classes, 0 or 1 [N, L] for labels, [N, K] for values.

    Raises:
        ValueError: see `numbers`; a class that is missing or no whole number; a label other than 0 and 1.
    """
    if kind == "classes":
        return _classes(columns, names, where)
    found = numbers("targets", columns, names, where)
    if found.ndim > 2:
        raise ValueError(f"prepare.targets: {where}: found targets of shape {found.shape[1:]}; allowed: one axis")
    if kind == "values":
        return found.astype(np.float64)
    wrong = np.argwhere((found != 0) & (found != 1))
    if len(wrong):
        row, value = int(wrong[0, 0]), found[tuple(wrong[0])]
        raise ValueError(f"prepare.targets: {where}, row {row}: found {value}; allowed: 0 or 1, with kind: labels")
    return found.astype(np.uint8)


def _classes(columns: Columns, names: Sequence[str], where: str) -> np.ndarray:
    arrays = chosen("targets", columns, names, where)
    found = arrays[0].squeeze(tuple(range(1, arrays[0].ndim))) if arrays[0].size == len(arrays[0]) else arrays[0]
    if len(arrays) > 1 or found.ndim > 1:
        many = len(arrays) if len(arrays) > 1 else found.shape[1]
        raise ValueError(f"prepare.targets: {where}: found {many} columns; allowed: one, with kind: classes")
    where = f"prepare.targets: {where}: column {names[0]}"
    if found.dtype.kind in "OUS":
        for row, value in enumerate(found):
            if not isinstance(value, str | int | np.integer):
                raise ValueError(f"{where}, row {row}: found {value!r}; allowed: text or a whole number, none missing")
        return np.array([str(value) for value in found], dtype=object)
    _check_numbers(where, found)
    wrong = np.flatnonzero(found != np.floor(found))
    if len(wrong):
        row = int(wrong[0])
        raise ValueError(f"{where}, row {row}: found {found[row]}; allowed: text or a whole number, with kind: classes")
    return found.astype(np.int64)


def images_first(inputs: np.ndarray) -> np.ndarray:
    """Examples with their channels on the first axis: [N, H, W] becomes [N, 1, H, W], and [N, H, W, C] [N, C, H, W].

    Of four axes the last one counts the channels if it is 1, 3 or 4 and the one after N is not.
    """
    if inputs.ndim == 3:
        return inputs[:, None]
    if inputs.ndim == 4 and inputs.shape[-1] in (1, 3, 4) and inputs.shape[1] not in (1, 3, 4):
        return np.ascontiguousarray(np.moveaxis(inputs, -1, 1))
    return inputs


def by_name(found: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], list[Any]]:
    """Classes as 0 .. C - 1, and their names in order, which is that of the alphabet or of the numbers."""
    names = sorted({value for values in found.values() for value in np.unique(values).tolist()})
    return {
        split: np.searchsorted(np.array(names, dtype=values.dtype), values) for split, values in found.items()
    }, names
