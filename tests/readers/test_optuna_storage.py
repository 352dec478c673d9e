"""Storages of Optuna, as it writes them: trials keep their state, and are no runs over seeds."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from infinito.readers import optuna_storage
from infinito.readers.results import Options, finished

SCHEMA = """
create table studies (study_id integer, study_name text);
create table study_directions (study_direction_id integer, direction text, study_id integer, objective integer);
create table study_system_attributes (study_system_attribute_id integer, study_id integer, key text, value_json text);
create table trials (trial_id integer, number integer, study_id integer, state text);
create table trial_values (trial_value_id integer, trial_id integer, objective integer, value float, value_type text);
create table trial_params (
    param_id integer, trial_id integer, param_name text, param_value float, distribution_json text
);
create table trial_user_attributes (trial_user_attribute_id integer, trial_id integer, key text, value_json text);
create table trial_intermediate_values (
    trial_intermediate_value_id integer, trial_id integer, step integer, intermediate_value float,
    intermediate_value_type text
);
"""
OPTIMIZER = json.dumps({"name": "CategoricalDistribution", "attributes": {"choices": ["adam", "sgd"]}})
STATES = ["COMPLETE", "PRUNED", "FAIL", "COMPLETE", "RUNNING"]


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    path = tmp_path / "search.db"
    with closing(sqlite3.connect(path)) as store, store:
        store.executescript(SCHEMA)
        store.executemany("insert into studies values (?, ?)", [(1, "tpe"), (2, "random")])
        store.executemany("insert into study_directions values (?, ?, ?, 0)", [(1, "MINIMIZE", 1), (2, "MAXIMIZE", 2)])
        store.execute("insert into study_system_attributes values (1, 1, 'study:metric_names', '[\"loss\"]')")
        trials = [(i, i, 1, state) for i, state in enumerate(STATES)] + [(9, 0, 2, "COMPLETE")]
        store.executemany("insert into trials values (?, ?, ?, ?)", trials)
        values = [(1, 0, 0.25, "FINITE"), (2, 1, 0.5, "FINITE"), (3, 3, None, "INF_POS"), (4, 9, 0.75, "FINITE")]
        store.executemany("insert into trial_values values (?, ?, 0, ?, ?)", values)
        params = [(i, i, "optimizer", i % 2, OPTIMIZER) for i in range(5)]
        store.executemany("insert into trial_params values (?, ?, ?, ?, ?)", params)
    return path


def test_all_trials_are_read_with_their_states(storage: Path) -> None:
    assert optuna_storage.is_one(storage)
    table = optuna_storage.read(f"sqlite:///{storage}", Options()).table
    tpe = table[table["arm"] == "tpe"]
    assert list(tpe["status"]) == STATES and list(tpe["run"]) == list("01234")
    assert list(finished(tpe["status"])) == [True, False, False, True, False]
    assert list(tpe["value"].fillna(-1)) == [0.25, 0.5, -1, float("inf"), -1]
    assert set(tpe["metric"]) == {"loss"}
    assert list(table[table["arm"] == "random"]["metric"]) == ["value"]  # no objective of another study


def test_trials_are_said_to_be_no_runs_over_seeds_unless_they_have_seeds(storage: Path) -> None:
    found = optuna_storage.read(storage, Options())
    assert found.remarks[0].startswith("tpe, random: trials of a search are no runs over seeds")
    assert found.pairing is None and set(found.table["seed"]) == {""}
    assert "As the studies say, loss is better when it is lower (tpe)." in found.remarks
    with closing(sqlite3.connect(storage)) as store, store:
        store.executemany(
            "insert into trial_user_attributes values (?, ?, 'seed', ?)", [(i, i, str(i + 7)) for i in range(5)]
        )
    found = optuna_storage.read(storage, Options())
    assert found.pairing == "seed" and list(found.table["seed"])[:2] == ["7", "8"]
    assert found.remarks[0].startswith("random: trials")


def test_a_category_is_an_arm_by_its_name(storage: Path) -> None:
    table = optuna_storage.read(storage, Options(arm="optimizer", metric=("loss",))).table
    assert list(table["arm"]) == ["adam", "sgd", "adam", "sgd", "adam"]


@pytest.mark.parametrize("content", [b"", b"no database at all" * 99])
def test_other_files_are_refused_in_a_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "search.db"
    path.write_bytes(content)
    assert not optuna_storage.is_one(path)
    with pytest.raises(ValueError, match=r"search.db: (found an empty file|not a readable SQLite store)") as caught:
        optuna_storage.read(path, Options())
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="nowhere.db: no such file"):
        optuna_storage.read(tmp_path / "nowhere.db", Options())


def test_a_storage_without_trials_or_of_another_tool_is_refused(storage: Path) -> None:
    with closing(sqlite3.connect(storage)) as store, store:
        store.execute("delete from trials")
    with pytest.raises(ValueError, match="search.db: found no trials"):
        optuna_storage.read(storage, Options())
    with closing(sqlite3.connect(storage)) as store, store:
        store.execute("drop table trial_values")
    with pytest.raises(ValueError, match="search.db: found no table trial_values; allowed: .* of Optuna"):
        optuna_storage.read(storage, Options())
