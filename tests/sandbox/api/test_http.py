"""The sandbox's answers on the wire where the contract's statements have no test for them."""

from collections.abc import Iterator
from datetime import UTC, datetime

import httpx
import pytest

from sandbox.data.models import Campaign, Group, Run, Workspace
from tests.conformance import stories
from tests.conformance.lists import send_file
from tests.conformance.wire import Access, Account, Changes, refusal, signed_in
from tests.conftest import SEEDED_CUSTOMERS, Company

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
        ("DELETE /v1/cpf", {"field_id": "unknown"}, {}, (404, "Field not found.")),
    ],
    ids=["identity first", "identity first, content", "no ip", "value not repeated", "field"],
)
def test_wrong_call_is_refused_with_its_reason(
    account: Account, call: str, body: object, headers: Changes, answer: tuple[int, str]
) -> None:
    verb, _, path = call.partition(" ")
    assert account.refused(path, body, headers, verb) == answer


@pytest.fixture
def other_workspace(company: Company) -> tuple[str, str]:
    """A second workspace of the account and its group, with a campaign that is a draft."""
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
        run = Run(
            campaign_id=draft.id,
            run_number=1,
            status="Draft",
            group_id=group.id,
            group_name=group.name,
            segment_count=0,
        )
        session.add(run)
        return workspace.id, group.id


def test_group_of_another_workspace_is_not_found(
    account: Account, other_workspace: tuple[str, str]
) -> None:
    _, group = other_workspace
    not_found = (404, "Customer group not found")
    assert account.refused_campaign(INITIATE, new_customer_group_id=group) == not_found
    body = {"workspace_id": account.access.workspace_id, "customer_group_id": group}
    assert account.refused("/v1/customer/pages", body) == not_found
    upload = {**body, "customer": {"customer_id": "1"}}
    assert account.refused("/v1/customer/check", upload) == not_found


def test_draft_is_in_no_period_of_publication(
    company: Company, other_workspace: tuple[str, str]
) -> None:
    with company.client() as client:
        campaigns = [one.name for each in client.campaigns() for one in each.campaigns]
        year_3000 = client.campaigns(published_to=datetime(3000, 1, 1, tzinfo=UTC))
    assert sorted(campaigns) == ["Draft", "Welcome back"]
    assert [one.name for each in year_3000 for one in each.campaigns] == ["Welcome back"]


def test_run_1_has_the_seeded_group_and_no_comparison(company: Company) -> None:
    (run,) = company.history()
    assert run.customer_group_name == "First customers"
    assert run.comparison_summary is None


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"customer_id,first_name,x\n1,2,3\n", "column 'x' is not a field of the workspace"),
        (b"customer_id,plan,region\n1,2,3\n", "column 'first_name' is missing"),
        (b"customer_id,customer_id\n1,2\n", "more than once: customer_id"),
        (b"customer_id,plan\n1\n", "too many or too few values"),
        (b"customer_id\n\xff\n", "UTF-8"),
    ],
)
def test_bad_file_is_refused_and_nothing_written(
    account: Account, company: Company, content: bytes, text: str
) -> None:
    status, message = refusal(send_file(account, account.ids, content))
    assert status == 400
    assert text in message
    with company.client() as client:
        where = company.seeded.workspace_id, company.seeded.customer_group_id
        assert client.count_customers(*where).total == SEEDED_CUSTOMERS


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


def test_quota_counts_what_an_earlier_run_has_published(account: Account, company: Company) -> None:
    customers = len(stories.ready_to_publish(account))
    stories.set_quota(company, 2 * customers - 1)
    account.ask_campaign("/v1/messages/publish")
    stories.ready_to_publish(account)
    answer = account.refused_campaign("/v1/messages/publish")
    assert answer == (429, "Usage limit reached.")


def test_approve_needs_a_run_in_review(company: Company) -> None:
    assert company.sandbox.approve(company.seeded.campaign_id).status_code == 400
    assert company.sandbox.approve("unknown").status_code == 404
