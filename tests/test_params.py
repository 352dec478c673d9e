from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from infinito.cli.pipeline import without
from infinito.study import load_study
from tests.conftest import ROOT

ABLATION = {"network": "infinito_v52", "settings": {"memory_slots": 4}}
PLAIN = {"network": "transformer", "settings": {}}
OPTIONAL = ["attribute", "golden", "ensemble"]
ROOT_STAGES = ["prepare", "train", "compare", "attribute", "golden", "ensemble", "report"]
STUDIES = [ROOT, *sorted(path.parent for path in ROOT.glob("studies/*/params.yaml"))]


@pytest.mark.parametrize("folder", STUDIES, ids=lambda folder: folder.name)
def test_every_shipped_study_is_valid(folder: Path) -> None:
    params = load_study(folder).params
    assert params.train.pairs >= 10 and (params.golden is None or params.golden.data_seeds >= 10)


@pytest.mark.parametrize("folder", STUDIES, ids=lambda folder: folder.name)
def test_stages_sections_and_parameters_have_the_same_names(folder: Path) -> None:
    pipeline = yaml.safe_load((folder / "dvc.yaml").read_text())["stages"]
    sections = load_study(folder).params.stages
    assert list(pipeline) == sections
    for name, stage in pipeline.items():
        assert stage["cmd"] == f"python -m infinito.flows.stage {name}"
        assert name in {key.split(".")[0] for key in stage["params"]}
        assert {key.split(".")[0] for key in stage["params"]} <= {*sections, "study"}
        for dependency in stage["deps"] if "deps" in stage else []:
            path = (folder / dependency).resolve()
            if ROOT / "infinito" in path.parents:
                assert path.is_dir() or path.parent.name in ("questions", "stages", "infinito"), dependency
                assert path.exists(), dependency


@pytest.mark.parametrize("folder", STUDIES, ids=lambda folder: folder.name)
def test_the_pipeline_of_every_study_is_that_of_the_root_without_the_stages_that_it_does_without(folder: Path) -> None:
    root = (ROOT / "dvc.yaml").read_text()
    here = load_study(folder).params.stages
    text = (folder / "dvc.yaml").read_text()
    if folder != ROOT:
        assert (folder / "library").resolve() == ROOT / "infinito"
        text = text.replace("- library/", "- infinito/").replace("- ../../requirements.lock", "- requirements.lock")
    assert text == without(root, [stage for stage in OPTIONAL if stage not in here])


@pytest.mark.parametrize("gone", [["golden"], ["attribute", "ensemble"], OPTIONAL])
def test_a_pipeline_without_a_stage_names_nothing_of_it(gone: list[str]) -> None:
    text = without((ROOT / "dvc.yaml").read_text(), gone)
    stages = yaml.safe_load(text)["stages"]
    assert list(stages) == [stage for stage in ROOT_STAGES if stage not in gone]
    written = {
        name for stage in stages.values() for out in stage["outs"] for name in (out if isinstance(out, dict) else [out])
    }
    for stage in stages.values():
        assert {dep for dep in stage.get("deps", []) if dep.startswith(("data/", "models/", "results/"))} <= written
        assert not {key.split(".")[0] for key in stage["params"]} & set(gone)
    assert not any(f"results/{stage}" in text or f"models/{stage}" in text for stage in gone)
    assert without((ROOT / "dvc.yaml").read_text(), []) == (ROOT / "dvc.yaml").read_text()


def test_the_caches_of_python_are_no_part_of_a_room() -> None:
    for folder in STUDIES:
        assert "__pycache__" in (folder / ".dvcignore").read_text().split()


def test_the_pipeline_can_be_read_in_one_sitting() -> None:
    assert len((ROOT / "dvc.yaml").read_text().splitlines()) < 130


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"train.steps": None}, "train.steps: missing key"),
        ({"report": None}, "report: missing key"),
        ({"train.grid": None, "attribute": None}, "train.grid: missing key"),
        ({"train.stepz": 9}, "train.stepz: unknown key"),
        ({"prepare.colour": 1}, "prepare.colour: unknown key"),
        ({"train.steps": "many"}, "train.steps: input should be a valid integer, found 'many' (text)"),
        ({"train.steps": 1.5}, "train.steps: input should be a valid integer"),
        ({"train.steps": 0}, "train.steps: input should be greater than or equal to 1, found 0"),
        ({"train.learning_rate": "5e-4x"}, "train.learning_rate: input should be a valid number, found '5e-4x' (text)"),
        ({"train.learning_rate": -1.0}, "train.learning_rate: input should be greater than 0, found -1.0"),
        ({"train.learning_rate": float("nan")}, "train.learning_rate"),
        ({"train.clip_norm": float("inf")}, "train.clip_norm"),
        ({"train.schedule": "linear"}, "train.schedule: input should be 'constant' or 'cosine', found 'linear'"),
        ({"train.optimiser": {"name": "adam"}}, "train.optimiser.name: found 'adam'; allowed: adamw, sgd, muon"),
        ({"train.optimiser": "sgd"}, "train.optimiser: found 'sgd'; allowed: a mapping with name: adamw, sgd, muon"),
        ({"train.optimiser": {"name": "sgd", "momentum": 0.9}}, "train.optimiser.nesterov: missing key"),
        ({"train.optimiser": {"name": "sgd", "momentum": 1.0, "nesterov": True}}, "train.optimiser.momentum: input"),
        (
            {"train.candidate.train": {"pairs": 3}},
            "train.candidate.train.pairs: an arm may not set it; allowed: trunk,",
        ),
        ({"train.candidate.train": {"steps": 0}}, "train.candidate.train.steps: input should be greater than or equal"),
        (
            {"train.baseline.train": {"warmup": 9}},
            "train.baseline.train.warmup: found 9; allowed: fewer than steps (6)",
        ),
        (
            {"train.baseline.train": {"trunk": {"width": 9}}},
            "train.baseline.train.trunk.width: found 9; allowed: a mult",
        ),
        (
            {"train.baseline.train": {"optimiser": {"name": "x"}}},
            "train.baseline.train.optimiser.name: found 'x'; allo",
        ),
        (
            {"train.candidate.settings": {"a": [1, float("nan")]}},
            "train.candidate.settings.a.1: input should be",
        ),
        (
            {"train.candidate.settings": {"float": date(2020, 1, 2)}},
            "train.candidate.settings.float: input was no",
        ),
        ({"train.trunk": {"width": 8, "a": {1: 2}}}, "train.trunk.a.1: input should be a valid string, found 1"),
        (
            {"train.baseline.train": {"trunk": {"a": float("inf")}}},
            "train.baseline.train.trunk.a: input should be a",
        ),
        ({"train.candidate.tuned": {"trials": -1}}, "train.candidate.tuned.trials: input should be greater than or eq"),
        ({"train.keep": "first"}, "train.keep: input should be 'last' or 'best', found 'first'"),
        ({"train.engine": "fast"}, "train.engine: input should be 'auto', 'stacked' or 'loop', found 'fast'"),
        ({"train.label_smoothing": 1.0}, "train.label_smoothing: input should be less than 1"),
        ({"train.stack": "many"}, "train.stack: input should be a valid integer or 'auto', found 'many' (text)"),
        ({"train.stack": 0}, "train.stack: input should be greater than or equal to 1 or 'auto', found 0"),
        ({"train.looks": "often"}, "train.looks: input should be a valid list or 'anytime', found 'often'"),
        ({"train.ablations": {"no-memory": {"network": "transformer"}}}, "train.ablations.no-memory.settings: missing"),
        ({"train.precision": "half"}, "train.precision: input should be 'float32', 'tf32' or 'bfloat16', found 'half'"),
        ({"train.pairs": 1}, "train.pairs: found 1; allowed: 2 or more"),
        ({"train.trunk": {"width": 9, "layers": 1, "heads": 2, "dropout": 0.1}}, "train.trunk.width: found 9; allowed"),
        ({"train.candidate": {"network": "transformer", "settings": {}}}, "train.candidate: found the same network"),
        ({"train.warmup": 6}, "train.warmup: found 6; allowed: fewer than steps (6)"),
        ({"ensemble.sizes": [1, 99]}, "ensemble.sizes: needs 99 runs; allowed: at most train.pairs (10)"),
        ({"ensemble.sizes": []}, "ensemble.sizes"),
        ({"ensemble.compute": {"size": 6, "runs": 5}}, "ensemble.compute.size: needs 12 runs; allowed: at most"),
        ({"train.looks": [5, 8]}, "train.looks: found [5, 8]; allowed: rising numbers of pairs, the last one 10"),
        ({"train.looks": [8, 5, 10]}, "train.looks: found [8, 5, 10]"),
        ({"train.looks": "often"}, "train.looks"),
        ({"train.looks": [5, 10], "compare.metrics": ["test_loss", "exact"]}, "train.looks: found [5, 10] with 2 hypo"),
        (
            {"train.looks": "anytime", "train.ablations": {"x": ABLATION}},
            "train.looks: found anytime with 2 hypotheses",
        ),
        ({"train.ablations": {"baseline": ABLATION}}, "train.ablations: found 'baseline'; allowed: a plain word"),
        ({"train.ablations": {"plain": PLAIN}}, "train.ablations.plain: found an arm that is there already"),
        ({"compare.metrics": ["exact"]}, "compare.metrics: found ['exact']; allowed: test_loss first"),
        ({"compare.metrics": ["test_loss", "test_loss"]}, "compare.metrics: found"),
        ({"compare.metrics": ["f1"]}, "compare.metrics"),
        ({"golden.forward": ["checkpoint"]}, "golden.checkpoint: found None; allowed: a file of initial weights"),
        ({"golden.checkpoint": "x.pt"}, "golden.checkpoint: found x.pt; allowed"),
        ({"prepare.task": "sudoku"}, "prepare"),
        ({"prepare.min_depth": 9}, "prepare.min_depth: found 9; allowed: at most max_depth (3)"),
        ({"compare.alpha": 0.7}, "compare.alpha: input should be less than 0.5, found 0.7"),
        ({"compare.smallest_effect": 0.0}, "compare.smallest_effect"),
    ],
)
def test_bad_params_are_one_line(write_study: Callable[..., Path], changes: dict[str, Any], message: str) -> None:
    folder = write_study(changes)
    with pytest.raises(ValueError) as error:
        load_study(folder)
    assert message in str(error.value)
    assert str(error.value).startswith(str(folder / "params.yaml")) and "\n" not in str(error.value)


@pytest.mark.parametrize("content", ["", "- 1\n- 2\n", "a: [1\n", "\xff\xfe", "study: 3: 4"])
def test_a_file_that_is_no_params_yaml_is_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "params.yaml").write_text(content, encoding="latin-1")
    with pytest.raises(ValueError, match="params.yaml: ") as error:
        load_study(tmp_path)
    assert "\n" not in str(error.value)


def test_a_folder_without_params_yaml_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file; a study is a folder"):
        load_study(tmp_path)
