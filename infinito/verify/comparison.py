"""Training a stack again, and where it parts from its record."""

import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from infinito.runs.finish import finish
from infinito.storage import read_json, read_table
from infinito.verify.record import Evidence, Recorded, evidence_of, threads_of

Json = dict[str, Any]


def verified(stack: Recorded, progress: Callable[[int], None]) -> list[Json]:
    """Train a stack again, all its lanes at its recorded width, and compare those that were asked for.

    Args:
        stack: see `recorded`.
        progress: called with the model-steps done.

    Returns:
        One JSON-ready dict per run:
        run_id, arm, design, table, stack_id, lane;
        equal: whether all that follows is as recorded, bit for bit;
        described: whether the record's settings and seeds are those that the run's id was made of;
        steps, tensors (their number; None without a trace), points (steps of the learning curve);
        first_step: after which the digests of all weights differ first, counted from 1, or None;
        point: the first point at which digests of tensors differ, or None;
        differing_tensors: their names there; None where the network has other tensors now;
        consistent: whether the recorded digests of tensors add up to those of all weights; None without a trace;
        initial_equal, final_equal, hash_equal (that of the final weights in runs.parquet);
        final_difference (largest absolute, None: not finite, or of other tensors);
        test_loss_difference (in the unit of the loss).
    """
    threads = torch.get_num_threads()
    home = stack.job.scratch.parent  # where a stage would look for compiled code, too
    home.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(threads_of(stack))
    try:
        # a scratch folder of its own: a finished stack or a snapshot in the study's would be used again
        with tempfile.TemporaryDirectory(prefix="verify-", dir=home) as scratch:
            folder = finish(dataclasses.replace(stack.job, scratch=Path(scratch)), progress)
            again = evidence_of(stack, folder, read_json(folder / "stack.json"))
            rows = read_table(folder / "runs.parquet").to_pandas()
    finally:
        torch.set_num_threads(threads)
    then = evidence_of(stack, stack.folder, stack.record)
    return [_compared(stack, lane, then, again, rows.iloc[lane]) for lane in stack.asked]


def _compared(stack: Recorded, lane: int, then: Evidence, again: Evidence, now: "pd.Series[Any]") -> Json:
    row = stack.rows.iloc[lane]
    alike = {which: _equal(getattr(then, which), getattr(again, which), lane) for which in ("initial", "final")}
    result: Json = {
        **{key: str(row[key]) for key in ("run_id", "arm", "design", "table", "stack_id")},
        "lane": lane,
        "described": stack.job.run_id(stack.job.runs[lane]) == row["run_id"],
        "steps": stack.job.train.steps,
        "tensors": None if then.trace is None else len(then.tensors),
        "points": stack.points,
        **_parting(stack.points, lane, then, again),
        **{f"{which}_equal": equal for which, equal in alike.items()},
        # older run tables lack it
        "hash_equal": pd.isna(row.get("weights_sha256")) or row["weights_sha256"] == now["weights_sha256"],
        "final_difference": _largest(then.final, again.final, lane),
        "test_loss_difference": abs(float(row["test_loss"]) - float(now["test_loss"])),
    }
    sound = ("described", "initial_equal", "final_equal", "hash_equal")
    parted = result["first_step"] is not None or result["differing_tensors"] != [] or result["consistent"] is False
    result["equal"] = all(result[key] for key in sound) and not parted and result["test_loss_difference"] == 0
    return result


def _parting(points: list[int], lane: int, then: Evidence, again: Evidence) -> Json:
    """Where the traces of a lane part."""
    if then.trace is None or then.tensor_trace is None or again.trace is None or again.tensor_trace is None:
        return {"first_step": None, "point": None, "differing_tensors": [], "consistent": None}
    steps = (then.trace[lane] != again.trace[lane]).nonzero().flatten().tolist()
    places = torch.tensor(points) - 1
    sums = then.tensor_trace[lane].sum(-1, dtype=torch.int32)
    found: Json = {
        "first_step": steps[0] + 1 if steps else None,
        "point": None,
        "differing_tensors": None,
        "consistent": bool((sums == then.trace[lane][places]).all()),
    }
    if then.tensors != again.tensors:
        return found
    differs = then.tensor_trace[lane] != again.tensor_trace[lane]  # [C, tensors]
    place = next(iter(differs.any(-1).nonzero().flatten().tolist()), None)
    if place is None:
        return found | {"differing_tensors": []}
    names = [name for name, other in zip(then.tensors, differs[place].tolist(), strict=True) if other]
    return found | {"point": points[place], "differing_tensors": names}


def _fitting(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    shapes = [{name: (x.shape, x.dtype) for name, x in some.items()} for some in (one, other)]
    return shapes[0] == shapes[1]


def _equal(one: dict[str, Tensor], other: dict[str, Tensor], lane: int) -> bool:
    """By their bits: a diverged run's NaN are equal to themselves, and 0 is not -0."""

    def bits(tensor: Tensor) -> Tensor:
        return tensor[lane].reshape(-1).contiguous().view(torch.uint8)

    return _fitting(one, other) and all(torch.equal(bits(one[name]), bits(other[name])) for name in one)


def _largest(one: dict[str, Tensor], other: dict[str, Tensor], lane: int) -> float | None:
    """The largest absolute difference of two runs' weights; None if it isn't finite or they have other tensors."""
    if not _fitting(one, other):
        return None
    largest = 0.0
    for name in one:
        a, b = (tensor[name][lane].double() for tensor in (one, other))
        same = (a == b) | (a.isnan() & b.isnan())
        apart = torch.where(same, 0.0, (a - b).abs())
        if not apart.isfinite().all():
            return None
        largest = max(largest, float(apart.max())) if apart.numel() else largest
    return largest
