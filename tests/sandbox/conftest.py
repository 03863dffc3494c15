"""Everything about the sandbox is tested on both of its databases."""

import pytest

from sandbox.data.models import Job
from tests.conftest import Sandbox
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
