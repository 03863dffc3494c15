"""The service as a process of its own, killed in the middle of its work and started again."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen

import polars as pl
import pytest

from deployments import local
from deployments.environment import free_port
from nudgescribe import rfc4180, segments
from nudgescribe.client import NudgescribeClient
from nudgescribe.contract import Phase, Status
from sandbox import seed
from sandbox.context import open_context
from sandbox.engine import quota
from sandbox.settings import Settings
from tests.conftest import credentials_of, customers
from tests.sandbox.conftest import new_group
from tests.support.clock import until
from tests.support.databases import BOTH, new_database

pytestmark = pytest.mark.chaos

SECONDS = 60.0
SOON = 0.002
"""A phase of a rerun is short."""


@pytest.fixture(params=BOTH)
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """A data folder and a database that no service uses."""
    database = None
    if request.param == "postgresql":
        database = new_database(request.getfixturevalue("postgresql_server"))
    return Settings(data=tmp_path, database=database, rows_per_file=20)


@pytest.fixture
def seeded(settings: Settings) -> seed.Seeded:
    context = open_context(settings)
    made = seed.seed(context, 300)
    context.store.close()
    return made


class Running:
    """A service in a process of its own, until `kill -9`."""

    def __init__(self, url: str, process: Popen[bytes], client: NudgescribeClient) -> None:
        self.url = url
        self._process = process
        self.client = client

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def approve(self, campaign_id: str) -> None:
        local.approve(self.url, campaign_id)


@contextmanager
def running(settings: Settings, seeded: seed.Seeded, *options: str) -> Iterator[Running]:
    port = free_port()
    storage = ["--data", str(settings.data), "--rows-per-file", str(settings.rows_per_file)]
    if settings.database:
        storage += ["--database", settings.database]
    serve = ["-m", "sandbox", "serve", "--port", str(port), *storage, *options]
    with local.child(*serve) as process:
        url = f"http://127.0.0.1:{port}"
        local.wait_for(url, process, SECONDS)
        with NudgescribeClient(url, credentials_of(seeded)) as client:
            yield Running(url, process, client)


@pytest.mark.parametrize("phase", list(Phase))
def test_rerun_killed_in_any_phase_finishes_after_a_restart(
    settings: Settings, seeded: seed.Seeded, phase: Phase
) -> None:
    campaign = seeded.campaign_id
    with running(settings, seeded, "--phase-seconds", "0.5") as service:
        group = new_group(service.client, seeded, customers(200))
        service.client.initiate_rerun(campaign, group)
        until(lambda: service.client.rerun_history(campaign)[0].phase == phase, every=SOON)
        service.kill()
    with running(settings, seeded) as service:
        until(lambda: service.client.rerun_history(campaign)[0].status != Status.PROCESSING)
        run, first = service.client.rerun_history(campaign)
        messages = service.client.rerun_messages(campaign)
        archived = service.client.rerun_messages(campaign, first.run_number)
    assert (run.status, run.phase) == (Status.READY_FOR_REVIEW, Phase.FINALISING)
    written = [segments.key(message.segment) for message in messages]
    assert len(written) == len(set(written)) == run.segment_count == 16
    assert len(archived) == 16
    assert all(message.archived for message in archived)
    context = open_context(settings)
    with context.store.read() as session:
        assert quota.used(session, settings, seeded.account_id).generated == 4
    context.store.close()


def test_export_killed_half_way_finishes_after_a_restart(
    settings: Settings, seeded: seed.Seeded
) -> None:
    campaign = seeded.campaign_id
    with running(settings, seeded) as service:
        group = new_group(service.client, seeded, customers(2000))
        service.client.initiate_rerun(campaign, group)
        until(lambda: service.client.rerun_history(campaign)[0].status != Status.PROCESSING)
        service.approve(campaign)
        service.client.publish(campaign)
        until(lambda: service.client.count_message_pages(campaign) > 0, every=SOON)
        service.kill()
    with running(settings, seeded) as service:
        until(lambda: service.client.count_message_pages(campaign) == 100)
        pages = [service.client.fetch_csv(campaign, number) for number in range(100)]
    rows = pl.concat(rfc4180.read(page.encode()) for page in pages)
    assert sorted(rows["customer_id"]) == sorted(customers(2000)["customer_id"])


def test_upload_killed_half_way_finishes_after_a_restart(
    settings: Settings, seeded: seed.Seeded
) -> None:
    long = customers(20_000).with_columns(last_name=pl.lit("long " * 200))
    where = seeded.workspace_id, seeded.customer_group_id
    with running(settings, seeded) as service:
        answer = service.client.upload_customers(*where, rfc4180.write(long))
        assert (answer.status, answer.total) == ("queued", 0)
        until(lambda: service.client.count_customers(*where).total > 300, every=SOON)
        service.kill()
    with running(settings, seeded) as service:
        until(lambda: service.client.count_customers(*where).total == 20_000)
        names = {each.profile["last_name"] for each in service.client.customers(*where)}
    assert names == {"long " * 200}
