"""`python -m infinito.flows.pipeline`: a study as a Prefect flow, one task per stage of its dvc.yaml.

dvc.yaml is the only list of stages and DVC decides what is out of date; the flow runs each stage through
`dvc repro --single-item`, so afterwards `dvc status` has nothing to say and `dvc repro` nothing to do.
"""

from infinito.flows import needing
from infinito.interrupt import at_once

with at_once(), needing("orchestrate"):  # Prefect takes seconds
    import argparse
    import atexit
    import os
    import socket
    import subprocess
    import sys
    import tempfile
    import time
    import urllib.error
    import urllib.request
    from collections.abc import Sequence
    from itertools import pairwise
    from pathlib import Path
    from typing import Any

    import httpx
    from dvc.lock import LockError
    from prefect import flow, get_run_logger, runtime, task
    from prefect.cache_policies import NO_CACHE
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
    from prefect.client.schemas.objects import State
    from prefect.client.schemas.sorting import ArtifactSort
    from prefect.context import refresh_global_settings_context
    from prefect.settings import get_current_settings
    from prefect.states import Completed, Failed

    from infinito.escape import markdown
    from infinito.flows import artifacts, lock, repro
    from infinito.flows.fanout import die_with_parent
    from infinito.flows.repro import read_stages
    from infinito.flows.stage import share_flow_run
    from infinito.library import check_link

SECONDS_TO_ANSWER = 2
SECONDS_TO_START = 120  # the first temporary server on a machine creates its database
UNCHANGED = "nothing it reads or writes has changed since it last ran"
SECONDS_TO_RESTART = 60
BUSY_RETRIES, BUSY_SECONDS = 720, 5  # another flow run may be training the same stage: wait for an hour


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
    when another process runs a stage that reads or writes the same files. The state's message says why.
    """
    log = get_run_logger()
    repro.mend(study)
    try:
        changes = ["forced"] if force else repro.read_changes(study, name)
    except LockError:
        changes = ["unknown, as another process writes these files"]  # `dvc repro` says which, or finds it gone
    except (ValueError, FileNotFoundError) as error:
        return Failed(message=str(error))
    if not changes:
        log.info(UNCHANGED)
        return Completed(name="UpToDate", message=UNCHANGED, data=name)
    why = ", ".join(changes[:5]) + (f" and {len(changes) - 5} more" if len(changes) > 5 else "")
    log.info("changed: %s", why)
    end = _repro(name, study, force)
    if end.name == "Cached" and (corrupt := repro.discard_corrupt(study, name)):
        why = f"corrupt in the cache: {', '.join(corrupt)}"
        log.warning("%s", why)
        end = _repro(name, study, force)
    said = {"Completed": f"ran; changed: {why}", "Cached": f"restored from an earlier run; changed: {why}"}
    if end.name in said:
        end.message = said[end.name]
    return end


def _repro(name: str, study: Path, force: bool) -> State[str]:
    """Run `dvc repro` for one stage, with its lines in the log, and say how it ended."""
    log = get_run_logger()
    environment = share_flow_run(dict(os.environ))
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"  # dvc.yaml says `python`
    environment["PREFECT_API_URL"] = get_current_settings().api.url or ""  # prefect.toml is not in every study
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item", name]
    lines = []
    try:
        with repro.start([*command, "--force"] if force else command, study, environment) as dvc:
            assert dvc.stdout is not None
            for line in map(str.rstrip, dvc.stdout):
                if line and not repro.is_advice(line):
                    log.info("%s", line)
                    lines.append(line)
    except InterruptedError as error:
        return Failed(message=str(error))
    if dvc.returncode != 0:
        for line, blocker in pairwise([*lines, ""]):
            if "is busy, it is being blocked by" in line:
                return Failed(name="Busy", message=f"{line.removeprefix('ERROR: ')} {blocker.strip()}")
        return Failed(message=_reason(lines))
    if any("didn't change, skipping" in line for line in lines):  # another process was faster
        return Completed(name="UpToDate", message=UNCHANGED, data=name)
    return Completed(name="Cached" if any("is cached - skipping run" in line for line in lines) else None, data=name)


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
    if runtime.deployment.id is not None:  # then the parent is the process that looks after schedules and cancelling
        die_with_parent()
    with lock.hold(study, waiting=get_run_logger().info):
        return _run_stages(study, force)


def _run_stages(study: Path, force: bool) -> State[Any]:
    needs = read_stages(study)
    futures: dict[str, Any] = {}
    try:
        for name in needs:
            upstream = [futures[other] for other in needs[name]]
            futures[name] = stage.submit(name, study, force, wait_for=upstream, return_state=False)
        for future in futures.values():
            future.wait()
    except BaseException:  # cancelled, Ctrl-C: Prefect would wait for the stages
        repro.stop()
        raise
    states: dict[str, State[Any]] = {name: future.state for name, future in futures.items()}
    ended = {name: state for name, state in states.items() if state.is_final()}
    bad = [f"stage {name}: {state.message}" for name, state in ended.items() if not state.is_completed()]
    rest = ", ".join(name for name in states if name not in ended)
    if bad:
        end: State[Any] = Failed(message="; ".join(bad) + (f" (not run: {rest})" if rest else ""))
    else:
        names = {state.name for state in states.values()}
        name = "UpToDate" if names == {"UpToDate"} else "Cached" if names <= {"UpToDate", "Cached"} else "Completed"
        end = Completed(name=name, message=", ".join(f"{name} {state.name}" for name, state in states.items()))
    _publish(study, states, repeated=end.name == "UpToDate")
    return end


def _publish(study: Path, states: dict[str, State[Any]], repeated: bool) -> None:
    """Create the artifacts, unless nothing has changed and they are there; a run does not fail for want of them."""
    latest = time.monotonic() + SECONDS_TO_RESTART
    while not _answers(get_current_settings().api.url or "") and time.monotonic() < latest:
        time.sleep(1)  # the server is being started again
    key = ArtifactFilter(key=ArtifactFilterKey(any_=["lineage"]))
    try:
        with get_client(sync_client=True) as client:
            earlier = client.read_artifacts(artifact_filter=key, sort=ArtifactSort.CREATED_DESC) if repeated else []
        if not any(markdown(str(study.resolve())) in (artifact.description or "") for artifact in earlier):
            artifacts.create(study, states)
    except httpx.HTTPError as error:
        get_run_logger().warning("no artifacts, as the server does not take them: %r", error)


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
        prog="python -m infinito.flows.pipeline",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="""\
Bring a study up to date, like `dvc repro`, as a Prefect flow: stages that do not need each other run at the same
time, the stacks of runs are tasks of the flow run, and every flow run keeps its logs, its lineage and its verdict.""",
        epilog="""\
examples:
  prefect server start                           in another terminal: pages at http://127.0.0.1:4200
  python -m infinito.flows.pipeline                       the study of the current folder
  python -m infinito.flows.pipeline --study studies/NAME  another one
Without a server everything runs all the same, only without pages.

exit code: 0 all stages are done; 1 a stage failed, said in one line; 2 bad input, said in one line.""",
    )
    parser.add_argument("--study", type=Path, default=".", metavar="FOLDER", help="where its dvc.yaml is (default: .)")
    parser.add_argument("--force", action="store_true", help="run all stages, also those that are up to date")
    options = parser.parse_args(arguments)
    study: Path = options.study.resolve()
    try:
        check_link(study)
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
