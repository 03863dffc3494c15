"""The fetch of a published run into the lake, by threads or on a Dask or Ray cluster."""

from collections.abc import Sequence
from concurrent.futures import CancelledError
from time import monotonic
from typing import Any

from prefect.futures import PrefectFuture, wait
from prefect.logging import get_run_logger
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from blocks import DataLake, NudgescribeAccount
from blocks.extras import require
from flows.options import FetchOptions
from nudgescribe.errors import Retryable
from nudgescribe.retry import PollPolicy, poll
from tasks import lineage
from tasks.customers.validate import Validated
from tasks.export.download import CHUNKS_AT_ONCE, ExportRef
from tasks.export.hand_over import check_table, copy_messages, write_handover
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
from tasks.export.segments import save_segments
from tasks.journal.refresh import Refresh
from tasks.ui import assets
from tasks.ui.artifacts import artifact_key
from tasks.ui.progress import Progress, ProgressDisplay, discard_counters, progress_here

POLL_POLICY = PollPolicy(first_wait=1, longest_wait=120)
POLL_SECONDS = 0.5
SECONDS_TO_GATHER = 30.0
MOST_LOST = 10
"""Chunks submitted again because their worker died."""


def commit_fetched(account: NudgescribeAccount, export: ExportRef, lake: DataLake) -> RunInLake:
    """Make a fetched run visible in the lake, and materialize its Prefect asset."""
    messages = assets.messages(lake, export.campaign_id)
    source = assets.campaign(account, export.campaign_id)
    commit = commit_run.with_options(assets=[messages], asset_deps=[source])
    read = lineage.Dataset.of(source, export.run_number)
    made = lineage.Dataset.messages(lake, export.campaign_id, export.run_number)
    with lineage.told("export", read, made) as written:
        run = commit(export, lake)
        written.rows, written.files = run.rows, run.files
    return run


def save_run_segments(
    account: NudgescribeAccount,
    lake: DataLake,
    run: RunToExport,
    validated: Validated | None = None,
    *,
    members: bool = True,
) -> None:
    """Write a run's segments and, if asked for, their members beside it, as far as they can be had:
    nothing fails for them, and the next export of the run adds what is missing.
    """
    try:
        save_segments(account, lake, run, validated, members=members)
    except Retryable as error:
        get_run_logger().warning("Run %s lacks segments: %s", run.run_number, error)


def fetch_run(
    account: NudgescribeAccount,
    run: RunToExport,
    lake: DataLake,
    refresh: Refresh,
    options: FetchOptions,
    rewrite: bool = False,
) -> ExportRef:
    """Fetch a run's pages until they add up; they are not visible before they are committed. With
    `rewrite`, a run that is in the lake is fetched again.

    Raises ExportIncomplete if they do not add up within `options.export_minutes`.
    """
    end = monotonic() + options.export_minutes * 60
    problem: str | None = None

    def attempt() -> ExportRef | None:
        nonlocal problem
        minutes = max(0.0, end - monotonic()) / 60
        try:
            export = plan_export(account, run, lake, refresh, minutes, rewrite)
        except ExportIncomplete as error:
            # The last poll has little time: what the polls before have found counts more.
            problem = problem or error.problem
            return None
        if export.done:
            return export
        _fetch_chunks(account, export, lake, options, run.campaign)
        problem = check_export(export, lake)
        return export if problem is None else None

    for export in poll(attempt, options.export_minutes * 60, POLL_POLICY):
        if export:
            return export
    raise ExportIncomplete(f"{problem} It did not change in {options.export_minutes:g} minutes.")


def _fetch_chunks(
    account: NudgescribeAccount,
    export: ExportRef,
    lake: DataLake,
    options: FetchOptions,
    name: str,
) -> None:
    parameters = {
        "account": account,
        "export": export,
        "lake": lake,
        "downloads": options.downloads,
    }
    key = artifact_key("export", name, export.campaign_id)
    with runner_of(options) as runner, ProgressDisplay(key, export.pages) as display:

        def submit(chunk: tuple[int, int]) -> PrefectFuture[Progress]:
            return runner.submit(fetch_chunk, {**parameters, "first": chunk[0], "last": chunk[1]})

        pending = {submit(chunk): chunk for chunk in chunks(export)}
        losses, lost = losses_of(options), 0
        finished = Progress()
        while pending:
            done, _ = wait(list(pending), timeout=POLL_SECONDS)
            for future in done:
                chunk = pending.pop(future)
                try:
                    finished += future.result(timeout=SECONDS_TO_GATHER)
                except TimeoutError:
                    if future.state.is_final():
                        raise
                    pending[future] = chunk  # its worker died with the result; it is recomputed
                except losses:
                    lost += 1
                    if lost > MOST_LOST:
                        raise
                    pending[submit(chunk)] = chunk
            here = (progress_here(export.writer, first) for first, _ in pending.values())
            display.update(sum(here, finished))
        display.update(finished, last=True)
    discard_counters(export.writer)


def hand_over(
    lake: DataLake, campaign_id: str, run_numbers: Sequence[int], options: FetchOptions
) -> None:
    """Hand over runs that are in the lake, as far as the options say."""
    if options.hand_over:
        for number in run_numbers:
            write_handover(lake, campaign_id, number, options.hand_over)
    if options.copy_to and run_numbers:
        copy_messages(lake, campaign_id, options.copy_to)


def check_fetch(options: FetchOptions) -> None:
    """Raise ExtraMissing if the library of the task runner is not installed, or what `check_table`
    raises: before the rerun, not when its messages are fetched.
    """
    if options.copy_to:
        check_table(options.copy_to)
    if options.task_runner != "threads":
        require(options.task_runner, f"options.task_runner {options.task_runner}")


def runner_of(options: FetchOptions) -> TaskRunner[Any]:
    """Return the task runner that runs the chunks."""
    if options.task_runner == "dask":
        from prefect_dask.task_runners import DaskTaskRunner

        return DaskTaskRunner(address=options.cluster)
    if options.task_runner == "ray":
        from prefect_ray.task_runners import RayTaskRunner

        quiet = {"include_dashboard": False, "log_to_driver": False}
        return RayTaskRunner(options.cluster, init_kwargs=None if options.cluster else quiet)
    return ThreadPoolTaskRunner[Any](max_workers=CHUNKS_AT_ONCE)


def losses_of(options: FetchOptions) -> tuple[type[Exception], ...]:
    """Return the errors raised instead of a chunk's result when the cluster has lost the chunk."""
    if options.task_runner == "dask":
        from distributed import KilledWorker

        return (KilledWorker, CancelledError)
    return (CancelledError,)
