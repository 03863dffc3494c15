import pytest

from nudgescribe import rfc4180
from nudgescribe.bases import Frozen
from nudgescribe.contract import Status
from nudgescribe.errors import NotPublished
from tasks.campaigns import GroupInUse, JournalMissing, find_campaign
from tasks.journal.entries import Journal, Step
from tasks.journal.owners import Owner
from tasks.journal.refresh import Claimed, Refresh
from tests.conftest import Company, customers
from tests.tasks.conftest import Local, forgotten, new_refresh


class Note(Frozen):
    """An entry of which only matters that it is there."""


def left_by_version_01(local: Local, refresh: Refresh) -> Refresh:
    """The refresh whose list version 0.1 noted, and nothing of its campaign."""
    old = forgotten(refresh)
    Journal(local.lake.files, old.journal).create(Step.VALIDATED, Note())
    return old


@pytest.mark.parametrize(
    ("publish", "reuse"), [(False, False), (False, True), (True, False), (True, True)]
)
def test_campaign_has_previous_run_when_resumed(
    company: Company, local: Local, refresh: Refresh, publish: bool, reuse: bool
) -> None:
    campaign, workspace = company.seeded.campaign_id, company.seeded.workspace_id
    at_first = find_campaign.fn(local.account, campaign, local.lake, refresh, "Ours", reuse)
    assert (at_first.previous_run, at_first.previous_pages) == (1, 3)
    with company.client() as client:
        group = client.create_group(
            workspace, "Ours", refresh.marker(reused=False)
        ).customer_group_id
        client.upload_customers(workspace, group, rfc4180.write(customers(50)))
        client.initiate_rerun(campaign, group)
        company.settle(client)
        if publish:
            company.sandbox.approve(campaign)
            client.publish(campaign)
            assert company.history()[0].status == Status.PUBLISHED
    old = left_by_version_01(local, refresh)
    assert find_campaign.fn(local.account, campaign, local.lake, old, "Ours", reuse) == at_first


def test_group_of_current_run_is_not_reused(
    company: Company, local: Local, refresh: Refresh
) -> None:
    campaign = company.seeded.campaign_id
    with pytest.raises(GroupInUse, match="is on group 'First customers' already.*options.group"):
        find_campaign.fn(local.account, campaign, local.lake, refresh, "First customers", True)
    found = find_campaign.fn(local.account, campaign, local.lake, refresh, "First customers", False)
    assert found.previous_run == 1


def test_failed_run_is_not_the_previous_run(
    company: Company, local: Local, refresh: Refresh
) -> None:
    campaign, workspace = company.seeded.campaign_id, company.seeded.workspace_id
    at_first = find_campaign.fn(local.account, campaign, local.lake, refresh, "Ours", False)
    with company.client() as client:
        empty = client.create_group(workspace, "Nobody").customer_group_id
        client.initiate_rerun(campaign, empty)
        assert company.settle(client).status == Status.FAILED
    again = forgotten(refresh)
    assert find_campaign.fn(local.account, campaign, local.lake, again, "Ours", False) == at_first


def test_run_of_somebody_else_is_not_adopted(
    company: Company, local: Local, refresh: Refresh
) -> None:
    campaign, workspace = company.seeded.campaign_id, company.seeded.workspace_id
    with company.client() as client:
        client.create_group(workspace, "Ours", refresh.marker(reused=False))
        theirs = client.create_group(workspace, "Theirs").customer_group_id
        client.upload_customers(workspace, theirs, rfc4180.write(customers(50)))
        client.initiate_rerun(campaign, theirs)
        company.settle(client)
    old = left_by_version_01(local, refresh)
    with pytest.raises(NotPublished, match="is Ready for review, not Published"):
        find_campaign.fn(local.account, campaign, local.lake, old, "Ours", False)


@pytest.mark.parametrize("removed", [True, False])
def test_earlier_group_of_the_flow_run_is_no_stranger_when_retention_has_removed_its_journal(
    company: Company, local: Local, refresh: Refresh, removed: bool
) -> None:
    campaign, folder = company.seeded.campaign_id, "refreshes/campaign_id=C"
    earlier = refresh.model_copy(update={"journal": f"{folder}/00000001"})
    with company.client() as client:
        client.create_group(company.seeded.workspace_id, "Ours", earlier.marker(reused=False))
    if not removed:  # another lake than the group's has other refreshes
        other = Claimed(refresh=new_refresh(), owner=Owner(flow_run="another", host="h", pid=1))
        Journal(local.lake.files, earlier.journal).create(Step.CLAIMED, other)
    later = {"id": f"{refresh.id}-2", "journal": f"{folder}/00000003"}
    begun = refresh.model_copy(update=later)
    if removed:
        found = find_campaign.fn(local.account, campaign, local.lake, begun, "New", False)
        assert found.previous_run == 1
    else:
        with pytest.raises(JournalMissing, match=f"refresh {refresh.id} is at Nudgescribe already"):
            find_campaign.fn(local.account, campaign, local.lake, begun, "New", False)
