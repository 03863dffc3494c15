"""The last steps of a refresh: its reviewed run is published, fetched, reconciled and committed."""

from typing import Any

from prefect.client.schemas.objects import State

from blocks import DataLake
from flows.options import FetchOptions
from flows.run.fetch import commit_fetched, fetch_run, hand_over, save_run_segments
from flows.run.flow_run import ClaimedRefresh
from flows.run.last_page import log_last_page
from flows.run.outcomes import failed
from nudgescribe.contract import ComparisonSummary
from nudgescribe.errors import Retryable
from tasks.campaigns import publish_run
from tasks.customers.group_check import check_identifiers
from tasks.customers.holdout import save_holdout
from tasks.customers.second_look import SecondLook, SuppressedTooLate, look_again
from tasks.customers.upload import release_group
from tasks.export.run import RunToExport, announce_run
from tasks.export.run_diff import RunDiffSummary, compare_messages
from tasks.journal.refresh import Refresh
from tasks.refresh.checkpoint import (
    Checkpoint,
    Committed,
    load_finished_steps,
    save_committed,
    time_steps,
)
from tasks.refresh.reconcile import check_suppressed, reconcile
from tasks.refresh.report import RefreshResult, report_refresh, sentences
from tasks.refresh.run_shown import look_at_run
from tasks.ui.artifacts import link_report


def keep_holdout(claimed: ClaimedRefresh, checkpoint: Checkpoint) -> None:
    """Write the customers whom the run leaves out to the lake, as soon as it has a number."""
    if checkpoint.validated.holdout:
        save_holdout(claimed.lake, checkpoint.run, checkpoint.validated.holdout)


def publish_and_fetch(
    claimed: ClaimedRefresh,
    checkpoint: Checkpoint,
    summary: ComparisonSummary | None,
    options: FetchOptions,
) -> RefreshResult | State[Any]:
    """Publish the run, bring its messages into the lake, and close the refresh with its result.

    Return the state SuppressedTooLate in place of it, and publish nothing, if customers who must
    not be written to cannot be taken out of the run.
    """
    account, lake, watch = claimed.account, claimed.lake, claimed.watch
    finished = load_finished_steps(lake, claimed.refresh)
    committed = finished.committed
    if committed is None:
        published = finished.published is not None
        try:
            look = _look_again(claimed, checkpoint, published)
        except SuppressedTooLate as error:
            claimed.note(error)
            return failed("SuppressedTooLate", error)
        if not published:
            check_identifiers(account, checkpoint.group, checkpoint.validated, lake)
        committed = _fetch_and_commit(claimed, checkpoint, look, options)
    # A group that was updated has its changes noted already.
    changed = None if checkpoint.group.reused else claimed.refresh
    run_diff = _run_diff(lake, claimed.campaign_id, committed.run.run_number, changed)
    watch.lap("compare")
    save_run_segments(account, lake, _to_export(checkpoint), checkpoint.validated)
    watch.lap("segments")
    hand_over(lake, claimed.campaign_id, [committed.run.run_number], options)
    seconds = time_steps(lake, claimed.refresh)
    result = _result(checkpoint, summary, committed, run_diff, seconds)
    report = report_refresh(account, lake, result, look_at_run(account, lake, checkpoint))
    announce_run(
        "campaign.refreshed", claimed.campaign_id, lake, committed.run, name=result.campaign
    )
    if checkpoint.group.reused:
        release_group(account, checkpoint.group, claimed.refresh)
    claimed.complete(result)
    link_report(report, *sentences(result))
    log_last_page()
    return result


def _look_again(
    claimed: ClaimedRefresh, checkpoint: Checkpoint, published: bool
) -> SecondLook | None:
    """Look at the suppression list again, if there is one: before each publication, for one that
    is repeated exports again.
    """
    validated = checkpoint.validated
    if validated.suppression is None:
        return None
    return look_again(
        claimed.account,
        checkpoint.group,
        checkpoint.run,
        validated,
        validated.suppression,
        claimed.lake,
        claimed.refresh,
        published=published,
    )


def _fetch_and_commit(
    claimed: ClaimedRefresh,
    checkpoint: Checkpoint,
    look: SecondLook | None,
    options: FetchOptions,
) -> Committed:
    account, lake, refresh = claimed.account, claimed.lake, claimed.refresh
    published = publish_run(account, checkpoint.run, lake, refresh)
    export = fetch_run(account, _to_export(checkpoint), lake, refresh, options)
    claimed.watch.lap("publish and fetch")
    if look:
        check_suppressed(export, look, lake, refresh)
    erased = reconcile(account, checkpoint.group, export, checkpoint.validated, lake)
    in_lake = commit_fetched(account, export, lake)
    joined = look.joined if look else 0
    committed = Committed(
        run=in_lake,
        erased=max(0, erased - joined),
        suppressed_since=joined,
        published_at=published.at,
    )
    claimed.watch.lap("reconcile")
    return save_committed(lake, refresh, committed)


def _to_export(checkpoint: Checkpoint) -> RunToExport:
    campaign, run = checkpoint.campaign, checkpoint.run
    return RunToExport(
        campaign_id=run.campaign_id,
        run_number=run.run_number,
        workspace_id=checkpoint.group.workspace_id,
        customer_group_id=checkpoint.group.customer_group_id,
        job_uid=run.job_uid,
        check_rows=True,
        previous_run=campaign.previous_run,
        previous_pages=campaign.previous_pages,
        campaign=campaign.name,
        workspace=campaign.workspace,
    )


def _run_diff(
    lake: DataLake, campaign_id: str, run_number: int, changed: Refresh | None
) -> RunDiffSummary:
    """Compare the run, unless the lake is away: its messages are there, so nothing fails for it."""
    try:
        return compare_messages(lake, campaign_id, run_number, changed)
    except Retryable as error:
        return RunDiffSummary(problem=error.problem)


def _result(
    checkpoint: Checkpoint,
    summary: ComparisonSummary | None,
    committed: Committed,
    run_diff: RunDiffSummary,
    seconds: dict[str, float],
) -> RefreshResult:
    campaign, validated, in_lake = checkpoint.campaign, checkpoint.validated, committed.run
    segments = summary or checkpoint.expected
    return RefreshResult(
        campaign_id=campaign.campaign_id,
        campaign=campaign.name,
        run_number=checkpoint.run.run_number,
        customer_group_id=checkpoint.group.customer_group_id,
        group=checkpoint.group.name,
        extracted=validated.extracted,
        accepted=validated.accepted.rows,
        rejected=validated.rejected,
        broken_rules=validated.broken_rules,
        quarantine=validated.quarantine,
        duplicates=validated.duplicates,
        fingerprint=validated.fingerprint,
        previous_run=campaign.previous_run,
        matched=segments.matched,
        new=segments.new,
        orphaned=segments.orphaned,
        customers_in_new=checkpoint.expected.customers_in_new,
        published_at=committed.published_at,
        erased=committed.erased,
        erased_before=validated.erased,
        suppressed=validated.suppressed,
        held_out=validated.held_out,
        suppressed_since=committed.suppressed_since,
        other_holdout=validated.other_holdout,
        run_diff=run_diff,
        files=in_lake.files,
        rows=in_lake.rows,
        bytes=in_lake.bytes,
        path=in_lake.folder,
        seconds=seconds,
    )
