"""One campaign refreshed: customer list in, messages in the lake."""

from time import monotonic

from prefect import flow

from flows.export import fetch_run
from flows.identity import this_refresh
from flows.options import RefreshOptions
from flows.preparation import prepare, released_on_failure
from tasks.campaigns import find_campaign, publish_campaign
from tasks.changes import update_customers
from tasks.compare import compare_with_run
from tasks.export import RunToExport, commit_run
from tasks.groups import create_group, upload_customers
from tasks.plan import check_plan
from tasks.reconcile import reconcile
from tasks.report import RefreshResult, report_refresh
from tasks.reruns import initiate_rerun, wait_for_rerun, wait_for_review
from tasks.staging import keep_staged, remove_staged


@flow(name="campaign-refresh", flow_run_name="refresh-{campaign_id}")
def campaign_refresh(
    campaign_id: str,
    account: str = "main",
    crm: str = "sql-crm/main",
    lake: str = "main",
    options: RefreshOptions = RefreshOptions(),  # noqa: B008 - frozen
) -> RefreshResult:
    """Pulls a campaign's customer list, re-runs the campaign on it and fetches the messages.

    Args:
        campaign_id: The campaign, in state Published.
        account: Name of the Nudgescribe account block.
        crm: Type and name of the CRM block, such as sql-crm/main or file-crm/main.
        lake: Name of the data lake block.
        options: Everything else that can be set.
    """
    refresh = this_refresh()
    watch = Stopwatch()
    reuse = options.group == "reuse"
    campaign = find_campaign(account, campaign_id, refresh, options.group_name, reuse)
    with released_on_failure(lake, refresh):
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
    if reuse:
        update_customers(account, group, validated.accepted, validated.key, lake)
    else:
        upload_customers(account, group, validated.accepted, lake)
    watch.lap("upload")
    run = initiate_rerun(account, campaign, group, refresh)
    compared = wait_for_rerun(account, run, options.rerun_minutes) or expected
    watch.lap("rerun")
    wait_for_review(account, run, options.review_minutes)
    watch.lap("review")
    publish_campaign(account, run)
    exported = RunToExport(
        campaign_id=campaign_id,
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
    result = RefreshResult(
        campaign_id=campaign_id,
        campaign=campaign.name,
        run_number=run.run_number,
        customer_group_id=group.customer_group_id,
        group=group.name,
        extracted=validated.extracted,
        accepted=validated.accepted.rows,
        quarantined=validated.rejected,
        quarantine=validated.quarantine,
        matched=compared.matched,
        new=compared.new,
        orphaned=compared.orphaned,
        customers_in_new=expected.customers_in_new,
        files=in_lake.files,
        rows=in_lake.rows,
        bytes=in_lake.bytes,
        path=in_lake.folder,
        seconds=watch.seconds,
    )
    report_refresh(result)
    remove_staged(lake, refresh)
    return result


class Stopwatch:
    """Seconds per step, by name; a step ends with its `lap`."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = monotonic()

    def lap(self, step: str) -> None:
        now = monotonic()
        self.seconds[step] = round(now - self._last, 2)
        self._last = now
