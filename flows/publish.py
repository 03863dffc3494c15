"""The publication of a refresh that was stopped before."""

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from blocks import DataLake, NudgescribeAccount
from blocks.storage.manifest import campaign_partition
from flows.options import FetchOptions
from flows.run.fetch import check_fetch
from flows.run.finish import keep_holdout, publish_and_fetch
from flows.run.flow_run import ClaimedRefresh, Stopwatch, check_reachable, this_run
from flows.run.outcomes import completed
from flows.run.parameters import tells_of_blocks
from nudgescribe.errors import NudgeflowError
from tasks.journal.campaign_name import name_as_known
from tasks.refresh.checkpoint import Checkpoint, load_checkpoint
from tasks.refresh.claim import NothingToPublish, claim_open_refresh
from tasks.refresh.report import RefreshResult
from tasks.refresh.rerun import REVIEWED, read_run
from tasks.ui.artifacts import link_campaign
from tasks.ui.signals import name_flow_run


class NotReviewed(NudgeflowError):
    """The run's messages are not approved yet."""

    advice = "Have its messages approved in the platform, then start again."


@tells_of_blocks
@flow(name="publish-campaign", flow_run_name="publish-{campaign_id}", persist_result=False)
def publish_campaign(
    campaign_id: str,
    account: NudgescribeAccount,
    lake: DataLake,
    options: FetchOptions = FetchOptions(),  # noqa: B008 - frozen
) -> RefreshResult | State[Any]:
    """Publish the run of a refresh that was stopped before, and fetch its messages.

    Args:
        campaign_id: ID of the campaign, whose new messages are approved.
        account: The Nudgescribe account.
        lake: The data lake that the refresh was started with.
        options: Advanced settings.
    """
    check_fetch(options)
    claimant, watch = this_run(), Stopwatch()
    check_reachable(lake)
    name_as_known(lake, campaign_partition(campaign_id))
    claim = claim_open_refresh(account, lake, campaign_id, claimant, options.export_minutes)
    if claim.refresh is None:
        return completed(claim.outcome, claim.message, claim.result)
    claimed = ClaimedRefresh(campaign_id, account, lake, claimant, claim.refresh, watch)
    with claimed.recorded():
        checkpoint = load_checkpoint(lake, claimed.refresh)
        if checkpoint is None:
            raise NothingToPublish(
                f"No open refresh of campaign {campaign_id} has started a rerun."
            )
        _name(account, checkpoint)
        with claimed.detecting_deletion():
            run = read_run(account, checkpoint.run)
            if run.status not in REVIEWED:
                raise NotReviewed(
                    f"Run {run.run_number} of campaign {campaign_id} is {run.status}."
                )
            keep_holdout(claimed, checkpoint)
            return publish_and_fetch(claimed, checkpoint, run.comparison_summary, options)


def _name(account: NudgescribeAccount, checkpoint: Checkpoint) -> None:
    """Let people recognise the flow run, and find the campaign."""
    campaign, run = checkpoint.campaign, checkpoint.run
    name_flow_run(campaign.name, campaign.workspace, f", run {run.run_number}: publication")
    link_campaign(account, campaign.campaign_id, campaign.name)
