"""The refresh of one campaign, from the customer list to the messages in the lake."""

from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from blocks import Crm, CrmSource, DataLake, NudgescribeAccount
from blocks.storage.errors import LakeUnreachable
from flows.options import RefreshOptions
from flows.run.customer_list import extract_and_validate, fill_group, update_group
from flows.run.fetch import check_fetch
from flows.run.finish import keep_holdout, publish_and_fetch
from flows.run.flow_run import ClaimedRefresh, Stopwatch, check_lake, check_reachable, this_run
from flows.run.outcomes import completed, warn_of_open_rerun
from flows.run.parameters import tells_of_blocks
from flows.run.review_gate import await_approval, check_can_review
from nudgescribe.errors import NudgeflowError, counted
from tasks import lineage
from tasks.campaigns import CampaignRef, find_campaign
from tasks.customers.group_check import check_content
from tasks.customers.second_look import check_same_suppression
from tasks.customers.upload import create_group
from tasks.customers.validate import Validated
from tasks.journal.campaign_name import name_as_known
from tasks.journal.flow_runs import journaled
from tasks.journal.history import Counted, note_counts, record_refresh
from tasks.journal.refresh import Refresh
from tasks.refresh.checkpoint import Checkpoint, load_checkpoint, load_preview, save_preview
from tasks.refresh.claim import Claim, RefreshEnded, claim_campaign, find_unchanged
from tasks.refresh.plan import check_plan
from tasks.refresh.preview import compare_with_run
from tasks.refresh.report import RefreshResult
from tasks.refresh.rerun import initiate_rerun, wait_for_rerun
from tasks.ui import assets
from tasks.ui.artifacts import link_campaign
from tasks.ui.signals import name_flow_run


@tells_of_blocks
@flow(
    name="campaign-refresh",
    flow_run_name="refresh-{campaign_id}",
    persist_result=False,
    on_cancellation=[warn_of_open_rerun],
)
def campaign_refresh(
    campaign_id: str,
    account: NudgescribeAccount,
    crm: Crm,
    lake: DataLake,
    options: RefreshOptions = RefreshOptions(),  # noqa: B008 - frozen
) -> RefreshResult | State[Any]:
    """Extract a campaign's customer list, re-run the campaign on it and fetch the messages.

    Ends in state Skipped or Joined if another refresh of the campaign is open, in Unchanged if
    options.if_unchanged is skip and nothing has changed, in Stopped if options.review is stop, in
    ReviewStopped or ReviewOverdue if the messages were not approved.

    Args:
        campaign_id: ID of the published campaign to refresh.
        account: The Nudgescribe account.
        crm: Where the customer list comes from.
        lake: The data lake.
        options: Advanced settings.
    """
    claimant, watch = this_run(), Stopwatch()
    check_reachable(lake)
    check_lake(lake, campaign_id)
    with _noting_refusal(lake, campaign_id):
        check_reachable(account)
        check_can_review(options.review)
        check_fetch(options)
        claim = _claim(account, lake, campaign_id, claimant, crm, options)
    if claim.refresh is None:
        _note_without_refresh(lake, campaign_id, claim)
        return completed(claim.outcome, claim.message, claim.result)
    claimed = ClaimedRefresh(
        campaign_id, account, lake, claimant, claim.refresh, watch, claim.abandoned
    )
    with claimed.recorded():
        checkpoint = load_checkpoint(lake, claimed.refresh)
        if checkpoint is None:
            campaign, validated = _read_list(claimed, crm, options)
            if options.if_unchanged == "skip" and (
                unchanged := find_unchanged(lake, campaign, validated)
            ):
                return _skip(claimed, options, campaign, validated, unchanged)
            checkpoint = _initiate(claimed, crm, options, campaign, validated)
        with claimed.detecting_deletion():
            return _finish(claimed, checkpoint, options)


def _note_without_refresh(lake: DataLake, campaign_id: str, claim: Claim) -> None:
    """Note in the lake's history that this flow run has left the campaign to another one."""
    if claim.outcome != "Completed":
        with journaled(lake, this_run(campaign_id), resumable=True) as run:
            name_as_known(lake, run.partition)
            note_counts(lake, run, Counted(outcome=claim.outcome.lower()))


@contextmanager
def _noting_refusal(lake: DataLake, campaign_id: str) -> Generator[None]:
    """Note in the lake's history why this flow run does not get the campaign.

    A refresh that has ended is told there already; a lake that is away is not waited for again.
    """
    try:
        yield
    except (RefreshEnded, LakeUnreachable):
        raise
    except NudgeflowError as error:
        with suppress(Exception), journaled(lake, this_run(campaign_id), resumable=False):
            raise error
        raise


def _claim(
    account: NudgescribeAccount,
    lake: DataLake,
    campaign_id: str,
    claimant: Refresh,
    crm: CrmSource,
    options: RefreshOptions,
) -> Claim:
    return claim_campaign(
        account,
        lake,
        campaign_id,
        claimant,
        options.overlap,
        options.total_minutes,
        crm.block_slug,
        options.model_dump(mode="json", exclude_unset=True),
    )


def _finish(
    claimed: ClaimedRefresh, checkpoint: Checkpoint, options: RefreshOptions
) -> RefreshResult | State[Any]:
    """Run all steps from the start of the rerun on."""
    account, lake, watch = claimed.account, claimed.lake, claimed.watch
    campaign, run = checkpoint.campaign, checkpoint.run
    name_flow_run(campaign.name, campaign.workspace, f", run {run.run_number}")
    check_same_suppression(checkpoint.validated.suppression, options.suppress)
    keep_holdout(claimed, checkpoint)
    with _told_of_rerun(account, checkpoint):
        summary = wait_for_rerun(account, lake, run, options.rerun_minutes, campaign.name)
    watch.lap("rerun")
    if stopped := await_approval(claimed, checkpoint, options.review, options.review_minutes):
        record_refresh(lake, claimed.refresh)
        return stopped
    watch.lap("review")
    return publish_and_fetch(claimed, checkpoint, summary, options)


def _told_of_rerun(
    account: NudgescribeAccount, checkpoint: Checkpoint
) -> AbstractContextManager[lineage.Written]:
    """Tell that the campaign's run is made of the group."""
    group = lineage.Dataset.of(assets.group(account, checkpoint.group.customer_group_id))
    campaign = assets.campaign(account, checkpoint.run.campaign_id)
    run = lineage.Dataset.of(campaign, checkpoint.run.run_number)
    return lineage.told("rerun", group, run)


def _read_list(
    claimed: ClaimedRefresh, crm: CrmSource, options: RefreshOptions
) -> tuple[CampaignRef, Validated]:
    """Return the campaign, and the list that is extracted and validated for it."""
    account, lake, refresh = claimed.account, claimed.lake, claimed.refresh
    campaign = find_campaign(
        account,
        claimed.campaign_id,
        lake,
        refresh,
        options.group_name,
        options.group == "reuse",
        claimed.abandoned,
    )
    name_flow_run(campaign.name, campaign.workspace)
    link_campaign(account, claimed.campaign_id, campaign.name)
    validated = extract_and_validate(
        account,
        campaign.workspace_id,
        crm,
        lake,
        refresh,
        options,
        campaign.partition,
        campaign.name,
        options.holdout,
    )
    check_same_suppression(validated.suppression, options.suppress)
    claimed.watch.lap("extract and validate")
    return campaign, validated


def _skip(
    claimed: ClaimedRefresh,
    options: RefreshOptions,
    campaign: CampaignRef,
    validated: Validated,
    last: RefreshResult,
) -> State[Any]:
    """End the refresh of a list that is still the last one, if it keeps the limits."""
    options.guardrails.check(validated.counts(last.accepted))
    if options.plan_id:
        check_plan(claimed.lake, options.plan_id, campaign, validated)
    message = f"The list is still that of run {last.run_number}, the campaign's current one."
    if validated.quarantine:
        message += f" {counted(validated.rejected, 'row', 'was')} rejected: {validated.quarantine}."
    claimed.release(message, last)
    return completed("Unchanged", message, last)


def _initiate(
    claimed: ClaimedRefresh,
    crm: CrmSource,
    options: RefreshOptions,
    campaign: CampaignRef,
    validated: Validated,
) -> Checkpoint:
    """Run all steps from the list up to the start of the rerun."""
    account, lake, refresh = claimed.account, claimed.lake, claimed.refresh
    expected = load_preview(lake, refresh)
    if expected is None:
        preview = compare_with_run(account, campaign, validated, lake)
        options.guardrails.check(validated.counts(preview.before, preview.new, preview.orphaned))
        if options.plan_id:
            check_plan(lake, options.plan_id, campaign, validated)
        expected = save_preview(lake, refresh, preview)
    group = create_group(
        account, campaign, options.group_name, lake, refresh, options.group == "reuse"
    )
    send = update_group if group.reused else fill_group
    with claimed.detecting_deletion():
        send(account, group, crm, validated, lake, refresh)
        claimed.watch.lap("upload")
        if group.reused:
            check_content(account, group, validated, lake, refresh)
        return initiate_rerun(account, lake, refresh, campaign, validated, expected, group)
