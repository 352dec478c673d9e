import copy
import dataclasses
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from infinito import params, runs, seeds, tasks
from infinito.planning import preregistration
from infinito.planning.ledger import Ledger
from infinito.runs import stacks
from infinito.runs.table import Run, RunTable
from infinito.stages import STAGES
from infinito.storage import canonical, file_sha256, read_json, sha256, write_json
from infinito.study import Study, load_study
from tests.conftest import in_process
from tests.plans import change, make

Records = dict[str, dict[str, Any]]


def train_pairs(study: Study, protocol: str | None) -> tuple[pd.DataFrame, Records]:
    """Train the confirmatory pairs under a plan; gives their runs and the records of their stacks."""
    train = study.params.train
    wanted = [
        Run(arm, "pairs", seed, seed)
        for arm in ("candidate", "baseline")
        for seed in seeds.pool(train.seed, "pairs", train.pairs)
    ]
    jobs = stacks.plan(study, tasks.load(study.data), wanted, protocol=protocol)
    preregistration.begin(study, {file: digest for job in jobs for file, digest in job.code.items()})
    runs.collect(in_process(jobs), study.runs)
    preregistration.trained(study)
    table = RunTable.load(study.runs)
    return table.table, {stack: table.record(stack) for stack in table.table["stack_id"].unique()}


def test_the_settings_of_a_plan_are_those_that_make_a_run(finished_study: Path) -> None:
    """A run's identity changes with every setting that a plan fixes, and with no other."""
    study = load_study(finished_study)
    train = study.params.train
    job = stacks.plan(study, tasks.load(study.data), [Run("candidate", "pairs", 1, 1)])[0]
    other: dict[str, Any] = {
        "schedule": "constant",
        "precision": "tf32",
        "trunk": train.trunk | {"width": 16},
        "optimiser": params.SGD(name="sgd", momentum=0.9, nesterov=True),
        "decayed": "matrices",
        "label_smoothing": 0.1,
        "keep": "best",
    }
    for key in set(type(train).model_fields) - {"candidate", "baseline", "ablations", "grid", "looks", "plan"}:
        changed = train.model_copy(update={key: other.get(key, 1234)})
        again = dataclasses.replace(job, train=changed)
        assert (again.run_id(again.runs[0]) != job.run_id(job.runs[0])) == (key in params.RECIPE), key


@pytest.mark.parametrize("where", ["shared", "candidate"])
def test_where_the_best_point_counts_the_points_are_part_of_the_promise(
    write_study: Callable[..., Path], where: str
) -> None:
    """A run has another identity with another curve, and a stack of another curve was not trained as promised."""
    keep = {"train.keep": "best"} if where == "shared" else {"train.candidate.train": {"keep": "best"}}
    found = []
    for every in (3, 2):
        study = load_study(write_study(keep | {"train.curve_every": every}))
        STAGES["prepare"](study, in_process)
        data = tasks.load(study.data)
        jobs = stacks.plan(study, data, [Run(arm, "pairs", 1, 1) for arm in ("candidate", "baseline")])
        records = [
            {"name": job.name, "arm": job.arm.identity, "train": job.train.model_dump(), "data_sha256": data.sha256}
            for job in jobs
        ]
        ids = [job.run_id(job.runs[0]) for job in jobs]
        found.append((preregistration.promise(study.params) | {"data_sha256": data.sha256}, records, ids))
    (promised, records, ids), (_, others, other_ids) = found
    assert [preregistration.other_settings(promised, record) for record in records] == [None, None]
    assert preregistration.other_settings(promised, others[0]) == "train.curve_every"
    assert ids[0] != other_ids[0] and (ids[1] != other_ids[1]) == (where == "shared")


def test_the_name_of_a_plan_is_the_hash_of_its_file(finished_study: Path) -> None:
    study = load_study(finished_study)
    _, name = preregistration.write(study, make(study))
    assert subprocess.check_output(["sha256sum", study.plan], text=True).split()[0] == name


def test_a_plan_of_an_older_version_keeps_its_name(finished_study: Path) -> None:
    """It was the hash of its content, which its file holds."""
    study = load_study(finished_study)
    content = make(study)
    old = sha256(canonical(content))
    write_json(study.plan, {"schema": "infinito/plan/1", "sha256": old, "plan": content})
    for name in (old, file_sha256(study.plan)):
        found = preregistration.registered(change(finished_study, {"train.plan": name}))
        assert found == (content, file_sha256(study.plan))
    assert preregistration.write(study, content) == found  # and it gets its line in the ledger
    assert Ledger.read(study.ledger).number(file_sha256(study.plan)) == 1
    write_json(study.plan, {"schema": "infinito/plan/1", "sha256": old, "plan": content | {"pairs": 99}})
    with pytest.raises(ValueError, match="plan.json: was changed after it was written"):
        preregistration.read(study.plan)


def test_a_plan_is_not_replaced_by_another_unless_asked(finished_study: Path) -> None:
    study = load_study(finished_study)
    first, name = preregistration.write(study, make(study, pairs=10))
    assert preregistration.read(study.plan) == (first, name)
    assert set(read_json(study.plan)) == {"schema", "plan"}
    # the same promise on another day, at another price: the file and its hash stay
    again = make(study, pairs=10, created="2027-12-24", price=3.0)
    assert preregistration.write(study, again) == (first, name)
    another = make(study, pairs=11)
    with pytest.raises(
        ValueError, match=r"plan.json: holds another plan, of 2026-01-31, which differs in pairs; allowed: --r"
    ):
        preregistration.write(study, another)
    assert preregistration.read(study.plan) == (first, name)
    replaced, new_name = preregistration.write(study, another, replace=True)
    assert replaced["pairs"] == 11 and new_name != name and preregistration.read(study.plan)[1] == new_name


def leaves(x: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of everything in a JSON value that is neither an object nor a list."""
    if isinstance(x, (dict, list)):
        items = x.items() if isinstance(x, dict) else enumerate(x)
        return [leaf for key, value in items for leaf in leaves(value, (*path, key))]
    return [path]


def test_tampering_with_any_figure_of_a_plan_is_found(finished_study: Path) -> None:
    study = load_study(finished_study)
    _, name = preregistration.write(study, make(study, pairs=10))
    study = change(finished_study, {"train.plan": name})
    original = read_json(study.plan)
    for path in leaves(original):
        content = copy.deepcopy(original)
        section = content
        for key in path[:-1]:
            section = section[key]
        section[path[-1]] = "tampered"
        write_json(study.plan, content)
        with pytest.raises(ValueError, match="plan.json: "):
            preregistration.registered(study)
    for text, message in (
        ("{", "not valid JSON"),
        ("[]", "found list; allowed: a mapping"),
        ('{"schema": 1}', "not a plan"),
    ):
        study.plan.write_text(text)
        with pytest.raises(ValueError, match=message):
            preregistration.read(study.plan)


@pytest.fixture(scope="module")
def _planned(_finished: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, pd.DataFrame, Records]:
    folder = Path(shutil.copytree(_finished, tmp_path_factory.mktemp("planned") / "study"))
    study = load_study(folder)
    content, name = preregistration.write(study, make(study, pairs=14, looks="obf"))
    assert content["looks"] == [4, 7, 11, 14]
    study = change(folder, {"train.seed": 1, "train.pairs": 14, "train.looks": [4, 7, 11, 14], "train.plan": name})
    return study, *train_pairs(study, name)


@pytest.fixture
def planned(_planned: tuple[Study, pd.DataFrame, Records], tmp_path: Path) -> tuple[Study, pd.DataFrame, Records]:
    """A study planned from a finished one, whose pairs were trained under the plan; their runs, and the records."""
    study, pairs, records = _planned
    return load_study(Path(shutil.copytree(study.folder, tmp_path / "planned"))), pairs.copy(), copy.deepcopy(records)


def test_planned_only_when_everything_agrees(planned: tuple[Study, pd.DataFrame, Records]) -> None:
    study, pairs, records = planned
    verdict = preregistration.status(study, pairs, records)
    assert verdict["status"] == "planned" and verdict["plan_sha256"] == study.params.train.plan, verdict
    assert "14 pairs" in str(verdict["reason"])
    before = (study.folder / "params.yaml").read_text()
    for changes, where in (
        ({"study": "other"}, "study"),
        ({"train.candidate.settings": {"memory_slots": 9}}, "arms.candidate"),
        (
            {"train.ablations": {"small": {"network": "transformer", "settings": {"width": 4}}}, "train.looks": []},
            "arms.small",
        ),
        ({"train.steps": 7}, "train.steps"),
        ({"train.learning_rate": 0.02}, "train.learning_rate"),
        ({"compare.alpha": 0.1}, "alpha"),
        ({"compare.smallest_effect": 0.5}, "smallest_effect"),
        ({"compare.metrics": ["test_loss", "accuracy"], "train.looks": []}, "metrics"),
        ({"train.pairs": 20, "train.looks": [20]}, "pairs"),
        ({"train.looks": []}, "looks"),
        ({"train.looks": "anytime"}, "looks"),
        ({"train.seed": 2}, "seed"),
    ):
        other = preregistration.status(change(study.folder, changes), pairs, records)
        assert other["status"] == "exploratory" and str(other["reason"]).startswith(f"{where} "), (changes, other)
        (study.folder / "params.yaml").write_text(before)
    # what does not make a run what it is may change
    assert preregistration.status(change(study.folder, {"train.curve_every": 2}), pairs, records)["status"] == "planned"


def test_the_analysed_pairs_must_be_those_of_the_plan(
    planned: tuple[Study, pd.DataFrame, Records],
) -> None:
    study, pairs, records = planned

    def reason(pairs: pd.DataFrame, records: Records) -> str:
        result = preregistration.status(study, pairs, records)
        assert result["status"] == "exploratory"
        return str(result["reason"])

    last, first = pairs["init_seed"].max(), next(iter(records))
    assert "13 pairs were analysed, 14 were planned" in reason(pairs[pairs["init_seed"] != last], records)
    swapped = pairs.replace({"init_seed": {last: 77}})
    assert "not the first 14 of the pool" in reason(swapped, records)
    for key, value, expected in (
        ("protocol_sha256", None, "1 of 6 stacks, "),
        ("protocol_sha256", "0" * 64, "were not trained under this plan"),
        ("data_sha256", "0" * 64, "another data than planned"),
        ("arm", {"network": "other", "settings": {}}, "another arm than planned"),
        ("train", records[first]["train"] | {"steps": 5}, "another train.steps than planned"),
    ):
        assert expected in reason(pairs, records | {first: records[first] | {key: value}})
    assert "No stack" in reason(pairs, {})


def test_pairs_trained_before_the_plan_or_used_for_it_are_exploratory(finished_study: Path) -> None:
    study = load_study(finished_study)
    table = RunTable.load(study.runs)
    pairs = table.design("pairs", "candidate")
    records = {stack: table.record(stack) for stack in pairs["stack_id"].unique()}
    assert preregistration.status(study, pairs, records) == {
        "status": "exploratory",
        "label": "exploratory: no plan was registered before the runs: train.plan is null",
        "reason": "No plan was registered before the runs: train.plan is null.",
        "plan_sha256": None,
        "number": None,
        "others": [],
    }
    _, name = preregistration.write(study, make(study, pairs=10, seed=0))  # what `infinito plan` would never write
    study = change(finished_study, {"train.plan": name})
    assert "Seeds of the pilot" in str(preregistration.status(study, pairs, records)["reason"])


def test_stopping_at_a_planned_look_is_as_planned(finished_study: Path) -> None:
    study = load_study(finished_study)
    for looks, allowed, forbidden in (("obf", [10, 20, 30, 40], [11, 39]), ("anytime", [10, 11, 40], [41])):
        content, name = preregistration.write(study, make(study, pairs=40, looks=looks, seed=1), replace=True)
        changes = {"train.seed": 1, "train.pairs": 40, "train.looks": content["looks"], "train.plan": name}
        then = change(finished_study, changes)
        train = study.params.train.model_dump()
        record = {
            "name": "candidate-pairs-00",
            "protocol_sha256": name,
            "data_sha256": content["data_sha256"],
            "arm": content["arms"]["candidate"],
            "train": train,
            "code": {"network.py": "a"},
        }
        preregistration.begin(then, record["code"])
        preregistration.trained(then)
        for n in allowed + forbidden:
            pool = seeds.pool(1, "pairs", n)
            status = preregistration.status(
                then, pd.DataFrame({"init_seed": pool, "data_seed": pool}), {"stack": record}
            )
            assert (status["status"] == "planned") == (n in allowed), (looks, n, status)


def test_a_plan_that_is_named_must_be_there_unchanged(
    planned: tuple[Study, pd.DataFrame, Records],
) -> None:
    study, pairs, records = planned
    content = read_json(study.plan)
    content["plan"]["smallest_effect"] = 0.5
    write_json(study.plan, content)
    with pytest.raises(ValueError, match="plan.json: is the plan .* but train.plan in params.yaml is"):
        preregistration.status(study, pairs, records)
    with pytest.raises(ValueError, match="plan.json: is no plan that .*plans.jsonl has: it was changed"):
        preregistration.write(study, content["plan"])
    study.plan.unlink()
    with pytest.raises(ValueError, match="plan.json: no such file; infinito plan writes it"):
        preregistration.status(study, pairs, records)
