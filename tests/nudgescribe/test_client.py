"""The client against the real sandbox: every endpoint by its method."""

from datetime import UTC, datetime, timedelta

import httpx
import pytest
from cryptography.fernet import Fernet

from nudgescribe import contract, errors, rfc4180
from nudgescribe.client import NudgescribeClient
from nudgescribe.contract import Status
from tests.conftest import SEEDED_CUSTOMERS, Company, customers
from tests.support.exports import downloaded
from tests.support.response_tamperer import ResponseTamperer


def test_fields_are_created_listed_updated_and_deleted(
    company: Company, client: NudgescribeClient
) -> None:
    workspace = company.seeded.workspace_id
    made = client.create_field(
        contract.CreateField(
            workspace_id=workspace, field_name="since", field_type="Date", field_format="yy/MM/dd"
        )
    )
    assert made in client.list_fields(workspace)
    update = contract.UpdateField(field_id=made.field_id, display_name="Customer since")
    assert client.update_field(update).display_name == "Customer since"
    client.delete_field(made.field_id)
    assert made.field_id not in [field.field_id for field in client.list_fields(workspace)]


def test_delete_field_deletes_its_values(company: Company, client: NudgescribeClient) -> None:
    workspace, group = company.seeded.workspace_id, company.seeded.customer_group_id
    grade = next(f for f in client.list_fields(workspace) if f.field_name == "grade")
    client.delete_field(grade.field_id)
    profile = next(client.customers(workspace, group)).profile
    assert "grade" not in profile
    assert profile["customer_id"] == "000001"


def test_groups_are_created_listed_updated_and_deleted(
    company: Company, client: NudgescribeClient
) -> None:
    workspace = company.seeded.workspace_id
    made = client.create_group(workspace, "November", "first")
    assert made in client.list_groups(workspace)
    renamed = client.update_group(
        contract.UpdateGroup(customer_group_id=made.customer_group_id, name="December")
    )
    assert (renamed.name, renamed.description) == ("December", "first")
    client.delete_group(made.customer_group_id)
    assert company.groups() == ["First customers"]


def test_create_group_refuses_name_in_use(company: Company, client: NudgescribeClient) -> None:
    with pytest.raises(errors.BadRequest, match=r"Customer group already exists\."):
        client.create_group(company.seeded.workspace_id, "First customers")


def test_upload_customers_upserts_rows_and_names_bad_ones(
    company: Company, client: NudgescribeClient
) -> None:
    workspace = company.seeded.workspace_id
    group = client.create_group(workspace, "New").customer_group_id
    content = rfc4180.write(customers(200, invalid_every=50))
    for _ in range(2):
        result = client.upload_customers(workspace, group, content)
        assert (result.status, result.total, result.accepted, result.rejected) == (
            "completed",
            200,
            196,
            4,
        )
        assert [error.row for error in result.errors] == [50, 100, 150, 200]
        assert client.count_customers(workspace, group).total == 196


def test_validate_only_writes_nothing(company: Company, client: NudgescribeClient) -> None:
    workspace = company.seeded.workspace_id
    group = client.create_group(workspace, "New").customer_group_id
    content = rfc4180.write(customers(10))
    one = customers(1).row(0, named=True)
    assert client.upload_customers(workspace, group, content, validate_only=True).accepted == 10
    assert client.upload_customer(workspace, group, one, validate_only=True).accepted == 1
    assert client.count_customers(workspace, group).total == 0


def test_customers_are_read_back_as_they_were_sent(
    company: Company, client: NudgescribeClient
) -> None:
    workspace = company.seeded.workspace_id
    group = client.create_group(workspace, "New").customer_group_id
    sent = customers(1200)
    client.upload_customers(workspace, group, rfc4180.write(sent))
    pages = client.count_customers(workspace, group)
    assert (pages.num_pages, pages.page_size, pages.total) == (2, 1000, 1200)
    assert [one.profile for one in client.customers(workspace, group)] == sent.rows(named=True)


def test_customer_prints_none_of_its_values(company: Company, client: NudgescribeClient) -> None:
    one = next(client.customers(company.seeded.workspace_id, company.seeded.customer_group_id))
    assert repr(one) == "Customer(...)"


def test_customer_is_uploaded_and_deleted(company: Company, client: NudgescribeClient) -> None:
    workspace, group = company.seeded.workspace_id, company.seeded.customer_group_id
    one = {**customers(1).row(0, named=True), "customer_id": "000777", "visits": 3, "grade": None}
    assert client.upload_customer(workspace, group, one).accepted == 1
    assert client.count_customers(workspace, group).total == SEEDED_CUSTOMERS + 1
    assert client.delete_customers(workspace, group, ["000777", "unknown"]) == 1
    assert client.count_customers(workspace, group).total == SEEDED_CUSTOMERS


def test_customers_fail_without_the_accounts_profile_key(company: Company) -> None:
    where = company.seeded.workspace_id, company.seeded.customer_group_id
    other = "0" * 43 + "="
    with company.account(profile_key=None).get_client() as client:
        with pytest.raises(errors.AuthError, match="no profile key"):
            next(client.customers(*where))
    with company.account(profile_key=other).get_client() as client:
        with pytest.raises(errors.AuthError, match="does not open"):
            next(client.customers(*where))


def test_customers_fail_when_profile_is_no_object(company: Company) -> None:
    key = company.seeded.profile_key
    profile = Fernet(key).encrypt(b'"Anna"').decode()
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


def rerun_on_new_group(company: Company, client: NudgescribeClient) -> contract.RerunStarted:
    workspace = company.seeded.workspace_id
    group = client.create_group(workspace, "New").customer_group_id
    client.upload_customers(workspace, group, rfc4180.write(customers()))
    return client.initiate_rerun(company.seeded.campaign_id, group)


def test_rerun_goes_from_initiate_to_downloaded_page(
    company: Company, client: NudgescribeClient
) -> None:
    campaign = company.seeded.campaign_id
    started = rerun_on_new_group(company, client)
    plans = [
        {segment["plan"] for segment in some}
        for some in (
            started.comparison.matched_segments,
            started.comparison.new_segments,
            started.comparison.orphaned_segments,
        )
    ]
    assert plans == [{"basic", "plus", "family"}, {"student"}, {"legacy"}]
    assert company.settle(client).status == Status.READY_FOR_REVIEW
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


def test_past_run_has_its_pages_as_text(company: Company, client: NudgescribeClient) -> None:
    campaign = company.seeded.campaign_id
    first = client.fetch_csv(campaign, 0)
    rerun_on_new_group(company, client)
    company.settle(client)
    company.sandbox.approve(campaign)
    client.publish(campaign)
    assert client.count_message_pages(campaign, run_number=1) == 3
    assert downloaded(client, campaign, run_number=1).decode() == first


def test_rerun_messages_hold_archived_ones_for_a_past_run(
    company: Company, client: NudgescribeClient
) -> None:
    campaign = company.seeded.campaign_id
    rerun_on_new_group(company, client)
    company.settle(client)
    active = client.rerun_messages(campaign)
    assert {message.run_number for message in active} == {2}
    assert not any(message.archived for message in active)
    before = client.rerun_messages(campaign, 1)
    assert len(before) == 16
    assert all(message.archived for message in before)
    copied = {str(m.segment): m.message for m in before if m.segment["plan"] != "legacy"}
    assert copied.items() <= {str(m.segment): m.message for m in active}.items()


@pytest.mark.parametrize("missing", ["campaign", "group", "page", "workspace"])
def test_client_raises_not_found_for_unknown_ids(
    company: Company, client: NudgescribeClient, missing: str
) -> None:
    campaign, group = company.seeded.campaign_id, company.seeded.customer_group_id
    calls = {
        "campaign": lambda: client.rerun_history("unknown"),
        "group": lambda: client.initiate_rerun(campaign, "unknown"),
        "page": lambda: client.fetch_csv(campaign, 99),
        "workspace": lambda: client.count_customers("unknown", group),
    }
    with pytest.raises(errors.NotFound, match="not found|Invalid Workspace"):
        calls[missing]()


def test_initiate_rerun_refuses_campaign_that_is_not_published(
    company: Company, client: NudgescribeClient
) -> None:
    rerun_on_new_group(company, client)
    company.settle(client)
    group = client.create_group(company.seeded.workspace_id, "Another").customer_group_id
    with pytest.raises(errors.NotPublished, match="Only Published campaigns can be rerun"):
        client.initiate_rerun(company.seeded.campaign_id, group)
    with pytest.raises(errors.BadRequest, match=r"Campaign is not ready to publish\."):
        client.publish(company.seeded.campaign_id)
