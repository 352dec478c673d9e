"""One process at a time works on a study: `dvc repro` by hand, flow runs, stages by themselves, in any container."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from infinito.flows import lock
from tests import toy
from tests.toy import attempts, dvc, eventually, write_toy

DVC = [sys.executable, "-m", "dvc", "repro"]
LINE = r"study: `python\S* -m dvc repro` \(process \d+\) has been at work since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\S*; "


@pytest.fixture
def study(tmp_path: Path) -> Iterator[Path]:
    """The toy study, whose stage `train` waits for the file scratch/go."""
    folder = tmp_path / "study"
    write_toy(folder)
    (folder / "faults").write_text('{"candidate-01": "wait"}')
    yield folder
    for pid in toy.processes_of(folder):
        os.kill(pid, signal.SIGKILL)


def start(command: list[str], folder: Path, **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        command,
        cwd=folder,
        env=toy.toy_environment(**environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def trains(folder: Path) -> bool:
    return (folder / "scratch" / "candidate-01.attempts").exists()


def attempts_of_all(folder: Path) -> list[int]:
    return [attempts(toy.Toy(f"candidate-{i:02d}", folder / "scratch")) for i in range(4)]


def is_free(folder: Path) -> bool:
    try:
        with lock.hold(folder):
            return True
    except lock.StudyHeld:
        return False


def test_what_the_holder_starts_holds_the_study_with_it_and_others_hear_who_it_is(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from infinito.flows import lock\nwith lock.hold(Path(sys.argv[1])): pass"
    )
    child = [sys.executable, "-c", program, str(tmp_path)]
    other = [sys.executable, "-c", f"import time\n{program[:-4]}\n  print(flush=True); time.sleep(100)", str(tmp_path)]
    with lock.hold(tmp_path), lock.hold(tmp_path):
        assert subprocess.run(child, env=toy.toy_environment()).returncode == 0
    assert is_free(tmp_path)
    holder = start(other, tmp_path)
    assert holder.stdout is not None
    with holder.stdout:
        holder.stdout.readline()
        with pytest.raises(lock.StudyHeld, match=rf"`python.* \(process {holder.pid}\) has been at work since 20"):
            with lock.hold(tmp_path):
                pass
        said: list[str] = []

        def waiting(line: str) -> None:
            said.append(line)
            holder.kill()  # which frees it

        with lock.hold(tmp_path, waiting):
            assert len(said) == 1 and said[0].endswith("; waiting until it has ended")
        holder.wait()


def test_dvc_repro_by_hand_holds_the_study_between_its_stages(study: Path) -> None:
    stages = json.loads((study / "dvc.yaml").read_text())
    stages["stages"]["compare"]["cmd"] = "until test -e go; do sleep 0.1; done; cp train.txt compare.txt"
    (study / "dvc.yaml").write_text(json.dumps(stages))
    (study / "faults").write_text("{}")
    by_hand = start(DVC, study)
    assert eventually((study / "train.txt").exists)
    assert eventually(lambda: len(toy.processes_of(study)) > 0 and "train:" in (study / "dvc.lock").read_text())
    with pytest.raises(lock.StudyHeld, match=LINE + "repeat this when it has ended"):
        with lock.hold(study):
            pass
    (study / "go").touch()
    assert by_hand.wait(toy.SECONDS) == 0
    by_hand.communicate(timeout=toy.SECONDS)
    assert eventually(lambda: is_free(study) and not toy.processes_of(study))


@pytest.mark.parametrize("shell", ["/bin/bash", "/bin/sh"])  # the one becomes the stage, the other starts it and waits
def test_killing_dvc_frees_the_study(study: Path, shell: str) -> None:
    by_hand = start(DVC, study, SHELL=shell)
    assert eventually(lambda: trains(study))
    assert not is_free(study)
    by_hand.kill()
    by_hand.communicate(timeout=toy.SECONDS)
    assert eventually(lambda: is_free(study) and not toy.processes_of(study))


def test_a_stage_in_another_shell_does_not_train_what_dvc_trains(study: Path) -> None:
    by_hand = start(DVC, study)
    assert eventually(lambda: trains(study))
    other = start([sys.executable, toy.__file__], study)
    said, _ = other.communicate(timeout=toy.SECONDS)
    assert other.returncode == 1 and said.count("\n") == 1, said
    assert said.startswith(f"infinito: {study}: `python") and " -m dvc repro` (process " in said
    (study / "scratch" / "go").touch()
    by_hand.communicate(timeout=toy.SECONDS)
    assert by_hand.returncode == 0 and attempts_of_all(study) == [1, 1, 1, 1]


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs Linux namespaces")
def test_two_containers_do_not_both_train(study: Path) -> None:
    container = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc", *DVC]
    if subprocess.run([*container[:-4], "true"], capture_output=True).returncode != 0:
        pytest.skip("needs the right to make namespaces")
    first = start(container, study)
    assert eventually(lambda: trains(study))
    second = start(container, study)
    said, _ = second.communicate(timeout=toy.SECONDS)
    assert second.returncode != 0
    assert "repro` (process 1 of another container) has been at work since " in said, said
    (study / "scratch" / "go").touch()
    said, _ = first.communicate(timeout=toy.SECONDS)
    assert first.returncode == 0, said
    assert attempts_of_all(study) == [1, 1, 1, 1]
    assert "up to date" in dvc(study, "status", "dvc.yaml")
    assert is_free(study)
