"""A real sandbox over HTTP, real Prefect, and a fresh account for whoever asks."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import sleep
from typing import Any

import httpx
import polars as pl
import pytest
import uvicorn
from fastapi import FastAPI
from hypothesis import settings
from prefect.settings import (
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL,
    PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_ENABLED,
)
from prefect.testing.utilities import prefect_test_harness

from blocks import DataLake, FileCrm, NudgescribeAccount
from nudgescribe.auth import Credentials
from nudgescribe.client import NudgescribeClient
from nudgescribe.contract import Run, Status
from nudgescribe.retry import RetryPolicy
from sandbox import demo_customers, seed
from sandbox.api import security
from sandbox.context import Context
from sandbox.service import create_app
from sandbox.settings import Settings
from tests.support import databases
from tests.support.prefect_servers import impatient
from tests.support.response_tamperer import ResponseTamperer

SEEDED_CUSTOMERS = 300

# A first example pays for imports; a slow machine must not fail for it.
settings.register_profile("nudgeflow", deadline=None)
settings.load_profile("nudgeflow")

# Each test has an account of its own; processes that sign in to it go by the cost its hash names.
security.PASSWORD_COST = 2


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that may take long begin first; at the end, all but one core would wait for them."""
    seconds = Counter[Path]()
    for item in items:
        if mark := item.get_closest_marker("timeout"):
            seconds[item.path] += mark.args[0]
    items.sort(key=lambda item: seconds[item.path], reverse=True)


@dataclass(frozen=True)
class Sandbox:
    """A running service and the folder it keeps its data in."""

    url: str
    app: FastAPI

    @property
    def settings(self) -> Settings:
        return self.context.settings

    @property
    def context(self) -> Context:
        """The service's own view of its data."""
        return self.app.state.context

    def approve(self, campaign_id: str) -> httpx.Response:
        return httpx.post(f"{self.url}/sandbox/campaigns/{campaign_id}/approve")

    def fault(self, endpoint: str, **options: Any) -> None:
        """Switches on a fault of the service."""
        body = {"endpoint": endpoint, **options}
        httpx.put(f"{self.url}/sandbox/faults", json=body).raise_for_status()

    def no_faults(self) -> None:
        httpx.delete(f"{self.url}/sandbox/faults").raise_for_status()


def credentials_of(one: seed.Seeded) -> Credentials:
    return Credentials(one.email, one.password, one.api_key, one.api_code, one.profile_key)


@dataclass(frozen=True)
class Company:
    """An account of a sandbox with a campaign at Run #1, Published."""

    sandbox: Sandbox
    seeded: seed.Seeded

    @property
    def credentials(self) -> Credentials:
        return credentials_of(self.seeded)

    def page_file(self, number: int = 0) -> Path:
        """A page of Run #1, where the service keeps it."""
        folder = Path(self.sandbox.settings.exports_url)
        campaign = folder / self.seeded.account_id / self.seeded.campaign_id
        return campaign / "run-1" / f"{number:05d}.csv"

    def client(self, **options: Any) -> NudgescribeClient:
        return NudgescribeClient(self.sandbox.url, self.credentials, **options)

    def account(self, **changes: Any) -> NudgescribeAccount:
        names = {"email", "password", "api_key", "api_code", "profile_key"}
        values = {"base_url": self.sandbox.url, **self.seeded.model_dump(include=names), **changes}
        return NudgescribeAccount.model_validate(values)

    def history(self) -> list[Run]:
        with self.client() as client:
            return client.rerun_history(self.seeded.campaign_id)

    def groups(self) -> list[str]:
        with self.client() as client:
            return [group.name for group in client.list_groups(self.seeded.workspace_id)]

    def settle(self, client: NudgescribeClient) -> Run:
        """Looks until the newest run's job is done."""
        while (run := client.rerun_history(self.seeded.campaign_id)[0]).status == Status.PROCESSING:
            sleep(0.01)
        return run


@contextmanager
def serving(settings: Settings) -> Iterator[Sandbox]:
    """The service in a thread of this process, on a port the system picks."""
    app = create_app(settings)
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield Sandbox(f"http://127.0.0.1:{port}", app)
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="session")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """Its reviewers are the tests."""
    data = tmp_path_factory.mktemp("sandbox")
    with serving(Settings(data=data, rows_per_file=100)) as service:
        yield service


@pytest.fixture(scope="session")
def reviewed_sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """Approves every run as soon as it is ready for review."""
    data = tmp_path_factory.mktemp("reviewed-sandbox")
    with serving(Settings(data=data, rows_per_file=100, approve_after=0)) as service:
        yield service


@pytest.fixture
def company(sandbox: Sandbox) -> Company:
    return Company(sandbox, seed.seed(sandbox.context, SEEDED_CUSTOMERS))


@pytest.fixture
def reviewed_company(reviewed_sandbox: Sandbox) -> Company:
    return Company(reviewed_sandbox, seed.seed(reviewed_sandbox.context, SEEDED_CUSTOMERS))


@pytest.fixture
def client(company: Company) -> Iterator[NudgescribeClient]:
    with company.client(retry=RetryPolicy(sleep=lambda seconds: None)) as one:
        yield one


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """One PostgreSQL server for all tests that need one."""
    with databases.postgresql() as url:
        yield url


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """One Prefect server for all tests that need one."""
    quickly: dict[Any, Any] = {
        # A flow run without heartbeats need not wait at its end for the second between two of them.
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,
        PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL: 0.2,
        # Workers' processes tell of task runs; recording those takes a fifth of a flow's time.
        PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_ENABLED: False,
    }
    with impatient(quickly), prefect_test_harness(server_startup_timeout=120):
        yield


@dataclass
class Saved:
    """A company's blocks saved under its own name, and where its lake is."""

    name: str
    account: NudgescribeAccount
    crm: FileCrm
    lake: DataLake
    root: Path
    crm_file: Path

    @property
    def blocks(self) -> dict[str, Any]:
        """The parameters of a flow that a program calls."""
        return {"account": self.account, "crm": self.crm, "lake": self.lake}

    @property
    def references(self) -> dict[str, Any]:
        """The same parameters as Prefect stores them."""
        return {name: block.to_reference() for name, block in self.blocks.items()}

    def save_account(self, account: NudgescribeAccount) -> None:
        account.save(self.name, overwrite=True)
        self.account = account


def saved(company: Company, customers: pl.DataFrame, folder: Path) -> Saved:
    """Saves account, lake and a CSV with the given customers as blocks."""
    name = company.seeded.email.partition("@")[0]
    root, file = folder / "lake", folder / "customers.csv"
    customers.write_csv(file)
    crm, lake = FileCrm(path=str(file)), DataLake(root=str(root))
    saved = Saved(name, company.account(), crm, lake, root, file)
    for block in saved.blocks.values():
        block.save(name, overwrite=True)
    return saved


Save = Callable[[Company, pl.DataFrame], Saved]


@pytest.fixture
def save(prefect_server: None, tmp_path: Path) -> Save:
    return partial(saved, folder=tmp_path)


Through = Callable[[ResponseTamperer], ResponseTamperer]


@pytest.fixture
def through(monkeypatch: pytest.MonkeyPatch) -> Through:
    """Sends what account blocks' clients send through a transport."""
    real = NudgescribeAccount.get_client

    def use(transport: ResponseTamperer) -> ResponseTamperer:
        def get_client(self: NudgescribeAccount, **options: Any) -> NudgescribeClient:
            quick = RetryPolicy(attempts=1)
            return real(self, transport=transport, retry=quick)

        monkeypatch.setattr(NudgescribeAccount, "get_client", get_client)
        return transport

    return use


def customers(count: int = 250, *, invalid_every: int = 0) -> pl.DataFrame:
    """A new customer list for the seeded campaign: some plans stay, one goes, one comes."""
    rows = demo_customers.customers(count, demo_customers.PLANS_NOW, invalid_every=invalid_every)
    return pl.DataFrame(list(rows))
