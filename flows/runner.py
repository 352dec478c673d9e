"""The runner: tells the Prefect server what is served, and starts flow runs when they are due, one at a time."""

import asyncio
import os
import signal
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import httpx
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import FlowFilter, FlowFilterName, FlowRunFilter
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.sorting import FlowRunSort
from prefect.deployments.runner import RunnerDeployment
from prefect.runner import Runner
from prefect.states import Cancelled, Crashed
from prefect.types.entrypoint import EntrypointType

from infinito.escape import markdown
from infinito.flows.pipeline import pipeline
from infinito.flows.service import Service, schedule

if TYPE_CHECKING:
    from infinito.flows.service import Schedule

ARTIFACTS = ("lineage", "runs", "verdict", "golden")  # of the flow; no menu of the pages lists them
SECONDS_TO_POLL = 5


def work(service: Service, home: Path) -> None:
    """Be the runner."""
    asyncio.run(_work(service, home))


async def _work(service: Service, home: Path) -> None:
    times = schedule(service.cron, service.every)
    # One at a time by the runner. Not by Prefect's concurrency limit of a deployment, whose leases a restarted server
    # has forgotten: the run that holds one crashes.
    runner = Runner(name=pipeline.name, query_seconds=SECONDS_TO_POLL, limit=1, pause_on_shutdown=False)
    async with get_client() as client:
        cut_short = await _end_leftovers(client)
        missed = await _clear_schedules(client)
        names = {study: Path(study).name for study in service.studies}
        ids = {study: await runner.aadd_deployment(await _deployment(study, names[study], times)) for study in names}
        resumed = {
            run.deployment_id for run in cut_short if "resumed" not in run.tags
        }  # once, or it might crash for ever
        for deployment in ids.values():
            if deployment in resumed:
                await client.create_flow_run_from_deployment(deployment, tags=["resumed"])
            elif deployment in missed and times is not None:
                await client.create_flow_run_from_deployment(deployment, tags=["missed"])
        serving = asyncio.create_task(runner.start())
        while not runner.started and not serving.done():
            await asyncio.sleep(0.1)
        told = asyncio.Event()
        # instead of Prefect's own handler, which calls a coroutine without awaiting it
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
        stopping = asyncio.create_task(_stop_when(told, runner, client))
        skipping = asyncio.create_task(_skip_for_ever(client, set(ids.values())))
        _announce(service, names, times, home)
        try:
            await asyncio.wait({serving, skipping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            skipping.cancel()
        await serving
        stopping.cancel()


async def _stop_when(told: asyncio.Event, runner: Runner, client: PrefectClient) -> None:
    """Once told, cancel the flow run that is at work and end."""
    await told.wait()
    if await client.api_healthcheck() is not None:  # Prefect would ask the server first, for a minute
        os._exit(1)  # the flow run ends with this process
    await runner.astop()


async def _deployment(study: str, name: str, times: "Schedule | None") -> RunnerDeployment:
    return await pipeline.ato_deployment(
        name,
        schedules=[] if times is None else [times],
        parameters={"study": study, "force": False},
        description=f"The study in {markdown(str(study))}.",
        entrypoint_type=EntrypointType.MODULE_PATH,
        paused=False,
    )


async def _deployments(client: PrefectClient) -> list[DeploymentResponse]:
    """All that were ever served here; not those of work pools."""
    found = await client.read_deployments(flow_filter=FlowFilter(name=FlowFilterName(any_=[pipeline.name])))
    return [deployment for deployment in found if deployment.work_pool_name is None]


async def _end_leftovers(client: PrefectClient) -> list[FlowRun]:
    """End the flow runs that a runner which was killed has left running, and return them."""
    left = await _flow_runs(client, {x.id for x in await _deployments(client)}, "RUNNING", "PENDING", "CANCELLING")
    cut_short = []
    for run in left:
        assert run.state is not None
        why = "its process is gone, with the machine or the runner; finished stacks are kept"
        cancelling = run.state.is_cancelling()
        await client.set_flow_run_state(run.id, (Cancelled if cancelling else Crashed)(message=why), force=True)
        if not cancelling:
            cut_short.append(run)
    return cut_short


async def _clear_schedules(client: PrefectClient) -> set[UUID]:
    """Pause all deployments, and return those for which a scheduled time has passed without a run.

    Pausing removes all that is scheduled at once, however much it is. Those that are served are then scheduled anew;
    the others stay paused, or their runs would wait for ever.
    """
    found = {deployment.id for deployment in await _deployments(client)}
    waiting = await _flow_runs(client, found, "SCHEDULED")
    for deployment in found:
        # not client.pause_deployment, which leaves what is already due
        await client.request("POST", "/deployments/{id}/pause_deployment", path_params={"id": deployment})
    return {run.deployment_id for run in waiting if run.deployment_id and run.auto_scheduled and _is_due(run)}


def _is_due(run: FlowRun) -> bool:
    return run.expected_start_time is not None and run.expected_start_time < datetime.now(UTC) and run.run_count == 0


async def _flow_runs(client: PrefectClient, ids: set[UUID], *types: str) -> list[FlowRun]:
    """The flow runs of these deployments in states of these types, the first due first; at most 200."""
    question = FlowRunFilter.model_validate(
        {"deployment_id": {"any_": list(ids)}, "state": {"type": {"any_": list(types)}}}
    )
    return await client.read_flow_runs(flow_run_filter=question, sort=FlowRunSort.EXPECTED_START_TIME_ASC, limit=200)


async def _skip_for_ever(client: PrefectClient, ids: set[UUID]) -> None:
    while True:
        try:
            await _skip(client, ids)
        except httpx.HTTPError:
            pass  # the server is being started again
        await asyncio.sleep(SECONDS_TO_POLL)


async def _skip(client: PrefectClient, ids: set[UUID]) -> None:
    """Cancel scheduled runs that are due, but for one of each study, and that only if none of its runs is active.

    So a run that takes longer than the schedule, or a machine that was asleep for a week, is followed by one run.
    """
    waiting = [run for run in await _flow_runs(client, ids, "SCHEDULED") if _is_due(run)]
    active = {run.deployment_id for run in await _flow_runs(client, ids, "RUNNING", "PENDING", "CANCELLING")}
    active |= {run.deployment_id for run in waiting if not run.auto_scheduled}  # asked for by hand
    for run in waiting:
        if not run.auto_scheduled:
            continue
        if run.deployment_id in active:
            why = "another run of this study was at work, or waiting"
            await client.set_flow_run_state(run.id, Cancelled(name="Skipped", message=why))
        active.add(run.deployment_id)


def _announce(service: Service, names: dict[str, str], times: "Schedule | None", home: Path) -> None:
    """Write the file that says that all is served, in the words that people read."""
    when = "no schedule: start it from its page"
    if times is not None:
        when = f"every {service.every}" if service.every else f"cron {service.cron} ({times.timezone})"
    lines = [
        f"Prefect      {service.url}",
        f"flow runs    {service.url}/v2/runs",
        f"deployments  {service.url}/v2/deployments",
        *(f"{key:<12} {service.url}/v2/artifacts/key/{key}" for key in ARTIFACTS),
        *(f"study        {name}: {when}; {study}" for study, name in names.items()),
        f"logs         {home}/*.log",
        "stop         python -m infinito.flows.serve down",
    ]
    temporary = home / "ready.tmp"
    temporary.write_text("\n".join(lines) + "\n")
    temporary.replace(home / "ready")
