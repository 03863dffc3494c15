"""A flow as a deployment has it: planned on the server, worked on here until it ends or sleeps, or
by process workers.
"""

import inspect
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.client.schemas.objects import FlowRun, State
from prefect.client.schemas.sorting import FlowRunSort
from prefect.events.worker import EventsWorker
from prefect.flow_engine import run_flow
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, PREFECT_HOME
from prefect.states import Scheduled

from blocks import DataLake
from blocks.storage.manifest import campaign_partition
from flows.refresh import campaign_refresh
from tasks.refresh.history import History
from tests.conftest import Company, Saved
from tests.support.clock import until

ROOT = Path(__file__).parents[2]
POOL = "tests"
GUARDRAILS = {"max_shrink": 1}
CHANGING = (
    "PUT /v1/cg",
    "POST /v1/customer/check",
    "POST /v1/campaign/rerun/initiate",
    "POST /v1/messages/publish",
)


@dataclass(frozen=True)
class Deployed:
    """A deployment of a flow."""

    flow: Flow[..., Any]
    deployment_id: UUID

    def plan(self, parameters: dict[str, Any], **options: Any) -> UUID:
        """A flow run, to be worked on."""
        with get_client(sync_client=True) as client:
            run = client.create_flow_run_from_deployment(
                self.deployment_id, parameters=parameters, **options
            )
        return run.id

    def runs(self) -> list[FlowRun]:
        chosen = DeploymentFilter(id=DeploymentFilterId(any_=[self.deployment_id]))
        with get_client(sync_client=True) as client:
            return client.read_flow_runs(deployment_filter=chosen)

    def work(self, run_id: UUID) -> State[Any]:
        return work(self.flow, run_id)

    def refresh(self, company: Company, saved: Saved, **options: Any) -> UUID:
        """A planned refresh of a company's campaign."""
        return self.plan(
            {
                "campaign_id": company.seeded.campaign_id,
                **saved.references,
                "options": {"guardrails": GUARDRAILS, **options},
            }
        )


def flow_run(run_id: UUID) -> FlowRun:
    with get_client(sync_client=True) as client:
        return client.read_flow_run(run_id)


def flow_run_of(saved: Saved) -> FlowRun:
    """The newest flow run with an account's blocks."""
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(limit=200, sort=FlowRunSort.START_TIME_DESC)
    return next(run for run in runs if run.parameters.get("account") == saved.references["account"])


def state_of(run_id: UUID) -> State[Any]:
    state = flow_run(run_id).state
    assert state is not None
    return state


def work(flow: Flow[..., Any], run_id: UUID) -> State[Any]:
    """Does what a worker's process does with a flow run."""
    try:
        run_flow(flow, flow_run=flow_run(run_id), return_type="state")
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
    return state_of(run_id)


def retry(run_id: UUID) -> None:
    """What `prefect flow-run retry` does to a deployment's flow run."""
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run_id, Scheduled(), force=True)


def events_of(name: str, resource: str, count: int = 1) -> list[dict[str, Any]]:
    """Events of this name, the newest first, as soon as there are so many."""
    EventsWorker.drain_all()
    wanted = {"event": {"name": [name]}, "resource": {"id": [resource]}}
    with get_client(sync_client=True) as client:

        def look() -> list[dict[str, Any]]:
            answer = client.request("POST", "/events/filter", json={"filter": wanted})
            found: list[dict[str, Any]] = answer.json()["events"]
            return found if len(found) >= count else []

        return until(look, every=0.05)


def deploy(flow: Flow[..., Any], name: str, **options: Any) -> Deployed:
    with get_client(sync_client=True) as client:
        flow_id = client.create_flow(flow)
        return Deployed(flow, client.create_deployment(flow_id, name, **options))


@pytest.fixture
def deployed(prefect_server: None) -> Deployed:
    return deploy(campaign_refresh, "tests")


@dataclass
class Workers:
    """Workers with a folder for temporary files."""

    temporary: Path
    running: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def start(self, *options: str) -> None:
        environment = {
            **os.environ,
            "PREFECT_API_URL": str(PREFECT_API_URL.value()),
            "PREFECT_HOME": str(PREFECT_HOME.value()),
            "PREFECT_WORKER_QUERY_SECONDS": "0.5",
            "PREFECT_RUNNER_POLL_FREQUENCY": "1",
            "TMPDIR": str(self.temporary),
        }
        if signed_in := PREFECT_API_AUTH_STRING.value():
            environment["PREFECT_API_AUTH_STRING"] = signed_in
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, *options]
        self.running.append(subprocess.Popen(command, env=environment))

    def kill(self) -> None:
        """`kill -9` of the workers; the flow runs they have started go on."""
        while self.running:
            worker = self.running.pop()
            worker.kill()
            worker.wait()


def on_pool(flow: Flow[..., Any], name: str = "workers", directory: Path = ROOT) -> Deployed:
    """A deployment for workers, which start its flow runs in this directory."""
    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name=POOL, type="process"), overwrite=True)
    here = {"prefect.deployments.steps.set_working_directory": {"directory": str(directory)}}
    entrypoint = f"{inspect.getfile(flow.fn)}:{flow.fn.__name__}"
    return deploy(flow, name, work_pool_name=POOL, entrypoint=entrypoint, pull_steps=[here])


def becomes(run: UUID, *names: str) -> State[Any]:
    """The state of a flow run as soon as it has one of these names."""
    until(lambda: state_of(run).name in names or state_of(run).is_final())
    state = state_of(run)
    assert state.name in names, state.message
    return state


def process_of(lake: DataLake, campaign_id: str) -> int:
    """The process that refreshes a campaign."""
    newest = History(lake.files, campaign_partition(campaign_id)).newest()
    assert newest is not None
    assert newest.owner is not None
    return newest.owner.pid


def until_it_ends(process: int) -> None:
    # Nobody may be there to collect it: then it has a folder, but no file.
    until(lambda: not Path(f"/proc/{process}/exe").exists())


def changes(company: Company) -> list[str]:
    """The endpoints by which an account changed something, as the service's audit log has them."""
    log = company.sandbox.settings.audit_file
    entries = map(json.loads, log.read_text().splitlines() if log.exists() else ())
    mine = [one for one in entries if one["account_id"] == company.seeded.account_id]
    return [one["endpoint"] for one in mine if one["endpoint"] in CHANGING]
