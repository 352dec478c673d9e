"""params.yaml, typed: one section per stage, in the order of the pipeline. Nothing has a default.

A missing key, an unknown key, a wrong type or a value out of range is one clear error that names the file and the key.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, JsonValue, Tag

Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(gt=0, lt=1)]
Level = Annotated[float, Field(gt=0, lt=0.5)]
Line = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f-\x9f]+$")]  # without control characters, which move a terminal
Settings = dict[str, JsonValue]  # as records, which are JSON, can hold them: no dates, no infinite numbers


class Section(BaseModel):
    """A frozen record; unknown keys are errors, and nothing is converted silently."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Examples(Section):
    """What is learned from."""

    overlap_allowed: bool = False  # whether more than 1 % of validation or test may stand in a split before too


class Dyck(Examples):
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


class Text(Examples):
    """Next-token prediction on any text."""

    task: Literal["text"]
    source: str  # a folder, a Parquet file, or a name on the Hugging Face hub
    config: str | None  # configuration of the hub name, if it has several
    tokenizer: str  # "train" for a byte-level BPE trained on the training text, or a folder, or a hub name
    vocabulary: Annotated[int, Field(ge=257)] | None  # tokens of a BPE to train; null for a ready-made tokenizer
    length: Annotated[int, Field(ge=2)]  # tokens a block
    validation_tokens: Count | None  # evaluate on the first lines, at most so many tokens; null for all
    test_tokens: Count | None


class Arrays(Examples):
    """Examples that are arrays of numbers: images, tables."""

    task: Literal["arrays"]
    source: str  # a Parquet, CSV, NPZ or idx file, a folder of such or of images, or a name on the Hugging Face hub
    config: str | None  # configuration of the hub name, if it has several
    kind: Literal["classes", "labels", "values"]  # one class an example; several labels (0 or 1 each); numbers
    inputs: list[str] | None  # columns, or the array of an NPZ; null: all that are no targets
    targets: list[str] | None  # columns, or the array of an NPZ; null where the source itself says
    standardise: bool  # every input feature, and values to be predicted, to mean 0 and variance 1 of the training split
    seed: int  # of the split, where the source has none
    validation: Share  # of the examples, where the source has no such split
    test: Share


class Own(Examples):
    """A task of the user's own."""

    task: Annotated[str, Field(pattern=r"^[\w.]+:\w+$")]  # package.module:Task
    settings: Settings  # of its constructor


class Measure(Section):
    """What a command's figure is, in words."""

    name: Line  # accuracy
    unit: Line  # share of images
    direction: Literal["lower", "higher"]  # is better
    guess: float  # what a model scores that has learned nothing; a run that failed counts with it


class Script(Examples):
    """What somebody's own script learns: of it infinito knows its files and its figures."""

    task: Literal["command"]
    metric: Measure  # decides
    scores: dict[str, Measure]  # further figures, by name
    files: Annotated[list[str], Field(min_length=1)]  # all that the commands read: scripts, folders, data


def _kind_of_task(content: Any) -> str | None:
    name = content.get("task") if isinstance(content, dict) else getattr(content, "task", None)
    return "own" if isinstance(name, str) and ":" in name else name


Prepare = Annotated[
    Annotated[Dyck, Tag("dyck")]
    | Annotated[Text, Tag("text")]
    | Annotated[Arrays, Tag("arrays")]
    | Annotated[Script, Tag("command")]
    | Annotated[Own, Tag("own")],
    Discriminator(_kind_of_task),
]


class AdamW(Section):
    """Loshchilov & Hutter 2019."""

    name: Literal["adamw"]
    betas: Annotated[list[Rate], Field(min_length=2, max_length=2)]  # of the two moments
    epsilon: Positive


class SGD(Section):
    """Gradient descent with momentum; weight decay is part of the gradient."""

    name: Literal["sgd"]
    momentum: Rate
    nesterov: bool


class Muon(Section):
    """Matrices of hidden layers by Muon, all else by AdamW (Jordan et al. 2024)."""

    name: Literal["muon"]
    momentum: Rate
    nesterov: bool
    betas: Annotated[list[Rate], Field(min_length=2, max_length=2)]  # of AdamW
    epsilon: Positive


class Tuned(Section):
    """How an arm came to its recipe."""

    trials: Annotated[int, Field(ge=0)]  # trainings that were looked at before


class Arm(Section):
    """One of the designs under test: a network, its settings, and what of the recipe is its own."""

    network: str  # a name of infinito.networks, or package.module:Class
    settings: Settings  # the network's own, beside the shared trunk
    train: dict[str, Any] = {}  # overrides of the recipe for this arm: any key of RECIPE
    tuned: Tuned | None = None  # not stated

    @property
    def name(self) -> str:
        """What it is called."""
        return self.network

    @property
    def identity(self) -> dict[str, Any]:
        """What is trained; how is `Train.of`."""
        return {"network": self.network, "settings": self.settings}

    @property
    def promised(self) -> dict[str, Any]:
        """All of it, without what is not stated."""
        return self.identity | {key: value for key, value in self.model_dump().items() if value and key != "settings"}


class Grid(Section):
    """Crossed seeds: every init seed with every data seed."""

    inits: Annotated[int, Field(ge=2)]
    datas: Annotated[int, Field(ge=2)]
    noises: Count  # noise seeds of its own that every cell is trained with; 1: the noise comes from the data seed
    reps: Count  # trainings from identical seeds: what differs between them is nondeterminism


# what makes a run the run it is, beside its arm, data and seeds; the other keys of `train` say how many and where
RECIPE = (
    "trunk", "steps", "batch", "optimiser", "learning_rate", "warmup", "schedule", "weight_decay", "decayed",
    "clip_norm", "label_smoothing", "keep", "precision",
)  # fmt: skip
OF_COMMANDS = ("values", "threads")  # the same where the arms are commands
# what plans and records of before there was a choice mean; it is left out of a recipe, so that they stay valid
BEFORE: dict[str, Any] = {
    "optimiser": {"name": "adamw", "betas": [0.9, 0.999], "epsilon": 1e-8},
    "decayed": "all",
    "label_smoothing": 0.0,
    "keep": "last",
    "precision": "float32",
}


def recipe(train: Mapping[str, Any], own: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """How a run is trained: the recipe in a section `train`, with an arm's own keys in the place of the shared ones.

    An arm's `trunk` names only what it has otherwise. Where a best point is kept, the curve's points belong to it.
    """
    own = dict(own or {})
    if "trunk" in own:
        own["trunk"] = {**train["trunk"], **own["trunk"]}
    whole = {**train, **own}
    keys = (*RECIPE, "curve_every") if whole.get("keep") == "best" else OF_COMMANDS if "values" in whole else RECIPE
    found = {key: value for key, value in whole.items() if key in keys}
    return {key: value for key, value in found.items() if key not in BEFORE or value != BEFORE[key]}


class Design(Section):
    """Which arms are trained, and from which seeds."""

    seed: Annotated[int, Field(ge=0, lt=100_000)]  # root of all pools of seeds
    plan: str | None  # sha256 of the plan.json that was written before the runs, or null: the verdict is exploratory
    pilot: Annotated[int, Field(ge=0, lt=1_000_000)]  # pairs to plan with, never part of the verdict
    pairs: Annotated[int, Field(ge=1, lt=1_000_000)]  # confirmatory pairs, for the verdict
    looks: list[Count] | Literal["anytime"]  # tests before all pairs are run: [] none, [10, 15, 20] planned, or anytime
    grid: Grid | None  # exploratory, for attribution and for selecting seeds; null for a study that does neither

    @property
    def design(self) -> tuple[int, ...] | Literal["anytime"]:
        """The looks, as `sequential.stopped` takes them."""
        return self.looks if self.looks == "anytime" else tuple(self.looks)

    @property
    def recipe(self) -> dict[str, Any]:
        """See `recipe`."""
        return recipe(self.model_dump())


class Train(Design):
    """How every run is trained, and which seeds."""

    candidate: Arm
    baseline: Arm
    ablations: dict[str, Arm]  # further arms, each against the same baseline; all count in the family of tests
    trunk: Settings  # settings that all networks share, as width, layers, heads, dropout of the built-in ones
    steps: Count
    batch: Count
    optimiser: Annotated[AdamW | SGD | Muon, Field(discriminator="name")]
    learning_rate: Positive
    warmup: Annotated[int, Field(ge=0)]  # steps of linear warm-up
    schedule: Literal["constant", "cosine"]  # after the warm-up; cosine ends at 0
    weight_decay: NotNegative
    decayed: Literal["all", "matrices"]  # what it shrinks; matrices leaves out biases, norms and embeddings
    clip_norm: Positive  # largest gradient norm of a run
    label_smoothing: Rate  # share of a label that is spread over all labels while training
    keep: Literal["last", "best"]  # weights that count: the last, or the best on validation at the curve's points
    engine: Literal["auto", "stacked", "loop"]  # runs together, or one after the other, which takes any network
    precision: Literal["float32", "tf32", "bfloat16"]  # of matrix products; tf32 is the same as float32 on a CPU
    stack: Count | Literal["auto"]  # runs trained together in one process; auto: as many as the device carries well
    curve_every: Count  # steps between two points of a learning curve

    def of(self, arm: str) -> "Train":
        """How this arm is trained: its overrides are part of the recipe."""
        return Train.model_validate(self.whole(arm)) if self.arms[arm].train else self

    def whole(self, arm: str) -> dict[str, Any]:
        """The section with an arm's overrides in the place of the shared recipe."""
        own = dict(self.arms[arm].train)
        if "trunk" in own:
            own["trunk"] = self.trunk | own["trunk"]
        return self.model_dump() | own

    def unequal(self, arm: str) -> list[str]:
        """Columns of the run table in which an arm differs from the baseline by its recipe."""
        mine, other = self.of(arm), self.of("baseline")
        found = ["steps"] if mine.steps != other.steps else []
        return found + (["train_examples"] if mine.steps * mine.batch != other.steps * other.batch else [])

    @property
    def arms(self) -> dict[str, Arm]:
        """All arms by name: the candidate, the baseline, the ablations."""
        return {"candidate": self.candidate, "baseline": self.baseline, **self.ablations}


class Command(Section):
    """One of the designs under test: the command line of somebody's script."""

    command: Line  # with {init_seed} and {data_seed}, or {seed}; {out} is a folder of the run's own
    tuned: Tuned | None = None  # not stated

    @property
    def name(self) -> str:
        """What it is called."""
        return self.command

    @property
    def identity(self) -> dict[str, Any]:
        """What is run."""
        return {"command": self.command}

    @property
    def promised(self) -> dict[str, Any]:
        """All of it, without what is not stated."""
        return {key: value for key, value in self.model_dump().items() if value}


class InFile(Section):
    """A figure in a file that a command writes: JSON, or the last row of CSV or JSON lines."""

    file: str  # "{out}/metrics.json"
    key: str  # of a mapping, dotted, or a column


class InOutput(Section):
    """A figure that a command prints."""

    stdout: str  # "accuracy: {value}": what stands around it in its line, the last such line counts


class InMlflow(Section):
    """The last figure that a command logs by MLflow, whose store is a folder of the run's own meanwhile."""

    mlflow: str  # name of the metric


class InTensorboard(Section):
    """The last scalar of a tag in the event files below {out}."""

    tensorboard: str  # tag


PLACES = {"file": InFile, "stdout": InOutput, "mlflow": InMlflow, "tensorboard": InTensorboard}


def _place(content: Any) -> str | None:
    return next((name for name in PLACES if name in content or hasattr(content, name)), None) if content else None


Value = Annotated[
    Annotated[InFile, Tag("file")]
    | Annotated[InOutput, Tag("stdout")]
    | Annotated[InMlflow, Tag("mlflow")]
    | Annotated[InTensorboard, Tag("tensorboard")],
    Discriminator(_place),
]


class Commands(Design):
    """How commands are run, from which seeds, and where their figures are."""

    candidate: Command
    baseline: Command
    ablations: dict[str, Command]  # further arms, each against the same baseline; all count in the family of tests
    values: dict[str, Value]  # where figures are: test (decides), validation (selects seeds), and the task's scores
    threads: Count  # that a command may use, as OMP_NUM_THREADS and its like say
    timeout: Positive  # seconds after which a command is killed
    retries: Annotated[int, Field(ge=0)]  # how often a command that failed is run again, from the same seeds

    def of(self, arm: str) -> "Commands":
        """How this arm is run: as all are."""
        return self

    def unequal(self, arm: str) -> list[str]:
        """Columns of the run table in which an arm differs from the baseline by its recipe."""
        return []

    @property
    def arms(self) -> dict[str, Command]:
        """All arms by name: the candidate, the baseline, the ablations."""
        return {"candidate": self.candidate, "baseline": self.baseline, **self.ablations}


AnyTrain = Train | Commands


def _kind_of_arms(content: Any) -> str:
    arms = [content.get(arm) for arm in ("candidate", "baseline")] if isinstance(content, dict) else []
    commands = "values" in content if isinstance(content, dict) else isinstance(content, Commands)
    return "commands" if commands or any(isinstance(arm, dict) and "command" in arm for arm in arms) else "train"


class Compare(Section):
    """The verdict."""

    alpha: Level
    smallest_effect: Positive  # smallest difference of interest, in the task's unit, declared before the runs
    metrics: Annotated[list[str], Field(min_length=1)]  # test_loss, which decides, and further scores of the task


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
    margin: NotNegative  # confirmed: the gain is shown to be more than this, and not shown to be useless
    useful: Positive  # a gain below it is of no use: refuted when the upper bound is below, however sure the gain is


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

    title: Line | None = None  # made from the arms


class Tracking(Section):
    """Where runs are logged when they are done; no stage depends on it."""

    mlflow: Annotated[str, Field(pattern=r"^https?://[^\s]+$")] | None = None  # a tracking server
    # folders, from that of the study
    store: Line | None = None  # of records
    tensorboard: Line | None = None  # of event files
    wandb: Line | None = None  # of offline runs of Weights & Biases


class Params(Section):
    """All of params.yaml."""

    study: Line
    prepare: Prepare
    train: Annotated[
        Annotated[Train, Tag("train")] | Annotated[Commands, Tag("commands")], Discriminator(_kind_of_arms)
    ]
    compare: Compare
    attribute: Attribute | None = None  # a stage that a study does without has no section, and no place in dvc.yaml
    golden: Golden | None = None
    ensemble: Ensemble | None = None
    report: Report
    tracking: Tracking | None = None  # no stage

    @property
    def stages(self) -> list[str]:
        """The stages that this study has, in the order of the pipeline."""
        others = ("study", "tracking")
        return [name for name in type(self).model_fields if name not in others and getattr(self, name) is not None]

    @property
    def networks(self) -> Train:
        """The section `train` of a study of networks.

        Raises:
            ValueError: its arms are commands.
        """
        if isinstance(self.train, Commands):
            raise ValueError("train: found commands as arms; allowed: networks, as this needs their weights")
        return self.train

    @property
    def title(self) -> str:
        """The question of the study, in its own words or by its arms."""
        return self.report.title or f"Is {self._called('candidate')} better than {self._called('baseline')}?"

    def _called(self, arm: str) -> str:
        """The network of an arm; and what it has of its own, where both arms have the same network."""
        if isinstance(self.train, Commands):
            return f"the {arm}"
        mine = self.train.arms[arm]
        networks = {self.train.candidate.network, self.train.baseline.network}
        name = mine.network.rpartition(":")[2]
        if len(networks) == 2:
            return name if len({network.rpartition(":")[2] for network in networks}) == 2 else mine.network
        own = mine.settings | {key: value for key, value in mine.train.items() if key != "trunk"}
        own |= mine.train.get("trunk", {})
        return f"{name} with {', '.join(f'{key} {value}' for key, value in own.items())}" if own else f"plain {name}"
