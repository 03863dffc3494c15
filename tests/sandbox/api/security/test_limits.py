"""Too much: bodies above the limit get their refusal and take no memory."""

import http.client
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import chain, repeat
from typing import Any

import pytest

from benchmarks.big_list import peak_mib
from nudgescribe.errors import message_of
from sandbox import seed
from sandbox.settings import MIB, Settings
from tests.conformance.lists import count
from tests.conformance.wire import SIGN_IN, Access, Account, Endpoint, signed_in
from tests.sandbox.api.security.tenants import (
    BOUNDARY,
    CHECK,
    DELETE_CUSTOMERS,
    LIST_GROUPS,
    Tenant,
    check_refused,
    ids_of,
    new_tenant,
    on_one_database,
    unharmed,
)
from tests.sandbox.api.security.test_uploads import END, FILE
from tests.sandbox.engine import test_restart
from tests.sandbox.engine.test_restart import running
from tests.support.sandboxes import NewSandbox

settings, seeded = test_restart.settings, test_restart.seeded


@pytest.fixture(scope="module")
def limited(new_sandbox: NewSandbox) -> Iterator[Tenant]:
    """A tenant of a service with low limits."""
    with new_tenant(new_sandbox(largest_file=200_000, largest_body=50_000)) as tenant:
        yield tenant


def chunked(content: bytes) -> Iterator[bytes]:
    """Yield the content for a call without Content-Length."""
    for start in range(0, len(content), 10_000):
        yield content[start : start + 10_000]


@on_one_database
@pytest.mark.parametrize("transfer", [bytes, chunked], ids=["Content-Length", "chunked"])
@pytest.mark.parametrize(
    ("endpoint", "kind", "size"),
    [
        (CHECK, BOUNDARY, 200_001),
        (CHECK, "application/json", 50_001),
        (LIST_GROUPS, "application/json", 50_001),
        (LIST_GROUPS, BOUNDARY, 50_001),
        (SIGN_IN, "application/json", 50_001),
        (Endpoint("PUT", "/sandbox/faults", {}), "application/json", 50_001),
    ],
    ids=str,
)
def test_body_above_the_limit_is_too_large(
    limited: Tenant,
    endpoint: Endpoint,
    kind: str,
    size: int,
    transfer: Callable[[bytes], Any],
) -> None:
    start = b'--x\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n'
    headers = {**limited.headers, "content-type": kind}
    with unharmed(limited):
        content = transfer(start.ljust(size, b"x"))
        answer = limited.http.request(
            endpoint.verb, endpoint.path, content=content, headers=headers
        )
        check_refused(answer, 413)
        assert message_of(answer) == "The body is too large."


@on_one_database
@pytest.mark.parametrize(
    ("headers", "mib", "status"),
    [
        ({}, 48, 413),
        ({"content-encoding": "gzip"}, 48, 415),
        ({"authorization": "Bearer x"}, 24, 403),
    ],
    ids=["too large", "compressed", "not allowed"],
)
@pytest.mark.parametrize("is_chunked", [False, True], ids=["Content-Length", "chunked"])
def test_client_that_keeps_sending_gets_the_refusal(
    ours: Tenant, headers: dict[str, str], mib: int, status: int, is_chunked: bool
) -> None:
    """The connection would end with the call, but not under a client that still sends."""
    length = {} if is_chunked else {"content-length": str(mib * MIB)}
    sent = {**ours.headers, "connection": "close", **length, **headers}
    where = ours.http.base_url
    with (
        unharmed(ours),
        closing(http.client.HTTPConnection(where.host, where.port, timeout=60)) as connection,
    ):
        content = repeat(b"x" * MIB, mib)
        connection.request("POST", LIST_GROUPS.path, content, sent, encode_chunked=is_chunked)
        answer = connection.getresponse()
        assert answer.status == status
        assert json.loads(answer.read())["message"]


Process = tuple[Account, int]


@pytest.fixture
def process(settings: Settings, seeded: seed.Seeded) -> Iterator[Process]:
    """An account of a service in a process of its own, and its pid."""
    with running(settings, seeded) as service:
        access = Access(service.url, **seeded.model_dump(exclude={"account_id"}))
        with signed_in(access) as account:
            yield account, service.pid


@pytest.mark.parametrize("settings", ["sqlite"], indirect=True)
def test_cell_of_2_gib_takes_no_memory(process: Process) -> None:
    account, pid = process
    before, peak = count(account, account.ids), peak_mib(pid)
    start = FILE[: FILE.index(b"Anna")] + b'"'
    end = b'",basic,North\r\n' + END
    size = 2048 * MIB
    headers = {
        "authorization": account.headers["authorization"],
        "content-type": BOUNDARY,
        "content-length": str(len(start) + size + len(end)),
    }
    content = chain([start], repeat(b"x" * MIB, size // MIB), [end])
    answer = account.http.post(CHECK.path, content=content, headers=headers, timeout=60)
    check_refused(answer, 413)
    assert peak_mib(pid) < peak + 32
    assert count(account, account.ids) == before
    # A client that listens while it sends gets the answer at once.
    target = account.http.base_url
    with closing(http.client.HTTPConnection(target.host, target.port, timeout=60)) as connection:
        connection.putrequest("POST", CHECK.path)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders(start)
        assert connection.getresponse().status == 413


@pytest.mark.chaos
@pytest.mark.parametrize("settings", ["sqlite"], indirect=True)
def test_million_mistakes_take_little_memory(process: Process) -> None:
    account, pid = process
    many = range(1_000_000)
    ids = {name: account.ids[name] for name in ids_of(CHECK)}
    for endpoint, body in (
        (SIGN_IN, dict.fromkeys(map(str, many))),
        (DELETE_CUSTOMERS, {**ids, "customer_ids": [0 for _ in many]}),
        (CHECK, {**ids, "customer": {f"{each}": [] for each in many}}),
    ):
        before = peak_mib(pid)
        check_refused(account.call(endpoint.verb, endpoint.path, body), 400)
        assert peak_mib(pid) < before + 400
    assert count(account, account.ids) == 300
