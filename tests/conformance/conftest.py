"""One account for the tests that only read or clean up, fresh ones for those that change more.

With `NUDGESCRIBE_BASE_URL` in the environment the account is a real one, else it is one of a
sandbox over HTTP, on both of its databases.
"""

from collections.abc import Callable, Iterator

import pytest

from sandbox import seed
from tests.conformance import stories
from tests.conformance.lists import sweep, unique_name
from tests.conformance.wire import BASE_URL, Access, Account, Object, signed_in
from tests.conftest import Company, Sandbox
from tests.support.databases import BOTH
from tests.support.sandboxes import NewSandbox, database_fixture, new_sandbox

__all__ = ["database", "new_sandbox"]

REAL = Access.from_environment()
CUSTOMERS, FEW_CUSTOMERS = 2300, 100
"""More than two pages of customers, and than 1000 in an exported page; and what is enough."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "states(statement): a statement of the contract")


database = database_fixture(["real"] if REAL else BOTH)


@pytest.fixture(scope="session")
def sandbox(new_sandbox: NewSandbox) -> Sandbox | None:
    """None if the service is a real one. Files above 32 KiB are processed in the background."""
    return None if REAL else new_sandbox(rows_per_file=1100, upload_at_once=32 * 1024)


@pytest.fixture(scope="session")
def controls(sandbox: Sandbox | None) -> Sandbox:
    """The sandbox, for tests that need what no real service offers."""
    if sandbox is None:
        pytest.skip(f"needs the sandbox's own controls; {BASE_URL} points at a real service")
    return sandbox


def seeded(sandbox: Sandbox, customers: int = FEW_CUSTOMERS) -> Company:
    return Company(sandbox, seed.seed(sandbox.context, customers))


@pytest.fixture(scope="session")
def account(sandbox: Sandbox | None) -> Iterator[Account]:
    """The account of most tests, with a Published campaign; tests undo what they change."""
    access = REAL
    if sandbox is not None:
        access = Access.of(seeded(sandbox, CUSTOMERS))
    assert access is not None
    with signed_in(access) as one:
        yield one
        sweep(one)


@pytest.fixture(scope="session")
def stranger(controls: Sandbox) -> Iterator[Account]:
    """Another account of the same service."""
    with signed_in(Access.of(seeded(controls))) as one:
        yield one


@pytest.fixture
def company(controls: Sandbox) -> Company:
    """A company of the test's own, at Run #1, Published."""
    return seeded(controls)


@pytest.fixture
def fresh(company: Company) -> Iterator[Account]:
    """The company's account."""
    with signed_in(Access.of(company)) as one:
        yield one


@pytest.fixture
def swept(account: Account) -> Iterator[None]:
    """Deletes a test's groups and fields after it."""
    yield
    sweep(account)


@pytest.fixture
def group(account: Account, swept: None) -> Object:
    """An empty customer group of the test's own."""
    body = {"workspace_id": account.access.workspace_id, "name": unique_name()}
    return account.ask("/v1/cg", body, verb="PUT")


NewField = Callable[..., Object]


@pytest.fixture
def new_field(account: Account, swept: None) -> NewField:
    """A function that creates a field of the test's own."""

    def create(**values: object) -> Object:
        body = {"workspace_id": account.access.workspace_id, "field_name": unique_name()}
        return account.ask("/v1/cpf", {**body, "field_type": "string", **values}, verb="PUT")

    return create


@pytest.fixture
def field(new_field: NewField) -> Object:
    """A text field of the test's own."""
    return new_field()


@pytest.fixture(scope="session")
def story(controls: Sandbox) -> Iterator[stories.Story]:
    """A campaign with three published runs."""
    company = seeded(controls)
    with signed_in(Access.of(company)) as one:
        yield stories.tell(company, one)


@pytest.fixture(scope="session")
def watched(controls: Sandbox, new_sandbox: NewSandbox) -> Iterator[stories.Watched]:
    """A slow rerun watched while it worked, on a service whose links expire at once."""
    slow = new_sandbox(phase_seconds=0.25, link_seconds=0)
    with signed_in(Access.of(seeded(slow))) as one:
        yield stories.watch(one)


@pytest.fixture(scope="session")
def failure(controls: Sandbox) -> Iterator[stories.Failure]:
    """A rerun whose job failed."""
    with signed_in(Access.of(seeded(controls))) as one:
        yield stories.fail(one)
