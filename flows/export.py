"""The export of published runs into the lake."""

from prefect import flow

from blocks import DataLake, NudgescribeAccount
from flows.options import ExportOptions
from flows.run.fetch import check_fetch, commit_fetched, fetch_run, hand_over, save_run_segments
from flows.run.flow_run import check_reachable, this_run
from flows.run.parameters import tells_of_blocks
from tasks.export.run import (
    ExportIncomplete,
    RunInLake,
    RunToExport,
    WhichRuns,
    announce_run,
    find_runs,
)
from tasks.journal.flow_runs import journaled
from tasks.journal.history import Counted, note_counts
from tasks.ui.artifacts import link_campaign
from tasks.ui.signals import name_flow_run


@tells_of_blocks
@flow(name="export-messages", flow_run_name="export-{campaign_id}-{run}", persist_result=False)
def export_messages(
    campaign_id: str,
    account: NudgescribeAccount,
    lake: DataLake,
    run: WhichRuns = "latest",
    options: ExportOptions = ExportOptions(),  # noqa: B008 - frozen
) -> list[RunInLake]:
    """Fetch the messages of published runs that are not in the lake yet.

    If some are incomplete, raises ExportIncomplete once all others are in the lake; a retry fetches
    what is missing.

    Args:
        campaign_id: ID of the campaign.
        account: The Nudgescribe account.
        lake: The data lake.
        run: Number of a run; or latest, for the campaign's current run; or all.
        options: Advanced settings.
    """
    check_fetch(options)
    in_lake: list[RunInLake] = []
    incomplete: list[ExportIncomplete] = []
    check_reachable(lake)
    with journaled(lake, this_run(campaign_id), resumable=True) as journaled_run:
        check_reachable(account)
        runs = find_runs(account, campaign_id, lake, run, options.check_rows)
        _name(account, runs)
        for published in runs:
            try:
                export = fetch_run(
                    account, published, lake, journaled_run, options, options.rewrite
                )
            except ExportIncomplete as error:
                incomplete.append(error)
            else:
                in_lake.append(commit_fetched(account, export, lake))
                save_run_segments(account, lake, published, members=options.members)
                announce_run("campaign.exported", campaign_id, lake, in_lake[-1])
        hand_over(lake, campaign_id, [run.run_number for run in in_lake], options)
        if incomplete:
            raise ExportIncomplete(" ".join(error.problem for error in incomplete))
        note_counts(lake, journaled_run, _counted(in_lake))
    return in_lake


def _name(account: NudgescribeAccount, runs: list[RunToExport]) -> None:
    """Let people recognise the flow run, and find the campaign."""
    first, *others = runs
    which = "all runs" if others else f"run {first.run_number}"
    name_flow_run(first.campaign, first.workspace, f", export of {which}")
    link_campaign(account, first.campaign_id, first.campaign)


def _counted(in_lake: list[RunInLake]) -> Counted:
    """Return the export in numbers; the run's, if it is one."""
    number = {"run_number": in_lake[0].run_number} if len(in_lake) == 1 else {}
    rows, size = sum(run.rows for run in in_lake), sum(run.bytes for run in in_lake)
    return Counted(counts={**number, "rows": rows, "bytes": size})
