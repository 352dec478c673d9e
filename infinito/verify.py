"""Whether a record still holds: its runs are trained again from it, and compared with it bit by bit, step by step.

The trace of a training (see `infinito.trace`) says after which step two trainings part. A digest of every tensor there
is only at the points of the learning curve, so the tensor is known as of the next point.
"""

import dataclasses
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor

from infinito import params, stacks, tasks
from infinito.lineage.runs import run_table
from infinito.params import Study
from infinito.provenance import code_sha256, environment
from infinito.runs import Run
from infinito.stacks import StackJob
from infinito.storage import file_sha256, read_json, read_table, read_weights

Json = dict[str, Any]
Model = TypeVar("Model", bound=BaseModel)

SCHEMA = "infinito/verify/1"
LISTED = 3  # names that a message gives of many
# columns of a run table without which its runs can't be trained again
COLUMNS = ("run_id", "stack_id", "lane", "arm", "design", "init_seed", "data_seed", "noise_seed", "rep", "test_loss")
RECORD = ("arm", "train", "data_sha256", "device")  # the same of stack.json


# ------------------------------------------------------------------------------------------------------------ the runs


def runs_of(study: Study) -> pd.DataFrame:
    """All runs of a study's run tables; `table`: the folder of each.

    Raises:
        FileNotFoundError: no dvc.yaml.
        ValueError: no runs, a run table that can't be read, or one that lacks a column.
    """
    table = run_table(study.folder)
    if table.empty:
        raise ValueError(f"{study.runs / 'runs.parquet'}: no such file, and no other runs; train them: dvc repro train")
    missing = [column for column in COLUMNS if column not in table or table[column].isna().any()]
    if missing:
        raise ValueError(f"{', '.join(table['table'].unique())}: not run tables: column {missing[0]} is missing")
    return table


def chosen(table: pd.DataFrame, names: Sequence[str], sample: int | None = None, every: bool = False) -> set[str]:
    """Ids of runs, asked for in one of three ways.

    Args:
        table: see `runs_of`.
        names: ids, or the beginnings of ids, each of which must fit one only.
        sample: so many, drawn anew each time, so that nobody knows beforehand which runs will be looked at.
        every: all of them.

    Raises:
        ValueError: none of the three or several; a name that fits no id or more than one; too large a sample.
    """
    if bool(names) + (sample is not None) + every != 1:
        asked = [*names, *(["--sample"] if sample is not None else []), *(["--all"] if every else [])]
        raise ValueError(
            f"RUN_ID: found {', '.join(asked) or 'none'}; allowed: ids or their beginnings, or --sample N, or --all"
        )
    known = sorted(table["run_id"].unique())
    if every:
        return set(known)
    if sample is not None:
        if not 1 <= sample <= len(known):
            raise ValueError(f"--sample: found {sample}; allowed: 1 to {len(known)}, the runs of this study")
        return set(random.SystemRandom().sample(known, sample))
    return {_only(known, name) for name in names}


def _only(known: list[str], name: str) -> str:
    fitting = [run for run in known if run.startswith(name)]
    if len(fitting) != 1:
        problem = f"with which {len(fitting)} ids begin" if fitting else "with which no id begins"
        some = ", ".join((fitting or known)[:LISTED])
        raise ValueError(f"RUN_ID: found {name!r}, {problem}; allowed: the beginning of one id only, as {some}, ..")
    return fitting[0]


# ----------------------------------------------------------------------------------------------------------- the record


@dataclass(frozen=True)
class Recorded:
    """A stack as it was recorded, and the job that trains it again."""

    folder: Path  # of its files
    record: Json
    rows: pd.DataFrame  # of the run table, lane by lane
    asked: list[int]  # lanes that are to be compared
    job: StackJob

    @property
    def name(self) -> str:
        return str(self.record.get("name", self.folder.name))

    @property
    def facts(self) -> Json:
        """JSON-ready: which stack it is, and whether a trace of it was recorded."""
        traced = self.record.get("tensors") is not None
        found = {"stack_id": self.folder.name, "table": str(self.folder.parent.parent), "name": self.name}
        return found | {"runs": len(self.rows), "width": self.job.width, "traced": traced}

    @property
    def points(self) -> list[int]:
        """The steps of the learning curve, after which there is a digest of every tensor."""
        steps, every = self.job.train.steps, self.job.train.curve_every
        return [*range(every, steps, every), steps]


@dataclass(frozen=True)
class Evidence:
    """What a training of S runs left behind: weights [S, ...] by name, and the trace if there is one."""

    initial: dict[str, Tensor]
    final: dict[str, Tensor]
    trace: Tensor | None  # int32 [S, steps]
    tensor_trace: Tensor | None  # int32 [S, C, tensors]
    tensors: list[str]


def recorded(study: Study, table: pd.DataFrame, ids: set[str]) -> list[Recorded]:
    """The stacks that these runs belong to, in the order of the table, everything checked that they need.

    Raises:
        ValueError: a record that is missing, can't be read, or contradicts the run table; other data or initial weights
            than those that the record names, or none.
    """
    data = tasks.load(study.data)
    return [
        _stack(study, data, Path(str(rows["table"].iloc[0])) / "stacks" / str(rows["stack_id"].iloc[0]), rows, ids)
        for _, rows in table.groupby(["table", "stack_id"], sort=False)
        if rows["run_id"].isin(ids).any()
    ]


def _stack(study: Study, data: tasks.Data, folder: Path, rows: pd.DataFrame, ids: set[str]) -> Recorded:
    file = folder / "stack.json"
    record = read_json(file)
    if not isinstance(record, dict):
        raise ValueError(f"{file}: found {type(record).__name__}; allowed: the record of a stack")
    missing = [key for key in RECORD if record.get(key) is None]
    if missing:
        raise ValueError(f"{file}: {missing[0]} is missing, without which its runs can't be trained again")
    rows = rows.sort_values("lane", ignore_index=True)
    if rows["lane"].tolist() != list(range(len(rows))) or rows["run_id"].tolist() != record.get("runs"):
        raise ValueError(f"{file}: runs: not those that runs.parquet has of this stack, lane by lane")
    if record["data_sha256"] != data.sha256:
        raise ValueError(
            f"{study.data / 'manifest.json'}: found data {data.sha256[:12]}; allowed: {record['data_sha256'][:12]}, "
            f"which {file} names (dvc checkout, or dvc repro prepare)"
        )
    arm = _section(params.Arm, file, "arm", record["arm"])
    how = record["train"]
    if isinstance(how, dict):
        how = {"precision": "float32"} | how  # records of before there was a choice
    train = _section(params.Train, file, "train", how)
    if train.stack == "auto" or train.stack < len(rows):
        raise ValueError(f"{file}: train.stack: found {train.stack}; allowed: {len(rows)} or more, as it has such runs")
    initial = _initial(study, file, record.get("initial_sha256"))
    stacks.network_maker(arm, train.trunk, data, initial)
    on_gpu = not str(record["device"]).startswith("cpu") and torch.cuda.is_available()
    stack = Recorded(
        folder=folder,
        record=record,
        rows=rows,
        asked=[lane for lane, run in enumerate(rows["run_id"]) if run in ids],
        job=StackJob(
            study=study.params.study,
            arm=arm,
            train=train,
            data=study.data.resolve(),
            data_sha256=data.sha256,
            runs=tuple(_run(row) for _, row in rows.iterrows()),
            number=0,
            scratch=study.scratch.resolve(),
            protocol=record.get("protocol_sha256"),
            initial=initial,
            device="cuda" if on_gpu else "cpu",
            compile=bool(record.get("compiled", True)),
        ),
    )
    _threads(stack)
    _evidence(stack, folder, record)  # better refused now than after the training
    return stack


def _run(row: "pd.Series[Any]") -> Run:
    seeds = (int(row[key]) for key in ("init_seed", "data_seed", "rep", "noise_seed"))
    return Run(str(row["arm"]), str(row["design"]), *seeds)


def _section(model: type[Model], file: Path, key: str, content: Any) -> Model:
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, (key, *first["loc"])))
        message = f"{first['msg'][0].lower()}{first['msg'][1:]}"
        raise ValueError(f"{file}: {place}: {message}, found {first.get('input')!r}"[:400]) from error


def _threads(stack: Recorded) -> int:
    """As many as recorded; before they were recorded, the workers had one."""
    found = stack.record.get("threads", 1)
    if not isinstance(found, int) or found < 1:
        raise ValueError(f"{stack.folder / 'stack.json'}: threads: found {found!r}; allowed: 1 or more")
    return found


def _initial(study: Study, file: Path, sha256: str | None) -> Path | None:
    """The file of initial weights that a record names by its hash."""
    if sha256 is None:
        return None
    name = study.params.golden.checkpoint
    found = None if name is None else study.folder / name
    if found is None or not found.is_file() or file_sha256(found) != sha256:
        raise ValueError(
            f"{file}: initial_sha256: found {sha256[:12]}, which golden.checkpoint of params.yaml ({name}) is not; "
            "allowed: the file of initial weights that these runs began with"
        )
    return found.resolve()


def _evidence(stack: Recorded, folder: Path, record: Json) -> Evidence:
    """Read it from `folder`, with its own `record`; as many runs, steps and points as the stack has."""
    runs = len(stack.rows)
    weights = {which: read_weights(folder / f"{which}.safetensors") for which in ("initial", "final")}
    for which, named in weights.items():
        for name, value in named.items():
            if value.ndim == 0 or len(value) != runs:
                raise ValueError(
                    f"{folder / which}.safetensors: {name}: found {list(value.shape)}; allowed: [{runs}, ..]"
                )
    file, names = folder / "trace.safetensors", record.get("tensors")
    if names is None:
        if file.exists():
            raise ValueError(f"{folder / 'stack.json'}: tensors is missing: the names of those in trace.safetensors")
        return Evidence(**weights, trace=None, tensor_trace=None, tensors=[])
    trace = read_weights(file)
    shapes = {"all": [runs, stack.job.train.steps], "tensors": [runs, len(stack.points), len(names)]}
    for name, shape in shapes.items():
        found = trace.get(name)
        if found is None or list(found.shape) != shape or found.dtype != torch.int32:
            what = "nothing" if found is None else f"{found.dtype} {list(found.shape)}"
            raise ValueError(f"{file}: {name}: found {what}; allowed: torch.int32 {shape}, as stack.json says")
    return Evidence(**weights, trace=trace["all"], tensor_trace=trace["tensors"], tensors=names)


def changed_environment(stack: Recorded) -> Json:
    """What may change the bits and is not here as recorded: by name, {recorded, here}.

    The number of threads is no part of it: it will be the recorded one. What the record doesn't say is left out.
    """
    record, now = stack.record, environment(stack.job.device)
    then = {key: record.get(key) for key in ("device", "processor", "code_sha256", "compiled")}
    here = {key: now[key] for key in ("device", "processor")}
    here |= {"code_sha256": code_sha256(stack.job.arm.network), "compiled": stack.job.compiled}
    for package in ("torch", "cuda", "driver"):
        then[package], here[package] = record.get("versions", {}).get(package), now["versions"].get(package)
    return {
        key: {"recorded": value, "here": here[key]}
        for key, value in then.items()
        if value is not None and value != here[key]
    }


# ------------------------------------------------------------------------------------------------------- the comparison


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
        final_difference (largest absolute, None: not finite, or of other tensors), test_loss_difference (nats).
    """
    threads = torch.get_num_threads()
    home = stack.job.scratch.parent  # where a stage would look for compiled code, too
    home.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(_threads(stack))
    try:
        # a scratch folder of its own: a finished stack or a snapshot in the study's would be used again
        with tempfile.TemporaryDirectory(prefix="verify-", dir=home) as scratch:
            folder = stacks.finish(dataclasses.replace(stack.job, scratch=Path(scratch)), progress)
            again = _evidence(stack, folder, read_json(folder / "stack.json"))
            rows = read_table(folder / "runs.parquet").to_pandas()
    finally:
        torch.set_num_threads(threads)
    then = _evidence(stack, stack.folder, stack.record)
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


# ----------------------------------------------------------------------------------------------------------- for people


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
