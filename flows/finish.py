"""How a reviewed rerun ends: published, fetched, proved, and visible in the lake."""

from flows.export import fetch_run
from flows.options import Fetching
from flows.stopwatch import Stopwatch
from nudgescribe.contract import ComparisonSummary
from tasks.campaigns import Refresh, publish_run
from tasks.export import RunToExport, commit_run
from tasks.reconcile import reconcile
from tasks.report import RefreshResult, report_refresh
from tasks.started import Started


def publish_and_fetch(
    account: str,
    lake: str,
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
    in_lake = commit_run(export, lake)
    watch.lap("reconcile")
    counted = compared or started.expected
    result = RefreshResult(
        campaign_id=run.campaign_id,
        campaign=campaign.name,
        run_number=run.run_number,
        customer_group_id=group.customer_group_id,
        group=group.name,
        extracted=validated.extracted,
        accepted=validated.accepted.rows,
        quarantined=validated.rejected,
        quarantine=validated.quarantine,
        matched=counted.matched,
        new=counted.new,
        orphaned=counted.orphaned,
        customers_in_new=started.expected.customers_in_new,
        files=in_lake.files,
        rows=in_lake.rows,
        bytes=in_lake.bytes,
        path=in_lake.folder,
        seconds=watch.seconds,
    )
    report_refresh(result)
    return result
