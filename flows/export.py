"""One run's messages brought into the lake."""

from time import monotonic

from prefect import flow
from prefect.futures import PrefectFuture, wait

from flows.options import ExportOptions, Fetching
from flows.run.identity import this_refresh
from flows.run.runners import losses_of, runner_of
from nudgescribe.polling import Pace, poll
from tasks.campaigns import Refresh
from tasks.customers.staging import remove_staged
from tasks.export.download import ExportRef
from tasks.export.run import (
    ExportIncomplete,
    RunInLake,
    RunToExport,
    WhichRuns,
    check_export,
    chunks,
    commit_run,
    fetch_chunk,
    find_runs,
    plan_export,
)
from tasks.refresh.report import artifact_key
from tasks.ui import assets
from tasks.ui.events import announce_run
from tasks.ui.links import link_campaign
from tasks.ui.progress import Board, Done, done_here, forget_meters

PACE = Pace(first=1, longest=120)
SECONDS_BETWEEN_LOOKS = 0.5
SECONDS_TO_GATHER = 30.0
MOST_LOST = 10
"""Chunks begun again because their worker died."""


@flow(name="export-messages", flow_run_name="export-{campaign_id}-{run}")
def export_messages(
    campaign_id: str,
    run: WhichRuns = "latest",
    account: str = "main",
    lake: str = "main",
    options: ExportOptions = ExportOptions(),  # noqa: B008 - frozen
) -> list[RunInLake]:
    """Fetches published runs' messages into the lake, past ones too; those that are there stay.

    A retry fetches what is missing. Raises ExportIncomplete when all others are there.

    Args:
        campaign_id: The campaign.
        run: A run's number; or latest, the run that the campaign is on; or all, to fill a lake.
        account: Name of the Nudgescribe account block.
        lake: Name of the data lake block.
        options: Everything else that can be set.
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


def commit(account: str, export: ExportRef, lake: str) -> RunInLake:
    """Makes a fetched run visible, in the lake and among Prefect's assets."""
    messages = assets.messages(lake, export.campaign_id)
    source = assets.campaign(account, export.campaign_id)
    return commit_run.with_options(assets=[messages], asset_deps=[source])(export, lake)


def fetch_run(
    account: str, run: RunToExport, lake: str, refresh: Refresh, options: Fetching
) -> ExportRef:
    """Fetches a run's pages until they add up; nobody sees them before they are committed.

    Raises ExportIncomplete when they do not within the time.
    """
    end = monotonic() + options.export_minutes * 60

    def attempt() -> tuple[ExportRef, str | None]:
        minutes = max(0.0, end - monotonic()) / 60
        export = plan_export(account, run, lake, refresh, minutes)
        if export.done:
            return export, None
        _fetch_chunks(account, export, lake, options)
        return export, check_export(export, lake)

    problem = None
    for export, problem in poll(attempt, options.export_minutes * 60, PACE):
        if problem is None:
            return export
    raise ExportIncomplete(f"{problem} It did not change in {options.export_minutes:g} minutes.")


def _fetch_chunks(account: str, export: ExportRef, lake: str, options: Fetching) -> None:
    parameters = {
        "account": account,
        "export": export,
        "lake": lake,
        "downloads": options.downloads,
    }
    key = artifact_key("export", export.campaign_id)
    with runner_of(options) as runner, Board(key, export.pages) as board:

        def submit(chunk: tuple[int, int]) -> PrefectFuture[Done]:
            return runner.submit(fetch_chunk, {**parameters, "first": chunk[0], "last": chunk[1]})

        open_ = {submit(chunk): chunk for chunk in chunks(export)}
        lost, begun_again = losses_of(options), 0
        finished = Done()
        while open_:
            done, _ = wait(list(open_), timeout=SECONDS_BETWEEN_LOOKS)
            for future in done:
                chunk = open_.pop(future)
                try:
                    finished += future.result(timeout=SECONDS_TO_GATHER)
                except TimeoutError:
                    if future.state.is_final():
                        raise
                    open_[future] = chunk  # its worker died with the result; it is worked out anew
                except lost:
                    # A chunk goes on where another worker left it.
                    begun_again += 1
                    if begun_again > MOST_LOST:
                        raise
                    open_[submit(chunk)] = chunk
            here = (done_here(export.writer, first) for first, _ in open_.values())
            board.show(sum(here, finished))
        board.show(finished, last=True)
    forget_meters(export.writer)
