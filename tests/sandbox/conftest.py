"""Everything about the sandbox is tested on both of its databases."""

import polars as pl
import pytest

from nudgescribe import rfc4180
from nudgescribe.client import NudgescribeClient
from nudgescribe.contract import Run
from sandbox import seed
from sandbox.data.models import Job
from tests.conftest import Company, Sandbox, customers
from tests.support.databases import BOTH
from tests.support.sandboxes import NewSandbox, database_fixture, new_sandbox

__all__ = ["database", "new_sandbox"]

database = database_fixture(BOTH)


@pytest.fixture(scope="session")
def sandbox(new_sandbox: NewSandbox) -> Sandbox:
    """A sandbox whose runs only the tests approve."""
    return new_sandbox(rows_per_file=100)


def ended_job(sandbox: Sandbox, number: int) -> Job:
    """Return a job as it is when it has ended."""
    while True:
        with sandbox.context.store.read() as session:
            job = session.get_one(Job, number)
            if job.state not in ("queued", "running"):
                return job


def new_group(
    client: NudgescribeClient, where: seed.Seeded, rows: pl.DataFrame, name: str = "New"
) -> str:
    """Create a group with these customers in a seeded workspace."""
    group = client.create_group(where.workspace_id, name).customer_group_id
    if rows.height:
        answer = client.upload_customers(where.workspace_id, group, rfc4180.write(rows))
        assert not answer.rejected
    return group


def initiate(company: Company, client: NudgescribeClient, count: int = 100) -> Run:
    """Begin a rerun onto a new group of so many customers."""
    group = new_group(client, company.seeded, customers(count), f"{count} new")
    return client.initiate_rerun(company.seeded.campaign_id, group).run


def rerun(company: Company, client: NudgescribeClient, count: int = 100) -> Run:
    """Rerun onto a new group of so many customers, until the job has ended."""
    initiate(company, client, count)
    return company.settle(client)
