"""Whole refreshes while much goes wrong at once, and after a time when nothing went at all."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect import Task

from blocks import NudgescribeAccount
from flows.options import RefreshOptions
from flows.refresh import campaign_refresh
from nudgescribe import contract
from nudgescribe.client import NudgescribeClient
from nudgescribe.contract import Status
from nudgescribe.errors import ServerError
from nudgescribe.retry import RetryPolicy
from sandbox import seed
from sandbox.middleware.faults import LINKS, ActiveFault, Fault
from sandbox.settings import Settings
from tasks.customers.guardrails import Guardrails
from tests.conftest import SEEDED_CUSTOMERS, Company, Save, Saved, customers, serving
from tests.support.deployed import flow_run_of, retry, work

ROWS = 250
STORM: list[dict[str, Any]] = [
    {"endpoint": "/v1/", "status": 503, "rate": 0.2, "seed": 1},
    {"endpoint": "/v1/messages/", "status": 429, "retry_after": 0, "rate": 0.2, "seed": 2},
    {"endpoint": "/v1/campaign/", "drop": "before", "rate": 0.2, "seed": 3},
    {"endpoint": contract.CUSTOMERS_PAGES, "truncate": True, "rate": 0.5, "seed": 4},
    {"endpoint": LINKS, "truncate": True, "rate": 0.4, "seed": 7},
    # What changes something is tried again by its task.
    {"endpoint": contract.GROUPS, "method": "PUT", "drop": "after", "times": 2},
    {"endpoint": contract.CUSTOMERS_CHECK, "drop": "after", "times": 2},
    {"endpoint": contract.RERUN_INITIATE, "drop": "after", "times": 2},
    {"endpoint": contract.PUBLISH, "status": 503, "times": 2},
]


@pytest.fixture
def company(tmp_path: Path) -> Iterator[Company]:
    """Its tokens live for a second."""
    settings = Settings(
        data=tmp_path / "sandbox", rows_per_file=100, approve_after=0, access_token_seconds=1
    )
    with serving(settings) as service:
        yield Company(service, seed.seed(service.context, SEEDED_CUSTOMERS))


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """With hardly a wait in between; tasks try more often, as chance may hit one often."""
    real = NudgescribeAccount.get_client

    def get_client(self: NudgescribeAccount, **options: Any) -> NudgescribeClient:
        return real(self, **{**options, "retry": RetryPolicy(first_wait=0.01, longest_wait=0.1)})

    monkeypatch.setattr(NudgescribeAccount, "get_client", get_client)
    for name, module in list(sys.modules.items()):
        tasks = vars(module).values() if name.startswith("tasks.") else ()
        for task in [one for one in tasks if isinstance(one, Task) and one.retries]:
            monkeypatch.setattr(task, "retry_delay_seconds", [0.05] * 3 * task.retries)
            monkeypatch.setattr(task, "retries", 3 * task.retries)


def refresh(company: Company, saved: Saved) -> Any:
    return campaign_refresh(
        company.seeded.campaign_id,
        **saved.blocks,
        options=RefreshOptions(guardrails=Guardrails(max_shrink=1)),
    )


def prove(company: Company, saved: Saved) -> None:
    """One group, one rerun, each customer once in the lake, nothing left in staging."""
    runs = [(run.run_number, run.status) for run in company.history()]
    assert runs == [(2, Status.PUBLISHED), (1, Status.PUBLISHED)]
    assert len(company.groups()) == 2
    rows = saved.lake.read(company.seeded.campaign_id, 2, "polars")
    assert rows["customer_id"].to_list() == customers(ROWS)["customer_id"].to_list()
    assert not list(saved.root.glob("staging/*"))


def test_refresh_completes_when_service_fails_at_random(company: Company, save: Save) -> None:
    saved, faults = save(company, customers(ROWS)), company.sandbox.app.state.faults
    for fault in STORM:
        faults.put(Fault.model_validate(fault))
    switches: list[ActiveFault] = faults.all()
    result = refresh(company, saved)
    assert [switch.fault for switch in switches if not switch.hits] == []
    faults.clear()
    assert result.rows == ROWS
    prove(company, saved)


def test_refresh_continues_when_retried_after_outage(company: Company, save: Save) -> None:
    saved, faults = save(company, customers(ROWS)), company.sandbox.app.state.faults
    faults.put(Fault(endpoint=contract.PUBLISH, status=503))
    with pytest.raises(ServerError, match="/v1/messages/publish answered 503"):
        refresh(company, saved)
    assert len(company.history()) == 2
    assert not (saved.root / "messages").exists()
    faults.clear()
    # The list has changed since, and the run goes by the one it began with.
    customers(20).write_csv(saved.crm_file)
    run = flow_run_of(saved)
    retry(run.id)
    assert work(campaign_refresh, run.id).is_completed()
    prove(company, saved)
