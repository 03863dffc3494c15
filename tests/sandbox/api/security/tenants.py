"""Tenants of a sandbox, their hostile calls, and what must hold for each such call.

Not every hostile value meets every endpoint: it meets one endpoint of each family, the next one
each time. The endpoints of a family share their route class and the lookup of their ids.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, combinations
from time import monotonic
from typing import Any, TypeVar

import httpx
import pytest
from sqlalchemy import select

from nudgescribe import rfc4180
from nudgescribe.errors import message_of
from sandbox import seed
from sandbox.data.models import Base
from tests.conformance import wire
from tests.conformance.wire import CAMPAIGN_LIST, SIGN_IN, UNKNOWN, Access, Endpoint
from tests.conftest import Company, Sandbox, customers

CUSTOMERS = 20
MAX_ANSWER_BYTES = 5000
"""An answer that refuses does not repeat what was sent."""
MAX_SECONDS = 30.0
"""A call that takes longer keeps the service from others."""

CREATE_FIELD, LIST_GROUPS = wire.FIELD_ENDPOINTS[0], wire.GROUP_ENDPOINTS[1]
CUSTOMER = {"customer_id": "new", "first_name": "A", "plan": "p", "region": "r", "visits": 1}
CHECK, *_, DELETE_CUSTOMERS = wire.CUSTOMER_ENDPOINTS
CHECK = Endpoint(CHECK.verb, CHECK.path, {**CHECK.body, "customer": CUSTOMER}, CHECK.more)
"""With a customer that would be accepted: what is refused is the rest of the call."""
PUBLISH, PAGES, FETCH = wire.MESSAGE_ENDPOINTS
FETCHES = [
    Endpoint("POST", FETCH.path, {**FETCH.body, "export_type": kind}, FETCH.more)
    for kind in ("utf8", "json", "url")
]
MESSAGES = [PUBLISH, PAGES, *FETCHES]
HISTORY = wire.RERUN_ENDPOINTS[1]
FAMILIES = [
    wire.FIELD_ENDPOINTS,
    wire.GROUP_ENDPOINTS,
    [CHECK, *wire.CUSTOMER_ENDPOINTS[1:]],
    MESSAGES,
    wire.RERUN_ENDPOINTS,
]
WITH_IDS = [*chain.from_iterable(FAMILIES)]
AUTHENTICATED = [*FAMILIES, [CAMPAIGN_LIST]]
WITH_BODY = [*AUTHENTICATED, [SIGN_IN], [CHECK]]
BOUNDARY = "multipart/form-data; boundary=x"
HEADER = b"customer_id,first_name,plan,region\n"
LIST = HEADER + b"1,Anna,basic,North\n"

T = TypeVar("T")

on_one_database = pytest.mark.parametrize("database", ["sqlite"], indirect=True, scope="session")
"""For what is refused before a database is asked."""


def paired(
    cases: Mapping[str, T] | Sequence[T], families: Sequence[Sequence[Endpoint]]
) -> pytest.MarkDecorator:
    """Parametrize with each case and one endpoint of each family, the next one each time."""
    names = cases if isinstance(cases, Mapping) else [repr(each)[:20] for each in cases]
    values = cases.values() if isinstance(cases, Mapping) else cases
    rows = [
        pytest.param(case, [family[number % len(family)] for family in families], id=name)
        for number, (name, case) in enumerate(zip(names, values, strict=True))
    ]
    return pytest.mark.parametrize(("case", "endpoints"), rows)


class Tenant(wire.Account):
    """The signed-in account of a company, with an id of its own for every name on the wire."""

    def __init__(self, company: Company, http: httpx.Client) -> None:
        super().__init__(Access.of(company), http)
        self.company = company
        where = company.seeded.workspace_id
        with company.client() as client:
            fields = {each.field_name: each for each in client.list_fields(where)}
            later = client.create_group(where, "Later").customer_group_id
            client.upload_customers(where, later, rfc4180.write(customers(CUSTOMERS)))
        self.own = {
            **self.ids,
            "new_customer_group_id": later,
            "field_id": fields["grade"].field_id,
        }

    def body(self, endpoint: Endpoint, **changes: object) -> dict[str, Any]:
        """Return the endpoint's body with the tenant's own ids."""
        own = {name: self.own[name] for name in ids_of(endpoint)}
        return {**endpoint.body, **own, **changes}

    def send(
        self, endpoint: Endpoint, body: object = None, **headers: str | bytes | None
    ) -> httpx.Response:
        """Call an endpoint, with the tenant's own ids unless a body is given."""
        changes = {name.replace("_", "-"): value for name, value in headers.items()}
        content = self.body(endpoint) if body is None else body
        return self.call(endpoint.verb, endpoint.path, content, changes)


@contextmanager
def new_tenant(sandbox: Sandbox) -> Iterator[Tenant]:
    with httpx.Client(base_url=sandbox.url, timeout=60) as http:
        yield Tenant(Company(sandbox, seed.seed(sandbox.context, CUSTOMERS)), http)


def ids_of(endpoint: Endpoint) -> list[str]:
    """Return the names of the ids in an endpoint's body."""
    return [name for name, value in endpoint.body.items() if value == UNKNOWN]


def some_of(names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Yield every choice of at least one name."""
    return chain.from_iterable(combinations(names, size + 1) for size in range(len(names)))


def with_value(body: Mapping[str, Any], name: str, value: str) -> bytes:
    """Return a body as JSON in which one value stands as it is given."""
    return json.dumps({**body, name: "the value"}).replace('"the value"', value).encode()


def stored(sandbox: Sandbox) -> list[object]:
    """Return all that the service stores: every row of its tables, and its files' contents."""
    with sandbox.context.store.read() as session:
        queries = (session.execute(select(table)) for table in Base.metadata.sorted_tables)
        rows = [sorted(map(repr, result)) for result in queries]
    ignored = ("sandbox.db", "audit.jsonl")
    paths = [each for each in sandbox.settings.data.rglob("*") if not each.name.startswith(ignored)]
    return [*rows, *((path, path.read_bytes()) for path in sorted(paths) if path.is_file())]


@contextmanager
def unharmed(tenant: Tenant) -> Iterator[None]:
    """Check that what happens meanwhile is quick, changes nothing, and stops no service."""
    sandbox = tenant.company.sandbox
    before, start = stored(sandbox), monotonic()
    yield
    assert monotonic() - start < MAX_SECONDS
    assert stored(sandbox) == before
    assert tenant.send(LIST_GROUPS).status_code == 200


def check_refused(answer: httpx.Response, *statuses: int) -> None:
    """Check that an answer is an error in the contract's form, 400 by default, and short."""
    assert answer.status_code in (statuses or (400,)), answer.text[:200]
    assert [*answer.json()] == ["message"]
    assert message_of(answer)
    assert len(answer.content) < MAX_ANSWER_BYTES


def check_same(answer: httpx.Response, expected: httpx.Response) -> None:
    """Check that an answer is refused just as another."""
    assert (answer.status_code, answer.content) == (expected.status_code, expected.content)
    check_refused(answer, 401, 404)
