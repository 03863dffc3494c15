"""The last steps of a refresh: its reviewed run is published, fetched, reconciled and committed."""

from datetime import UTC, datetime

from blocks import DataLake
from flows.options import FetchOptions
from flows.run.fetch import commit, fetch_run
from flows.run.flow_run import ClaimedRefresh
from nudgescribe.contract import ComparisonSummary
from nudgescribe.errors import Retryable
from tasks.campaigns import publish_run
from tasks.export.run import RunInLake, RunToExport, announce_run
from tasks.export.run_diff import RunDiffSummary, compare_messages
from tasks.refresh.checkpoint import Checkpoint
from tasks.refresh.reconcile import reconcile
from tasks.refresh.report import RefreshResult, report_refresh


def publish_and_fetch(
    claimed: ClaimedRefresh,
    checkpoint: Checkpoint,
    summary: ComparisonSummary | None,
    options: FetchOptions,
) -> RefreshResult:
    """Publish the run, bring its messages into the lake, and close the refresh with its result."""
    account, lake, watch, run = claimed.account, claimed.lake, claimed.watch, checkpoint.run
    publish_run(account, run)
    published_at = datetime.now(UTC).replace(microsecond=0)
    export = fetch_run(account, _to_export(checkpoint), lake, claimed.refresh, options)
    watch.lap("publish and fetch")
    reconcile(account, checkpoint.group, export, checkpoint.validated, lake)
    in_lake = commit(account, export, lake)
    watch.lap("reconcile")
    run_diff = _run_diff(lake, run.campaign_id, run.run_number)
    watch.lap("compare")
    result = _result(checkpoint, summary, published_at, in_lake, run_diff, watch.seconds)
    report_refresh(account, lake, result)
    announce_run("campaign.refreshed", run.campaign_id, lake, in_lake, name=result.campaign)
    claimed.complete(result)
    return result


def _to_export(checkpoint: Checkpoint) -> RunToExport:
    campaign, run = checkpoint.campaign, checkpoint.run
    return RunToExport(
        campaign_id=run.campaign_id,
        run_number=run.run_number,
        customer_group_id=checkpoint.group.customer_group_id,
        job_uid=run.job_uid,
        rows=checkpoint.validated.accepted.rows,
        previous_run=campaign.previous_run,
        previous_pages=campaign.previous_pages,
    )


def _run_diff(lake: DataLake, campaign_id: str, run_number: int) -> RunDiffSummary:
    """Compare the run, unless the lake is away: its messages are there, so nothing fails for it."""
    try:
        return compare_messages(lake, campaign_id, run_number)
    except Retryable as error:
        return RunDiffSummary(problem=error.problem)


def _result(
    checkpoint: Checkpoint,
    summary: ComparisonSummary | None,
    published_at: datetime,
    in_lake: RunInLake,
    run_diff: RunDiffSummary,
    seconds: dict[str, float],
) -> RefreshResult:
    campaign, validated = checkpoint.campaign, checkpoint.validated
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
        previous_run=campaign.previous_run,
        matched=segments.matched,
        new=segments.new,
        orphaned=segments.orphaned,
        customers_in_new=checkpoint.expected.customers_in_new,
        published_at=published_at,
        run_diff=run_diff,
        files=in_lake.files,
        rows=in_lake.rows,
        bytes=in_lake.bytes,
        path=in_lake.folder,
        seconds=seconds,
    )
