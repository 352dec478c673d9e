"""A study: a folder with a params.yaml, which is read and checked as a whole, and where everything lies in it."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infinito import mistakes
from infinito.importing import put_on_path
from infinito.params import (
    RECIPE,
    AnyTrain,
    Arrays,
    Commands,
    Dyck,
    InFile,
    InOutput,
    InTensorboard,
    Params,
    Script,
    Text,
    Train,
)
from infinito.yaml_reader import read_yaml

PLACEHOLDER = re.compile(r"\{(\w+)\}")  # in a command line
PLACEHOLDERS = ("init_seed", "data_seed", "noise_seed", "seed", "out")
LARGEST_ROOT = 267  # of the pools of seeds: with it the last seed is below 2**31
SHELL = ("|", ">", ">>", "<", "&&", "||", ";", "&", "2>&1")  # of which only a shell makes something
# columns of the run table that a score may not have, beside test and validation
TAKEN = (
    "test", "validation", "run_id", "study", "arm", "design", "init_seed", "data_seed", "noise_seed", "rep", "stack_id",
    "lane", "steps", "val_loss", "test_loss", "last_batch_loss", "kept_step", "diverged", "failure", "wall_seconds",
    "device",
)  # fmt: skip


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
    def ledger(self) -> Path:
        return self.folder / "plans.jsonl"

    @property
    def results(self) -> Path:
        return self.folder / "results"

    @property
    def scratch(self) -> Path:
        return self.folder / ".infinito" / "scratch"


def load_study(folder: Path) -> Study:
    """Read `folder`/params.yaml, and let Python find the modules that it names.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not YAML; a key that stands there twice, is unknown or missing; wrong types; values that contradict
            each other.
    """
    file = folder / "params.yaml"
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file; a study is a folder with a params.yaml and a dvc.yaml")
    content = read_yaml(file)
    if not isinstance(content, dict):
        raise ValueError(f"{file}: found {type(content).__name__}; allowed: a mapping with one section per stage")
    params = mistakes.validated(file, Params, mistakes.said(file, _put_right(content)))
    _check_together(file, params)
    put_on_path(folder)
    return Study(folder, params)


def _put_right(content: dict[str, Any]) -> Any:
    """See `mistakes.put_right`; what an arm has otherwise is of the types of `Train`."""
    content = mistakes.put_right(Params, content)
    train = content.get("train")
    if isinstance(train, dict) and "values" not in train:
        ablations = train.get("ablations")
        others = ablations.values() if isinstance(ablations, dict) else ()
        for arm in (train.get("candidate"), train.get("baseline"), *others):
            if isinstance(arm, dict) and isinstance(own := arm.get("train"), dict):
                whole = mistakes.put_right(Train, {**train, **own})
                arm["train"] = {key: whole[key] for key in own}
    return content


def _check_together(file: Path, params: Params) -> None:
    train, prepare = params.train, params.prepare
    _check_kind(file, params)
    _check_arms(file, params)
    if train.pairs < 2:
        raise ValueError(
            f"{file}: train.pairs: found {train.pairs}; allowed: 2 or more for an interval, 10 or more for a verdict"
        )
    _check_ensemble(file, params)
    _check_looks(file, params)
    needing = [stage for stage in params.stages if stage in ("attribute", "golden")]
    if train.grid is None and needing:
        raise ValueError(f"{file}: train.grid: found null; allowed: a grid of seeds, as {needing[0]} needs one")
    if params.golden and ("checkpoint" in params.golden.forward) != (params.golden.checkpoint is not None):
        raise ValueError(
            f"{file}: golden.checkpoint: found {params.golden.checkpoint}; allowed: a file of initial weights with "
            "forward: [.., checkpoint], else null"
        )
    if isinstance(prepare, Dyck) and prepare.min_depth > prepare.max_depth:
        raise ValueError(
            f"{file}: prepare.min_depth: found {prepare.min_depth}; allowed: at most max_depth ({prepare.max_depth})"
        )
    if isinstance(prepare, Arrays) and prepare.validation + prepare.test >= 1:
        raise ValueError(
            f"{file}: prepare.test: found {prepare.test}, beside validation: {prepare.validation}; "
            "allowed: less than 1 together, so that some are left for training"
        )
    if isinstance(prepare, Text) and (prepare.tokenizer == "train") != (prepare.vocabulary is not None):
        raise ValueError(
            f"{file}: prepare.vocabulary: found {prepare.vocabulary}; "
            "allowed: a number with tokenizer: train, else null"
        )


def _check_ensemble(file: Path, params: Params) -> None:
    ensemble, pairs = params.ensemble, params.train.pairs
    if ensemble is None:
        return
    sizes = {"sizes": max(ensemble.sizes)}
    if ensemble.compute is not None:
        sizes["compute.size"] = 2 * ensemble.compute.size  # an interval needs two groups
    for key, size in sizes.items():
        if size > pairs:
            raise ValueError(f"{file}: ensemble.{key}: needs {size} runs; allowed: at most train.pairs ({pairs})")


def _check_recipe(file: Path, train: Train, arm: str) -> None:
    """The recipe of one arm: its own keys, and all of them together."""
    where = f"train.ablations.{arm}" if arm in train.ablations else f"train.{arm}"
    own = train.arms[arm].train
    for key in own:
        if key not in RECIPE:
            hint = mistakes.meant(f"{where}.train.{key}", RECIPE)
            raise ValueError(f"{file}: {where}.train.{key}: an arm may not set it; {hint}")
    if not isinstance(own.get("trunk", {}), dict):
        raise ValueError(f"{file}: {where}.train.trunk: found {own['trunk']!r}; allowed: a mapping of settings")
    how = mistakes.validated(file, Train, train.whole(arm), f"{where}.train.")
    said = where + ".train" if own else "train"
    if how.warmup >= how.steps:
        raise ValueError(f"{file}: {said}.warmup: found {how.warmup}; allowed: fewer than steps ({how.steps})")
    width, heads = how.trunk.get("width"), how.trunk.get("heads")
    if isinstance(width, int) and isinstance(heads, int) and heads > 0 and width % heads:
        raise ValueError(f"{file}: {said}.trunk.width: found {width}; allowed: a multiple of heads ({heads})")


def _check_arms(file: Path, params: Params) -> None:
    train = params.train
    if isinstance(train, Commands):
        _check_commands(file, train)
    else:
        for name in train.arms:
            _check_recipe(file, train, name)
    what = "command" if isinstance(train, Commands) else "network, settings and recipe"
    if _same(train, "candidate", "baseline"):
        raise ValueError(
            f"{file}: train.candidate: found the same {what} as train.baseline; allowed: another "
            "arm, since equal arms trained from equal seeds give equal runs"
        )
    for name in train.ablations:
        if name in ("candidate", "baseline") or not name.isidentifier():
            raise ValueError(f"{file}: train.ablations: found {name!r}; allowed: a plain word other than the two arms")
        if any(_same(train, name, other) for other in train.arms if other != name):
            raise ValueError(
                f"{file}: train.ablations.{name}: found an arm that is there already; allowed: another one"
            )
    metrics = params.compare.metrics
    if metrics[0] != "test_loss" or len(set(metrics)) < len(metrics):
        raise ValueError(f"{file}: compare.metrics: found {metrics}; allowed: test_loss first, each metric once")


def _same(train: AnyTrain, arm: str, other: str) -> bool:
    """Whether two arms would give equal runs from equal seeds."""
    arms = train.arms
    return arms[arm].identity == arms[other].identity and train.of(arm).recipe == train.of(other).recipe


def _check_kind(file: Path, params: Params) -> None:
    """Commands are the arms of a study whose task is a command, and of no other."""
    train, prepare = params.train, params.prepare
    if isinstance(train, Commands) != isinstance(prepare, Script):
        arms = "commands" if isinstance(train, Commands) else "networks"
        allowed = "task: command" if isinstance(train, Commands) else "arms with command: (docs/commands.md)"
        raise ValueError(f"{file}: prepare.task: found {prepare.task}, with {arms} as arms; allowed: {allowed}")
    if not isinstance(train, Commands) or not isinstance(prepare, Script):
        return
    known = {"test", "validation", *prepare.scores}
    for name in [*(known - {"validation", *train.values}), *(train.values.keys() - known)]:
        found = "nothing" if name in known else train.values[name].model_dump()
        allowed = "where the figure is, of test and every score of prepare.scores, and of validation"
        raise ValueError(f"{file}: train.values.{name}: found {found}; allowed: {allowed}")
    for name in prepare.scores:
        if not name.isidentifier() or name in TAKEN:
            raise ValueError(
                f"{file}: prepare.scores: found {name!r}; allowed: a plain word, no column of the run table"
            )
    if params.ensemble is not None:
        raise ValueError(f"{file}: ensemble: found a section; allowed: none, as commands keep their predictions")
    if params.golden is not None:
        if params.golden.forward != ["selected"]:
            raise ValueError(
                f"{file}: golden.forward: found {params.golden.forward}; allowed: [selected] with commands"
            )
        if "validation" not in train.values:
            raise ValueError(
                f"{file}: train.values.validation: missing key; allowed: where the figure is by which the stage golden "
                "selects a seed, as the test figure only confirms it"
            )


def _check_commands(file: Path, train: Commands) -> None:
    """The placeholders of every command line, and where the figures of a run are looked for."""
    if train.seed > LARGEST_ROOT:
        raise ValueError(
            f"{file}: train.seed: found {train.seed}; allowed: at most {LARGEST_ROOT} with commands, whose seeds then "
            "fit into 31 bits, as most programs want"
        )
    for name, arm in train.arms.items():
        where = f"{file}: train.{'ablations.' if name in train.ablations else ''}{name}.command"
        try:
            words = shlex.split(arm.command)
        except ValueError as error:
            raise ValueError(
                f"{where}: found {arm.command!r}: {error}; allowed: words, quoted as in a shell"
            ) from error
        if not words:
            raise ValueError(f"{where}: found no words; allowed: a program and what it is told")
        for word in words:
            if word in SHELL:
                raise ValueError(
                    f"{where}: found {word!r}; allowed: one program, as no shell reads it (sh -c '...' is one)"
                )
        used = set(PLACEHOLDER.findall(arm.command))
        for other in sorted(used - {*PLACEHOLDERS}):
            raise ValueError(f"{where}: found {{{other}}}; allowed: {', '.join(f'{{{x}}}' for x in PLACEHOLDERS)}")
        both, one = {"init_seed", "data_seed"} <= used, "seed" in used
        if both == one or used & {"init_seed", "data_seed"} and not both:
            seeds = ", ".join(f"{{{x}}}" for x in PLACEHOLDERS if x in used and x != "out") or "no seed"
            raise ValueError(
                f"{where}: found {seeds}; allowed: {{init_seed}} and {{data_seed}}, or {{seed}} where a script has one"
            )
        if one and train.grid is not None:
            raise ValueError(
                f"{file}: train.grid: found a grid, and {{seed}} in the command of the {name}; allowed: null (and no "
                "attribute, no golden), as crossing seeds takes {init_seed} and {data_seed}"
            )
        if train.grid is not None and train.grid.noises > 1 and "noise_seed" not in used:
            raise ValueError(
                f"{file}: train.grid.noises: found {train.grid.noises}, and no {{noise_seed}} in the command of the "
                f"{name}; allowed: 1"
            )
        needing = [key for key, value in train.values.items() if isinstance(value, InTensorboard)
                   or isinstance(value, InFile) and "{out}" in value.file]  # fmt: skip
        if needing and "out" not in used:
            raise ValueError(
                f"{where}: found no {{out}}; allowed: a command with it, as train.values.{needing[0]} is there"
            )
    for key, value in train.values.items():
        if isinstance(value, InFile) and "{out}" not in value.file:
            raise ValueError(
                f"{file}: train.values.{key}.file: found {value.file!r}; allowed: a file below {{out}}, the folder of "
                "the run, as others would write the same one"
            )
        if isinstance(value, InOutput) and value.stdout.count("{value}") != 1:
            raise ValueError(
                f"{file}: train.values.{key}.stdout: found {value.stdout!r}; allowed: a piece of a line with {{value}} "
                "once, as 'accuracy: {value}'"
            )


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
