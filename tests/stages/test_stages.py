from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from infinito import params, runs, tasks
from infinito.networks import build
from infinito.questions import golden
from infinito.stages import STAGES
from infinito.storage import canonical, read_json, read_table, write_table
from infinito.study import Study, load_study
from tests.conftest import in_process
from tests.rerecorded import rerecord


def test_stages_are_the_sections_of_params() -> None:
    assert list(STAGES) == [name for name in params.Params.model_fields if name not in ("study", "tracking")]


def test_the_verdict_is_computed_from_the_pairs(finished_study: Path) -> None:
    result = read_json(finished_study / "results/compare.json")
    for key in (
        "schema",
        "verdict",
        "difference",
        "p_value",
        "effect_size",
        "probability_of_improvement",
        "wins",
        "minimal_detectable_effect",
        "report_protocol",
    ):
        assert key in result
    candidate, baseline = runs.RunTable.load(finished_study / "models/runs").pairs()
    d = baseline["test_loss"] - candidate["test_loss"]
    assert result["difference"]["value"] == pytest.approx(d.mean())
    assert result["wins"] == int((d > 0).sum()) and result["difference"]["n"] == 10
    best = ((baseline["last_batch_loss"] - candidate["last_batch_loss"]) / baseline["last_batch_loss"]).idxmax()
    assert result["report_protocol"]["best_seed"] == candidate["init_seed"][best]


def test_stages_give_the_same_bytes_again(finished_study: Path) -> None:
    study = load_study(finished_study)
    names = ("compare", "attribute", "ensemble")
    before = {name: (study.results / f"{name}.json").read_bytes() for name in names}
    for name in names:
        STAGES[name](study, in_process)
        assert (study.results / f"{name}.json").read_bytes() == before[name]


def test_attribution_uses_the_grid(finished_study: Path) -> None:
    result = read_json(finished_study / "results/attribute.json")
    cells = {arm: np.array(result[arm]["cells"]) for arm in ("candidate", "baseline", "difference")}
    np.testing.assert_allclose(cells["difference"], cells["baseline"] - cells["candidate"])
    assert cells["candidate"].shape == (3, 3) and result["candidate"]["grand_mean"] == pytest.approx(
        cells["candidate"].mean()
    )


def test_golden_selects_on_validation_and_confirms_on_fresh_seeds(finished_study: Path) -> None:
    result = read_json(finished_study / "results/golden.json")
    registered = read_json(finished_study / "results/golden_protocol.json")
    assert result["protocol_sha256"] == registered["sha256"] == golden.protocol_hash(registered["protocol"])
    grid = runs.RunTable.load(finished_study / "models/runs")
    rows = grid.grid("candidate", "val_loss").mean(1)
    inits = result["selection"]["init_seeds"]
    assert result["golden_init_seed"] == inits[int(rows.argmin())]
    table = runs.RunTable.load(finished_study / "models/golden/confirmation").table
    used = set(grid.table["init_seed"]) | set(grid.table["data_seed"])
    controls = table[table["design"] == "controls"]
    assert len(table) == 30 and controls["init_seed"].is_unique
    assert registered["protocol"]["data_seeds"] == sorted(set(table["data_seed"]))
    assert not set(controls["init_seed"]) & used and not set(table["data_seed"]) & used
    assert result["status"] in {"GOLDEN_CONFIRMED", "GOLDEN_REFUTED", "NOT_CONFIRMED"}
    d = [
        group.loc[group["design"] == "controls", "test_loss"].mean()
        - group.loc[group["design"] == "confirm", "test_loss"].item()
        for _, group in table.groupby("data_seed")
    ]
    assert result["difference"]["value"] == pytest.approx(np.mean(d))
    np.testing.assert_allclose(result["differences"], d)


def test_the_golden_model_stands_for_itself(finished_study: Path) -> None:
    folder = finished_study / "models/golden"
    config, evidence = read_json(folder / "config.json"), read_json(folder / "evidence.json")
    network = build(config["network"], **config["settings"]).eval()
    network.load_state_dict(load_file(folder / "model.safetensors"))
    data = tasks.load(finished_study / "data/prepared")
    with torch.no_grad():
        nats = torch.nn.functional.cross_entropy(
            network(data.test.inputs).flatten(0, 1), data.test.targets.flatten(), ignore_index=tasks.IGNORE
        )
    assert float(nats) == pytest.approx(evidence["checkpoint"]["test_loss"], rel=1e-5)
    initial, final = load_file(folder / "initial.safetensors"), load_file(folder / "model.safetensors")
    network.load_state_dict(initial)
    assert any(not torch.equal(initial[name], final[name]) for name in final)
    card = (folder / "README.md").read_text()
    assert evidence["status"] in card and str(evidence["golden_init_seed"]) in card
    assert canonical(evidence["selection"]) == canonical(read_json(finished_study / "results/golden.json")["selection"])


def test_an_ensemble_of_one_is_the_member(finished_study: Path) -> None:
    result = read_json(finished_study / "results/ensemble.json")
    candidate, baseline = runs.RunTable.load(finished_study / "models/runs").pairs()
    for arm, members in (("candidate", candidate), ("baseline", baseline)):
        first = result[arm]["curve"][0]
        assert first["size"] == 1 and first["loss"]["value"] == pytest.approx(members["test_loss"].mean(), rel=1e-5)


def test_stages_need_the_stage_before(finished_study: Path) -> None:
    (finished_study / "results/compare.json").unlink()
    with pytest.raises(ValueError, match="compare.json"):
        STAGES["report"](load_study(finished_study), in_process)


def change(folder: Path, **sections: dict[str, object]) -> Study:
    """Edit params.yaml: change(folder, golden={"margin": 0.1})."""
    content = yaml.safe_load((folder / "params.yaml").read_text())
    for section, values in sections.items():
        content[section] |= values
    (folder / "params.yaml").write_text(yaml.safe_dump(content))
    return load_study(folder)


def test_swapping_the_arms_flips_the_sign(finished_study: Path) -> None:
    before = read_json(finished_study / "results/compare.json")
    train = yaml.safe_load((finished_study / "params.yaml").read_text())["train"]
    study = change(finished_study, train={"candidate": train["baseline"], "baseline": train["candidate"]})
    for name in ("train", "compare"):
        STAGES[name](study, in_process)
    after = read_json(finished_study / "results/compare.json")
    assert after["networks"] == {"candidate": "transformer", "baseline": "infinito_v52"}
    assert after["difference"]["value"] == pytest.approx(-before["difference"]["value"])


def test_runs_of_an_earlier_protocol_do_not_count_as_registered(finished_study: Path) -> None:
    assert read_json(finished_study / "results/golden.json")["registered"]
    STAGES["golden"](change(finished_study, golden={"useful": 0.5}), in_process)
    result = read_json(finished_study / "results/golden.json")
    assert not result["registered"] and result["status"] != "GOLDEN_CONFIRMED"


def test_diverged_runs_are_counted_and_stop_nothing(finished_study: Path) -> None:
    file = finished_study / "models/runs/runs.parquet"
    table = read_table(file).to_pandas()
    lost, stack = table[(table["design"] == "pairs") & (table["arm"] == "candidate")].iloc[3][["run_id", "stack_id"]]
    of_stack = file.parent / "stacks" / stack / "items.parquet"
    items = read_table(of_stack).to_pandas()
    table.loc[table["run_id"] == lost, ["diverged", "test_loss", "val_loss"]] = [True, 2.5, 2.5]
    items.loc[items["run_id"] == lost, "loss"] = np.nan
    write_table(of_stack, items)
    rerecord(file.parent, table)
    study = load_study(finished_study)
    for name in ("compare", "attribute", "ensemble", "report"):
        STAGES[name](study, in_process)
    result = read_json(study.results / "compare.json")
    assert result["diverged"] == {"candidate": 1, "baseline": 0} and result["difference"]["n"] == 10
    assert read_json(study.results / "ensemble.json")["candidate"]["members"] == 9


@pytest.mark.parametrize("name", ["causal", "vocabulary", "length"])
def test_an_arm_may_not_set_what_the_task_decides(finished_study: Path, name: str) -> None:
    study = change(finished_study, train={"candidate": {"network": "transformer", "settings": {name: 1}}})
    with pytest.raises(ValueError, match=f"settings.{name}: found 1; the task decides it"):
        STAGES["train"](study, in_process)


@pytest.mark.parametrize("settings", [{"memory_slots": "many"}, {"memory_slots": -1}, {"lambda_phi": "much"}])
def test_a_setting_that_the_network_refuses_is_one_line(finished_study: Path, settings: dict[str, object]) -> None:
    study = change(finished_study, train={"candidate": {"network": "infinito_v52", "settings": settings}})
    with pytest.raises(ValueError, match="network: 'infinito_v52'") as error:
        STAGES["train"](study, in_process)
    assert "\n" not in str(error.value)
