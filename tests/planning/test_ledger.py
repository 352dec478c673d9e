"""The ledger: no plan is lost, code that was changed after a result is named, and lines that are not as they were."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from infinito import seeds
from infinito.planning import plan as planning
from infinito.planning import preregistration
from infinito.planning.ledger import Ledger, history_faults, ordinal
from infinito.planning.preregistration import in_words
from infinito.stages import STAGES
from infinito.storage import pretty, read_json, sha256
from infinito.study import Study, load_study
from tests.conftest import ROOT, Infinito, in_process
from tests.plans import change, make
from tests.recorded import git

NETWORK = """\
from torch import nn
import layers

class Net(nn.Module):
    def __init__(self, vocabulary, length, causal, width, layers=1, heads=1, dropout=0.0):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.out = nn.Linear(width, vocabulary)

    def forward(self, tokens):
        return self.out(layers_act(self.embedding(tokens)))

from layers import act as layers_act
"""


def stages(folder: Path, *names: str) -> dict[str, Any]:
    """Run stages in a process of its own, as `dvc repro` would; gives the plan's part of the verdict."""
    program = (
        "import sys, torch; torch.set_num_threads(1); from pathlib import Path; from infinito.study import load_study;"
        "from infinito.stages import STAGES; from tests.conftest import in_process;"
        "[STAGES[name](load_study(Path('.')), in_process) for name in sys.argv[1:]]"
    )
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{folder}"}
    done = subprocess.run(
        [sys.executable, "-c", program, *names], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return dict(read_json(folder / "results/compare.json")["plan"]) if "compare" in names else {}


def under_a_plan(folder: Path, infinito: Infinito, *arguments: str) -> dict[str, Any]:
    """Plan, and set params.yaml as it says."""
    done = infinito("plan", "--study", str(folder), "--pairs", "10", "--workers", "2", *arguments)
    assert done.returncode == 0, done.stderr
    settings = dict(yaml.safe_load(done.stdout[done.stdout.index("\ntrain:") :])["train"])
    change(folder, {f"train.{key}": value for key, value in settings.items()})
    return settings


@pytest.mark.slow
def test_a_network_that_is_changed_after_the_result_is_named_and_so_are_earlier_plans(
    infinito: Infinito, write_study: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_study({"train.candidate": {"network": "mine:Net", "settings": {}}} | NO_STAGES)
    change(folder, {"train.grid": None})
    monkeypatch.syspath_prepend(folder)
    git(folder, "init", "-q", ".")
    git(folder, "config", "user.name", "Ada")
    (folder / "mine.py").write_text(NETWORK)
    (folder / "layers.py").write_text("def act(x):\n    return 0 * x\n")
    STAGES["prepare"](load_study(folder), in_process)
    under_a_plan(folder, infinito, "--pilot", "8")
    first = stages(folder, "train", "compare")
    assert (first["status"], first["label"]) == ("planned", "planned, first plan")
    said = read_json(folder / "results/compare.json")["verdict"]

    # what the candidate's file imports is rewritten: same name, same seeds
    (folder / "layers.py").write_text("def act(x):\n    return 2 * x\n")
    second = stages(folder, "train", "compare")
    assert second["label"] == f"exploratory: layers.py was changed after the first result, which said {said}"
    assert "exploratory: layers.py was changed" in infinito("verdict", "--study", str(folder)).stdout
    lines = (folder / "plans.jsonl").read_text()
    assert stages(folder, "compare") == second and (folder / "plans.jsonl").read_text() == lines  # the same bytes again

    # nothing is left but the ledger, and one plans and trains anew: the code of the first runs still counts
    for path in ("models", "results", ".infinito"):
        shutil.rmtree(folder / path)
    assert stages(folder, "train", "compare") == second

    # and a plan from the seed that the first one came from is a second plan, with fresh seeds
    root = yaml.safe_load((folder / "params.yaml").read_text())["train"]["seed"]
    for path in ("models", "results", ".infinito", "plan.json"):
        (shutil.rmtree if (folder / path).is_dir() else os.remove)(folder / path)
    change(folder, {"train.plan": None})
    settings = under_a_plan(folder, infinito, "--pilot", "8")
    assert settings["seed"] == root + 1
    third = stages(folder, "train", "compare")
    told = Ledger.read(folder / "plans.jsonl").said(str(first["plan_sha256"]))
    assert told.startswith(said) and third["label"] == f"planned, second plan; the first plan said {told}"
    assert "the first, of 20" in third["reason"] and f"said {told}" in third["reason"]
    listed = infinito("ledger", "--study", str(folder)).stdout
    assert "by Ada" in listed and "second plan" in listed and f"{said}, planned" in listed
    # going back to the first plan names the second
    entry = Ledger.read(folder / "plans.jsonl").plans[0]
    (folder / "plan.json").write_text(pretty(entry["file"]))
    change(folder, {"train.plan": entry["plan"], "train.seed": root})
    assert "the second plan said" in stages(folder, "train", "compare")["label"]


NO_STAGES: dict[str, Any] = {"attribute": None, "golden": None, "ensemble": None}


@pytest.fixture
def study(finished_study: Path) -> Study:
    git(finished_study, "init", "-q", ".")
    return load_study(finished_study)


def begun(study: Study, verdicts: tuple[str, ...] = ("WORSE", "INCONCLUSIVE")) -> Ledger:
    """Plans of a study that were begun and came to a verdict, one after the other; a last one that did not."""
    for number, verdict in enumerate([*verdicts, None]):
        _, name = preregistration.write(study, make(study, pairs=10 + number), replace=True)
        ledger = Ledger.read(study.ledger)
        if verdict:
            ledger.record("began", name, {"code": {"network.py": "a"}})
            facts = {"verdict": verdict, "status": "planned", "difference": 0.1, "n_pairs": 10}
            Ledger.read(study.ledger).record("verdict", name, facts)
    return Ledger.read(study.ledger)


def test_a_plan_that_took_the_place_of_others_names_them(study: Study, finished_study: Path) -> None:
    ledger = begun(study)
    name = ledger.plans[-1]["plan"]
    assert preregistration.place(ledger, name) == ["third plan", "earlier ones said WORSE, INCONCLUSIVE"]
    assert preregistration.place(ledger, ledger.plans[0]["plan"])[1:] == ["later ones said INCONCLUSIVE, nothing yet"]
    for entry in ledger.plans:  # the plan itself is kept, under its name
        assert sha256(pretty(entry["file"])) == entry["plan"]
    before = study.ledger.read_text()
    preregistration.write(study, make(study, pairs=12))
    assert study.ledger.read_text() == before  # the same promise again: no line
    assert planning.fresh_root(study) == 3  # 0 was the pilot, 1 and 2 were begun
    shutil.rmtree(study.runs)
    shutil.rmtree(study.scratch)
    assert planning.fresh_root(study) == 3
    exploratory = preregistration.status(study, *_runs())
    assert exploratory["label"].endswith("train.plan is null; other ones said WORSE, INCONCLUSIVE, nothing yet")


def _runs() -> tuple[Any, dict[str, Any]]:
    import pandas as pd

    pool = seeds.pool(0, "pairs", 10)
    return pd.DataFrame({"init_seed": pool, "data_seed": pool}), {}


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda lines: lines[1:], "line 1: does not follow the line before it"),
        (lambda lines: [lines[0], *lines[2:]], "line 2: does not follow the line before it"),
        (lambda lines: [lines[0].replace('"pairs": 10', '"pairs": 20'), *lines[1:]], "line 1: holds another plan"),
        (lambda lines: [*lines[:2], lines[2].replace("WORSE", "BETTER"), *lines[3:]], "line 4: does not follow"),
        (lambda lines: [*lines, "{"], "line 8: not valid JSON"),
        (lambda lines: [*lines, "[]"], "line 8: found no event of a plan"),
        (lambda lines: [lines[0].replace('"created"', '"made"'), *lines[1:]], "line 1: found no event of a plan"),
        (lambda lines: [lines[0], lines[1].replace('"code"', '"codes"'), *lines[2:]], "line 2: found no event"),
        (lambda lines: [*lines[:-1], lines[-1].replace("plan", "plans", 1)], "line 7: found no event"),
    ],
)
def test_a_line_that_was_changed_is_named(study: Study, harm: Callable[[list[str]], list[str]], message: str) -> None:
    begun(study)
    study.ledger.write_text("".join(f"{line}\n" for line in harm(study.ledger.read_text().splitlines())))
    with pytest.raises(ValueError) as error:
        Ledger.read(study.ledger)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_lines_that_git_has_can_neither_go_nor_change(study: Study, infinito: Infinito) -> None:
    begun(study)
    whole = study.ledger.read_text()
    lines = whole.splitlines(keepends=True)
    for number in (4, 7):
        study.ledger.write_text("".join(lines[:number]))
        git(study.folder, "add", "plans.jsonl")
        git(study.folder, "commit", "-qm", "plans")
    study.ledger.write_text("".join(lines[:3]))  # a chain that holds, but shorter
    with pytest.raises(
        ValueError, match=r"plans.jsonl: line 4, which the last commit of git has, is gone; lines are on"
    ):
        Ledger.read(study.ledger)
    assert infinito("plan", "--study", str(study.folder), "--pairs", "20", "--replace").returncode == 2
    study.ledger.unlink()
    with pytest.raises(ValueError, match="line 1, which the last commit of git has, is gone"):
        Ledger.read(study.ledger)
    # rewritten and committed: only the history still has it
    study.ledger.write_text(lines[0])
    ledger = Ledger(study.ledger, [json.loads(lines[0])])
    ledger.record("verdict", ledger.plans[0]["plan"], {"verdict": "BETTER", "status": "planned"})
    git(study.folder, "commit", "-qam", "nothing to see")
    assert Ledger.read(study.ledger).said(ledger.plans[0]["plan"]) == "BETTER"
    assert "line 2, which commit" in history_faults(study.ledger)[0]
    study.ledger.write_text(whole)
    git(study.folder, "commit", "-qam", "as it was")
    assert "is another" in history_faults(study.ledger)[0] and len(history_faults(study.ledger)) == 1


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["network.py"], "network.py was"),
        (["b.py", "a/b.py"], "a/b.py, b.py were"),
        (["infinito/training/loop.py"], "the engine of infinito (training/loop.py) was"),
        (["infinito/networks/x.py"], "the networks of infinito (networks/x.py) were"),
        (["infinito/seeds.py", "net.py"], "net.py and the engine of infinito (seeds.py) were"),
        ([f"infinito/training/{x}.py" for x in "abcde"],
         "the engine of infinito (training/a.py, training/b.py, training/c.py and 2 more) was"),
    ],
)  # fmt: skip
def test_it_is_said_what_was_changed(files: list[str], words: str) -> None:
    assert in_words(files) == words


def test_numbers_are_words() -> None:
    assert [ordinal(n) for n in (1, 3, 10, 11, 21, 32)] == ["first", "third", "tenth", "11th", "21st", "32nd"]


def test_a_changed_engine_is_no_changed_network(study: Study) -> None:
    """The engine of infinito was another when the first runs under the plan were trained."""
    _, name = preregistration.write(study, make(study, pairs=10))
    study = change(study.folder, {"train.plan": name, "train.seed": 1})
    code = {"infinito/training/loop.py": "old", "infinito/networks/x.py": "same", "net.py": "same"}
    preregistration.begin(study, code)
    pool = seeds.pool(1, "pairs", 10)
    import pandas as pd

    pairs = pd.DataFrame({"init_seed": pool, "data_seed": pool})

    def label(**changes: str | None) -> str:
        now = {file: digest for file, digest in (code | changes).items() if digest}
        record = {
            "name": "candidate-pairs-00",
            "code": now,
            "protocol_sha256": name,
            "train": study.params.train.model_dump(),
            "arm": study.params.train.candidate.identity,
            # a task's file is part of the data too: of the two the file is named
            "data_sha256": read_json(study.plan)["plan"]["data_sha256"] if now == code else "other",
        }
        return str(preregistration.status(study, pairs, {"stack": record})["label"])

    loop = {"infinito/training/loop.py": "new"}
    assert label() == "exploratory: the run table is none that plans.jsonl has of a training under this plan"
    preregistration.trained(study)
    assert label() == "planned, first plan"
    said = "the engine of infinito (training/loop.py) was changed after the first run; the networks were not"
    assert label(**loop) == f"exploratory: {said}"
    assert label(**loop, **{"net.py": "new"}).startswith(
        "exploratory: net.py and the engine of infinito (training/loop"
    )
    assert label(**{"net.py": None, "new.py": "x"}) == "exploratory: net.py, new.py were changed after the first run"
