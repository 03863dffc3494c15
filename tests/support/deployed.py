"""A flow as a deployment has it: planned on the server, worked on here until it ends or sleeps."""

import json
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.client.schemas.sorting import FlowRunSort
from prefect.events.worker import EventsWorker
from prefect.flow_engine import run_flow
from prefect.states import Scheduled

from flows.refresh import campaign_refresh
from tests.conftest import Company, Saved
from tests.support.waiting import until

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

    def plan(self, parameters: dict[str, Any]) -> UUID:
        """A flow run, to be worked on."""
        with get_client(sync_client=True) as client:
            run = client.create_flow_run_from_deployment(self.deployment_id, parameters=parameters)
        return run.id

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


def changes(company: Company) -> list[str]:
    """The endpoints by which an account changed something, as the service's audit log has them."""
    entries = map(json.loads, company.sandbox.settings.audit_file.read_text().splitlines())
    mine = [one for one in entries if one["account_id"] == company.seeded.account_id]
    return [one["endpoint"] for one in mine if one["endpoint"] in CHANGING]
