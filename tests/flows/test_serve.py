"""`python -m infinito.flows.serve`, with real Prefect servers, real schedules and a toy study."""

import itertools
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from infinito.flows import serve
from infinito.flows.serve import Service
from tests import toy
from tests.toy import ROOT, dvc, eventually, flow_runs, post, processes_of, served, write_toy


@pytest.fixture
def study(tmp_path: Path) -> Path:
    folder = tmp_path / "study"
    write_toy(folder)
    return folder


def read(url: str) -> Any:
    with urllib.request.urlopen(url) as answer:
        return json.load(answer)


def start(url: str) -> str:
    """Start a flow run by hand, as the button of the pages does."""
    deployment = read(f"{url}/deployments/name/infinito/study")["id"]
    run: str = post(f"{url}/deployments/{deployment}/create_flow_run", {})["id"]
    return run


def ended(url: str, run: str) -> Callable[[], bool]:
    return lambda: read(f"{url}/flow_runs/{run}")["state_type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


def is_clean(folder: Path) -> bool:
    return "up to date" in dvc(folder, "status", "dvc.yaml")


def training(folder: Path) -> Callable[[], bool]:
    """Whether all stacks but the one that waits are trained, and that one has begun."""
    return lambda: (
        len(list((folder / "scratch").glob("*.txt"))) == 3 and len(list((folder / "scratch").glob("*.attempts"))) == 4
    )


ENDS = ("Completed", "UpToDate", "Cached", "Failed", "Crashed", "Cancelled")


def _has_ended(url: str, count: int) -> bool:
    return len(flow_runs(url, *ENDS)) >= count


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--cron", "61 * * * *"], "--cron: found '61 * * * *'; allowed: minute, hour, day, month, weekday, such as"),
        (["--cron", "hourly"], "--cron: found 'hourly'; allowed: "),
        (["--every", "15"], "--every: found '15'; allowed: 10s or more, such as 15m, 2h or 1d"),
        (["--every", "9s"], "--every: found '9s'; allowed: "),
        (["--every", "soon"], "--every: found 'soon'; allowed: "),
        (["--every", "1h", "--cron", "0 3 * * *"], "--cron, --every: found both; allowed: one of them"),
        (["--port", "http"], "--port: found 'http'; allowed: 1 to 65535"),
        (["--port", "70000"], "--port: found '70000'; allowed: "),
        (["--study", "studies/none"], "studies/none/dvc.yaml: no such file; a study is a folder with"),
        (["--study", ".", "."], "--study: found two folders of the same name"),
        (["--often"], "unrecognized arguments: --often"),
    ],
)
def test_bad_input_is_one_line_that_names_the_flag(
    study: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(study)
    assert serve.main(["up", *arguments]) == 2
    line = capsys.readouterr().err
    assert line.startswith("infinito: ") and line.count("\n") == 1
    assert said in line
    assert not (study / ".infinito" / "prefect" / "lock").exists()


def test_it_needs_a_command_and_a_git_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert serve.main([]) == 2
    assert capsys.readouterr().err == "infinito: the following arguments are required: COMMAND\n"
    assert serve.main(["up"]) == 2
    assert capsys.readouterr().err == f"infinito: {tmp_path}: in no git repository; studies need one\n"


def test_a_port_that_is_in_use_is_one_line(
    study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(study)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert serve.main(["up", "--port", str(port)]) == 2
    assert capsys.readouterr().err == f"infinito: --port: {port} is used by another program; allowed: a free port\n"


def test_the_port_is_that_of_prefect_toml(study: Path) -> None:
    assert serve._default_port(study) == 4200
    (study / "prefect.toml").write_text("[server.api]\nport = 4711\n")
    assert serve._default_port(study) == 4711


def test_a_schedule_does_not_depend_on_when_it_was_started() -> None:
    from prefect.server.schemas.schedules import IntervalSchedule

    from infinito.flows.runner import schedule

    found = schedule(None, "15m")
    assert found is not None
    dates = IntervalSchedule.model_validate(found.model_dump())._get_dates_generator(n=3)
    assert [date.minute % 15 for date in dates] == [0, 0, 0]
    assert schedule(None, None) is None


@pytest.mark.slow
def test_up_and_down(study: Path) -> None:
    port = str(toy.free_port())
    up = toy.serve(study, "up", "--port", port, "--cron", "0 3 * * *")
    try:
        assert up.returncode == 0, up.stderr
        base = f"http://127.0.0.1:{port}"
        pages = [word for line in up.stdout.splitlines() for word in line.split() if word.startswith(base)]
        assert {f"{base}/v2/{page}" for page in ("runs", "deployments", "artifacts/key/lineage")} < set(pages)
        for page in pages:
            with urllib.request.urlopen(urllib.request.Request(page, headers={"Accept": "text/html"})) as answer:
                assert "<html" in answer.read().decode()
        deployment = read(f"{base}/api/deployments/name/infinito/study")
        assert deployment["parameters"] == {"study": str(study), "force": False}
        assert [entry["schedule"]["cron"] for entry in deployment["schedules"]] == ["0 3 * * *"]

        again = toy.serve(study, "up", "--port", port, "--cron", "0 3 * * *")
        assert (again.returncode, again.stderr) == (0, "")
        assert again.stdout == f"infinito: already up: {base}, cron 0 3 * * *, {study}\n"
        other = toy.serve(study, "up", "--port", port)
        assert (other.returncode, other.stdout) == (2, "")
        assert other.stderr.startswith("infinito: already up with other settings: ")
    finally:
        down = toy.serve(study, "down")
    assert (down.returncode, down.stdout, down.stderr) == (0, "infinito: down\n", "")
    assert processes_of(study) == {}
    left = {file.name for file in (study / ".infinito" / "prefect").iterdir()}
    assert not left & {"lock", "ready"}
    assert toy.serve(study, "down").stdout == "infinito: nothing is up\n"


@pytest.mark.slow
def test_an_unattended_schedule_leaves_the_study_clean(study: Path) -> None:
    with served(study, "--every", "10s") as url:
        for count in (1, 2, 3):  # runs that nobody started
            assert eventually(partial(_has_ended, url, count)), flow_runs(url, *ENDS)
            assert is_clean(study)
        names = [run["state_name"] for run in flow_runs(url, *ENDS)]
        assert names[0] == "Completed" and set(names[1:]) == {"UpToDate"}, names
        assert all(run["auto_scheduled"] for run in flow_runs(url, *ENDS))

        (study / "data.txt").unlink()  # found at the next time: restored, or made again
        (study / "faults").write_text('{"candidate-09": ""}')
        assert eventually(lambda: len(flow_runs(url, "Completed")) == 2)
        assert is_clean(study)
        last = flow_runs(url, "Completed")[-1]
        assert last["state"]["message"].startswith("prepare Completed, train Completed, compare ")
        tasks = toy.ask(url, "task_runs", {"flow_runs": {"id": {"any_": [last["id"]]}}})
        assert {task["name"]: task["state"]["message"] for task in tasks}["train"] == "ran; changed: faults modified"
        logs = toy.ask(url, "logs", {"logs": {"flow_run_id": {"any_": [last["id"]]}}, "limit": 200})
        assert any("4 of 4 stacks" in log["message"] for log in logs)  # what the stage says is on its page

        # artifacts are made when something has changed, not every ten seconds
        lineages = toy.ask(url, "artifacts", {"artifacts": {"key": {"any_": ["lineage"]}}})
        assert len(lineages) == 2


@pytest.mark.slow
def test_a_cancelled_run_leaves_nothing_behind_and_the_next_goes_on_from_there(study: Path) -> None:
    (study / "faults").write_text('{"candidate-01": "wait"}')
    with served(study) as url:
        run = start(url)
        assert eventually(training(study))
        began = time.monotonic()
        post(f"{url}/flow_runs/{run}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}})
        ours = ("prefect.engine", "dvc", "toy.py", "spawn_main")
        assert eventually(lambda: not any(x in line for line in processes_of(study).values() for x in ours))
        assert time.monotonic() - began < 40
        assert eventually(ended(url, run))
        assert read(f"{url}/flow_runs/{run}")["state_name"] == "Cancelled"
        assert json.loads((study / ".dvc" / "tmp" / "rwlock").read_text()) == {}

        (study / "scratch" / "go").touch()
        run = start(url)
        assert eventually(ended(url, run))
        assert read(f"{url}/flow_runs/{run}")["state_name"] == "Completed"
    attempts = {file.stem: len(file.read_text().split()) for file in (study / "scratch").glob("*.attempts")}
    assert attempts == {"candidate-00": 1, "candidate-01": 2, "candidate-02": 1, "candidate-03": 1}
    assert is_clean(study)


@pytest.mark.slow
def test_a_machine_that_slept_makes_up_for_it_by_one_run(study: Path) -> None:
    with served(study, "--every", "10s") as url:
        assert eventually(lambda: len(flow_runs(url, "UpToDate")) == 1)
        asleep = list(processes_of(study))
        for pid in asleep:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(45)  # the clock goes on
        before = time.time()
        for pid in asleep:
            os.kill(pid, signal.SIGCONT)
        time.sleep(15)
        late = [run for run in flow_runs(url, "UpToDate", "Completed") if run["estimated_start_time_delta"] > 12]
        skipped = flow_runs(url, "Skipped")
        assert len(late) <= 1 and len(skipped) >= 2, (late, skipped)
        assert "another run of this study was at work" in skipped[0]["state"]["message"]
        assert eventually(lambda: any(_due(run) > before for run in flow_runs(url, "UpToDate")))  # and goes on
        assert is_clean(study)


@pytest.mark.slow
def test_however_much_was_missed_is_made_up_for_by_one_run_of_each_study(study: Path) -> None:
    other = study / "studies" / "second"
    other.mkdir()
    (other / "dvc.yaml").write_text('{"stages": {"only": {"cmd": "true"}}}')
    both = ("--every", "1d", "--study", str(study), str(other))
    with served(study, *both) as url:
        assert eventually(lambda: len(flow_runs(url, "Scheduled")) >= 6)
        assert len(flow_runs(url, "Scheduled")) <= 2 * 10  # so little is planned ahead
    _miss(study / ".infinito" / "prefect" / "prefect.db", 150)
    with served(study, *both) as url:
        assert eventually(partial(_has_ended, url, 2))
        ended = flow_runs(url, *ENDS)
        assert [run["tags"] for run in ended] == [["missed"], ["missed"]]
        assert len({run["deployment_id"] for run in ended}) == 2
        assert flow_runs(url, "Skipped", "Late") == []
        assert min(map(_due, flow_runs(url, "Scheduled"))) > time.time()
    said = (study / ".infinito" / "prefect" / "server.log").read_text()
    assert "database is locked" not in said and "Traceback" not in said


def _miss(database: Path, count: int) -> None:
    """Make the first run that is scheduled of each study into `count` that were due up to a day ago."""
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.row_factory = sqlite3.Row
        rows = connection.execute(
            "SELECT * FROM flow_run WHERE state_type = 'SCHEDULED' GROUP BY deployment_id"
        ).fetchall()
        assert len(rows) == 2
        for row, number in itertools.product(map(dict, rows), range(count)):
            due = datetime.now(UTC) - timedelta(days=1) + timedelta(minutes=number)
            row_id = str(uuid.uuid4())
            row |= {"id": row_id, "idempotency_key": row_id, "name": f"missed-{number}"}
            row |= {"expected_start_time": str(due)[:26], "next_scheduled_start_time": str(due)[:26]}
            columns = ", ".join(f'"{column}"' for column in row)
            marks = ", ".join("?" * len(row))
            connection.execute(f"INSERT INTO flow_run ({columns}) VALUES ({marks})", tuple(row.values()))


@pytest.mark.slow
def test_the_database_may_be_postgresql(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with postgresql() as address:
        monkeypatch.setenv("PREFECT_API_DATABASE_CONNECTION_URL", address)
        for state in ("Completed", "UpToDate"):  # the second time with the database of the first
            with served(study, "--every", "1h") as url:
                run = start(url)
                assert eventually(ended(url, run))
                assert read(f"{url}/flow_runs/{run}")["state_name"] == state
                assert len(flow_runs(url, "Completed")) == 1
    assert not (study / ".infinito" / "prefect" / "prefect.db").exists()
    assert is_clean(study)


@contextmanager
def postgresql() -> Iterator[str]:
    """The address of a PostgreSQL server of our own, as Prefect wants it."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs:
        pytest.skip("needs PostgreSQL, as Debian has it")
    as_user: list[str] = []
    short = Path(tempfile.mkdtemp(prefix="postgresql"))  # a path that every user may enter
    if os.getuid() == 0:  # which PostgreSQL refuses
        as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        shutil.chown(short, "postgres", "postgres")
    port = toy.free_port()
    data, program = short / "data", programs[-1]
    quiet = {"cwd": short, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    initdb = [*as_user, str(program / "initdb"), "-D", str(data), "-U", "infinito", "-A", "trust"]
    server = [
        *as_user,
        str(program / "postgres"),
        "-D",
        str(data),
        "-h",
        "127.0.0.1",
        "-p",
        str(port),
        "-k",
        str(short),
    ]
    ready = [str(program / "pg_isready"), "-h", "127.0.0.1", "-p", str(port)]
    subprocess.run(initdb, check=True, **quiet)
    process = subprocess.Popen(server, **quiet)
    try:
        assert eventually(lambda: subprocess.run(ready, **quiet).returncode == 0)
        yield f"postgresql+asyncpg://infinito@127.0.0.1:{port}/postgres"
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()
        shutil.rmtree(short)


def _due(run: dict[str, Any]) -> float:
    return datetime.fromisoformat(run["expected_start_time"]).timestamp()


@pytest.mark.slow
def test_a_power_cut_loses_no_stack_and_the_run_is_resumed(study: Path) -> None:
    (study / "faults").write_text('{"candidate-01": "wait"}')
    port = toy.free_port()
    assert toy.serve(study, "up", f"--port={port}").returncode == 0
    url = f"http://127.0.0.1:{port}/api"
    run = start(url)
    assert eventually(training(study))
    for pid in processes_of(study):  # all at once, without a chance to tidy up
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    assert eventually(lambda: processes_of(study) == {})
    assert json.loads((study / ".dvc" / "tmp" / "rwlock").read_text())["write"]
    (study / "scratch" / "go").touch()
    assert toy.serve(study, "up", f"--port={port}").returncode == 0
    try:
        assert read(f"{url}/flow_runs/{run}")["state_name"] == "Crashed"
        assert "its process is gone" in read(f"{url}/flow_runs/{run}")["state"]["message"]
        assert eventually(lambda: len(flow_runs(url, "Completed")) == 1)
        assert flow_runs(url, "Completed")[0]["tags"] == ["resumed"]
    finally:
        toy.serve(study, "down")
    attempts = {file.stem: len(file.read_text().split()) for file in (study / "scratch").glob("*.attempts")}
    assert attempts == {"candidate-00": 1, "candidate-01": 2, "candidate-02": 1, "candidate-03": 1}
    assert is_clean(study)


@pytest.mark.slow
def test_what_is_not_served_any_more_does_not_run(study: Path) -> None:
    with served(study, "--every", "10s") as url:
        assert eventually(lambda: len(flow_runs(url, "UpToDate")) == 1)
    other = study / "studies" / "second"
    other.mkdir()
    (other / "dvc.yaml").write_text('{"stages": {"only": {"cmd": "true"}}}')
    time.sleep(12)  # at least one time is missed
    with served(study, "--study", str(other)) as url:
        deployment = read(f"{url}/deployments/name/infinito/study")
        assert deployment["paused"]
        runs = len(flow_runs(url, "UpToDate", "Completed"))
        time.sleep(15)
        assert len(flow_runs(url, "UpToDate", "Completed", "Running", "Pending")) == runs


@pytest.mark.slow
def test_down_ends_a_run_that_is_at_work(study: Path) -> None:
    (study / "faults").write_text('{"candidate-01": "wait"}')
    with served(study) as url:
        start(url)
        assert eventually(training(study))
        assert toy.serve(study, "down").stdout == "infinito: down\n"
        assert processes_of(study) == {}
        assert json.loads((study / ".dvc" / "tmp" / "rwlock").read_text()) == {}


@pytest.mark.slow
def test_in_the_foreground_it_ends_with_ctrl_c(study: Path) -> None:
    command = [sys.executable, "-m", "infinito.flows.serve", "run", f"--port={toy.free_port()}"]
    with (study / "said").open("w") as said:
        keeper = subprocess.Popen(command, cwd=study, env=toy.toy_environment(), stdout=said, stderr=said)
    assert eventually((study / ".infinito" / "prefect" / "ready").exists)
    keeper.send_signal(signal.SIGINT)
    assert keeper.wait(toy.SECONDS) == 0, (study / "said").read_text()
    assert processes_of(study) == {}


@pytest.mark.slow
def test_a_server_that_does_not_start_is_one_line(study: Path) -> None:
    database = study / ".infinito" / "prefect" / "prefect.db"
    database.parent.mkdir(parents=True)
    database.write_text("no database at all")
    up = toy.serve(study, "up", f"--port={toy.free_port()}")
    assert (up.returncode, up.stdout, up.stderr.count("\n")) == (1, "", 1), up.stderr
    assert up.stderr.startswith("infinito: the Prefect server does not start: ")
    assert "file is not a database" in up.stderr
    assert processes_of(study) == {}


@pytest.mark.slow
def test_prefect_yaml_deploys_to_a_work_pool(study: Path, tmp_path: Path) -> None:
    settings = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    assert settings["deployments"][0]["entrypoint"] == "infinito.flows.pipeline.pipeline"
    with toy.prefect_server(tmp_path / "home") as url:
        environment = toy.toy_environment(PREFECT_API_URL=url, PREFECT_HOME=str(tmp_path / "home"), PWD=str(ROOT))

        def prefect(*arguments: str) -> str:
            done = subprocess.run(
                [sys.executable, "-m", "prefect", "--no-prompt", *arguments],
                cwd=ROOT,
                env=environment,
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, done.stdout + done.stderr
            return done.stdout

        prefect("work-pool", "create", "infinito", "--type", "process")
        prefect("work-pool", "set-concurrency-limit", "infinito", "1")
        prefect("deploy", "--all")
        (step,) = read(f"{url}/deployments/name/infinito/pool")["pull_steps"]
        assert step == {"prefect.deployments.steps.set_working_directory": {"directory": str(ROOT)}}
        prefect("deployment", "run", "infinito/pool", "--param", f"study={study}")
        prefect("worker", "start", "--pool", "infinito", "--run-once")
        ended = [run for run in toy.ask(url, "flow_runs", {}) if run["state_name"] != "Scheduled"]
        assert [run["state_name"] for run in ended] == ["Completed"], ended[0]["state"]["message"]
    assert is_clean(study)


def test_the_service_is_told_as_it_was_asked() -> None:
    service = Service(("/a/study", "/b/other"), "0 3 * * *", None, 4200)
    options = ["--study=/a/study", "--study=/b/other", "--cron=0 3 * * *", "--port=4200"]
    assert service.arguments == options
    assert str(service) == "http://127.0.0.1:4200, cron 0 3 * * *, /a/study, /b/other"
