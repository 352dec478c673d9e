"""What of validation and test stands in a split before: measured for every task, and refused beyond 1 %."""

import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from infinito import params, tasks
from infinito.storage import read_json
from infinito.tasks import overlap
from tests.conftest import TINY
from tests.tasks.text.corpus import CORPUS, SETTINGS, sentences, written

NONE = {"validation": {"train": 0.0}, "test": {"train": 0.0, "validation": 0.0}}
TRAIN = CORPUS["train"]


def test_examples_are_the_same_where_all_their_inputs_are() -> None:
    train = np.arange(12.0).reshape(6, 2)
    validation = np.concatenate([train[2:4], train[2:3] + 1, train[:1, ::-1]])
    found = overlap.of_examples({"train": train, "validation": validation, "test": validation[:3]})
    assert found == {"validation": {"train": 0.5}, "test": {"train": 2 / 3, "validation": 1.0}}


def test_texts_share_lines_or_thirteen_words_whatever_the_white_space() -> None:
    def of(test: list[str]) -> float:
        return overlap.of_texts({"train": TRAIN, "test": test})["test"]["train"]

    shuffled = random.Random(0).sample(TRAIN, len(TRAIN))
    words = " ".join(TRAIN).split()
    wrapped = [" ".join(words[start : start + 5]) for start in range(0, len(words), 5)]
    assert of(TRAIN) == of(shuffled) == of([f"\t{line} " for line in TRAIN]) == of([" ".join(wrapped)]) == 1.0
    assert of(wrapped) == 1.0  # other lines, the same words
    fresh = sentences("another", 400)
    half = of(fresh + TRAIN)
    assert of(fresh) < 0.01 and 0.4 < half < 0.6
    assert of([*fresh, "", " "]) == of(fresh)
    twelve, thirteen = " ".join(words[40:52]), " ".join(words[40:53])
    assert of([f"x {twelve} y"]) == 0.0
    assert of([f"x {thirteen} y"]) == pytest.approx(1 - 2 / (2 + len(thirteen.replace(" ", ""))))


def test_a_text_beyond_the_limit_is_refused_unless_that_is_allowed(tmp_path: Path) -> None:
    def prepared(test: list[str], **changes: Any) -> dict[str, Any]:
        (tmp_path / "corpus").mkdir(exist_ok=True)
        for name, lines in (("train", TRAIN), ("valid", CORPUS["validation"]), ("test", test)):
            (tmp_path / "corpus" / f"{name}.txt").write_text(written(lines))
        folder = tmp_path / f"out {len(list(tmp_path.iterdir()))}"
        tasks.prepare(SETTINGS.model_copy(update=changes), folder, tmp_path)
        return {"sha256": tasks.load(folder).sha256} | read_json(folder / "manifest.json")

    with pytest.raises(
        ValueError, match="^prepare: found 100 % of the test text in train too; allowed: at most 1 %, or"
    ):
        prepared(TRAIN)
    with pytest.raises(ValueError, match="found 100 % of the test text in validation too"):
        prepared(CORPUS["validation"])
    letters = [sum(map(len, " ".join(lines).split())) for lines in (TRAIN[:3], CORPUS["test"])]
    share = 100 * letters[0] / sum(letters)
    with pytest.raises(ValueError, match=f"found {share:.3g} % of the test text in train too"):
        prepared([*CORPUS["test"], *TRAIN[:3]])
    with pytest.raises(ValueError, match="in train too"):  # also where only the part that is scored is
        prepared([*TRAIN[:30], *sentences("long", 3000)], test_tokens=400)
    assert prepared([*sentences("long", 3000), *TRAIN[:30]], test_tokens=400)["overlap"]["test"]["train"] < 0.01
    allowed = prepared(TRAIN, overlap_allowed=True)
    assert allowed["overlap"]["test"]["train"] == 1.0 and "overlap_allowed" not in allowed["settings"]
    # what is allowed, and what was measured, makes no other data
    assert prepared(CORPUS["test"])["sha256"] == prepared(CORPUS["test"], overlap_allowed=True)["sha256"]
    assert prepared(CORPUS["test"])["sha256"] != allowed["sha256"]


def test_examples_beyond_the_limit_are_refused_unless_that_is_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draws = np.random.default_rng(0)
    table = pd.DataFrame({"a": draws.normal(size=300), "b": draws.normal(size=300), "y": draws.integers(0, 2, 300)})
    (tmp_path / "all").mkdir()
    for name, rows in (("train", table[:200]), ("valid", table[200:250]), ("test", table[248:])):
        rows.to_csv(tmp_path / "all" / f"{name}.csv", index=False)
    settings = params.Arrays(
        task="arrays",
        source="all",
        config=None,
        kind="classes",
        inputs=None,
        targets=["y"],
        standardise=True,
        seed=0,
        validation=0.1,
        test=0.1,
    )
    with pytest.raises(ValueError, match="^prepare: found 3.85 % of the test examples in validation too; allowed: "):
        tasks.prepare(settings, tmp_path / "data", tmp_path)
    tasks.prepare(settings.model_copy(update={"overlap_allowed": True}), tmp_path / "data", tmp_path)
    found = read_json(tmp_path / "data" / "manifest.json")["overlap"]
    assert found == {"validation": {"train": 0.0}, "test": {"train": 0.0, "validation": 2 / 52}}

    (tmp_path / "leaking.py").write_text(
        "import numpy as np\nfrom infinito.tasks import Metric\n\n\nclass Leaking:\n"
        "    given, output = {'shape': (3,), 'outputs': 1}, (1,)\n"
        "    metric = Metric('loss', 'x', 'lower', guess=1.0)\n\n"
        "    def examples(self):\n"
        "        x = np.random.default_rng(0).normal(size=(9, 3))\n"
        "        return {'train': (x, x[:, :1]), 'validation': (x + 1, x[:, :1]), 'test': (x, x[:, :1])}\n\n"
        "    def losses(self, outputs, targets):\n"
        "        loss = (outputs - targets).square()[:, 0]\n"
        "        return loss, loss * 0 + 1\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    own = params.Own(task="leaking:Leaking", settings={})
    try:
        with pytest.raises(ValueError, match="^prepare: found 100 % of the test examples in train too"):
            tasks.prepare(own, tmp_path / "own", tmp_path)
    finally:
        sys.modules.pop("leaking", None)


def test_examples_that_are_made_are_never_in_two_splits(tmp_path: Path) -> None:
    tasks.prepare(params.Dyck.model_validate(TINY["prepare"]), tmp_path, tmp_path)
    assert read_json(tmp_path / "manifest.json")["overlap"] == NONE
