"""The artifacts of a flow run, on a real Prefect server."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect import flow
from prefect.artifacts import Artifact
from prefect.client.schemas.objects import State
from prefect.settings import PREFECT_API_URL, PREFECT_LOGGING_TO_API_ENABLED, temporary_settings
from prefect.states import Completed, Failed

from infinito.flows import artifacts
from infinito.storage import read_json
from tests.conftest import ROOT
from tests.toy import prefect_server


@pytest.fixture
def study(finished_study: Path) -> Path:
    """A finished study with a dvc.yaml."""
    (finished_study / "dvc.yaml").write_text((ROOT / "dvc.yaml").read_text())
    return finished_study


def test_figures_of_every_result_are_a_table(study: Path) -> None:
    found = read_json(study / "results/compare.json")
    text = artifacts.figures(found)
    head, _, table = text.partition("| figure | value |\n|---|---|\n")
    plan = "exploratory: no plan was registered before the runs: train.plan is null"
    assert head == f"# exploratory: {found['verdict']}\n\n**{found['sentence']}**\n\n{plan}\n\n"
    first = [row.split(" | ")[0] for row in table.splitlines()[:3]]
    assert first == ["| verdict", "| difference", "| p_adjusted"]
    planned = artifacts.figures(found | {"plan": {"status": "planned", "label": "planned, first plan"}})
    assert planned.startswith(f"# planned: {found['verdict']}\n")
    golden = read_json(study / "results/golden.json")
    assert artifacts.figures(golden).startswith(f"# {golden['status']}\n\n**{golden['sentence']}**\n\n| figure ")
    low, high = (f"{found['difference'][key]:.4g}" for key in ("ci_low", "ci_high"))
    assert f"| difference | {found['difference']['value']:.4g} [{low}, {high}] |" in text
    assert f"| equivalence.p_value | {found['equivalence']['p_value']:.4g} |" in text
    for file in (study / "results").glob("*.json"):
        rows = artifacts.figures(read_json(file)).partition("|---|---|\n")[2].splitlines()
        assert rows and all(row.replace(r"\|", "").count("|") == 3 for row in rows)
        assert not any(row.startswith(("| schema |", "| study |", "| sentence |")) for row in rows)


def test_runs_are_rows_of_plain_values(study: Path) -> None:
    rows = artifacts.runs(study)
    assert len(rows) >= 68 and {row["design"] for row in rows} >= {"pairs", "grid", "confirm", "controls"}
    assert all(type(value) in (str, int, float, bool) for row in rows for value in row.values())
    assert list(rows[0])[:2] == ["design", "arm"] and list(rows[0])[-2:] == ["run_id", "stack_id"]
    assert all(len(f"{row['test_loss']:g}") <= 7 and row["test_loss"] == round(row["test_loss"], 7) for row in rows)


@pytest.mark.slow
def test_artifacts_are_kept_by_key_and_only_of_stages_that_ended_well(study: Path, tmp_path: Path) -> None:
    def create(**states: State[Any]) -> None:
        flow(lambda: artifacts.create(study, states), name="flow")()

    def keys() -> Mapping[str, Artifact | None]:
        return {key: Artifact.get(key) for key in ("lineage", "runs", "verdict", "golden")}

    done: State[Any] = Completed(name="Cached")
    settings = {PREFECT_LOGGING_TO_API_ENABLED: False}
    with prefect_server(tmp_path) as url, temporary_settings(settings | {PREFECT_API_URL: url}):
        create(prepare=done, train=Failed())
        first = keys()
        assert [key for key, artifact in first.items() if artifact] == ["lineage"]
        create(prepare=done, train=done, compare=done, golden=done)
        second = keys()
        assert all(second.values())
        lineage, runs, verdict, golden = (artifact.data for artifact in second.values() if artifact)
        descriptions = {key: str(artifact.description) for key, artifact in second.items() if artifact}
        (study / "results/compare.json").write_text("{")
        create(compare=done)  # no more than a warning
    assert "| train | Cached | not run |" in lineage and "train --> compare" in lineage
    assert len(yaml.safe_load(runs)) == len(artifacts.runs(study))
    assert read_json(study / "results/golden.json")["sentence"] in golden
    status = read_json(study / "results/golden.json")["status"]
    assert verdict.startswith("# exploratory: ") and golden.startswith(f"# {status}\n")
    assert descriptions["verdict"].startswith(verdict.splitlines()[0].removeprefix("# ") + ": ")
    assert descriptions["golden"].startswith(f"{status}: ")
    assert all(str(study) in description for description in descriptions.values())
    assert verdict.splitlines()[2].strip("*") in descriptions["verdict"]
    assert golden.splitlines()[2].strip("*") in descriptions["golden"]
