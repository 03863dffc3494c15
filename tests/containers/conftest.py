"""The stack of the documents, brought up once, and campaigns of its sandbox."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from prefect.client.orchestration import get_client
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_URL,
    PREFECT_HOME,
    temporary_settings,
)

from blocks import DataLake, NudgescribeAccount, SqlCrm
from blocks.saved import slug_reference
from flows.refresh import campaign_refresh
from sandbox.seed import Seeded
from tests.support import containers
from tests.support.clock import until
from tests.support.containers import SEED, Stack
from tests.support.deployed import GUARDRAILS, Deployed, becomes

PAGE = Path(__file__).parents[2] / "docs/containers.md"
SANDBOX = "http://127.0.0.1:7878"
CUSTOMERS = 200
"""In the CRM, two of them mistaken."""
CAMPAIGNS = 60


def commands() -> list[str]:
    """The five of the page."""
    (first, *_) = re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return first.splitlines()


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Up, and known to this process as people know it."""
    with containers.stack(tmp_path_factory.mktemp("stack")) as one:
        *until_up, _ = commands()
        for command in until_up:
            one.run(command)
            if " build" in command:
                containers.take_shells_away(one)
        there: dict[Any, Any] = {
            PREFECT_API_URL: "http://127.0.0.1:4200/api",
            PREFECT_API_AUTH_STRING: f"admin:{one.variables('.env')['PREFECT_PASSWORD']}",
            PREFECT_HOME: one.folder,
        }
        with temporary_settings(there):
            yield one


def deployment(name: str) -> Deployed:
    with get_client(sync_client=True) as client:
        return Deployed(campaign_refresh, client.read_deployment_by_name(name).id)


def approve(campaign_id: str) -> None:
    """As a person does on the sandbox's page, once there is something to approve."""
    url = f"{SANDBOX}/sandbox/campaigns/{campaign_id}/approve"
    until(lambda: httpx.post(url, timeout=60).is_success)


def fault(endpoint: str, **options: Any) -> None:
    body = {"endpoint": endpoint, **options}
    httpx.put(f"{SANDBOX}/sandbox/faults", json=body, timeout=60).raise_for_status()


def no_faults() -> None:
    httpx.delete(f"{SANDBOX}/sandbox/faults", timeout=60).raise_for_status()


def step_of(run: UUID) -> str:
    """The task that a flow run is at."""
    wanted = {"flow_runs": {"id": {"any_": [str(run)]}}, "sort": "EXPECTED_START_TIME_DESC"}
    with get_client(sync_client=True) as client:
        answer = client.request("POST", "/task_runs/filter", json={**wanted, "limit": 1})
    return next((each["name"].rpartition("-")[0] for each in answer.json()), "")


@dataclass(frozen=True)
class Campaign:
    """A campaign with an account of its own."""

    stack: Stack
    seeded: Seeded
    block: str

    def refresh(self, crm: str = "sql-crm/few", **options: Any) -> UUID:
        """Starts a refresh, which a worker takes."""
        given = {
            "campaign_id": self.seeded.campaign_id,
            "account": slug_reference(f"nudgescribe-account/{self.block}"),
            "crm": slug_reference(crm),
            "lake": slug_reference("data-lake/main"),
            "options": {"guardrails": GUARDRAILS, **options},
        }
        return deployment("campaign-refresh/refresh-for-portfolio").plan(given)

    def is_refreshed_once(self, customers: int = CUSTOMERS - 2) -> None:
        """There was one rerun, and all of its messages are in the lake."""
        audit = Path(self.stack.volume("sandbox"), "audit.jsonl").read_text()
        entries = [json.loads(line) for line in audit.splitlines()]
        mine = [one["endpoint"] for one in entries if one["account_id"] == self.seeded.account_id]
        assert mine.count("POST /v1/campaign/rerun/initiate") == 1
        lake = DataLake(root=str(self.stack.lake))
        messages = lake.read(self.seeded.campaign_id, 2)
        assert len(messages) == messages["customer_id"].nunique() == customers


@pytest.fixture(scope="session")
def campaigns(stack: Stack) -> Callable[[], Campaign]:
    """The next of them, which has not been refreshed."""
    counts = (str(CAMPAIGNS), str(CUSTOMERS))
    lines = stack.inside("sandbox", "python", "-", *counts, input=SEED).splitlines()
    query = f"SELECT * FROM customers ORDER BY customer_id LIMIT {CUSTOMERS}"
    crm = SqlCrm.model_validate({"url": "sqlite:////lists/crm.db", "query": query})
    crm.save("few", overwrite=True)
    seeded = iter(enumerate(Seeded.model_validate_json(line) for line in lines))

    def take() -> Campaign:
        number, one = next(seeded)
        given = one.model_dump(include={"email", "password", "api_key", "api_code", "profile_key"})
        there = {"base_url": "http://sandbox:7878", "allow_http": True}
        NudgescribeAccount.model_validate({**given, **there}).save(f"of-{number}", overwrite=True)
        return Campaign(stack, one, f"of-{number}")

    return take


def resume_reviewed() -> None:
    """What its schedule does every five minutes."""
    becomes(deployment("resume-reviewed/resume-reviewed").plan({}), "Completed")
