"""The record of a stack: what it says, checked, the job that trains it again, and the evidence that it left behind."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor

from infinito import params, tasks, training
from infinito.runs.code import code_sha256
from infinito.runs.engine import network_maker
from infinito.runs.provenance import environment
from infinito.runs.stacks import StackJob
from infinito.runs.table import Run
from infinito.storage import file_sha256, read_json, read_weights
from infinito.study import Study

Json = dict[str, Any]
Model = TypeVar("Model", bound=BaseModel)

RECORD = ("arm", "train", "data_sha256", "device")  # of stack.json, without which its runs can't be trained again


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
        how = params.BEFORE | {"engine": "stacked"} | how  # records of before there was a choice
    train = _section(params.Train, file, "train", how)
    if train.stack == "auto" or train.stack < len(rows):
        raise ValueError(f"{file}: train.stack: found {train.stack}; allowed: {len(rows)} or more, as it has such runs")
    initial = _initial(study, file, record.get("initial_sha256"))
    network_maker(arm, train.trunk, data, initial)
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
    threads_of(stack)
    evidence_of(stack, folder, record)  # better refused now than after the training
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


def threads_of(stack: Recorded) -> int:
    """As many as recorded; before they were recorded, the workers had one.

    Raises:
        ValueError: the record has no number of 1 or more.
    """
    found = stack.record.get("threads", 1)
    if not isinstance(found, int) or found < 1:
        raise ValueError(f"{stack.folder / 'stack.json'}: threads: found {found!r}; allowed: 1 or more")
    return found


def _initial(study: Study, file: Path, sha256: str | None) -> Path | None:
    """The file of initial weights that a record names by its hash."""
    if sha256 is None:
        return None
    name = study.params.golden.checkpoint if study.params.golden else None
    found = None if name is None else study.folder / name
    if found is None or not found.is_file() or file_sha256(found) != sha256:
        raise ValueError(
            f"{file}: initial_sha256: found {sha256[:12]}, which golden.checkpoint of params.yaml ({name}) is not; "
            "allowed: the file of initial weights that these runs began with"
        )
    return found.resolve()


def evidence_of(stack: Recorded, folder: Path, record: Json) -> Evidence:
    """Read it from `folder`, with its own `record`; as many runs, steps and points as the stack has.

    Raises:
        ValueError: a file that is missing, can't be read, or has other shapes than the stack.
    """
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
    here |= {"code_sha256": code_sha256(stack.job.code), "compiled": stack.job.compiled}
    now["versions"]["c++"] = training.compiler_version()
    for package in ("torch", "cuda", "driver", "c++"):
        then[package], here[package] = record.get("versions", {}).get(package), now["versions"].get(package)
    return {
        key: {"recorded": value, "here": here[key]}
        for key, value in then.items()
        if value is not None and value != here[key]
    }
