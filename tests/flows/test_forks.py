"""Refreshes of a portfolio in forks, each of them a flow run and a process of its own."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Cancelling

from blocks import DataLake, FileCrm, Member
from blocks.storage.manifest import campaign_partition
from flows.portfolio import portfolio_refresh
from flows.refresh import campaign_refresh
from sandbox import seed
from tasks.refresh.history import History
from tests.conftest import Company, Sandbox, customers
from tests.support.clock import until
from tests.support.deployed import GUARDRAILS, Deployed, deploy, process_of

NAME = "forks"
ROWS = 250


@pytest.fixture
def deployment(prefect_server: None) -> Deployed:
    return deploy(campaign_refresh, NAME, entrypoint="flows.refresh.campaign_refresh")


@pytest.fixture
def lake(prefect_server: None, tmp_path: Path) -> DataLake:
    lake = DataLake(root=str(tmp_path / "lake"))
    lake.save(NAME, overwrite=True)
    return lake


def portfolio(
    folder: Path, lake: DataLake, *companies: Company, review: str = "wait"
) -> State[Any]:
    """Refreshes the companies' campaigns on this machine."""
    crm = FileCrm(path=str(folder / "customers.csv"))
    customers(ROWS).write_csv(crm.path)
    crm.save(NAME, overwrite=True)
    members: list[Member] = []
    for number, company in enumerate(companies):
        account = company.account()
        account.save(f"{NAME}-{number}", overwrite=True)
        members.append(Member(campaign_id=company.seeded.campaign_id, account=f"{NAME}-{number}"))
    options: Any = {"review": review, "guardrails": GUARDRAILS}
    return portfolio_refresh(
        account,
        crm,
        lake,
        members,
        options=options,
        period="run",
        deployment=f"campaign-refresh/{NAME}",
        hours=0.05,
        return_state=True,
    )


def began(lake: DataLake, company: Company) -> bool:
    return History(lake.files, campaign_partition(company.seeded.campaign_id)).newest() is not None


@contextmanager
def meanwhile(act: Callable[[], None]) -> Iterator[None]:
    thread = Thread(target=copy_context().run, args=(act,))
    thread.start()
    yield
    thread.join()


@pytest.fixture
def slow_sandbox(reviewed_sandbox: Sandbox) -> Iterator[Sandbox]:
    """So slow that a refresh is still there when something is done to it."""
    reviewed_sandbox.fault("/v1/customer/check", delay=3)
    yield reviewed_sandbox
    reviewed_sandbox.no_faults()


def run_of(deployment: Deployed, company: Company) -> FlowRun:
    campaign_id = company.seeded.campaign_id
    (run,) = [each for each in deployment.runs() if each.parameters["campaign_id"] == campaign_id]
    return run


def end_of(deployment: Deployed, company: Company) -> tuple[str | None, int]:
    """The state of a campaign's only flow run, and how often it has begun."""
    run = run_of(deployment, company)
    return run.state_name, run.run_count


def test_refresh_that_is_killed_is_retried_and_one_that_is_cancelled_ends_alone(
    slow_sandbox: Sandbox, deployment: Deployed, lake: DataLake, tmp_path: Path
) -> None:
    killed, cancelled, other = (
        Company(slow_sandbox, seed.seed(slow_sandbox.context, 300)) for _ in range(3)
    )
    processes: set[int] = set()

    def strike() -> None:
        until(lambda: all(began(lake, each) for each in (killed, cancelled, other)))
        processes.update(process_of(lake, each.seeded.campaign_id) for each in (killed, other))
        os.kill(process_of(lake, killed.seeded.campaign_id), signal.SIGKILL)
        run = run_of(deployment, cancelled)
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(run.id, Cancelling(), force=True)

    with meanwhile(strike):
        state = portfolio(tmp_path, lake, killed, cancelled, other)
    assert len(processes - {os.getpid()}) == 2
    assert state.name == "PartlyFailed"
    ends = [end_of(deployment, each) for each in (killed, cancelled, other)]
    assert ends == [("Completed", 2), ("Cancelled", 1), ("Completed", 1)]
    assert sorted(lake.runs()["rows"]) == [ROWS, ROWS]


def test_refresh_that_needs_a_review_is_suspended_for_it(
    company: Company, deployment: Deployed, lake: DataLake, tmp_path: Path
) -> None:
    state = portfolio(tmp_path, lake, company, review="suspend")
    assert state.is_completed(), state.message
    assert end_of(deployment, company) == ("Suspended", 1)
    run = run_of(deployment, company)
    with company.client() as client:
        company.settle(client)
    company.sandbox.approve(company.seeded.campaign_id)
    with get_client(sync_client=True) as client:
        client.resume_flow_run(run.id, run_input={"decision": "publish now"})
    assert deployment.work(run.id).is_completed()
    assert [*lake.runs()["rows"]] == [ROWS]
