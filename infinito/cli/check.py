"""`infinito check`: is a study complete and consistent, and what does its training take?"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from infinito.cli.app import StudyFolder, WorkerCount, app, duration, naming_flags, worker_count
from infinito.params import Commands, Script
from infinito.study import Study, load_study

if TYPE_CHECKING:
    from infinito.planning.cost import Cost


@app.command(epilog="Example: infinito check --study studies/wikitext2")
def check(study: StudyFolder = Path("."), workers: WorkerCount = None) -> None:
    """Say whether a study is complete and consistent, and what its training takes.

    It reads params.yaml, and plan.json if train.plan names it, imports and builds every arm, and trains a few steps of
    each. What can't fit is refused: more memory than the machine has, more seeds than there are, more than ten years.
    """
    import torch

    from infinito.library import check_link
    from infinito.planning import cost, preregistration

    this = load_study(study)
    check_link(study)
    train, found = this.params.train, preregistration.registered(this)
    plan = found and found[0]
    changed = plan and preregistration.changed_setting(plan, this.params)
    if changed:
        raise ValueError(f"{this.plan}: {changed} is not as planned; allowed: as planned, or train.plan: null")
    torch.set_num_threads(1)  # as in the stages' worker processes
    count = worker_count() if workers is None else workers
    with naming_flags("workers"):
        if count < 1:
            raise ValueError(f"workers: found {count}; allowed: 1 or more")
    counted = cost.runs(this.params)
    if isinstance(train, Commands):
        _check_commands(this, train, sum(designs.total() for designs in counted.values()))
        return
    cost.check_examples(this.params.prepare)
    with _prepared(this) as data:
        taken = cost.training_cost(this, data, count)
    grid = train.grid
    steps = sorted({train.of(arm).steps for arm in train.arms})
    print(
        f"{study / 'params.yaml'}: study {this.params.study}: {', '.join(train.arms)}; {train.pairs} pairs, "
        + (f"a grid of {grid.inits} x {grid.datas} seeds" if grid else "no grid of seeds")
        + f"; at most {sum(designs.total() for designs in counted.values())} runs, "
        + f"{' or '.join(map(str, steps))} steps each; "
        + (f"under the plan of {plan['created']}" if plan else "no plan: the verdict will be exploratory")
    )
    _print_cost(this, taken)


def _check_commands(study: Study, train: Commands, runs: int) -> None:
    """Say what would be run, of files and programs that are there; how long it takes only the commands know."""
    from infinito.runs import commands
    from infinito.tasks import command

    settings = study.params.prepare
    assert isinstance(settings, Script)  # `load_study` has checked
    files = command.hashes(settings.files, study.folder)
    commands.check_programs(study, train)
    where = study.folder / "params.yaml"
    print(f"{where}: study {study.params.study}: at most {runs} runs of commands, which read {len(files)} files")
    for arm, own in train.arms.items():
        print(f"{arm}: {own.command}")


@contextmanager
def _prepared(study: Study) -> Iterator[Path]:
    """The study's prepared data, or, where there are none of these settings, as the stage prepare would make them."""
    from infinito import tasks
    from infinito.storage import read_json
    from infinito.tasks.split import used_settings

    manifest = study.data / "manifest.json"
    if manifest.is_file() and read_json(manifest).get("settings") == used_settings(study.params.prepare):
        yield study.data
        return
    with tempfile.TemporaryDirectory() as folder:
        tasks.prepare(study.params.prepare, Path(folder), study.folder)
        yield Path(folder)


def _print_cost(study: Study, cost: "Cost") -> None:
    from infinito.planning.cost import gib

    for name, arm in cost.arms.items():
        together = "one at a time" if arm.width == 1 else f"{arm.width} at once"
        memory = "memory unknown" if arm.bytes is None else f"{gib(arm.bytes)} a worker"
        speed = "speed not measured" if arm.per_second is None else f"{arm.per_second:,.3g} model-steps/s uncompiled"
        print(
            f"{name}: {study.params.networks.arms[name].network}, {arm.parameters:,} parameters; {arm.runs:,} runs, "
            f"{together}, {memory}; {arm.model_steps:,} model-steps, {speed}"
        )
    time = "unknown: a step is too large to be measured here" if cost.hours is None else f"about {duration(cost.hours)}"
    print(f"training: {time}, uncompiled and without evaluation, {cost.workers} workers, engine {cost.engine}")
