"""Two tenants of a sandbox where nothing else happens: what a call changes is its own doing."""

from collections.abc import Iterator

import pytest

from tests.conftest import Sandbox
from tests.sandbox.api.security.tenants import Tenant, new_tenant
from tests.support.sandboxes import NewSandbox


@pytest.fixture(scope="session")
def sandbox(new_sandbox: NewSandbox) -> Sandbox:
    return new_sandbox(rows_per_file=100)


@pytest.fixture(scope="session")
def ours(sandbox: Sandbox) -> Iterator[Tenant]:
    """The tenant whose calls are tested."""
    with new_tenant(sandbox) as tenant:
        yield tenant


@pytest.fixture(scope="session")
def theirs(sandbox: Sandbox) -> Iterator[Tenant]:
    """Another account."""
    with new_tenant(sandbox) as tenant:
        yield tenant
