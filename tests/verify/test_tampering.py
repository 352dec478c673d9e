"""One small study under a plan, in git and DVC: whatever is tampered with, the commands that notice say so."""

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo

from infinito import runs, tasks
from infinito.lineage.audit import audit
from infinito.lineage.records import write_record
from infinito.planning import pilot as piloting
from infinito.planning import plan as planning
from infinito.planning import preregistration
from infinito.runs.code import code_of
from infinito.runs.table import RunTable
from infinito.stages import STAGES
from infinito.storage import read_json
from infinito.study import load_study
from tests.conftest import ROOT, TINY, Infinito, in_process
from tests.plans import change
from tests.recorded import dvc, git, path_of
from tests.verify.tampering import CASES, NETWORK, Case, table

STAGES_HERE = ("prepare", "train", "compare", "report")
NAME = "network_of_a_study"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A study with a network of its own, planned from a pilot, trained, recorded by DVC, everything committed."""
    study = tmp_path_factory.mktemp("tampering") / "study"
    study.mkdir()
    git(study, "init", "-q", ".")
    content = {key: value for key, value in TINY.items() if key in ("study", *STAGES_HERE)}
    (study / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    settings = {"train.candidate": {"network": f"{NAME}:Net", "settings": {}}, "train.grid": None, "train.stack": 10}
    change(study, settings)
    (study / f"{NAME}.py").write_text(NETWORK)
    (study / ".gitignore").write_text("/data/\n/models/\n/results/records/\n/.infinito/\n__pycache__/\n")
    (study / ".dvcignore").write_text("__pycache__\n")
    (study / ".dvc").mkdir()
    (study / ".dvc/.gitignore").write_text("/cache\n/tmp\n")
    (study / ".dvc/config").write_text("[core]\n    analytics = false\n")
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    stages = {name: stages[name] for name in STAGES_HERE}
    for name, stage in stages.items():
        stage["params"] = [key for key in stage["params"] if key in content]
        data = ["data/prepared", "models/runs", "results/compare.json"]
        stage["deps"] = [path for path in stage["deps"] if path in data] + ([f"{NAME}.py"] if name == "train" else [])
        kinds = {"outs", "metrics", "plots"} & stage.keys()
        for kind in kinds:
            stage[kind] = [entry for entry in stage[kind] if "golden" not in path_of(entry)]
    (study / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}, sort_keys=False))
    git(study, "add", "-A")
    git(study, "commit", "-qm", "study")
    sys.path.insert(0, str(study))
    code_of.cache_clear()
    STAGES["prepare"](load_study(study), in_process)
    write_record(load_study(study), "prepare", 1.0)
    name, seed = registered(study)
    change(study, {"train.plan": name, "train.seed": seed})
    git(study, "add", "-A")
    git(study, "commit", "-qm", "plan")
    for stage_name in STAGES_HERE[1:]:
        STAGES[stage_name](load_study(study), in_process)
        write_record(load_study(study), stage_name, 1.0)
    dvc(study, "commit", "--force", "--quiet")
    git(study, "add", "-A")
    git(study, "commit", "-qm", "results")
    yield study
    sys.path.remove(str(study))


def registered(folder: Path) -> tuple[str, int]:
    """Plan 10 pairs from a pilot; gives the plan's name and root seed."""
    study = load_study(folder)
    data, out = tasks.load(study.data), folder.parent / "pilot"
    runs.collect(in_process(piloting.pilot_jobs(study, data, 8)), out)
    known = piloting.pilot(study, RunTable.load(out), data.sha256)
    facts = {"data_sha256": data.sha256, "unit": "nats", "created": "2026-01-31", "workers": 1, "pairs": 10}
    content, name = preregistration.write(study, planning.make(study, known, seed=planning.fresh_root(study), **facts))
    return name, content["seed"]


@pytest.fixture
def study(base: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of it."""
    copy = Path(shutil.copytree(base, tmp_path / "study", symlinks=True))
    sys.path.insert(0, str(copy))
    _forget()
    yield copy
    sys.path.remove(str(copy))
    _forget()


def _forget() -> None:
    """The network's file is read anew."""
    sys.modules.pop(NAME, None)
    code_of.cache_clear()


def compared(study: Path) -> str:
    """What the stage says that it refuses, or what it says of the plan where the verdict is not the planned one."""
    try:
        STAGES["compare"](load_study(study), in_process)
    except ValueError as error:
        return str(error)
    plan = read_json(study / "results/compare.json")["plan"]
    return "" if plan["status"] == "planned" else str(plan["label"])


def audited(study: Path) -> str:
    """What does not hold; if it is only reserves, those but what is not committed."""
    found = audit(load_study(study))
    faults = [str(finding) for finding in found if not finding.reserve]
    reserves = [f"reserve: {finding}" for finding in found if finding.reserve and "not committed" not in finding.said]
    return "\n".join(faults or reserves)


def verified(study: Path, infinito: Infinito) -> str:
    _forget()
    done = infinito("verify", "--all", "--study", str(study))
    return done.stdout + done.stderr if done.returncode else ""


def dvc_status(study: Path) -> str:
    with Repo(str(study)) as repo:
        return str(repo.status() or "")


@pytest.fixture
def commands(infinito: Infinito) -> list[Callable[[Path], str]]:
    """In the order of COMMANDS."""
    return [compared, audited, lambda study: verified(study, infinito), dvc_status]


def test_nothing_is_said_of_a_study_that_is_as_it_was(study: Path, commands: list[Callable[[Path], str]]) -> None:
    assert [command(study) for command in reversed(commands)] == ["", "", "", ""]
    assert audit(load_study(study)) == []  # after the stage has run again, too


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.what)
def test_what_is_tampered_with_is_noticed(study: Path, commands: list[Callable[[Path], str]], case: Case) -> None:
    case.harm(study)
    _forget()
    for command, expected in reversed([*zip(commands, case.said, strict=True)]):  # the stage writes: it comes last
        found = command(study)
        assert expected in found if expected else not found, (found, expected)


def test_the_docs_have_this_table() -> None:
    assert table() in (ROOT / "docs/tampering.md").read_text()
