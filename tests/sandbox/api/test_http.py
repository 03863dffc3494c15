"""The sandbox's answers on the wire where the contract's statements have no test for them."""

from collections.abc import Iterator
from datetime import UTC, datetime

import httpx
import pytest

from sandbox.data.models import Campaign, Group, Run, Workspace
from tests.conformance.lists import send_file
from tests.conformance.wire import Access, Account, Changes, signed_in
from tests.conftest import Company

NOT_JSON = (400, "Content-Type must be application/json.")
INITIATE = "/v1/campaign/rerun/initiate"


@pytest.fixture
def account(company: Company) -> Iterator[Account]:
    with signed_in(Access.of(company)) as account:
        yield account


@pytest.mark.parametrize(
    ("call", "body", "headers", "answer"),
    [
        ("POST /v1/messages/pages", b"{", {"authorization": None}, (403, "auth error")),
        ("POST /v1/cg", b"{", {"authorization": None}, (403, "auth error")),
        ("POST /v1/messages/pages", {"campaign_id": "x"}, {"x-ip": None}, (403, "Unauthorized")),
        (
            "POST /v1/campaign/all",
            {"published_from": "yesterday"},
            {},
            (400, "Wrong type or value: published_from."),
        ),
        ("POST /v1/campaign/all", {}, {"content-type": None}, NOT_JSON),
        ("POST /v1/cpf", {"workspace_id": "x"}, {"content-type": "text/plain"}, NOT_JSON),
        ("POST /v1/cpf", [], {}, (400, "Wrong type or value: body.")),
        ("DELETE /v1/cpf", {"field_id": "unknown"}, {}, (404, "Field not found.")),
    ],
    ids=str,
)
def test_wrong_call_is_refused_with_its_reason(
    account: Account, call: str, body: object, headers: Changes, answer: tuple[int, str]
) -> None:
    verb, _, path = call.partition(" ")
    assert account.refused(path, body, headers, verb) == answer


def test_other_workspace_has_its_own_groups_and_a_draft_no_publication(
    account: Account, company: Company
) -> None:
    with company.sandbox.context.store.write() as session:
        workspace = Workspace(account_id=company.seeded.account_id, name="Second")
        session.add(workspace)
        session.flush()
        group = Group(workspace_id=workspace.id, name="Its group")
        draft = Campaign(
            workspace_id=workspace.id, name="Draft", status="Draft", variables=[], template=""
        )
        session.add_all([group, draft])
        session.flush()
        named = {"group_id": group.id, "group_name": group.name}
        first = {"run_number": 1, "status": "Draft", "segment_count": 0}
        session.add(Run(campaign_id=draft.id, **named, **first))
        other = {"customer_group_id": group.id}

    not_found = (404, "Customer group not found")
    initiated = account.refused_campaign(INITIATE, new_customer_group_id=other["customer_group_id"])
    assert initiated == not_found
    body = {"workspace_id": account.access.workspace_id, **other}
    assert account.refused("/v1/customer/pages", body) == not_found
    upload = {**body, "customer": {"customer_id": "1"}}
    assert account.refused("/v1/customer/check", upload) == not_found
    with company.client() as client:
        campaigns = [one.name for each in client.campaigns() for one in each.campaigns]
        year_3000 = client.campaigns(published_to=datetime(3000, 1, 1, tzinfo=UTC))
    assert sorted(campaigns) == ["Draft", "Welcome back"]
    assert [one.name for each in year_3000 for one in each.campaigns] == ["Welcome back"]


def test_validate_only_that_is_no_flag_is_refused(account: Account) -> None:
    answer = send_file(account, account.ids, b"customer_id\n1\n", validate_only="perhaps")
    assert answer.status_code == 400


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"field_type": "Date"}, "14 date formats"),
        ({"field_type": "currency", "field_format": "??"}, "ISO 4217"),
        ({"field_name": "plan"}, "Field already exists."),
        ({"unique": True}, "already has its unique field"),
        ({"field_type": "text"}, "field_type"),
    ],
)
def test_bad_field_is_refused_with_the_reason(
    account: Account, change: dict[str, object], text: str
) -> None:
    body = {"workspace_id": account.access.workspace_id, "field_name": "n", "field_type": "string"}
    status, message = account.refused("/v1/cpf", {**body, **change}, verb="PUT")
    assert status == 400
    assert text in message


def test_link_serves_a_page_and_ranges_of_it_until_it_is_deleted(
    account: Account, company: Company
) -> None:
    link = account.fetch("url")["url"]
    page = httpx.get(link)
    assert int(page.headers["content-length"]) == len(page.content)
    assert page.headers["etag"]
    some = httpx.get(link, headers={"range": "bytes=0-10"})
    assert (some.status_code, some.content) == (206, b"customer_id")
    company.page_file().unlink()
    assert httpx.get(link).status_code == 404
