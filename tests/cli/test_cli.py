import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from infinito import seeds
from infinito.storage import file_sha256, read_json, write_json
from tests.conftest import ROOT, Infinito


def test_it_is_a_program_too() -> None:
    """From another folder, in a process of its own; what needs no torch does not wait for it."""
    program = "import sys; sys.argv[0] = 'infinito'; from infinito.cli import main; import atexit; "
    program += "atexit.register(lambda: print('torch' in sys.modules)); main()"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    for start in (["-m", "infinito"], ["-c", program]):
        for arguments, code in ((["--help"], 0), (["frobnicate"], 2), ([], 0)):
            done = subprocess.run(
                [sys.executable, *start, *arguments], capture_output=True, text=True, env=environment, cwd="/"
            )
            assert done.returncode == code and "Traceback" not in done.stderr
            assert start[0] == "-m" or done.stdout.endswith("False\n")


def test_help_names_every_verb_and_what_a_study_is(infinito: Infinito) -> None:
    done = infinito("--help")
    assert done.returncode == 0 and infinito().stdout == done.stdout
    verbs = ("audit", "check", "explain", "judge", "ledger", "new", "plan", "verdict", "verify")
    assert all(word in done.stdout for word in (*verbs, "params.yaml", "dvc repro"))


@pytest.mark.parametrize("verb", ["audit", "check", "explain", "judge", "ledger", "new", "plan", "verdict", "verify"])
def test_help_of_a_verb_has_an_example_that_names_its_own_flags(infinito: Infinito, verb: str) -> None:
    text = infinito(verb, "--help").stdout
    example = text[text.index("Example") :]
    assert f"infinito {verb}" in example
    for flag in re.findall(r"--[a-z-]+", example):
        assert flag in text[: text.index("Example")]


def test_verdict_prints_what_compare_wrote(infinito: Infinito, finished_study: Path) -> None:
    result = read_json(finished_study / "results/compare.json")
    done = infinito("verdict", "--study", str(finished_study))
    assert done.returncode == 0, done.stderr
    assert result["sentence"] in done.stdout and f"{result['wins']} of 10" in done.stdout
    low, high = (f"{result['difference'][key]:.4g}" for key in ("ci_low", "ci_high"))
    assert f"[{low}, {high}]" in done.stdout
    machine = infinito("verdict", "--json", "--study", str(finished_study))
    assert json.loads(machine.stdout) == result


def test_verdict_says_whether_it_was_planned_and_adjusts_for_a_family(infinito: Infinito, finished_study: Path) -> None:
    file = finished_study / "results/compare.json"
    reason = "No plan was registered before the runs: train.plan is null."
    label = "exploratory: no plan was registered; other ones said WORSE, WORSE"
    plan = {"status": "exploratory", "label": label, "reason": reason, "plan_sha256": None}
    write_json(file, read_json(file) | {"plan": plan, "hypotheses": 3, "p_adjusted": 0.123})
    text = infinito("verdict", "--study", str(finished_study)).stdout
    assert label in text
    assert re.search(r"p, adjusted for 3 hypotheses\W+0\.123", text)
    write_json(file, read_json(file) | {"hypotheses": 1})
    assert "adjusted" not in infinito("verdict", "--study", str(finished_study)).stdout


def test_check_says_what_a_study_will_do_and_holds_it_to_its_plan(
    infinito: Infinito, refused: Callable[..., str], finished_study: Path, write_study: Callable[..., Path]
) -> None:
    done = infinito("check", "--study", str(write_study()))
    assert done.returncode == 0
    assert (
        "study tiny: candidate, baseline; 10 pairs, a grid of 3 x 3 seeds; at most 74 runs, 6 steps each; no plan"
        in done.stdout
    )

    assert infinito("plan", "--study", str(finished_study), "--pairs", "11").returncode == 0
    content = yaml.safe_load((finished_study / "params.yaml").read_text())
    content["train"] |= {"seed": 1, "pairs": 11, "plan": file_sha256(finished_study / "plan.json")}
    (finished_study / "params.yaml").write_text(yaml.safe_dump(content))
    assert "under the plan of 20" in infinito("check", "--study", str(finished_study)).stdout
    content["compare"]["smallest_effect"] = 0.5
    (finished_study / "params.yaml").write_text(yaml.safe_dump(content))
    assert "smallest_effect is not as planned" in refused("check", "--study", str(finished_study))
    (finished_study / "plan.json").unlink()
    assert "plan.json: no such file; infinito plan writes it" in refused("check", "--study", str(finished_study))


def test_audit_names_what_lacks_its_record(
    infinito: Infinito, refused: Callable[..., str], recorded_study: Path, write_study: Callable[..., Path]
) -> None:
    folder = str(recorded_study)
    done = infinito("audit", "--study", folder)
    assert (done.returncode, done.stdout) == (0, "study tiny: the chain holds: 7 of 7 stages, 74 runs\n"), done
    (recorded_study / "results/records/golden.json").unlink()
    write_json(recorded_study / "results/new.json", {})
    done = infinito("audit", "--study", folder)
    assert done.returncode == 1 and done.stderr == ""
    assert done.stdout.splitlines() == [
        "study tiny: the chain does not hold; first at stages",
        "stages: results/records/golden.json: not on this machine; dvc pull brings it, or dvc checkout from this "
        "machine's cache",
        "results: results/new.json: no stage of dvc.yaml writes it",
        "reserve: git: studies/tiny/results/new.json: not committed as it is",
    ]
    assert "no stage has left anything to audit; run dvc repro" in refused("audit", "--study", str(write_study()))


def test_judge_says_what_a_published_summary_shows(infinito: Infinito) -> None:
    figures = "--mean", "3.44", "--sd", "19.55", "--n", "10", "--wins", "7", "--best", "29.14", "--p", "0.554"
    text = infinito("judge", *figures).stdout
    for figure in ("INCONCLUSIVE", "0.556", "0.591", "-10.5", "17.4", "0.344", "0.40", "0.89", "0.176", "7.9", "33.5"):
        assert figure in text
    assert "256" in text and "not above" in text and "does not follow" in text
    result = json.loads(infinito("judge", *figures, "--json").stdout)
    assert result["verdict"] == "INCONCLUSIVE" and result["pairs_for_80_percent_power"] == 256
    assert result["sentences"][-1] in text
    fewer = infinito("judge", "--mean", "-2", "--sd", "1", "--n", "12")
    assert fewer.returncode == 0 and "WORSE" in fewer.stdout


def test_impossible_figures_name_the_flag(refused: Callable[..., str]) -> None:
    def judge(*changes: str) -> str:
        return refused("judge", "--mean", "3.44", "--sd", "19.55", "--n", "10", *changes)

    assert "--n: found 1; allowed: 2 to" in judge("--n", "1")
    assert "--sd: found 0.0; allowed" in judge("--sd", "0")
    assert "--wins: found 11; allowed: 0 to 10" in judge("--wins", "11")
    assert "--best: found 1.0; allowed" in judge("--best", "1")
    assert "--seeds-tried: found 5; allowed" in judge("--best", "30", "--seeds-tried", "5")
    assert "--p: found 2.0" in judge("--p", "2")
    assert "'--mean'" in judge("--mean", "much")
    assert "'--sd'" in refused("judge", "--mean", "1", "--n", "10")
    assert "--frob" in judge("--frob", "1")


def test_plan_from_a_finished_study_is_registered_and_explained(infinito: Infinito, finished_study: Path) -> None:
    folder = str(finished_study)
    done = infinito("plan", "--study", folder, "--effect", "0.02", "--looks", "obf", "--pairs", "20", "--price", "3")
    assert done.returncode == 0, done.stderr
    plan = read_json(finished_study / "plan.json")
    assert (plan["plan"]["pairs"], plan["plan"]["looks"], plan["plan"]["seed"]) == (20, [5, 10, 15, 20], 1)
    # what is printed last goes into params.yaml as it is, and makes the study the planned one
    settings = yaml.safe_load(done.stdout[done.stdout.index("\ntrain:") :])
    assert settings == {
        "train": {"seed": 1, "pairs": 20, "looks": [5, 10, 15, 20], "plan": file_sha256(finished_study / "plan.json")}
    }
    for words in ("this machine", "one test at the end", "O'Brien-Fleming", "e-value", "equivalence", "grid", "price"):
        assert words in done.stdout
    assert "root seed 0 have been trained already" in done.stdout
    assert infinito("plan", "--study", folder, "--effect", "0.02", "--looks", "obf", "--pairs", "20").returncode == 0
    other = infinito("plan", "--study", folder, "--effect", "0.02", "--pairs", "21")
    assert other.returncode == 2 and "holds another plan" in other.stderr and other.stderr.count("\n") == 1
    assert read_json(finished_study / "plan.json") == plan
    assert infinito("plan", "--study", folder, "--effect", "0.02", "--pairs", "21", "--replace").returncode == 0
    assert read_json(finished_study / "plan.json")["plan"]["pairs"] == 21


def test_from_a_pilot_over_a_plan_to_a_planned_verdict(infinito: Infinito, finished_study: Path) -> None:
    """What `infinito plan` prints, put into params.yaml, makes the stages' verdict the planned one."""
    from infinito.stages import STAGES
    from infinito.study import load_study
    from tests.conftest import in_process

    folder = str(finished_study)
    assert "exploratory" in infinito("verdict", "--study", folder).stdout
    printed = infinito("plan", "--study", folder, "--pairs", "11").stdout
    content = yaml.safe_load((finished_study / "params.yaml").read_text())
    content["train"] |= yaml.safe_load(printed[printed.index("\ntrain:") :])["train"]
    (finished_study / "params.yaml").write_text(yaml.safe_dump(content))
    for stage in ("train", "compare"):
        STAGES[stage](load_study(finished_study), in_process)
    text = infinito("verdict", "--study", folder).stdout
    assert "planned, first plan  The plan of 20" in text and "the first of the 11 pairs" in text


def test_plan_says_when_the_time_was_measured_elsewhere(infinito: Infinito, finished_study: Path) -> None:
    for record in finished_study.glob("models/runs/stacks/*/stack.json"):
        write_json(record, read_json(record) | {"processor": "a faster one"})
    done = infinito("plan", "--study", str(finished_study), "--workers", "7", "--looks", "anytime")
    assert "ANOTHER MACHINE" in done.stdout and "a faster one" in done.stdout and "7 at a time" in done.stdout
    assert read_json(finished_study / "plan.json")["plan"]["looks"] == "anytime"


def test_plan_trains_a_pilot_where_there_are_no_runs(
    infinito: Infinito, refused: Callable[..., str], write_study: Callable[..., Path]
) -> None:
    from infinito.stages import STAGES
    from infinito.study import load_study
    from tests.conftest import in_process

    folder = write_study()
    message = refused("plan", "--study", str(folder))
    assert "infinito plan --pilot 8" in message and "dvc repro train" in message
    assert "manifest.json: no such file; run the stage that writes it" in refused(
        "plan", "--study", str(folder), "--pilot", "8"
    )
    STAGES["prepare"](load_study(folder), in_process)
    assert "--pilot: found 3; allowed: 8" in refused("plan", "--study", str(folder), "--pilot", "3")
    done = infinito("plan", "--study", str(folder), "--pilot", "8")
    assert done.returncode == 0, done.stderr
    pilot = read_json(folder / "plan.json")["plan"]["pilot"]
    assert (pilot["design"], pilot["n"], pilot["init_seeds"]) == ("pilot", 8, seeds.pool(0, "pilot", 8))
    stacks = sorted(folder.glob(".infinito/scratch/*/stack.json"))
    assert len(stacks) == 4  # 2 arms x 8 runs, 6 in a stack: kept, and not trained again
    changed = [stack.stat().st_mtime_ns for stack in stacks]
    assert infinito("plan", "--study", str(folder), "--pilot", "8").returncode == 0
    assert [stack.stat().st_mtime_ns for stack in stacks] == changed


def test_bad_values_of_a_plan_name_the_flag(refused: Callable[..., str], finished_study: Path) -> None:
    for flag, value, expected in (
        ("--pairs", "3", "--pairs: found 3; allowed: 10"),
        ("--effect", "-1", "--effect: found -1.0; allowed"),
        ("--power", "1", "--power: found 1.0; allowed"),
        ("--workers", "0", "--workers: found 0; allowed"),
        ("--price", "-1", "--price: found -1.0; allowed"),
        ("--looks", "often", "'--looks'"),
    ):
        assert expected in refused("plan", "--study", str(finished_study), flag, value)
    assert not (finished_study / "plan.json").exists()


def test_bad_input_is_one_line_and_exit_code_2(
    refused: Callable[..., str], write_study: Callable[..., Path], tmp_path: Path
) -> None:
    unfinished = write_study()
    for arguments, message in (
        (("verdict", "--study", str(unfinished)), "compare.json: no such file; run the stage that writes it"),
        (("check", "--study", str(tmp_path / "nowhere")), "params.yaml: no such file"),
        (("check", "--study", str(write_study({"train.nonsense": 1}, "bad"))), "train.nonsense: unknown key"),
        (("frobnicate",), "No such command 'frobnicate'"),
    ):
        assert message in refused(*arguments)
