"""One campaign refreshed: customer list in, messages in the lake."""

from functools import partial
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from blocks import Crm, CrmSource, DataLake, NudgescribeAccount
from blocks.rerun import RerunFailed
from flows.options import RefreshOptions
from flows.run.finish import publish_and_fetch
from flows.run.flow_run import Stopwatch, this_refresh
from flows.run.outcomes import completed, name_open_rerun
from flows.run.preparation import prepare, released_on_failure
from flows.run.review_gate import check_can_review, pass_review
from tasks.campaigns import Refresh, find_campaign
from tasks.customers.staging import keep_staged
from tasks.customers.sync import update_customers
from tasks.customers.upload import create_group, upload_customers
from tasks.refresh.claim import claim_campaign, close_refresh, release_refresh
from tasks.refresh.plan import check_plan
from tasks.refresh.preview import compare_with_run
from tasks.refresh.report import RefreshResult
from tasks.refresh.rerun import initiate_rerun, wait_for_rerun
from tasks.refresh.started import Started, find_started, note_started
from tasks.ui import assets
from tasks.ui.artifacts import link_campaign


@flow(
    name="campaign-refresh",
    flow_run_name="refresh-{campaign_id}",
    on_cancellation=[name_open_rerun],
)
def campaign_refresh(
    campaign_id: str,
    account: NudgescribeAccount,
    crm: Crm,
    lake: DataLake,
    options: RefreshOptions = RefreshOptions(),  # noqa: B008 - frozen
) -> RefreshResult | State[Any]:
    """Pulls a campaign's customer list, re-runs the campaign on it and fetches the messages.

    Ends in state Skipped or Joined if another refresh of the campaign is open, in Stopped if it was
    to end before the publication, in Rejected or ReviewOverdue if the review went so.

    Args:
        campaign_id: ID of the published campaign to refresh.
        account: The Nudgescribe account.
        crm: Where the customer list comes from.
        lake: The data lake.
        options: Advanced settings.
    """
    check_can_review(options.review)
    me, watch = this_refresh(), Stopwatch()
    claim = claim_campaign(lake, campaign_id, me, options.overlap, options.longest)
    if claim.refresh is None:
        return completed(claim.outcome, claim.said, claim.result)
    refresh = claim.refresh
    started = find_started(lake, refresh)
    if started is None:
        started = _start(campaign_id, account, crm, lake, options, me, refresh, watch)
    try:
        compared = wait_for_rerun(account, started.run, options.rerun_minutes)
    except RerunFailed as error:
        close_refresh(lake, campaign_id, me, refresh, problem=error.problem)
        raise
    watch.lap("rerun")
    if stopped := pass_review(account, started, options.review, options.review_minutes):
        return stopped
    watch.lap("review")
    result = publish_and_fetch(account, lake, refresh, started, compared, options, watch)
    close_refresh(lake, campaign_id, me, refresh, result=result)
    return result


def _start(
    campaign_id: str,
    account: NudgescribeAccount,
    crm: CrmSource,
    lake: DataLake,
    options: RefreshOptions,
    me: Refresh,
    refresh: Refresh,
    watch: Stopwatch,
) -> Started:
    """Everything up to the rerun's start."""
    link_campaign(account, campaign_id)
    reuse = options.group == "reuse"
    with released_on_failure(partial(release_refresh, lake, campaign_id, me, refresh)):
        campaign = find_campaign(account, campaign_id, refresh, options.group_name, reuse)
        validated = prepare(
            account, campaign.workspace_id, crm, lake, refresh, options, campaign.place
        )
        watch.lap("extract and validate")
        expected = compare_with_run(account, campaign, validated, lake, refresh)
        counts = validated.counts(expected.before, expected.new, expected.orphaned)
        options.guardrails.check(counts)
        if options.plan_id:
            check_plan(lake, options.plan_id, campaign, validated)
        keep_staged(lake, refresh)
    group = create_group(account, campaign, options.group_name, refresh, reuse)
    filled: Any = {
        "assets": [assets.group(account, group.customer_group_id)],
        "asset_deps": [assets.crm(crm)],
    }
    if reuse:
        update = update_customers.with_options(**filled)
        update(account, group, validated.accepted, validated.key, lake)
    else:
        upload_customers.with_options(**filled)(account, group, validated.accepted, lake)
    watch.lap("upload")
    run = initiate_rerun(account, campaign, group)
    started = Started(
        campaign=campaign, validated=validated, expected=expected, group=group, run=run
    )
    note_started(lake, refresh, started)
    return started
