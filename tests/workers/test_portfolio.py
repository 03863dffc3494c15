"""Many campaigns at once on a worker, and the limits that all of their processes share."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate

from blocks import DataLake, FileCrm, Member
from flows.portfolio import portfolio_refresh
from sandbox import seed
from tasks.portfolio import RefreshStatus
from tests.conftest import Company, Sandbox, customers
from tests.support import prefect_servers
from tests.support.deployed import GUARDRAILS, Deployed, Workers

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]

MANY = 8
CALLS, DOWNLOADS = 3, 2


@pytest.fixture
def prefect_server(tmp_path: Path) -> Iterator[None]:
    with prefect_servers.composed(tmp_path / "prefect"):
        yield


@pytest.fixture
def limits(prefect_server: None) -> dict[str, str]:
    """Limits that many processes must wait for."""
    with get_client(sync_client=True) as client:
        for name, limit in (("test-calls", CALLS), ("test-downloads", DOWNLOADS)):
            client.create_global_concurrency_limit(
                GlobalConcurrencyLimitCreate(name=name, limit=limit)
            )
    return {"calls_limit": "test-calls", "downloads_limit": "test-downloads"}


@pytest.fixture
def slow_sandbox(reviewed_sandbox: Sandbox) -> Iterator[Sandbox]:
    """So slow that it would be asked for more at once if that were allowed."""
    for endpoint in ("/v1/customer/check", "/exports/"):
        reviewed_sandbox.fault(endpoint, delay=0.5)
    yield reviewed_sandbox
    reviewed_sandbox.no_faults()


def test_campaigns_at_once_keep_to_the_limits(
    slow_sandbox: Sandbox,
    workers: Workers,
    refreshes: Deployed,
    limits: dict[str, str],
    tmp_path: Path,
) -> None:
    lake, crm = DataLake(root=str(tmp_path / "lake")), FileCrm(path=str(tmp_path / "customers.csv"))
    customers(250).write_csv(crm.path)
    for block in (lake, crm):
        block.save("many", overwrite=True)
    members: list[Member] = []
    for number in range(MANY):
        company = Company(slow_sandbox, seed.seed(slow_sandbox.context, 300))
        account = company.account(**limits)
        account.save(f"many-{number}", overwrite=True)
        members.append(Member(campaign_id=company.seeded.campaign_id, account=f"many-{number}"))
    traffic = f"{slow_sandbox.url}/sandbox/traffic"
    httpx.delete(traffic).raise_for_status()
    workers.start("--limit", str(MANY))
    options: Any = {"guardrails": GUARDRAILS}
    outcome = portfolio_refresh(
        account,
        crm,
        lake,
        members,
        options=options,
        deployment="campaign-refresh/workers",
        hours=0.15,
        run_on="workers",
    )
    assert isinstance(outcome, list)
    assert all(isinstance(each, RefreshStatus) for each in outcome)
    assert {each.state for each in outcome} == {"Completed"}
    runs = pl.from_pandas(lake.runs())
    assert sorted(runs["campaign_id"]) == sorted(each.campaign_id for each in members)
    assert set(runs["rows"]) == {250}
    seen = httpx.get(traffic).json()
    assert (seen["calls"]["most"], seen["downloads"]["most"]) == (CALLS, DOWNLOADS)
    # None was lost by an overburdened worker, and begun again.
    assert [run.run_count for run in refreshes.runs()] == [1] * MANY
