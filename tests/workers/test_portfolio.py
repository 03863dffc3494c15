"""Many campaigns at once on a worker, and the limits that all of their processes share."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.settings import PREFECT_HOME, temporary_settings

from blocks import DataLake, FileCrm
from flows.portfolio import Member, portfolio_refresh
from sandbox import seed
from tasks.portfolio import Refreshed
from tests.chaos import server
from tests.conftest import Company, Sandbox, customers
from tests.deployed import GUARDRAILS, Deployed
from tests.workers.conftest import Workers

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]

MANY = 20
CALLS, DOWNLOADS = 3, 2


@pytest.fixture
def prefect_server(tmp_path: Path) -> Iterator[None]:
    """Without its services: on SQLite they leave no room for what twenty processes ask for."""
    home = tmp_path / "prefect"
    with temporary_settings({PREFECT_HOME: home}), server.prefect_server(home):
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


def test_twenty_campaigns_at_once_keep_to_the_limits(
    reviewed_sandbox: Sandbox,
    workers: Workers,
    refreshes: Deployed,
    limits: dict[str, str],
    tmp_path: Path,
) -> None:
    lake = DataLake(root=str(tmp_path / "lake"))
    lake.save("many", overwrite=True)
    customers(250).write_csv(tmp_path / "customers.csv")
    FileCrm(path=str(tmp_path / "customers.csv")).save("many", overwrite=True)
    members: list[Member] = []
    for number in range(MANY):
        company = Company(reviewed_sandbox, seed.seed(reviewed_sandbox.context, 300))
        company.account(**limits).save(f"many-{number}", overwrite=True)
        members.append(Member(campaign_id=company.seeded.campaign_id, account=f"many-{number}"))
    traffic = f"{reviewed_sandbox.url}/sandbox/traffic"
    httpx.delete(traffic).raise_for_status()
    workers.start("--limit", "6")  # more would wait for two cores and for SQLite
    options: Any = {"guardrails": GUARDRAILS}
    outcome = portfolio_refresh(
        members,
        crm="file-crm/many",
        lake="many",
        options=options,
        deployment="campaign-refresh/workers",
        hours=0.15,
    )
    assert isinstance(outcome, list)
    assert all(isinstance(each, Refreshed) for each in outcome)
    assert {each.state for each in outcome} == {"Completed"}
    runs = pl.from_pandas(lake.runs())
    assert sorted(runs["campaign_id"]) == sorted(each.campaign_id for each in members)
    assert set(runs["rows"]) == {250}
    seen = httpx.get(traffic).json()
    assert (seen["calls"]["most"], seen["downloads"]["most"]) == (CALLS, DOWNLOADS)
