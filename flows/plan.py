"""A refresh rehearsed."""

from functools import partial

from prefect import flow

from blocks import Crm, DataLake, NudgescribeAccount
from flows.options import RefreshOptions
from flows.run.flow_run import this_refresh
from flows.run.preparation import prepare, released_on_failure
from tasks.campaigns import find_campaign
from tasks.customers.staging import release_staged, remove_staged
from tasks.refresh.plan import Plan, make_plan
from tasks.ui import assets
from tasks.ui.artifacts import link_campaign
from tasks.ui.events import announce


@flow(name="plan-refresh", flow_run_name="plan-{campaign_id}")
def plan_refresh(
    campaign_id: str,
    account: NudgescribeAccount,
    crm: Crm,
    lake: DataLake,
    options: RefreshOptions = RefreshOptions(),  # noqa: B008 - frozen
) -> Plan:
    """Says what a refresh with the same parameters would do, and changes nothing.

    Args:
        campaign_id: ID of the published campaign to refresh.
        account: The Nudgescribe account; needs its profile key.
        crm: Where the customer list comes from.
        lake: The data lake.
        options: Those of the refresh.
    """
    refresh = this_refresh()
    link_campaign(account, campaign_id)
    campaign = find_campaign(
        account, campaign_id, refresh, options.group_name, options.group == "reuse"
    )
    with released_on_failure(partial(release_staged, lake, refresh)):
        validated = prepare(
            account, campaign.workspace_id, crm, lake, refresh, options, campaign.place
        )
        planned = make_plan.with_options(
            assets=[assets.plans(lake, campaign_id)],
            asset_deps=[assets.campaign(account, campaign_id)],
        )
        plan = planned(account, campaign, validated, lake, refresh, options.guardrails)
    remove_staged(lake, refresh)
    told = plan.model_dump(include={"plan_id", "accepted", "rejected", "messages", "stops"})
    announce("campaign.planned", "campaign", campaign_id, plan.plan_id, told)
    return plan
