"""Hostile bodies and headers: each is refused, and the audit log holds nothing of it."""

import gzip
import json
import os
from collections.abc import Callable
from functools import cache
from itertools import product
from uuid import uuid4

import pytest

from benchmarks.big_list import peak_mib
from sandbox.settings import MIB
from tests.conformance.lists import send_file
from tests.conformance.wire import CAMPAIGN_LIST, SIGN_IN, Endpoint
from tests.sandbox.api.security.tenants import (
    AUTHENTICATED,
    BOUNDARY,
    CHECK,
    CUSTOMER,
    DELETE_CUSTOMERS,
    FAMILIES,
    LIST,
    LIST_GROUPS,
    MESSAGES,
    WITH_BODY,
    WITH_IDS,
    Tenant,
    check_refused,
    on_one_database,
    paired,
    unharmed,
    with_value,
)

BODIES: dict[str, Callable[[], bytes]] = {
    "no JSON": lambda: b"{",
    "more than JSON": lambda: b"{} {}",
    "a text": lambda: b'"text"',
    "a number": lambda: b"7",
    "a list": lambda: b"[]",
    "not a number": lambda: b"NaN",
    "arrays in arrays": lambda: b"[" * 500_000,
    "objects in objects": lambda: b'{"a":' * 200_000,
    "deep and closed": lambda: b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a huge number": lambda: b"9" * 100_000,
    "not UTF-8": lambda: b'{"workspace_id": "\xff"}',
    "NULs": lambda: b"\0" * 1000,
    "an unknown field": lambda: b'{"unknown": 1}',
    "a NUL as a name": lambda: b'{"\\u0000": 1}',
    "a surrogate as a name": lambda: b'{"\\ud800": 1}',
    "a form": lambda: b"workspace_id=x",
    "a list of customers": lambda: LIST,
    "100,000 unknown fields": lambda: json.dumps(dict.fromkeys(map(str, range(100_000)))).encode(),
    "one long unknown field": lambda: json.dumps({"x" * MIB: 1}).encode(),
}


@on_one_database
@paired(BODIES, WITH_BODY)
def test_body_that_is_no_request_is_refused(
    ours: Tenant, case: Callable[[], bytes], endpoints: list[Endpoint]
) -> None:
    body = case()
    with unharmed(ours):
        for endpoint in endpoints:
            check_refused(ours.send(endpoint, body), 400, 401)


VALUES = ["NaN", "Infinity", "-Infinity", "1e400", "9" * 5000, '"\\u0000"', '"\\ud800"', "[[]]"]


@on_one_database
@paired([*VALUES, "true", "null"], [*FAMILIES, [SIGN_IN]])
def test_required_field_of_a_wrong_value_is_refused(
    ours: Tenant, case: str, endpoints: list[Endpoint]
) -> None:
    with unharmed(ours):
        for endpoint in endpoints:
            for name in endpoint.body:
                check_refused(ours.send(endpoint, with_value(ours.body(endpoint), name, case)))


@on_one_database
@pytest.mark.parametrize("value", VALUES[:5] + VALUES[6:], ids=lambda value: value[:10])
def test_customer_with_a_wrong_value_is_refused(ours: Tenant, value: str) -> None:
    with unharmed(ours):
        for name in ("first_name", "visits"):
            customer = with_value(CUSTOMER, name, value).decode()
            check_refused(ours.send(CHECK, with_value(ours.body(CHECK), "customer", customer)))


NUMBERS = ["-1", "1e400", "1.5", "1.0", '"0"', "true", "9" * 400, "9" * 5000, "[0]", "NaN", "-0.5"]
TIMES = ["NaN", "Infinity", "1e400", '"\\u0000"', '"\\ud800"', "0"]


@on_one_database
@pytest.mark.parametrize(
    ("names", "value"),
    [
        *product([{"file_num", "run_number", "page"}], NUMBERS),
        *product([{*CAMPAIGN_LIST.more}], TIMES),
    ],
    ids=lambda each: each[:10] if isinstance(each, str) else "",
)
def test_number_or_time_that_is_none_is_refused(ours: Tenant, names: set[str], value: str) -> None:
    with unharmed(ours):
        for endpoint in [*WITH_IDS, CAMPAIGN_LIST]:
            for name in names & {*endpoint.body, *endpoint.more}:
                check_refused(ours.send(endpoint, with_value(ours.body(endpoint), name, value)))


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/sandbox/faults", b'{"endpoint": "no path"}'),
        ("/sandbox/faults", b'{"endpoint": "/v1/", "status": 200}'),
        ("/sandbox/faults", b'{"endpoint": "/v1/", "rate": 0}'),
        ("/sandbox/faults", b'{"endpoint": "/v1/", "drop": "later"}'),
        ("/sandbox/faults", b'{"endpoint": "/v1/", "dribble": 0}'),
        ("/sandbox/faults", b'{"endpoint": "/v1/", "method": "HEAD"}'),
        ("/sandbox/faults", b'{"endpoint": "/v1/", "unknown": 1}'),
        ("/sandbox/faults", b'{"endpoint": "/\\ud800"}'),
        ("/sandbox/faults", b'{"endpoint": "/v1/", "delay": NaN}'),
        ("/sandbox/faults", b'{"endpoint": "/v1/", "rate": 1e400}'),
        ("/sandbox/faults", b'{"endpoint": "/v1/", "seed": ' + b"9" * 5000 + b"}"),
        ("/sandbox/accounts/{account}/quota", b'{"messages": 1e400}'),
        ("/sandbox/accounts/{account}/quota", b'{"messages": -1}'),
        ("/sandbox/accounts/%00/quota", b'{"messages": 1}'),
        ("/sandbox/accounts/..%2f..%2f/quota", b'{"messages": 1}'),
        ("/sandbox/accounts/%ff/quota", b'{"messages": 1}'),
    ],
)
def test_admin_endpoint_refuses_a_wrong_value(ours: Tenant, path: str, body: bytes) -> None:
    with unharmed(ours):
        url = path.format(account=ours.company.seeded.account_id)
        check_refused(ours.call("PUT", url, body), 400, 404)
        assert ours.http.get("/sandbox/faults").json() == {"faults": []}


@on_one_database
@paired(
    ["text/plain", "application/xml", "text/csv", BOUNDARY, "", "application/jsonx", ";"],
    [*FAMILIES, [CHECK]],
)
def test_content_type_that_is_not_json_is_refused(
    ours: Tenant, case: str, endpoints: list[Endpoint]
) -> None:
    with unharmed(ours):
        for endpoint in endpoints:
            if not case and endpoint in MESSAGES:  # a blank header is none: they need none
                continue
            check_refused(ours.send(endpoint, content_type=case), 400, 401)


@cache
def bomb() -> bytes:
    return gzip.compress(b" " * 50 * MIB)


@on_one_database
@paired(["gzip", "deflate", "br", "zstd", "x-gzip", "gzip, gzip", "?"], AUTHENTICATED)
def test_compressed_body_is_refused(ours: Tenant, case: str, endpoints: list[Endpoint]) -> None:
    with unharmed(ours):
        for endpoint in [*endpoints, CHECK]:
            check_refused(ours.send(endpoint, bomb(), content_encoding=case), 415)


@on_one_database
@pytest.mark.parametrize(
    ("endpoint", "name", "value"),
    [
        (CHECK, "customer", {f"{number}": True for number in range(200_000)}),
        (CHECK, "customer", {f"{number}": "" for number in range(900)}),
        (DELETE_CUSTOMERS, "customer_ids", [0] * 200_000),
    ],
    ids=["wrong values", "unknown columns", "wrong identifiers"],
)
def test_many_mistakes_get_a_short_answer(
    ours: Tenant, endpoint: Endpoint, name: str, value: object
) -> None:
    before = peak_mib(os.getpid())
    with unharmed(ours):
        check_refused(ours.send(endpoint, ours.body(endpoint, **{name: value})))
    assert peak_mib(os.getpid()) < before + 200


def test_audit_log_has_refused_calls_without_what_they_held(ours: Tenant) -> None:
    marker = f"marker-{uuid4()}"
    log = ours.company.sandbox.settings.audit_file
    before = len(log.read_bytes().splitlines())
    with unharmed(ours):
        answers = [
            ours.send(LIST_GROUPS, {"workspace_id": marker}),
            ours.send(LIST_GROUPS, authorization=f"Bearer {marker}"),
            ours.send(CAMPAIGN_LIST, x_auth_context=marker),
            ours.send(LIST_GROUPS, {"workspace_id": "x", marker: marker}),
            ours.send(LIST_GROUPS, marker.encode()),
            ours.send(LIST_GROUPS, content_encoding=marker),
            ours.send(CHECK, ours.body(CHECK, customer={**CUSTOMER, marker: marker})),
            ours.send(SIGN_IN, {"email": marker, "password": marker}),
            ours.call("POST", f"{LIST_GROUPS.path}?{marker}={marker}", {}),
            ours.call("POST", f"/v1/{marker}", {}),
            send_file(ours, ours.ids, f"customer_id,{marker}\n{marker},1\n".encode()),
        ]
    lines = log.read_text().splitlines()[before:]
    entries = [json.loads(line) for line in lines]
    statuses = [answer.status_code for answer in answers]
    assert [entry["status"] for entry in entries[: len(answers)]] == statuses
    assert all(answer.is_client_error for answer in answers)
    assert marker not in "".join(lines)
    assert {entry["ip"] for entry in entries} == {None, "192.0.2.1"}
    assert all({*entry} == {*entries[0]} for entry in entries)
