"""A published run fetched into the lake, by threads or by the machines of a Dask or Ray cluster."""

from concurrent.futures import CancelledError
from time import monotonic
from typing import Any

from prefect.futures import PrefectFuture, wait
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from blocks import DataLake, NudgescribeAccount
from flows.options import Fetching
from nudgescribe.polling import Pace, poll
from tasks.campaigns import Refresh
from tasks.export.download import CHUNKS_AT_ONCE, ExportRef
from tasks.export.run import (
    ExportIncomplete,
    RunInLake,
    RunToExport,
    check_export,
    chunks,
    commit_run,
    fetch_chunk,
    plan_export,
)
from tasks.ui import assets
from tasks.ui.artifacts import artifact_key
from tasks.ui.progress import Board, Done, done_here, forget_meters

PACE = Pace(first=1, longest=120)


SECONDS_BETWEEN_LOOKS = 0.5


SECONDS_TO_GATHER = 30.0


MOST_LOST = 10
"""Chunks begun again because their worker died."""


def commit(account: NudgescribeAccount, export: ExportRef, lake: DataLake) -> RunInLake:
    """Makes a fetched run visible, in the lake and among Prefect's assets."""
    messages = assets.messages(lake, export.campaign_id)
    source = assets.campaign(account, export.campaign_id)
    return commit_run.with_options(assets=[messages], asset_deps=[source])(export, lake)


def fetch_run(
    account: NudgescribeAccount,
    run: RunToExport,
    lake: DataLake,
    refresh: Refresh,
    options: Fetching,
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


def _fetch_chunks(
    account: NudgescribeAccount, export: ExportRef, lake: DataLake, options: Fetching
) -> None:
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


def runner_of(options: Fetching) -> TaskRunner[Any]:
    """Where the chunks are worked on."""
    if options.task_runner == "dask":
        from prefect_dask.task_runners import DaskTaskRunner

        return DaskTaskRunner(address=options.cluster)
    if options.task_runner == "ray":
        from prefect_ray.task_runners import RayTaskRunner

        quiet = {"include_dashboard": False, "log_to_driver": False}
        return RayTaskRunner(options.cluster, init_kwargs=None if options.cluster else quiet)
    return ThreadPoolTaskRunner[Any](max_workers=CHUNKS_AT_ONCE)


def losses_of(options: Fetching) -> tuple[type[Exception], ...]:
    """What is raised in place of a chunk's result when the cluster has lost the chunk."""
    if options.task_runner == "dask":
        from distributed import KilledWorker

        return (KilledWorker, CancelledError)
    return (CancelledError,)
