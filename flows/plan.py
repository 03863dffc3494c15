"""The plan of a refresh, which changes nothing."""

from prefect import flow

from blocks import Crm, DataLake, NudgescribeAccount
from flows.options import RefreshOptions
from flows.run.customer_list import extract_and_validate
from flows.run.flow_run import check_reachable, this_run
from flows.run.last_page import log_last_page
from flows.run.parameters import tells_of_blocks
from tasks.campaigns import find_campaign
from tasks.journal.flow_runs import journaled
from tasks.refresh.plan import Plan, make_plan
from tasks.ui import assets
from tasks.ui.artifacts import link_campaign
from tasks.ui.signals import announce, name_flow_run


@tells_of_blocks
@flow(name="plan-refresh", flow_run_name="plan-{campaign_id}", persist_result=False)
def plan_refresh(
    campaign_id: str,
    account: NudgescribeAccount,
    crm: Crm,
    lake: DataLake,
    options: RefreshOptions = RefreshOptions(),  # noqa: B008 - frozen
) -> Plan:
    """Compute what a refresh with the same parameters would do, without changing anything.

    Args:
        campaign_id: ID of the published campaign.
        account: The Nudgescribe account; needs its profile key.
        crm: Where the customer list comes from.
        lake: The data lake.
        options: Settings of the refresh.
    """
    check_reachable(lake)
    with journaled(lake, this_run(campaign_id), resumable=False) as run:
        check_reachable(account)
        campaign = find_campaign(
            account, campaign_id, lake, run, options.group_name, options.group == "reuse"
        )
        what = f", plan after run {campaign.previous_run}"
        name_flow_run(campaign.name, campaign.workspace, what)
        link_campaign(account, campaign_id, campaign.name)
        validated = extract_and_validate(
            account,
            campaign.workspace_id,
            crm,
            lake,
            run,
            options,
            campaign.partition,
            campaign.name,
            options.holdout,
        )
        make = make_plan.with_options(
            assets=[assets.plans(lake, campaign_id)],
            asset_deps=[assets.campaign(account, campaign_id)],
        )
        plan = make(account, campaign, validated, lake, run, options.guardrails)
    payload = plan.model_dump(include={"plan_id", "accepted", "rejected", "messages", "stops"})
    announce("campaign.planned", "campaign", campaign_id, plan.plan_id, payload)
    log_last_page()
    return plan
