"""The client against the real sandbox: every endpoint by its method."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from cryptography.fernet import Fernet

from nudgescribe import contract, errors, rfc4180
from nudgescribe.client import NudgescribeClient
from nudgescribe.contract import Status
from sandbox.seed import Seeded
from tests.conftest import Company, customers
from tests.support.exports import downloaded
from tests.support.response_tamperer import ResponseTamperer


@pytest.fixture
def workspace(company: Company) -> str:
    return company.seeded.workspace_id


@pytest.fixture
def group(client: NudgescribeClient, workspace: str) -> str:
    """A new customer group."""
    return client.create_group(workspace, "New").customer_group_id


def test_fields_are_created_listed_updated_and_deleted(
    company: Company, client: NudgescribeClient, workspace: str
) -> None:
    values = {"field_name": "since", "field_type": "Date", "field_format": "yy/MM/dd"}
    new = contract.CreateField.model_validate({"workspace_id": workspace, **values})
    made = client.create_field(new)
    assert made in client.list_fields(workspace)
    update = contract.UpdateField(field_id=made.field_id, display_name="Customer since")
    assert client.update_field(update).display_name == "Customer since"
    client.delete_field(made.field_id)
    ids = {field.field_name: field.field_id for field in client.list_fields(workspace)}
    assert made.field_id not in ids.values()
    # Values go with their field.
    client.delete_field(ids["grade"])
    profile = next(client.customers(workspace, company.seeded.customer_group_id)).profile
    assert "grade" not in profile
    assert profile["customer_id"] == "000001"


def test_groups_are_created_listed_updated_and_deleted(
    company: Company, client: NudgescribeClient, workspace: str
) -> None:
    made = client.create_group(workspace, "November", "first")
    assert made in client.list_groups(workspace)
    with pytest.raises(errors.BadRequest, match=r"Customer group already exists\."):
        client.create_group(workspace, "November")
    update = contract.UpdateGroup(customer_group_id=made.customer_group_id, name="December")
    renamed = client.update_group(update)
    assert (renamed.name, renamed.description) == ("December", "first")
    client.delete_group(made.customer_group_id)
    assert company.groups() == ["First customers"]


def test_upload_customers_upserts_rows_and_names_bad_ones(
    client: NudgescribeClient, workspace: str, group: str
) -> None:
    content = rfc4180.write(customers(200, invalid_every=50))
    for _ in range(2):
        result = client.upload_customers(workspace, group, content)
        assert result.status == "completed"
        assert (result.total, result.accepted, result.rejected) == (200, 196, 4)
        assert [error.row for error in result.errors] == [50, 100, 150, 200]
        assert client.count_customers(workspace, group).total == 196


def test_validate_only_writes_nothing(
    client: NudgescribeClient, workspace: str, group: str
) -> None:
    content = rfc4180.write(customers(10))
    one = customers(1).row(0, named=True)
    assert client.upload_customers(workspace, group, content, validate_only=True).accepted == 10
    assert client.upload_customer(workspace, group, one, validate_only=True).accepted == 1
    assert client.count_customers(workspace, group).total == 0


def test_customers_are_read_back_as_they_were_sent(
    client: NudgescribeClient, workspace: str, group: str
) -> None:
    sent = customers(1200)
    client.upload_customers(workspace, group, rfc4180.write(sent))
    pages = client.count_customers(workspace, group)
    assert (pages.num_pages, pages.page_size, pages.total) == (2, 1000, 1200)
    found = [*client.customers(workspace, group)]
    assert [one.profile for one in found] == sent.rows(named=True)
    assert repr(found[0]) == "Customer(...)"


def test_customer_is_uploaded_and_deleted(
    client: NudgescribeClient, workspace: str, group: str
) -> None:
    client.upload_customers(workspace, group, rfc4180.write(customers(10)))
    one = {**customers(1).row(0, named=True), "customer_id": "000777", "visits": 3, "grade": None}
    assert client.upload_customer(workspace, group, one).accepted == 1
    assert client.count_customers(workspace, group).total == 11
    assert client.delete_customers(workspace, group, ["000777", "unknown"]) == 1
    assert client.count_customers(workspace, group).total == 10


@pytest.mark.parametrize(
    ("key", "problem"),
    [(None, "no profile key"), ("0" * 43 + "=", "does not open"), ("cut off", "is cut off")],
)
def test_customers_fail_without_the_accounts_profile_key(
    company: Company, workspace: str, key: str | None, problem: str
) -> None:
    credentials = replace(company.credentials, profile_key=key)
    with NudgescribeClient(company.sandbox.url, credentials) as client:
        with pytest.raises(errors.AuthError, match=problem):
            next(client.customers(workspace, company.seeded.customer_group_id))


def test_customers_fail_when_profile_is_no_object(company: Company) -> None:
    profile = Fernet(company.seeded.profile_key).encrypt(b'"Anna"').decode()
    customer = {"customer_id": "1", "profile": profile}
    page = {"customers": [customer], "page": 0, "num_pages": 1}
    transport = ResponseTamperer({"/v1/customer": [httpx.Response(200, json=page)]})
    with company.client(transport=transport) as client:
        with pytest.raises(errors.ContractMismatch, match="/v1/customer") as caught:
            next(client.customers("w", "g"))
    assert "Anna" not in str(caught.value)


def test_campaigns_are_filtered_by_when_they_were_published(
    company: Company, client: NudgescribeClient
) -> None:
    def found(*period: datetime) -> list[str]:
        workspaces = client.campaigns(*period)
        return [campaign.campaign_id for each in workspaces for campaign in each.campaigns]

    now, day = datetime.now(UTC), timedelta(days=1)
    assert found() == [company.seeded.campaign_id]
    assert found(now - day, now + day) == [company.seeded.campaign_id]
    assert found(now + day) == []
    assert found(now - 2 * day, now - day) == []


def test_rerun_goes_from_initiate_to_downloaded_page(
    company: Company, client: NudgescribeClient, workspace: str, group: str
) -> None:
    campaign = company.seeded.campaign_id
    first_page = client.fetch_csv(campaign, 0)
    client.upload_customers(workspace, group, rfc4180.write(customers()))
    compared = client.initiate_rerun(campaign, group).comparison
    sets = compared.matched_segments, compared.new_segments, compared.orphaned_segments
    plans = [{segment["plan"] for segment in each} for each in sets]
    assert plans == [{"basic", "plus", "family"}, {"student"}, {"legacy"}]
    assert company.settle(client).status == Status.READY_FOR_REVIEW

    active, before = client.rerun_messages(campaign), client.rerun_messages(campaign, 1)
    assert {(message.run_number, message.archived) for message in active} == {(2, False)}
    assert len(before) == 16
    assert all(message.archived for message in before)
    copied = {str(m.segment): m.message for m in before if m.segment["plan"] != "legacy"}
    assert copied.items() <= {str(m.segment): m.message for m in active}.items()
    with pytest.raises(errors.NotPublished, match="Only Published campaigns can be rerun"):
        client.initiate_rerun(campaign, company.seeded.customer_group_id)
    with pytest.raises(errors.BadRequest, match=r"Campaign is not ready to publish\."):
        client.publish(campaign)

    assert company.sandbox.approve(campaign).json() == {"status": "Ready to publish"}
    assert client.publish(campaign).status == "queued"
    while client.count_message_pages(campaign) < 3:
        pass
    by_link = downloaded(client, campaign)
    assert client.fetch_csv(campaign, 0).encode() == by_link
    frame = rfc4180.read(by_link)
    assert frame.columns == ["customer_id", "message"]
    assert frame["customer_id"].to_list() == [f"{number:06d}" for number in range(1, 101)]
    rows = [(row.customer_id, row.message) for row in client.fetch_rows(campaign, 0)]
    assert rows == frame.rows()
    assert client.fetch_link(campaign, 0).expires_at > datetime.now(UTC)
    assert client.count_message_pages(campaign, run_number=1) == 3
    assert downloaded(client, campaign, run_number=1).decode() == first_page


UNKNOWN: dict[str, Callable[[NudgescribeClient, Seeded], object]] = {
    "campaign": lambda client, seeded: client.rerun_history("unknown"),
    "group": lambda client, seeded: client.initiate_rerun(seeded.campaign_id, "unknown"),
    "page": lambda client, seeded: client.fetch_csv(seeded.campaign_id, 99),
    "workspace": lambda client, seeded: client.count_customers("unknown", "unknown"),
}


@pytest.mark.parametrize("what", UNKNOWN)
def test_client_raises_not_found_for_unknown_ids(
    company: Company, client: NudgescribeClient, what: str
) -> None:
    with pytest.raises(errors.NotFound, match="not found|Invalid Workspace"):
        UNKNOWN[what](client, company.seeded)
