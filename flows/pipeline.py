"""`python -m flows.pipeline`: a study as a Prefect flow, one task per stage of its dvc.yaml.

dvc.yaml is the only list of stages and DVC decides what is out of date; the flow runs each stage through
`dvc repro --single-item`, so afterwards `dvc status` has nothing to say and `dvc repro` nothing to do.
"""

import argparse
import atexit
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from graphlib import TopologicalSorter
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.repo.index import Index
from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.context import refresh_global_settings_context
from prefect.settings import get_current_settings
from prefect.states import Completed, Failed

from flows.fanout import die_with_parent
from flows.stage import share_flow_run

SECONDS_TO_ANSWER = 2
SECONDS_TO_START = 120  # the first temporary server on a machine creates its database
BUSY_RETRIES, BUSY_SECONDS = 720, 5  # another flow run may be training the same stage: wait for an hour


def read_stages(study: Path) -> dict[str, set[str]]:
    """The stages of `study`/dvc.yaml, each with those it needs, in an order in which they can run.

    Raises:
        FileNotFoundError: no dvc.yaml.
        ValueError: DVC does not understand it, or the params.yaml beside it.
    """
    file = study.resolve() / "dvc.yaml"
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file; a study is a folder with a params.yaml and a dvc.yaml")
    try:
        with Repo(str(file.parent)) as repo:
            graph = Index.from_file(repo, str(file)).graph  # of this file: the index of `repo` holds all studies
            needs = {stage.name: {other.name for other in graph.successors(stage)} for stage in graph}
    except DvcException as error:
        detail = f": {error.__cause__}" if error.__cause__ else ""
        raise ValueError(f"{file.parent}: {' '.join(f'{error}{detail}'.split())}") from error
    return {name: needs[name] for name in TopologicalSorter(needs).static_order()}


def _is_busy(_task: Any, _run: Any, state: State[Any]) -> bool:
    return state.name == "Busy"


@task(
    task_run_name="{name}",
    retries=BUSY_RETRIES,
    retry_delay_seconds=BUSY_SECONDS,
    retry_condition_fn=_is_busy,
    cache_policy=NO_CACHE,
)
def stage(name: str, study: Path, force: bool) -> State[str]:
    """Bring one stage up to date by DVC.

    Ends Completed, UpToDate (nothing to do), Cached (results of an earlier run), Failed, or Busy (and is tried again)
    when another process runs a stage that reads or writes the same files.
    """
    log = get_run_logger()
    environment = share_flow_run(dict(os.environ))
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"  # dvc.yaml says `python`
    environment["PREFECT_API_URL"] = get_current_settings().api.url or ""  # prefect.toml is not in every study
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item", name]
    dvc = subprocess.Popen(
        [*command, "--force"] if force else command,
        cwd=study,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=die_with_parent,
    )
    lines = []
    assert dvc.stdout is not None
    for line in map(str.rstrip, dvc.stdout):
        if line:
            log.info("%s", line)
            lines.append(line)
    if dvc.wait() != 0:
        for line, blocker in pairwise([*lines, ""]):
            if "is busy, it is being blocked by" in line:
                return Failed(name="Busy", message=f"{line.removeprefix('ERROR: ')} {blocker.strip()}")
        return Failed(message=_reason(lines))
    for said, state in {"didn't change, skipping": "UpToDate", "is cached - skipping run": "Cached"}.items():
        if any(said in line for line in lines):
            return Completed(name=state, data=name)
    return Completed(data=name)


def _reason(lines: Sequence[str]) -> str:
    """Why `dvc repro` failed, in one line: what the stage said last, unless DVC has another complaint."""
    error = next((line for line in reversed(lines) if line.startswith("ERROR: ")), "ERROR: dvc said nothing")
    said = [line for line in lines if not line.startswith(("ERROR: ", "Running stage ", "> "))]
    _, ran, code = error.rpartition(", exited with ")
    if not ran or not said:
        return error.removeprefix("ERROR: ")
    return said[-1].removeprefix("infinito: ") + ("" if code in ("1", "2") else f" (exit code {code})")


@flow(name="infinito")
def pipeline(study: Path = Path("."), force: bool = False) -> State[Any]:
    """Run all stages of a study, each after the stages it needs.

    Args:
        study: folder with a params.yaml and a dvc.yaml.
        force: run all stages, also those that are up to date.
    """
    needs = read_stages(study)
    futures: dict[str, Any] = {}
    for name in needs:
        upstream = [futures[other] for other in needs[name]]
        futures[name] = stage.submit(name, study, force, wait_for=upstream, return_state=False)
    for future in futures.values():
        future.wait()
    states: dict[str, State[Any]] = {name: future.state for name, future in futures.items()}
    create_markdown_artifact(_lineage(study, needs, states), key="lineage", description=f"Stages of {study.resolve()}")
    verdict = study / "results" / "compare.json"
    if verdict.is_file() and "compare" in states and states["compare"].is_completed():  # otherwise it is an old one
        create_markdown_artifact(_verdict(verdict), key="verdict", description=f"Verdict of {study.resolve()}")
    ended = {name: state for name, state in states.items() if state.is_final()}
    bad = [f"stage {name}: {state.message}" for name, state in ended.items() if not state.is_completed()]
    if not bad:
        return Completed(message=", ".join(f"{name} {state.name}" for name, state in states.items()))
    rest = ", ".join(name for name in states if name not in ended)
    return Failed(message="; ".join(bad) + (f" (not run: {rest})" if rest else ""))


def _lineage(study: Path, needs: dict[str, set[str]], states: dict[str, State[Any]]) -> str:
    """The graph of the stages, and what DVC recorded of each: command and MD5 of everything read and written."""
    lock = study / "dvc.lock"
    recorded = yaml.safe_load(lock.read_text(encoding="utf-8"))["stages"] if lock.is_file() else {}
    arrows = [f"    {other} --> {name}" for name in needs for other in sorted(needs[name])]
    rows = []
    for name, state in states.items():
        entry = recorded.get(name, {})
        files = [f"`{x['path']}` {x['md5'][:8]}" for key in ("deps", "outs") for x in entry.get(key, []) if "md5" in x]
        command = " ".join(str(entry.get("cmd", "")).split()).replace("|", "\\|")
        rows.append(f"| {name} | {state.name} | `{command}` | {', '.join(files)} |")
    git = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=study, capture_output=True, text=True)
    return "\n".join(
        [
            "```mermaid",
            "graph TD",
            *[f"    {name}" for name in needs],
            *arrows,
            "```",
            "",
            f"Git revision: `{git.stdout.strip() or 'no commit yet'}`",
            "",
            "| stage | status | command | read and written |",
            "|---|---|---|---|",
            *rows,
        ]
    )


def _verdict(file: Path) -> str:
    """results/compare.json: the sentence, and its figures as a table."""
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    rows = []
    for key, value in found.items():
        if isinstance(value, dict) and {"value", "ci_low", "ci_high"} <= value.keys():
            value, low, high = ("–" if value[x] is None else f"{value[x]:.4g}" for x in ("value", "ci_low", "ci_high"))
            rows.append(f"| {key} | {value} [{low}, {high}] |")
        elif isinstance(value, str | int | float) and key != "sentence":
            rows.append(f"| {key} | {value} |")
    return "\n".join([f"**{found.get('sentence', '')}**", "", "| key | value |", "|---|---|", *rows])


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(f"{url}/health", timeout=SECONDS_TO_ANSWER).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def _use_server() -> None:
    """Use the configured Prefect server, or else a temporary one that ends with this process."""
    settings = get_current_settings()
    url = settings.api.url or f"http://{settings.server.api.host}:{settings.server.api.port}/api"
    if not _answers(url):
        print(f"infinito: no Prefect server at {url}; using a temporary one, without pages", file=sys.stderr)
        url = _start_server()
    os.environ["PREFECT_API_URL"] = url  # for the processes of the stages too
    refresh_global_settings_context()


def _start_server() -> str:
    # Not the one that Prefect starts by itself: the stages could not find it, and kill -9 would leave it behind.
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "prefect", "server", "start", "--host=127.0.0.1", f"--port={port}", "--no-ui"]
    with tempfile.TemporaryFile("w+") as output:
        # in a session of its own, which Ctrl-C does not reach: at exit Prefect still sends its last logs and events
        server = subprocess.Popen(
            command, stdout=output, stderr=output, start_new_session=True, preexec_fn=die_with_parent
        )
        atexit.register(server.terminate)
        url, latest = f"http://127.0.0.1:{port}/api", time.monotonic() + SECONDS_TO_START
        while not _answers(url):
            if server.poll() is not None or time.monotonic() > latest:
                output.seek(0)
                raise RuntimeError(f"the temporary Prefect server does not start:\n{output.read()}")
            time.sleep(0.1)
    return url


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the flow as the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.pipeline",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="""\
Bring a study up to date, like `dvc repro`, as a Prefect flow: stages that do not need each other run at the same
time, the stacks of runs are tasks of the flow run, and every flow run keeps its logs, its lineage and its verdict.""",
        epilog="""\
examples:
  prefect server start                           in another terminal: pages at http://127.0.0.1:4200
  python -m flows.pipeline                       the study of the current folder
  python -m flows.pipeline --study studies/NAME  another one
Without a server everything runs all the same, only without pages.

exit code: 0 all stages are done; 1 a stage failed, said in one line; 2 bad input, said in one line.""",
    )
    parser.add_argument("--study", type=Path, default=".", metavar="FOLDER", help="where its dvc.yaml is (default: .)")
    parser.add_argument("--force", action="store_true", help="run all stages, also those that are up to date")
    options = parser.parse_args(arguments)
    study: Path = options.study.resolve()
    try:
        read_stages(study)
    except (ValueError, FileNotFoundError) as error:
        print(f"infinito: {error}", file=sys.stderr)
        return 2
    _use_server()
    try:
        state: State[Any] = pipeline(study, options.force, return_state=True)
    except KeyboardInterrupt:
        print("infinito: interrupted; the next run goes on from there", file=sys.stderr)
        return 130
    if state.is_completed():
        return 0
    print(f"infinito: {state.message}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
