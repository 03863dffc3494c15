"""One run's messages brought into the lake."""

from prefect import flow

from blocks import DataLake, NudgescribeAccount
from flows.options import ExportOptions
from flows.run.fetch import commit, fetch_run
from flows.run.flow_run import this_refresh
from tasks.customers.staging import remove_staged
from tasks.export.run import (
    ExportIncomplete,
    RunInLake,
    WhichRuns,
    announce_run,
    find_runs,
)
from tasks.ui.artifacts import link_campaign


@flow(name="export-messages", flow_run_name="export-{campaign_id}-{run}")
def export_messages(
    campaign_id: str,
    account: NudgescribeAccount,
    lake: DataLake,
    run: WhichRuns = "latest",
    options: ExportOptions = ExportOptions(),  # noqa: B008 - frozen
) -> list[RunInLake]:
    """Fetches published runs' messages into the lake, past ones too; those that are there stay.

    A retry fetches what is missing. Raises ExportIncomplete when all others are there.

    Args:
        campaign_id: The campaign.
        account: The Nudgescribe account.
        lake: The data lake.
        run: A run's number; or latest, the run that the campaign is on; or all, to fill a lake.
        options: Advanced settings.
    """
    refresh = this_refresh()
    link_campaign(account, campaign_id)
    in_lake: list[RunInLake] = []
    incomplete: list[ExportIncomplete] = []
    for each in find_runs(account, campaign_id, run, options.check_rows):
        try:
            export = fetch_run(account, each, lake, refresh, options)
        except ExportIncomplete as error:
            incomplete.append(error)
        else:
            in_lake.append(commit(account, export, lake))
            announce_run("campaign.exported", campaign_id, lake, in_lake[-1])
    if incomplete:
        raise ExportIncomplete(" ".join(error.problem for error in incomplete))
    remove_staged(lake, refresh)
    return in_lake
