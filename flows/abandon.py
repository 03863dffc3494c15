"""The end of a refresh that cannot be finished."""

from prefect import flow
from prefect.logging import get_run_logger

from blocks import DataLake, NudgescribeAccount
from blocks.storage.manifest import campaign_partition
from flows.run.parameters import tells_of_blocks
from nudgescribe.errors import NudgeflowError
from tasks.campaigns import describe_open_run
from tasks.customers.upload import release_held_group
from tasks.journal.campaign_name import name_as_known
from tasks.journal.refresh import Refresh
from tasks.refresh.claim import end_abandoned
from tasks.ui.artifacts import link_campaign
from tasks.ui.signals import announce


@tells_of_blocks
@flow(name="abandon-refresh", flow_run_name="abandon-{campaign_id}", persist_result=False)
def abandon_refresh(
    campaign_id: str, account: NudgescribeAccount, lake: DataLake, who: str, why: str
) -> str:
    """End a campaign's open refresh that cannot be finished; return what is left to do.

    Its list is removed. A run that it has started stays at Nudgescribe: until people publish or
    remove it in the platform, refreshes of the campaign are refused before they extract a list.

    Args:
        campaign_id: ID of the campaign.
        account: The Nudgescribe account.
        lake: The data lake that the refresh was started with.
        who: Your name, for the campaign's history.
        why: The reason, for the campaign's history.
    """
    refresh = end_abandoned(lake, campaign_id, who, why)
    name = name_as_known(lake, campaign_partition(campaign_id))
    link_campaign(account, campaign_id, name or campaign_id)
    left = _tidy(account, lake, campaign_id, refresh)
    get_run_logger().info("The refresh of campaign %s was ended. %s", campaign_id, left)
    occurrence = refresh.id if refresh else "unreadable"
    announce("campaign.abandoned", "campaign", campaign_id, occurrence, {"who": who, "left": left})
    return left


def _tidy(
    account: NudgescribeAccount, lake: DataLake, campaign_id: str, refresh: Refresh | None
) -> str:
    """Free the group that the refresh has reused, and return what is left to do.

    The refresh is over whatever the service says: its campaign may be what is gone.
    """
    try:
        if refresh:
            release_held_group(account, lake, refresh)
        return describe_open_run(account, campaign_id) or "The next refresh begins anew."
    except NudgeflowError as error:
        return f"Its state at Nudgescribe is unknown: {error.problem} Look at the campaign there."
