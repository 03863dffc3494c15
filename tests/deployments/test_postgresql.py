"""The stack of `deployments/compose.yaml`, its server on PostgreSQL and Redis: set up, worked with,
and killed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import httpx
import pytest
from prefect.automations import AutomationCore
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate

from blocks.saved import slug_reference
from deployments.environment import free_port
from flows.export import export_messages
from flows.plan import plan_refresh
from flows.review import resume_reviewed
from sandbox import seed
from tests.conftest import SEEDED_CUSTOMERS, Company, Sandbox, customers
from tests.support import prefect_servers
from tests.support.clock import until
from tests.support.deployed import Deployed, becomes, state_of
from tests.support.prefect_servers import SECONDS, ComposedServer, kill

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]

EXPORT = "export-messages/export-messages"
LOADED = "tests.list.loaded"
LEASED = 600  # seconds: longer than any start of a server


@dataclass(frozen=True)
class Stack:
    """All of it: the server is set up for a campaign, and has a worker."""

    server: ComposedServer
    company: Company
    folder: Path
    worker_port: int

    def set_up(self) -> None:
        secrets = {"email", "password", "api_key", "api_code", "profile_key"}
        account = self.company.seeded.model_dump(include=secrets)
        given = {
            "CAMPAIGN_ID": self.company.seeded.campaign_id,
            "WORKSPACE_ID": self.company.seeded.workspace_id,
            "ACCOUNT_BASE_URL": self.company.sandbox.url,
            **{f"ACCOUNT_{name.upper()}": value for name, value in account.items()},
            "FILE_CRM_PATH": str(self.folder / "customers.csv"),
            "LAKE_ROOT": str(self.folder / "lake"),
        }
        variables = {f"NUDGEFLOW_{name}": value for name, value in given.items()}
        # All is set up; that prefect.yaml names the block of a query, not of a file, is told.
        assert self.server.run("setup", **variables).wait(SECONDS) == 1


@pytest.fixture(scope="module")
def stack(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    company = Company(sandbox, seed.seed(sandbox.context, SEEDED_CUSTOMERS))
    folder, port = tmp_path_factory.mktemp("stack"), free_port()
    customers(250).write_csv(folder / "customers.csv")
    with prefect_servers.composed(folder / "prefect") as server:
        stack = Stack(server, company, folder, port)
        stack.set_up()
        settings = {"PREFECT_WORKER_WEBSERVER_PORT": str(port), "PREFECT_WORKER_QUERY_SECONDS": "1"}
        worker = server.run("worker", **settings)
        try:
            yield stack
        finally:
            kill(worker)


def deployment(name: str) -> UUID:
    with get_client(sync_client=True) as client:
        return client.read_deployment_by_name(name).id


def export() -> Deployed:
    return Deployed(export_messages, deployment(EXPORT))


def emit(stack: Stack, name: str) -> None:
    event = ("event", "emit", LOADED, "--resource-id", f"crm.list.{name}")
    assert stack.server.prefect(*event).wait(SECONDS) == 0


def test_worker_runs_deployments_and_schedules_are_planned(stack: Stack) -> None:
    assert httpx.get(f"{stack.server.url}/ready").is_success
    # Who does not sign in learns no more than that.
    assert httpx.get(f"{stack.server.url}/admin/settings").status_code == 401
    plan = Deployed(plan_refresh, deployment("plan-refresh/plan-refresh"))
    becomes(plan.plan({"crm": slug_reference("file-crm/main")}), "Completed")
    assert list((stack.folder / "lake/plans").rglob("*.json"))
    assert httpx.get(f"http://127.0.0.1:{stack.worker_port}/health").is_success
    until(Deployed(resume_reviewed, deployment("resume-reviewed/resume-reviewed")).runs)


def test_event_starts_a_deployment(stack: Stack) -> None:
    trigger = {"expect": [LOADED], "match": {"prefect.resource.id": "crm.list.spring"}}
    action = {
        "type": "run-deployment",
        "source": "selected",
        "deployment_id": str(export().deployment_id),
    }
    automation = AutomationCore.model_validate(
        {"name": LOADED, "trigger": {"type": "event", **trigger}, "actions": [action]}
    )
    with get_client(sync_client=True) as client:
        client.create_automation(automation)
    emit(stack, "autumn")
    emit(stack, "spring")
    until(export().runs)
    (run,) = export().runs()
    becomes(run.id, "Completed")


def test_server_knows_runs_leases_and_automations_after_a_kill(stack: Stack) -> None:
    deployed = export()
    before = deployed.plan({})
    with get_client(sync_client=True) as client:
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name="one", limit=1))
        leased = client.increment_concurrency_slots_with_lease(["one"], 1, "concurrency", LEASED)
    until(lambda: state_of(before).name == "Running")
    stack.server.kill()
    stack.server.start()
    becomes(before, "Completed")
    with get_client(sync_client=True) as client:
        client.renew_concurrency_lease(UUID(leased.json()["lease_id"]), LEASED)
    known = len(deployed.runs())
    emit(stack, "spring")
    until(lambda: len(deployed.runs()) > known)
    stack.set_up()
    assert export() == deployed
