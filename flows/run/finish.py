"""How a reviewed rerun ends: published, fetched, proved, and visible in the lake."""

from datetime import UTC, datetime

from blocks import DataLake, NudgescribeAccount
from flows.options import Fetching
from flows.run.fetch import commit, fetch_run
from flows.run.flow_run import Stopwatch
from nudgescribe.contract import ComparisonSummary
from nudgescribe.errors import Retryable
from tasks.campaigns import Refresh, publish_run
from tasks.export.run import RunToExport, announce_run
from tasks.export.run_diff import RunDiffSummary, compare_messages
from tasks.refresh.reconcile import reconcile
from tasks.refresh.report import RefreshResult, report_refresh
from tasks.refresh.started import Started


def publish_and_fetch(
    account: NudgescribeAccount,
    lake: DataLake,
    refresh: Refresh,
    started: Started,
    compared: ComparisonSummary | None,
    options: Fetching,
    watch: Stopwatch,
) -> RefreshResult:
    """Publishes the run and brings its messages into the lake, proved against the list."""
    campaign, validated = started.campaign, started.validated
    group, run = started.group, started.run
    publish_run(account, run)
    published_at = datetime.now(UTC).replace(microsecond=0)
    exported = RunToExport(
        campaign_id=run.campaign_id,
        run_number=run.run_number,
        customer_group_id=group.customer_group_id,
        job_uid=run.job_uid,
        rows=validated.accepted.rows,
        previous_run=campaign.previous_run,
        previous_pages=campaign.previous_pages,
    )
    export = fetch_run(account, exported, lake, refresh, options)
    watch.lap("publish and fetch")
    reconcile(account, group, export, validated, lake)
    in_lake = commit(account, export, lake)
    watch.lap("reconcile")
    run_diff = _run_diff(lake, run.campaign_id, run.run_number)
    watch.lap("compare")
    counted = compared or started.expected
    result = RefreshResult(
        campaign_id=run.campaign_id,
        campaign=campaign.name,
        run_number=run.run_number,
        customer_group_id=group.customer_group_id,
        group=group.name,
        extracted=validated.extracted,
        accepted=validated.accepted.rows,
        rejected=validated.rejected,
        broken_rules=validated.broken_rules,
        quarantine=validated.quarantine,
        previous_run=campaign.previous_run,
        matched=counted.matched,
        new=counted.new,
        orphaned=counted.orphaned,
        customers_in_new=started.expected.customers_in_new,
        published_at=published_at,
        run_diff=run_diff,
        files=in_lake.files,
        rows=in_lake.rows,
        bytes=in_lake.bytes,
        path=in_lake.folder,
        seconds=watch.seconds,
    )
    report_refresh(account, lake, result)
    announce_run("campaign.refreshed", run.campaign_id, lake, in_lake, name=campaign.name)
    return result


def _run_diff(lake: DataLake, campaign_id: str, run_number: int) -> RunDiffSummary:
    """Once the messages are in the lake, a refresh does not fail for want of a comparison."""
    try:
        return compare_messages(lake, campaign_id, run_number)
    except Retryable as error:
        return RunDiffSummary(problem=error.problem)
