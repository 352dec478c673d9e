"""params.yaml, typed: one section per stage, in the order of the pipeline. Nothing has a default.

A missing key, an unknown key, a wrong type or a value out of range is one clear error that names the file and the key.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Level = Annotated[float, Field(gt=0, lt=0.5)]


class Section(BaseModel):
    """A frozen record; unknown keys are errors, and nothing is converted silently."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Dyck(Section):
    """Closing brackets in reverse order, after noise letters (the task of the original report)."""

    task: Literal["dyck"]
    seed: int  # of the examples themselves
    pool: Count  # training examples
    validation: Count
    test: Count
    kinds: Annotated[int, Field(ge=1, le=26)]  # kinds of brackets
    min_depth: Count  # opening brackets of an example, least
    max_depth: Count  # and most
    noise: Annotated[int, Field(ge=0)]  # noise letters between opening and closing brackets
    noise_kinds: Annotated[int, Field(ge=1, le=26)]


class Text(Section):
    """Next-token prediction on any text."""

    task: Literal["text"]
    source: str  # a folder, a Parquet file, or a name on the Hugging Face hub
    config: str | None  # configuration of the hub name, if it has several
    tokenizer: str  # "train" for a byte-level BPE trained on the training text, or a folder, or a hub name
    vocabulary: Annotated[int, Field(ge=257)] | None  # tokens of a BPE to train; null for a ready-made tokenizer
    length: Annotated[int, Field(ge=2)]  # tokens a block
    validation_tokens: Count | None  # evaluate on the first lines, at most so many tokens; null for all
    test_tokens: Count | None


class Arm(Section):
    """One of the two designs under test."""

    network: str  # a name of infinito.networks, or package.module:Class
    settings: dict[str, Any]  # the network's own, beside the shared trunk


class Trunk(Section):
    """Settings that both arms share."""

    width: Count
    layers: Count
    heads: Count
    dropout: Rate


class Grid(Section):
    """Crossed seeds: every init seed with every data seed."""

    inits: Annotated[int, Field(ge=2)]
    datas: Annotated[int, Field(ge=2)]
    noises: Count  # noise seeds of its own that every cell is trained with; 1: the noise comes from the data seed
    reps: Count  # trainings from identical seeds: what differs between them is nondeterminism


RECIPE = ("trunk", "steps", "batch", "learning_rate", "warmup", "schedule", "weight_decay", "clip_norm", "precision")


def recipe(train: Mapping[str, Any]) -> dict[str, Any]:
    """What makes a run the run it is, beside its arm, data and seeds; the other keys of `train` say how many and where.

    Single precision is left out: plans and records of before there was a choice mean it.
    """
    found = {key: train[key] for key in RECIPE if key in train}
    return {key: value for key, value in found.items() if (key, value) != ("precision", "float32")}


class Train(Section):
    """How every run is trained, and which seeds."""

    seed: Annotated[int, Field(ge=0, lt=100_000)]  # root of all pools of seeds
    plan: str | None  # sha256 of the plan.json that was written before the runs, or null: the verdict is exploratory
    candidate: Arm
    baseline: Arm
    ablations: dict[str, Arm]  # further arms, each against the same baseline; all count in the family of tests
    trunk: Trunk
    steps: Count
    batch: Count
    learning_rate: Positive
    warmup: Annotated[int, Field(ge=0)]  # steps of linear warm-up
    schedule: Literal["constant", "cosine"]  # after the warm-up; cosine ends at 0
    weight_decay: NotNegative
    clip_norm: Positive  # largest gradient norm of a run
    pilot: Annotated[int, Field(ge=0, lt=1_000_000)]  # pairs to plan with, never part of the verdict
    pairs: Annotated[int, Field(ge=1, lt=1_000_000)]  # confirmatory pairs, for the verdict
    looks: list[Count] | Literal["anytime"]  # tests before all pairs are run: [] none, [10, 15, 20] planned, or anytime
    grid: Grid  # exploratory, for attribution and for selecting seeds
    precision: Literal["float32", "tf32", "bfloat16"]  # of matrix products; tf32 is the same as float32 on a CPU
    stack: Count | Literal["auto"]  # runs trained together in one process; auto: as many as the device carries well
    curve_every: Count  # steps between two points of a learning curve

    @property
    def recipe(self) -> dict[str, Any]:
        """See `recipe`."""
        return recipe(self.model_dump())

    @property
    def design(self) -> tuple[int, ...] | Literal["anytime"]:
        """The looks, as `sequential.stopped` takes them."""
        return self.looks if self.looks == "anytime" else tuple(self.looks)

    @property
    def arms(self) -> dict[str, Arm]:
        """All arms by name: the candidate, the baseline, the ablations."""
        return {"candidate": self.candidate, "baseline": self.baseline, **self.ablations}


class Compare(Section):
    """The verdict."""

    alpha: Level
    smallest_effect: Positive  # smallest difference of interest, nats per token, declared before the runs
    metrics: Annotated[list[Literal["test_loss", "accuracy", "exact"]], Field(min_length=1)]  # the first one decides


class Attribute(Section):
    """The variance components."""

    alpha: Level


class Golden(Section):
    """Selecting an init seed on the grid, and confirming it on fresh data seeds against fresh controls."""

    forward: Annotated[list[Literal["selected", "best_of_ten", "best_cell", "checkpoint"]], Field(min_length=1)]
    checkpoint: str | None  # file of initial weights that are put to the same rule, with forward: [.., checkpoint]
    data_seeds: Annotated[int, Field(ge=2)]  # fresh data seeds
    controls: Count  # fresh init seeds at each of them
    alpha: Level  # one-sided
    margin: NotNegative  # the lower bound must reach it
    useful: Positive  # a gain below it is of no use; the seed is refuted when the upper bound is below


class Compute(Section):
    """An ensemble against single models of equal compute."""

    size: Annotated[int, Field(ge=2)]  # members
    runs: Annotated[int, Field(ge=2)]  # models trained size times as long, and as many with size times the arithmetic


class Ensemble(Section):
    """How many members are averaged."""

    sizes: Annotated[list[Count], Field(min_length=1)]
    compute: Compute | None


class Report(Section):
    """The page people read."""

    title: str


class Params(Section):
    """All of params.yaml."""

    study: str
    prepare: Annotated[Dyck | Text, Field(discriminator="task")]
    train: Train
    compare: Compare
    attribute: Attribute
    golden: Golden
    ensemble: Ensemble
    report: Report


@dataclass(frozen=True)
class Study:
    """A folder with a params.yaml and a dvc.yaml."""

    folder: Path
    params: Params

    @property
    def data(self) -> Path:
        return self.folder / "data" / "prepared"

    @property
    def runs(self) -> Path:
        return self.folder / "models" / "runs"

    @property
    def golden(self) -> Path:
        return self.folder / "models" / "golden"

    @property
    def ensemble(self) -> Path:
        return self.folder / "models" / "ensemble"

    @property
    def plan(self) -> Path:
        return self.folder / "plan.json"

    @property
    def results(self) -> Path:
        return self.folder / "results"

    @property
    def scratch(self) -> Path:
        return self.folder / ".infinito" / "scratch"


UNION = re.compile(r"constrained-int$|list\[|literal\[")


def _explain(file: Path, error: ValidationError) -> str:
    """All problems of a params.yaml in one line; pydantic's wording, with our key names and what was found."""
    problems: dict[tuple[str, str], str] = {}  # of a key and what was found there
    for e in error.errors():
        # the name of a union's member (the second part of prepare, list[int], literal['auto']) is no key of the file
        parts = [str(part) for i, part in enumerate(e["loc"]) if not (e["loc"][0] == "prepare" and i == 1)]
        key = ".".join(part for part in parts if not UNION.match(part))
        if e["type"] == "extra_forbidden":
            problems[key, ""] = f"{key}: unknown key"
        elif e["type"] == "missing":
            problems[key, ""] = f"{key}: missing key"
        else:
            found = e.get("input")
            hint = ""
            if isinstance(found, str) and e["type"].startswith(("float", "int")):
                hint = " (text; YAML wants a dot in 1.0e-3)" if "e" in found.lower() else " (text)"
            message = f"{e['msg'][0].lower()}{e['msg'][1:]}"
            what = f", found {found!r}{hint}"
            before = problems.get((key, repr(found)))
            if before:  # another member of a union
                before, _, what = before.rpartition(", found ")
                message = f"{before} or {message.removeprefix('input should be ')}"
                problems[key, repr(found)] = f"{message}, found {what}"
            else:
                problems[key, repr(found)] = f"{key}: {message}{what}"
    return f"{file}: " + "; ".join(problems.values())


def load_study(folder: Path) -> Study:
    """Read `folder`/params.yaml.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not YAML; unknown or missing keys; wrong types; values that contradict each other.
    """
    file = folder / "params.yaml"
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file; a study is a folder with a params.yaml and a dvc.yaml")
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file}: found {type(content).__name__}; allowed: a mapping with one section per stage")
    try:
        params = Params.model_validate(content)
    except ValidationError as error:
        raise ValueError(_explain(file, error)) from error
    _check_together(file, params)
    return Study(folder, params)


def _check_together(file: Path, params: Params) -> None:
    train, prepare = params.train, params.prepare
    if train.trunk.width % train.trunk.heads:
        raise ValueError(
            f"{file}: train.trunk.width: found {train.trunk.width}; allowed: a multiple of heads ({train.trunk.heads})"
        )
    if train.warmup >= train.steps:
        raise ValueError(f"{file}: train.warmup: found {train.warmup}; allowed: fewer than steps ({train.steps})")
    if train.candidate == train.baseline:
        raise ValueError(
            f"{file}: train.candidate: found the same network and settings as train.baseline; allowed: another arm, "
            "since equal arms trained from equal seeds give equal runs"
        )
    if train.pairs < 2:
        raise ValueError(
            f"{file}: train.pairs: found {train.pairs}; allowed: 2 or more for an interval, 10 or more for a verdict"
        )
    sizes = {"sizes": max(params.ensemble.sizes)}
    if params.ensemble.compute is not None:
        sizes["compute.size"] = 2 * params.ensemble.compute.size  # an interval needs two groups
    for key, size in sizes.items():
        if size > train.pairs:
            raise ValueError(f"{file}: ensemble.{key}: needs {size} runs; allowed: at most train.pairs ({train.pairs})")
    _check_arms(file, params)
    _check_looks(file, params)
    if ("checkpoint" in params.golden.forward) != (params.golden.checkpoint is not None):
        raise ValueError(
            f"{file}: golden.checkpoint: found {params.golden.checkpoint}; allowed: a file of initial weights with "
            "forward: [.., checkpoint], else null"
        )
    if isinstance(prepare, Dyck) and prepare.min_depth > prepare.max_depth:
        raise ValueError(
            f"{file}: prepare.min_depth: found {prepare.min_depth}; allowed: at most max_depth ({prepare.max_depth})"
        )
    if isinstance(prepare, Text) and (prepare.tokenizer == "train") != (prepare.vocabulary is not None):
        raise ValueError(
            f"{file}: prepare.vocabulary: found {prepare.vocabulary}; "
            "allowed: a number with tokenizer: train, else null"
        )


def _check_arms(file: Path, params: Params) -> None:
    train = params.train
    for name, arm in train.ablations.items():
        if name in ("candidate", "baseline") or not name.isidentifier():
            raise ValueError(f"{file}: train.ablations: found {name!r}; allowed: a plain word other than the two arms")
        if arm in [other for key, other in train.arms.items() if key != name]:
            raise ValueError(
                f"{file}: train.ablations.{name}: found an arm that is there already; allowed: another one"
            )
    metrics = params.compare.metrics
    if metrics[0] != "test_loss" or len(set(metrics)) < len(metrics):
        raise ValueError(f"{file}: compare.metrics: found {metrics}; allowed: test_loss first, each metric once")


def _check_looks(file: Path, params: Params) -> None:
    looks, pairs = params.train.looks, params.train.pairs
    if not looks:
        return
    if looks != "anytime" and (sorted(set(looks)) != looks or looks[0] < 2 or looks[-1] != pairs):
        raise ValueError(f"{file}: train.looks: found {looks}; allowed: rising numbers of pairs, the last one {pairs}")
    family = (1 + len(params.train.ablations)) * len(params.compare.metrics)
    if family > 1:
        raise ValueError(
            f"{file}: train.looks: found {looks} with {family} hypotheses; allowed: looks with one candidate and one "
            "metric, or [] with several"
        )
