"""Networks as people really have them are trained as by a plain loop, or refused in one line; the docs say which."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from infinito.study import load_study
from tests.architectures import page
from tests.architectures.trial import DIGITS, DRAWING, ENGINES, SMALL, TRUNK, attempt, cases, is_of_images, read_found
from tests.conftest import ROOT

CASES = cases()
FOUND = read_found()
# Compiled, torch does not round what is half precision only in between: that rounding (its emulate_precision_casts) is
# the whole difference, measured 1.2e-5.
HALF = 5e-5
COMPILED = pytest.param(" compiled", marks=pytest.mark.slow)  # it takes 5 to 30 seconds a network


@pytest.mark.parametrize("how", ["", COMPILED])
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", CASES)
def test_it_agrees_with_the_plain_loop_or_is_refused_in_one_line(name: str, engine: str, how: str) -> None:
    found = attempt(CASES[name], engine, how)
    measured = FOUND[name].get(engine + how)
    assert measured is None or found.line == measured.line
    if found.line is not None:
        assert engine == "stacked" and "\n" not in found.line
        assert found.line.startswith(f"network: '{CASES[name]}': ") and "; instead: " in found.line
    elif name in DRAWING and engine + how == "loop compiled":
        assert attempt(CASES[name], engine, how).difference == found.difference
    else:
        bound = HALF if name == "HalfLogits" and how else SMALL
        assert found.difference is not None and found.difference < bound


def test_the_docs_say_what_was_measured() -> None:
    assert list(FOUND) == list(CASES) and len(CASES) >= 30
    text = page.PAGE.read_text()
    assert page.BEGIN in text and page.written(text, FOUND) == text


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_it_goes_through_the_stages_in_a_fresh_process(name: str, write_study: Callable[..., Path]) -> None:
    images = is_of_images(CASES[name])
    study = write_study(
        ({"prepare": DIGITS.model_dump()} if images else {"prepare.max_depth": 4})
        | {
            "train.candidate": {"network": CASES[name], "settings": {}},
            "train.baseline": {"network": "mlp" if images else "transformer", "settings": {}},
            "train.trunk": {key: value for key, value in TRUNK.items() if key != "heads" or not images},
            "train.engine": "auto",
            "train.stack": 10,
            "train.steps": 3,
        }
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "INFINITO_WORKERS": "1"}
    for stage in ("prepare", "train"):
        done = subprocess.run(
            [sys.executable, "-m", "infinito.flows.stage", stage],
            cwd=study,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
    table = pd.read_parquet(load_study(study).runs / "runs.parquet")
    assert table["test_loss"].notna().all() and set(table["arm"]) >= {"candidate", "baseline"}
