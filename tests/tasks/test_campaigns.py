import pytest

from nudgescribe import rfc4180
from nudgescribe.contract import Status
from tasks.campaigns import Refresh, find_campaign
from tests.conftest import Company, Save, customers


@pytest.mark.parametrize("publish", [False, True])
def test_a_refresh_that_is_resumed_knows_the_run_before_its_own(
    company: Company, save: Save, refresh: Refresh, publish: bool
) -> None:
    saved = save(company, customers(50))
    campaign, workspace = company.seeded.campaign_id, company.seeded.workspace_id
    at_first = find_campaign.fn(saved.name, campaign, refresh)
    assert (at_first.previous_run, at_first.previous_pages) == (1, 3)
    with company.client() as client:
        group = client.create_group(workspace, "Ours", refresh.mark).customer_group_id
        client.upload_customers(workspace, group, rfc4180.write(customers(50)))
        client.initiate_rerun(campaign, group)
        company.settle(client)
        if publish:
            company.sandbox.approve(campaign)
            client.publish(campaign)
            assert company.history()[0].status == Status.PUBLISHED
    assert find_campaign.fn(saved.name, campaign, refresh) == at_first
