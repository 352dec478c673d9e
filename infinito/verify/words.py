"""What was found, in lines for a terminal."""

from collections.abc import Iterator, Sequence
from typing import Any

from infinito.verify.record import Recorded

Json = dict[str, Any]

LISTED = 3  # tensors that a line names of many


def stack_line(stack: Recorded, changed: Json) -> str:
    """What is trained again, and what of the environment is not as recorded (see `changed_environment`)."""
    other = ", ".join(
        f"{key} {_short(value['here'])} (was {_short(value['recorded'])})" for key, value in changed.items()
    )
    runs, width = len(stack.rows), stack.job.width
    return f"{stack.name}: {runs} runs, {width} wide; environment: {'as recorded' if not other else other}"


def _short(value: Any) -> str:
    text = str(value)
    return text[:12] if len(text) == 64 else text  # hashes


def run_line(run: Json) -> str:
    """What became of a run."""
    return f"{run['run_id']} ({run['arm']}, {run['design']}, lane {run['lane']}): " + "; ".join(_clauses(run))


def _clauses(run: Json) -> Iterator[str]:
    untraced = "no trace was recorded, so only initial and final weights were compared"
    if run["equal"]:
        over = f"over {run['steps']} steps and {run['tensors']} tensors at {len(run['points'])} points"
        yield f"equal bit for bit; {untraced}" if run["tensors"] is None else f"equal bit for bit {over}"
        return
    if run["tensors"] is None:
        yield f"differs; {untraced}"
    elif run["first_step"] is None:
        yield f"differs, though not in the digests of all weights after {run['steps']} steps"
    else:
        yield f"differs first after step {run['first_step']} of {run['steps']}"
    if run["differing_tensors"] is None:
        yield "the network has other tensors now"
    elif run["point"] is not None:
        yield f"{_when(run)}: {_some(run['differing_tensors'], run['tensors'])}"
    elif run["first_step"] is not None:
        yield f"no tensor differs at the {len(run['points'])} points with a digest of every tensor"
    if not run["described"]:
        yield "stack.json and runs.parquet hold other settings or seeds than those that this id was made of"
    if run["consistent"] is False:
        yield "the record contradicts itself: its digests of tensors don't add up to those of all weights"
    yield "initial weights equal" if run["initial_equal"] else "initial weights differ already"
    yield "final weights " + ("equal" if run["final_equal"] else f"differ by {_largest_in_words(run)}")
    if run["final_equal"] and not run["hash_equal"]:
        yield "runs.parquet has another hash of them"
    loss = run["test_loss_difference"]
    yield f"test loss differs by {loss:.3g}" if loss else "test loss equal"


def _when(run: Json) -> str:
    if run["point"] == run["first_step"]:
        return f"at step {run['point']}"
    following = [] if run["first_step"] is None else [point for point in run["points"] if point >= run["first_step"]]
    expected = run["point"] in following[:1]
    which = "next point with a digest of every tensor" if expected else "first point where digests of tensors differ"
    return f"at step {run['point']}, the {which}"


def _some(names: Sequence[str], total: int) -> str:
    more = len(names) - LISTED
    return ", ".join(names[:LISTED]) + (f" and {more} more" if more > 0 else "") + f" (of {total} tensors)"


def _largest_in_words(run: Json) -> str:
    largest = run["final_difference"]
    return "more than a number says" if largest is None else f"{largest:.3g} at most"


def summary(runs: Sequence[Json]) -> str:
    """All runs in one line."""
    equal = sum(run["equal"] for run in runs)
    trained = len({(run["table"], run["stack_id"]) for run in runs})
    count = f"{len(runs)} run{'s' * (len(runs) != 1)} of {trained} stack{'s' * (trained != 1)}"
    return f"{count}, trained again: {equal} equal bit for bit, {len(runs) - equal} not"
