"""Ids, numbers and links that lead elsewhere: to another account, another file, or nowhere."""

import http.client
from contextlib import closing
from functools import partial
from uuid import uuid4

import httpx
import pytest

from nudgescribe import rfc4180
from tests.conformance.lists import send_file
from tests.conformance.wire import Endpoint
from tests.conftest import customers
from tests.sandbox.api.security.tenants import (
    CHECK,
    FAMILIES,
    FETCHES,
    HISTORY,
    Tenant,
    check_refused,
    check_same,
    ids_of,
    on_one_database,
    paired,
    some_of,
    unharmed,
)
from tests.sandbox.api.security.test_texts import PATHS


def test_file_for_a_group_of_another_account_is_refused(ours: Tenant, theirs: Tenant) -> None:
    upload = partial(send_file, ours, ours.ids, rfc4180.write(customers(3)))
    with unharmed(ours):
        for names in some_of(ids_of(CHECK)):
            unknown = upload(**dict.fromkeys(names, str(uuid4())))
            check_same(upload(**{name: theirs.own[name] for name in names}), unknown)


def test_repeated_id_counts_as_its_last_value(ours: Tenant, theirs: Tenant) -> None:
    own, other = ours.own["campaign_id"], theirs.own["campaign_id"]
    body = '{"campaign_id": "%s", "campaign_id": "%s"}'
    with unharmed(ours):
        check_refused(ours.send(HISTORY, (body % (own, other)).encode()), 404)
        assert ours.send(HISTORY, (body % (other, own)).encode()).status_code == 200


@paired(PATHS, FAMILIES)
def test_path_as_an_id_is_an_unknown_id(ours: Tenant, case: str, endpoints: list[Endpoint]) -> None:
    with unharmed(ours):
        for endpoint in endpoints:
            for names in some_of(ids_of(endpoint)):
                body = ours.body(endpoint, **dict.fromkeys(names, case))
                check_refused(ours.send(endpoint, body), 401, 404)


@pytest.mark.parametrize("number", [2**31 - 1, 1])
def test_page_beyond_the_last_is_not_found(ours: Tenant, number: int) -> None:
    with unharmed(ours):
        for endpoint in FETCHES:
            check_refused(ours.send(endpoint, ours.body(endpoint, file_num=number)), 404)


@pytest.fixture
def link(ours: Tenant) -> httpx.URL:
    return httpx.URL(ours.fetch("url")["url"])


def get_raw(link: httpx.URL, path: str) -> httpx.Response:
    """Get a path exactly as it is written."""
    with closing(http.client.HTTPConnection(link.host, link.port, timeout=60)) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        headers = dict(answer.getheaders())
        return httpx.Response(answer.status, headers=headers, content=answer.read())


@on_one_database
@pytest.mark.parametrize(
    "path",
    [
        "/exports/../keys.json",
        "/exports/%2e%2e/%2e%2e/run-1/keys.json",
        "/exports/{account}/..%2f..%2f..%2fkeys.json/run-1/00000.csv",
        "/exports/{other}/{campaign}/run-1/00000.csv",
        "/exports/{campaign}/run-1/00000.csv",
        "/exports/{account}/{campaign}/run-1/../../../keys.json",
        "/exports/{account}/{campaign}/run-1/..%2F..%2F..%2Fkeys.json",
        "/exports/{account}/{campaign}/run-1/%2Fetc%2Fpasswd",
        "/exports/{account}/{campaign}/run-1/%00",
        "/exports/{account}/{campaign}/run-1/00001.csv",
        "/exports/{account}/%00/run-1/00000.csv",
        "/exports/{account}/{campaign}/run--1/00000.csv",
        "/exports/{account}/{campaign}/run-1e400/00000.csv",
        "/exports/{account}/{campaign}/run-01/00000.csv",
        "/exports/{account}/{campaign}/run-1/00000.csv%3F",
        "/exports/{account}/{campaign}/run-" + "9" * 5000 + "/00000.csv",
        "/exports//etc/passwd",
        "//exports/{account}/{campaign}/run-1/00000.csv",
        "/exports/{account}/%ff%fe/run-1/00000.csv",
    ],
    ids=lambda path: path[:50],
)
def test_link_to_another_path_serves_nothing(link: httpx.URL, ours: Tenant, path: str) -> None:
    account_id = ours.company.seeded.account_id
    target = path.format(account=account_id, campaign=ours.own["campaign_id"], other=uuid4())
    with unharmed(ours):
        for query in ("", f"?{link.query.decode()}"):
            check_refused(get_raw(link, target + query), 400, 401, 403, 404)


@on_one_database
@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        ("signature", None, 401),
        ("signature", "", 403),
        ("signature", "0" * 64, 403),
        ("signature", "{}0", 403),
        ("signature", "é", 403),
        ("signature", "\0", 403),
        ("user_id", None, 401),
        ("user_id", "", 403),
        ("user_id", "{}0", 403),
        ("expires", None, 401),
        ("expires", "1", 403),
        ("expires", "-1", 403),
        ("expires", "{}0", 403),
        ("expires", "9" * 400, 403),
        ("expires", "9" * 5000, 400),
        ("expires", "1e400", 400),
        ("expires", "NaN", 400),
        ("expires", "", 400),
    ],
)
def test_changed_link_serves_nothing(
    link: httpx.URL, ours: Tenant, name: str, value: str | None, status: int
) -> None:
    """The value replaces the link's own, which it may contain as `{}`; None removes it."""
    own = link.params[name]
    with unharmed(ours):
        assert ours.http.get(link).status_code == 200
        without = link.copy_remove_param(name)
        changed = without if value is None else without.copy_add_param(name, value.format(own))
        check_refused(ours.http.get(changed), status)
