import copy
import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from infinito import plan, runs, seeds, sequential, stacks, tasks
from infinito.anova import crossed_test, mean_squares
from infinito.paired import pilot_sd, power, tost
from infinito.params import Study, load_study
from infinito.runs import Run, RunTable
from infinito.storage import read_json, write_json
from tests.conftest import in_process

# ------------------------------------------------------------------------------------------------------- power and size


def test_pairs_reach_the_power_and_are_never_fewer_than_ten() -> None:
    for effect, n in ((0.2, 199), (0.3, 90), (0.5, 34), (0.8, 15), (2.0, 10), (100.0, 10)):
        assert plan.planned_pairs(1.0, effect) == n  # 5 pairs would do for an effect of 2, but give no verdict
        assert plan.planned_pairs(0.03, effect * 0.03) == n  # the unit doesn't matter
        assert power(effect, n) >= 0.8 and (n == 10 or power(effect, n - 1) < 0.8)
    assert plan.planned_pairs(1.0, 0.001) is None and plan.looks_for_power(1.0, 0.001) is None  # over a million


def test_power_rises_with_pairs_and_effect_and_falls_with_spread() -> None:
    rows = plan.power_table(1.0, 0.4, 0.5, 37)
    assert [row["pairs"] for row in rows] == [10, 20, 30, 37, 50, 100]
    for key, sign in (("power", 1), ("equivalence_power", 1), ("minimal_detectable_effect", -1)):
        assert (np.diff([row[key] for row in rows]) * sign > 0).all()
    by_margin = [plan.equivalence_power(1.0, margin, 20) for margin in (0.1, 0.3, 0.5, 1.0)]
    assert by_margin == sorted(by_margin)
    pairs = [plan.planned_pairs(sd, 0.1) or 0 for sd in (0.05, 0.1, 0.2, 0.4)]
    assert pairs == sorted(pairs) and pairs[0] < pairs[-1]


def test_the_power_to_show_equivalence_is_that_of_the_test() -> None:
    rng = np.random.default_rng(0)
    for n, margin in ((10, 0.8), (20, 0.8), (35, 0.5), (12, 0.3)):
        simulated = (tost(rng.normal(size=(40_000, n)), margin).p < 0.05).mean()
        assert plan.equivalence_power(1.0, margin, n) == pytest.approx(simulated, abs=0.008)
    assert plan.equivalence_power(1.0, 1e-3, 10) < 1e-6
    fewest = plan.equivalence_pairs(1.0, 0.5)
    assert fewest and plan.equivalence_power(1.0, 0.5, fewest) >= 0.8 > plan.equivalence_power(1.0, 0.5, fewest - 1)
    assert plan.equivalence_pairs(1.0, 50.0) == 10
    assert plan.equivalence_pairs(1.0, 1e-4) is None


def test_designs_that_may_stop_early_keep_their_level_and_save_pairs() -> None:
    fixed = plan.planned_pairs(1.0, 0.5)
    looks, anytime = plan.looks_for_power(1.0, 0.5), plan.anytime_design(1.0, 0.5)
    assert fixed and looks and anytime and isinstance(looks.looks, list)
    assert looks.looks == plan.equal_looks(looks.pairs) and looks.looks[-1] == looks.pairs
    for design in (looks, anytime):
        assert fixed <= design.pairs and design.power >= 0.8
        assert design.expected_effect < design.expected_null <= design.pairs
    assert looks.pairs < anytime.pairs  # the price of looking whenever one likes
    # without an effect, rejections are false: exactly alpha with planned looks, at most alpha at any time
    assert plan.looks_design(1.0, 0.0, 40).power == pytest.approx(0.05, abs=0.006)
    null = plan.anytime_design(1.0, 0.0, pairs=100)
    assert null is not None and null.power <= 0.05
    # the specification's own simulations: power .99 and 21.4 pairs; power .99 and a median of 16
    four = plan.looks_design(1.0, 0.8, 32)
    assert four.looks == [8, 16, 24, 32]
    assert (four.power, four.expected_effect) == pytest.approx((0.99, 21.4), rel=0.01)
    spec = plan.anytime_design(1.0, 0.8, pairs=50)
    assert spec is not None and spec.power == pytest.approx(0.99, abs=0.01)
    assert spec.expected_effect == pytest.approx(18, abs=2)
    assert plan.anytime_design(1.0, 0.01) is None  # more than 5000 pairs
    assert plan.anytime_design(1.0, 0.5) == anytime  # simulated, but always the same


def test_the_simulated_boundaries_are_those_of_the_tests_themselves() -> None:
    """A few experiments, judged pair by pair by the functions that judge a study."""
    rng = np.random.default_rng(5)
    d = rng.normal(0.7, 1.0, (300, 24))
    for design, kind in (((6, 12, 18, 24), "looks"), ("anytime", "anytime")):
        ends = [sequential.stopped(x, design=design, pairs=24) for x in d]  # type: ignore[arg-type]
        simulated = plan.looks_design(1.0, 0.7, 24) if kind == "looks" else plan.anytime_design(1.0, 0.7, pairs=24)
        assert simulated is not None
        assert np.mean([end.stop for end in ends]) == pytest.approx(simulated.power, abs=0.09)
        assert np.mean([end.n for end in ends]) == pytest.approx(simulated.expected_effect, abs=1.2)


@pytest.mark.parametrize(("truth", "reference"), [((1, 1, 1), 0.233), ((0.2, 0.2, 0.8), 0.295), ((0, 0, 1), 0.458)])
def test_the_power_of_a_grid_is_that_of_real_grids(truth: tuple[float, float, float], reference: float) -> None:
    """Against the specification's table for 5 x 5, d = .6, and against grids drawn cell by cell."""
    init, data, rest = (part / sum(truth) for part in truth)
    found = plan.crossed_power(0.6, (init, data, rest), 5)
    assert found == pytest.approx(reference, abs=0.01)
    rng = np.random.default_rng(1)
    cells = 0.6 + math.sqrt(init) * rng.normal(size=(20_000, 5, 1)) + math.sqrt(data) * rng.normal(size=(20_000, 1, 5))
    y = (cells + math.sqrt(rest) * rng.normal(size=(20_000, 5, 5)))[..., None]
    assert found == pytest.approx((crossed_test(mean_squares(y)).p < 0.05).mean(), abs=0.012)


def test_a_grid_never_takes_fewer_runs_than_pairs() -> None:
    for truth in plan.TRUTHS.values():
        init, data, rest = (part / sum(truth) for part in truth)
        n = plan.crossed_seeds(0.8, (init, data, rest))
        assert n is not None and n * n >= (plan.planned_pairs(1.0, 0.8) or 0)
    assert plan.crossed_seeds(0.1, (1 / 3, 1 / 3, 1 / 3)) is None


# -------------------------------------------------------------------------------------------------- the plan of a study


Records = dict[str, dict[str, Any]]


def change(folder: Path, changes: dict[str, Any]) -> Study:
    """The study with some keys of its params.yaml changed."""
    content = yaml.safe_load((folder / "params.yaml").read_text())
    for key, value in changes.items():
        *path, last = key.split(".")
        section = content
        for part in path:
            section = section[part]
        section[last] = value
    (folder / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return load_study(folder)


def make(study: Study, **settings: Any) -> dict[str, Any]:
    data_sha256 = tasks.load(study.data).sha256
    known = plan.pilot(study, RunTable.load(study.runs), data_sha256)
    fixed: dict[str, Any] = {"data_sha256": data_sha256, "seed": plan.fresh_root(study), "created": "2026-01-31"}
    return plan.make(study, known, **(fixed | {"workers": 2} | settings))


def train_pairs(study: Study, protocol: str | None) -> tuple[pd.DataFrame, Records]:
    """Train the confirmatory pairs under a plan; gives their runs and the records of their stacks."""
    train = study.params.train
    wanted = [
        Run(arm, "pairs", seed, seed)
        for arm in ("candidate", "baseline")
        for seed in seeds.pool(train.seed, "pairs", train.pairs)
    ]
    folders = in_process(stacks.plan(study, tasks.load(study.data), wanted, protocol=protocol))
    runs.collect(folders, study.runs)
    table = RunTable.load(study.runs)
    return table.table, {stack: table.record(stack) for stack in table.table["stack_id"].unique()}


def test_a_plan_from_a_finished_study(finished_study: Path) -> None:
    study = load_study(finished_study)
    content = make(study, effect=0.05, price=2.0)
    candidate, baseline = RunTable.load(study.runs).pairs()
    d = baseline["test_loss"].to_numpy() - candidate["test_loss"].to_numpy()
    pilot, cost = content["pilot"], content["cost"]
    assert (pilot["n"], pilot["design"], pilot["seed"]) == (10, "pairs", 0)
    assert pilot["sd"] == pytest.approx(d.std(ddof=1)) and pilot["sd_upper"] == pytest.approx(pilot_sd(d))
    assert pilot["init_seeds"] == seeds.pool(0, "pairs", 10) and content["seed"] == 1
    assert content["pairs"] == plan.planned_pairs(pilot["sd_upper"], 0.05) and content["looks"] == []
    assert content["power_reached"] >= 0.8
    assert content["arms"]["candidate"] == {"network": "infinito_v52", "settings": {"memory_slots": 8}}
    assert content["train"]["steps"] == 6 and "pairs" not in content["train"]

    assert cost["seconds_per_run"]["candidate"] == pytest.approx(candidate["wall_seconds"].mean())
    assert cost["seconds_per_pair"] == pytest.approx(sum(cost["seconds_per_run"].values()))
    assert cost["core_hours"] == pytest.approx(content["pairs"] * cost["seconds_per_pair"] / 3600)
    assert cost["hours"] == pytest.approx(cost["core_hours"] / 2) and cost["money"] == pytest.approx(2 * cost["hours"])
    assert cost["same_machine"] is True
    assert [row["design"].split(",")[0] for row in cost["designs"]] == ["pairs"] * 4 + ["grid"]
    for row in cost["designs"]:
        assert row["runs"] is None or row["runs"] == 2 * row["pairs"] and row["power"] >= 0.8
    assert json.loads(json.dumps(content, allow_nan=False)) == content


def test_looks_and_pairs_as_asked(finished_study: Path) -> None:
    study = load_study(finished_study)
    four = make(study, pairs=40, looks="obf")
    assert (four["pairs"], four["looks"]) == (40, [10, 20, 30, 40])
    assert make(study, pairs=25, looks="anytime")["looks"] == "anytime"
    assert make(study, pairs=12, effect=0.002)["power_reached"] < 0.1  # the power that 12 pairs really have
    for settings, message in (
        ({"effect": 0.0}, "effect: found 0.0; allowed: a difference above 0"),
        ({"effect": 1e-6}, "effect: found 1e-06, which takes over a million pairs"),
        ({"effect": 1e-4, "looks": "anytime"}, "looks: found anytime; allowed: none or obf where more than 5000 pairs"),
        ({"power": 1.0}, "power: found 1.0"),
        ({"pairs": 9}, "pairs: found 9; allowed: 10 to"),
        ({"workers": 0}, "workers: found 0"),
        ({"price": -1.0}, "price: found -1.0"),
    ):
        with pytest.raises(ValueError, match="^" + message):
            make(study, **settings)
    several = change(finished_study, {"compare.metrics": ["test_loss", "accuracy"]})
    assert make(several)["hypotheses"] == 2
    assert make(several, effect=0.005)["pairs"] > make(study, effect=0.005)["pairs"]  # the stricter level
    with pytest.raises(ValueError, match="^looks: found obf with 2 hypotheses; allowed: none"):
        make(several, looks="obf")


def test_a_pilot_of_its_own_leaves_the_pairs_fresh(write_study: Callable[..., Path], tmp_path: Path) -> None:
    from infinito.stages import STAGES

    study = load_study(write_study())
    with pytest.raises(ValueError, match="manifest.json: no such file; run the stage that writes it"):
        tasks.load(study.data)
    STAGES["prepare"](study, in_process)
    data = tasks.load(study.data)
    with pytest.raises(ValueError, match="^pilot: found 7; allowed: 8 pairs or more"):
        plan.pilot_jobs(study, data, 7)
    runs.collect(in_process(plan.pilot_jobs(study, data, 8)), tmp_path / "pilot")
    known = plan.pilot(study, RunTable.load(tmp_path / "pilot"), data.sha256)
    assert known.design == "pilot" and known.init_seeds == seeds.pool(0, "pilot", 8) and known.variances is None
    assert plan.fresh_root(study) == 0
    content = plan.make(study, known, data_sha256=data.sha256, seed=0, created="2026-01-31", workers=1)
    grids = [row for row in content["cost"]["designs"] if row["design"].startswith("grid")]
    assert len(grids) == len(plan.TRUTHS)  # without a grid of its own: three stated truths
    # one stack of confirmatory pairs in the scratch is enough: those seeds are no longer fresh
    in_process(stacks.plan(study, data, [Run("candidate", "pairs", seeds.pool(0, "pairs", 1)[0], 0)]))
    assert plan.fresh_root(study) == 1


def test_a_pilot_with_other_settings_is_refused(finished_study: Path) -> None:
    for changes, key in (
        ({"train.steps": 7}, "train.steps"),
        ({"train.trunk.dropout": 0.2}, "train.trunk"),
        ({"train.candidate.settings": {"memory_slots": 9}}, "train.candidate"),
    ):
        before = (finished_study / "params.yaml").read_text()
        with pytest.raises(ValueError, match=f"trained with another {key} than params.yaml has now"):
            make(change(finished_study, changes))
        (finished_study / "params.yaml").write_text(before)
    with pytest.raises(ValueError, match="another data than params.yaml"):
        study = load_study(finished_study)
        plan.pilot(study, RunTable.load(study.runs), "0" * 64)


def test_the_settings_of_a_plan_are_those_that_make_a_run(finished_study: Path) -> None:
    """A run's identity changes with every setting that a plan fixes, and with no other."""
    study = load_study(finished_study)
    train = study.params.train
    job = stacks.plan(study, tasks.load(study.data), [Run("candidate", "pairs", 1, 1)])[0]
    other: dict[str, Any] = {"schedule": "constant", "trunk": train.trunk.model_copy(update={"width": 16})}
    for key in set(type(train).model_fields) - {"candidate", "baseline", "ablations", "grid", "looks", "plan"}:
        changed = train.model_copy(update={key: other.get(key, 1234)})
        again = dataclasses.replace(job, train=changed)
        assert (again.run_id(again.runs[0]) != job.run_id(job.runs[0])) == (key in plan.RUN_SETTINGS), key


# ------------------------------------------------------------------------------------------------------------- the file


def test_the_hash_of_a_plan_does_not_depend_on_the_order_of_its_keys(finished_study: Path) -> None:
    content = make(load_study(finished_study))

    def mirrored(x: Any) -> Any:
        return {key: mirrored(x[key]) for key in reversed(x)} if isinstance(x, dict) else x

    assert list(mirrored(content)) != list(content)
    assert plan.plan_sha256(mirrored(content)) == plan.plan_sha256(content)


def test_a_plan_is_not_replaced_by_another_unless_asked(finished_study: Path) -> None:
    study = load_study(finished_study)
    first, name = plan.write(study.plan, make(study, pairs=10))
    assert plan.read(study.plan) == (first, name)
    assert set(read_json(study.plan)) == {"schema", "sha256", "plan"}
    # the same promise on another day, at another price: the file and its hash stay
    again = make(study, pairs=10, created="2027-12-24", price=3.0)
    assert plan.write(study.plan, again) == (first, name)
    another = make(study, pairs=11)
    with pytest.raises(
        ValueError, match=r"plan.json: holds another plan, of 2026-01-31, which differs in pairs; allowed: --r"
    ):
        plan.write(study.plan, another)
    assert plan.read(study.plan) == (first, name)
    replaced, new_name = plan.write(study.plan, another, replace=True)
    assert replaced["pairs"] == 11 and new_name != name and plan.read(study.plan)[1] == new_name


def leaves(x: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of everything in a JSON value that is neither an object nor a list."""
    if isinstance(x, (dict, list)):
        items = x.items() if isinstance(x, dict) else enumerate(x)
        return [leaf for key, value in items for leaf in leaves(value, (*path, key))]
    return [path]


def test_tampering_with_any_figure_of_a_plan_is_found(finished_study: Path) -> None:
    study = load_study(finished_study)
    plan.write(study.plan, make(study, pairs=10))
    original = read_json(study.plan)
    for path in leaves(original):
        content = copy.deepcopy(original)
        section = content
        for key in path[:-1]:
            section = section[key]
        section[path[-1]] = "tampered"
        write_json(study.plan, content)
        with pytest.raises(ValueError, match="plan.json: "):
            plan.read(study.plan)
    for text, message in (("{", "not valid JSON"), ("[]", "not a plan"), ('{"schema": 1}', "not a plan")):
        study.plan.write_text(text)
        with pytest.raises(ValueError, match=message):
            plan.read(study.plan)


# ----------------------------------------------------------------------------------------------- planned or exploratory


@pytest.fixture
def planned(finished_study: Path) -> tuple[Study, pd.DataFrame, Records]:
    """A study planned from a finished one, whose pairs were trained under the plan; their runs, and the records."""
    study = load_study(finished_study)
    content, name = plan.write(study.plan, make(study, pairs=14, looks="obf"))
    assert content["looks"] == [4, 7, 11, 14]
    study = change(
        finished_study, {"train.seed": 1, "train.pairs": 14, "train.looks": [4, 7, 11, 14], "train.plan": name}
    )
    return study, *train_pairs(study, name)


def test_planned_only_when_everything_agrees(planned: tuple[Study, pd.DataFrame, Records]) -> None:
    study, pairs, records = planned
    verdict = plan.status(study, pairs, records)
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
        other = plan.status(change(study.folder, changes), pairs, records)
        assert other["status"] == "exploratory" and str(other["reason"]).startswith(f"{where} "), (changes, other)
        (study.folder / "params.yaml").write_text(before)
    # what does not make a run what it is may change
    assert plan.status(change(study.folder, {"train.curve_every": 2}), pairs, records)["status"] == "planned"


def test_the_analysed_pairs_must_be_those_of_the_plan(
    planned: tuple[Study, pd.DataFrame, Records],
) -> None:
    study, pairs, records = planned

    def reason(pairs: pd.DataFrame, records: Records) -> str:
        result = plan.status(study, pairs, records)
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
    assert plan.status(study, pairs, records) == {
        "status": "exploratory",
        "reason": "No plan was registered before the runs: train.plan is null.",
        "plan_sha256": None,
    }
    _, name = plan.write(study.plan, make(study, pairs=10, seed=0))  # what `infinito plan` would never write
    study = change(finished_study, {"train.plan": name})
    assert "Seeds of the pilot" in str(plan.status(study, pairs, records)["reason"])


def test_stopping_at_a_planned_look_is_as_planned(finished_study: Path) -> None:
    study = load_study(finished_study)
    for looks, allowed, forbidden in (("obf", [10, 20, 30, 40], [11, 39]), ("anytime", [10, 11, 40], [41])):
        content, name = plan.write(study.plan, make(study, pairs=40, looks=looks), replace=True)
        changes = {"train.seed": 1, "train.pairs": 40, "train.looks": content["looks"], "train.plan": name}
        then = change(finished_study, changes)
        train = study.params.train.model_dump()
        record = {
            "name": "candidate-pairs-00",
            "protocol_sha256": name,
            "data_sha256": content["data_sha256"],
            "arm": content["arms"]["candidate"],
            "train": train,
        }
        for n in allowed + forbidden:
            pool = seeds.pool(1, "pairs", n)
            status = plan.status(then, pd.DataFrame({"init_seed": pool, "data_seed": pool}), {"stack": record})
            assert (status["status"] == "planned") == (n in allowed), (looks, n, status)


def test_a_plan_that_is_named_must_be_there_unchanged(
    planned: tuple[Study, pd.DataFrame, Records],
) -> None:
    study, pairs, records = planned
    content = read_json(study.plan)
    tampered = copy.deepcopy(content)
    tampered["plan"]["smallest_effect"] = 0.5
    write_json(study.plan, tampered)
    with pytest.raises(ValueError, match="plan.json: was changed after it was written"):
        plan.status(study, pairs, records)
    tampered["sha256"] = plan.plan_sha256(tampered["plan"])  # a consistent file, but another plan
    write_json(study.plan, tampered)
    with pytest.raises(ValueError, match="plan.json: is the plan .* but train.plan in params.yaml is"):
        plan.status(study, pairs, records)
    study.plan.unlink()
    with pytest.raises(ValueError, match="plan.json: no such file; infinito plan writes it"):
        plan.status(study, pairs, records)
