"""Faults for a test, and what the service has written of its calls."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from nudgescribe.client import NudgescribeClient
from nudgescribe.retry import RetryPolicy
from tests.conftest import Company, Sandbox

PutFault = Callable[..., None]
Audited = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def put_fault(sandbox: Sandbox) -> Iterator[PutFault]:
    """Switches a fault of an endpoint on, until the test's end."""

    def put(endpoint: str, **fault: object) -> None:
        body = {"endpoint": endpoint, **fault}
        httpx.put(f"{sandbox.url}/sandbox/faults", json=body).raise_for_status()

    yield put
    httpx.delete(f"{sandbox.url}/sandbox/faults").raise_for_status()


@pytest.fixture
def audited(sandbox: Sandbox) -> Audited:
    """Returns the audit log's entries of calls, or those of one endpoint."""

    def entries(endpoint: str = "") -> list[dict[str, Any]]:
        lines = sandbox.settings.audit_file.read_text().splitlines()
        found = [json.loads(line) for line in lines if endpoint in line]
        return [each for each in found if not each["endpoint"].startswith("job ")]

    return entries


@pytest.fixture
def client(company: Company) -> Iterator[NudgescribeClient]:
    """Signed in, and without any patience."""
    with company.client(retry=RetryPolicy(attempts=1)) as one:
        one.campaigns()
        yield one
