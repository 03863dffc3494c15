"""A refresh finished that was stopped before its publication."""

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from blocks import DataLake, NudgescribeAccount
from flows.options import Fetching
from flows.run.finish import publish_and_fetch
from flows.run.flow_run import Stopwatch, this_refresh
from flows.run.outcomes import completed
from nudgescribe.errors import NudgeflowError
from tasks.refresh.claim import claim_campaign, close_refresh, release_refresh
from tasks.refresh.report import RefreshResult
from tasks.refresh.review import REVIEWED, run_now
from tasks.refresh.started import find_started
from tasks.ui.artifacts import link_campaign


class NotReviewed(NudgeflowError):
    advice = "Have its messages approved in the platform, then start again."


class NothingToPublish(NudgeflowError):
    advice = (
        "Start a refresh; or publish in the platform what was not begun here, and fetch it with "
        "export-messages."
    )


@flow(name="publish-campaign", flow_run_name="publish-{campaign_id}")
def publish_campaign(
    campaign_id: str,
    account: NudgescribeAccount,
    lake: DataLake,
    options: Fetching = Fetching(),  # noqa: B008 - frozen
) -> RefreshResult | State[Any]:
    """Publishes the run of a refresh that was stopped before, and fetches its messages.

    Args:
        campaign_id: The campaign, its new messages approved.
        account: The Nudgescribe account.
        lake: The data lake that the refresh was started with.
        options: Advanced settings.
    """
    me, watch = this_refresh(), Stopwatch()
    link_campaign(account, campaign_id)
    claim = claim_campaign(lake, campaign_id, me, "join", options.export_minutes)
    if claim.refresh is None:
        return completed(claim.outcome, claim.said, claim.result)
    refresh = claim.refresh
    started = find_started(lake, refresh)
    if started is None:
        release_refresh(lake, campaign_id, me, refresh)
        raise NothingToPublish(f"No refresh of campaign {campaign_id} has started a rerun.")
    run = run_now(account, started.run)
    if run.status not in REVIEWED:
        raise NotReviewed(f"Run {run.run_number} of campaign {campaign_id} is {run.status}.")
    summary = run.comparison_summary
    result = publish_and_fetch(account, lake, refresh, started, summary, options, watch)
    close_refresh(lake, campaign_id, me, refresh, result=result)
    return result
