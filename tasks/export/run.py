"""The export of a run: planned, fetched in chunks of pages, checked, committed to the lake."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from itertools import pairwise
from typing import Any, Literal

from prefect import task
from prefect.assets import materialize
from prefect.logging import get_run_logger

from blocks import DataLake, NudgescribeAccount
from blocks.rerun import find_current_run, is_known, refuse_unknown
from blocks.storage.errors import TooNew
from blocks.storage.files import AlreadyThere, Files
from blocks.storage.manifest import (
    LATEST,
    Manifest,
    campaign_folder,
    manifest_name,
    run_folder,
)
from blocks.storage.part_writer import VERSIONS
from blocks.storage.reader import ManifestDamaged, find_newest, read_manifest
from nudgescribe.bases import Frozen
from nudgescribe.client import NudgescribeClient
from nudgescribe.contract import Campaign, Run, Status, WorkspaceCampaigns
from nudgescribe.errors import NotFound, NotPublished, NudgeflowError, first_ten
from nudgescribe.retry import PollPolicy, poll
from nudgescribe.telemetry import within_span
from tasks.campaigns import called, campaign_of, named_if_refused
from tasks.export.download import ExportRef, fetch_pages, slots_of
from tasks.export.ledger import Ledger
from tasks.export.verify import doubtful_pages
from tasks.journal.refresh import Refresh
from tasks.policies import RETRIED
from tasks.ui import assets
from tasks.ui.progress import Progress, start_counter
from tasks.ui.signals import announce

POLL_POLICY = PollPolicy()
ROWS_A_CHUNK = 250_000
PAGES_A_CHUNK = 8
MOST_CHUNKS = 32
LOOKS_AT_ONCE = 8
FEW_CHUNKS = 7
"""Chunks have a price: each costs Prefect as much time as half a page takes."""

WhichRuns = Literal["latest", "all"] | int


class ExportIncomplete(NudgeflowError):
    """An export's pages did not add up in time."""

    advice = (
        "Retry this flow run to fetch the pages again. A refresh that never gets them is ended by "
        "the flow abandon-refresh."
    )


class RunTaken(NudgeflowError):
    """Another flow run has written the run to the lake."""

    advice = "Nothing is lost: use what the other flow run has written."


class RunToExport(Frozen):
    """A published run, and what its pages are checked against.

    With `check_rows` the pages must hold one row for each customer of its group. Pages are this
    run's once the service has archived the `previous_pages` of the `previous_run`. If that has none
    to archive, or nobody knows how many (None), they are those written since `published_at`.
    `campaign` and `workspace` are names, for people.
    """

    campaign_id: str
    run_number: int
    workspace_id: str
    customer_group_id: str | None
    job_uid: str | None = None
    check_rows: bool = False
    past: bool = False
    previous_run: int | None = None
    previous_pages: int | None = None
    published_at: datetime | None = None
    campaign: str = ""
    workspace: str = ""


class RunInLake(Frozen):
    """A run in the lake: `folder` and `manifest` are paths there, `bytes` is its files' size."""

    run_number: int
    folder: str
    manifest: str
    files: int
    rows: int
    bytes: int


@task(**RETRIED)
def find_runs(
    account: NudgescribeAccount,
    campaign_id: str,
    lake: DataLake,
    which: WhichRuns,
    check_rows: bool,
) -> list[RunToExport]:
    """Return the campaign's published runs that are asked for, the oldest first.

    Raises NotFound, NotPublished, UnknownState, ContractMismatch; ErasureKeyWrong: messages that
    are fetched without the tombstones' key would bring erased customers back.
    """
    lake.tombstones()
    with account.get_client() as client:
        workspace, campaign = campaign_of(client, account, campaign_id)
        with named_if_refused(workspace, campaign):
            history = client.rerun_history(campaign_id)
            return _choose(lake, workspace, campaign, history, which, check_rows)


def _choose(
    lake: DataLake,
    workspace: WorkspaceCampaigns,
    campaign: Campaign,
    history: list[Run],
    which: WhichRuns,
    check_rows: bool,
) -> list[RunToExport]:
    """Return the runs that are asked for. Raises NotFound, NotPublished, UnknownState."""
    campaign_id = campaign.campaign_id
    runs = {run.run_number: run for run in history if run.status != Status.FAILED}
    current = find_current_run(campaign_id, history).run_number
    unknown = [number for number in sorted(runs) if not is_known(runs[number].status)]
    # The previous run keeps the campaign's own folder until the next one is published.
    published = sorted(runs.keys() - unknown)
    if campaign.status != Status.PUBLISHED:
        published.remove(current)
    if which == "all" and unknown:
        message = "Not exported, for their states are unknown: runs %s of campaign %s"
        get_run_logger().warning(message, first_ten(unknown), campaign_id)
    runs_to_export: list[RunToExport] = []
    for number in _requested(which, current, published):
        _refuse_unpublished(campaign, runs, published, number)
        # A past run's group may have changed since.
        check = check_rows and number == current
        run = runs[number]
        runs_to_export.append(_to_export(lake, campaign, workspace, run, published, check))
    return runs_to_export


def _refuse_unpublished(
    campaign: Campaign, runs: Mapping[int, Run], published: Sequence[int], number: int
) -> None:
    """Raise NotFound, UnknownState or NotPublished for a run without messages to fetch."""
    if number not in runs:
        raise NotFound(f"Campaign {campaign.campaign_id} has no run {number} with messages.")
    refuse_unknown(f"Run {number} of campaign {campaign.campaign_id}", runs[number].status)
    if number not in published:
        raise NotPublished(
            f"Campaign {campaign.campaign_id} is {campaign.status}, not Published: run {number} "
            "has no messages yet."
        )


def _to_export(
    lake: DataLake,
    campaign: Campaign,
    workspace: WorkspaceCampaigns,
    run: Run,
    published: Sequence[int],
    check_rows: bool,
) -> RunToExport:
    campaign_id = campaign.campaign_id
    past = run.run_number != published[-1]
    previous = max((one for one in published if one < run.run_number), default=None)
    return RunToExport(
        campaign_id=campaign_id,
        run_number=run.run_number,
        workspace_id=workspace.workspace_id,
        campaign=campaign.name,
        workspace=called(workspace),
        customer_group_id=run.customer_group_id,
        job_uid=run.job_uid,
        check_rows=check_rows,
        past=past,
        previous_run=None if past else previous,
        previous_pages=_pages_in_lake(lake, campaign_id, previous),
        published_at=_published_at(campaign, run),
    )


def _published_at(campaign: Campaign, run: Run) -> datetime | None:
    """Return when this run was published, None if that is not known.

    A publication before this run began was that of an earlier run.
    """
    at, begun = campaign.published_at, run.started_at
    return at if at and begun and at >= begun else None


def _pages_in_lake(lake: DataLake, campaign_id: str, run_number: int | None) -> int | None:
    """Return how many pages a run has in the lake; None if it is not there, or its manifest cannot
    be read, which stops no other run.
    """
    try:
        manifest = lake.manifest(campaign_id, run_number) if run_number is not None else None
    except (ManifestDamaged, TooNew) as error:
        get_run_logger().warning("Skipped: %s", error)
        return None
    return len(manifest.pages) if manifest else None


def _requested(which: WhichRuns, current: int, published: list[int]) -> list[int]:
    match which:
        case "latest":
            return [current]
        case "all":
            return published or [current]
        case int():
            return [which]


@task(**RETRIED)
def plan_export(
    account: NudgescribeAccount,
    run: RunToExport,
    lake: DataLake,
    refresh: Refresh,
    minutes: float,
    rewrite: bool = False,
) -> ExportRef:
    """Return the export of a run with the number of its pages; `done` and without pages if the run
    is in the lake already, unless this flow run is to `rewrite` it.

    Raises ExportIncomplete if there are no pages within `minutes`, or their number keeps changing.
    """
    with account.get_client() as client:
        rows = None
        if run.check_rows and run.customer_group_id:
            rows = client.count_customers(run.workspace_id, run.customer_group_id).total
        export = _export_ref(run, rows, lake, refresh, rewrite)
        if export.done:
            get_run_logger().info("Run %s is in the lake already", run.run_number)
            return export
        pages = _settled_pages(client, run, minutes)
    return export.model_copy(update={"pages": pages})


def _export_ref(
    run: RunToExport, rows: int | None, lake: DataLake, refresh: Refresh, rewrite: bool
) -> ExportRef:
    """Return the export, its pages not counted yet."""
    existing = lake.manifest(run.campaign_id, run.run_number)
    done, generation = False, 0
    if existing:
        same = (existing.job_uid, existing.format) == (run.job_uid, lake.format)
        ours = existing.writer == _writer(run, lake, refresh, existing.generation)
        # The group may have lost those who were erased from the lake, or not.
        whole = rows is None or existing.rows <= rows <= existing.rows + existing.erased
        done = same and whole and (ours or not rewrite)
        generation = existing.generation if done else existing.generation + 1
    writer = _writer(run, lake, refresh, generation)
    return ExportRef(
        campaign_id=run.campaign_id,
        run_number=run.run_number,
        customer_group_id=run.customer_group_id,
        job_uid=run.job_uid,
        past=run.past,
        pages=0,
        rows=rows,
        writer=writer,
        staging=f"{refresh.staging}/{writer}",
        generation=generation,
        done=done,
    )


def _writer(run: RunToExport, lake: DataLake, refresh: Refresh, generation: int) -> str:
    """Return a name for what this flow run writes, so that its exports do not mix."""
    unique = f"{refresh.id}/{run.run_number}/{generation}/{lake.format}"
    return sha256(unique.encode()).hexdigest()[:8]


def _settled_pages(client: NudgescribeClient, run: RunToExport, minutes: float) -> int:
    """Wait until the run has pages and, if more may come unnoticed, their number stays the same."""
    # Where the rows are known, missing pages are noticed later.
    settled = run.past or (run.check_rows and run.previous_run is None)
    seen = 0
    for count in poll(partial(_count_pages, client, run), minutes * 60, POLL_POLICY):
        if count and (settled or count == seen):
            return count
        seen = count
    seen_pages = f"shows {seen} pages"
    if run.previous_run is not None and not seen:
        seen_pages += f", or still those of run {run.previous_run},"
    raise ExportIncomplete(
        f"The export of run {run.run_number} {seen_pages} after {minutes:.3g} minutes."
    )


def _count_pages(client: NudgescribeClient, run: RunToExport) -> int:
    """Count the run's pages; 0 until the service has archived those of the previous run, or has
    written others since this one was published.

    Until then the campaign's own folder shows the previous run's pages. Their number may be the
    same.
    """
    if run.past:
        return client.count_message_pages(run.campaign_id, run.run_number)
    archived = 0
    if run.previous_run is not None:
        archived = client.count_message_pages(run.campaign_id, run.previous_run)
    pages = client.count_message_pages(run.campaign_id)
    if run.previous_run is None or _is_whole(archived, run.previous_pages):
        return pages
    new = _are_new(client, run, pages)
    # Where neither is known, a page in the archive has to do.
    unknown = new is None and run.previous_pages is None
    return pages if new or (unknown and archived) else 0


def _is_whole(archived: int, pages: int | None) -> bool:
    return pages is not None and archived >= pages


def _are_new(client: NudgescribeClient, run: RunToExport, pages: int) -> bool | None:
    """Return whether all pages were written after the publication; None if that is not known."""
    if not pages or run.published_at is None:
        return None
    since = run.published_at.replace(microsecond=0)  # stores tell seconds

    def is_new(page: int) -> bool | None:
        at = client.page_written_at(run.campaign_id, page)
        return None if at is None else at >= since

    found = {is_new(0), is_new(pages - 1)}
    if found == {True}:  # the service may write the others last
        with ThreadPoolExecutor(LOOKS_AT_ONCE) as threads:
            found.update(threads.map(within_span(is_new), range(1, pages - 1)))
    if False in found:
        return False
    return None if None in found else True


def chunks(export: ExportRef) -> list[tuple[int, int]]:
    """Divide the export's pages into ranges, first and last page inclusive, one for each task."""
    by_pages = export.pages // PAGES_A_CHUNK
    wanted = by_pages if export.rows is None else export.rows // ROWS_A_CHUNK
    most = min(export.pages, max(FEW_CHUNKS, by_pages), MOST_CHUNKS)
    count = max(1, min(wanted, most))
    cuts = [export.pages * number // count for number in range(count + 1)]
    return [(first, end - 1) for first, end in pairwise(cuts)]


@task(**RETRIED, task_run_name="pages-{first}-{last}")
def fetch_chunk(
    account: NudgescribeAccount,
    export: ExportRef,
    first: int,
    last: int,
    lake: DataLake,
    downloads: int,
) -> Progress:
    """Fetch the pages from `first` to `last` that are not in the lake yet.

    Raises PageBroken; RunTaken if another flow run has written the run meanwhile.
    """
    account, lake = account.resolve(), lake.resolve()
    _refuse_taken(lake, export)
    counter = start_counter(export.writer, first)
    with account.get_client() as client:
        pages = range(first, last + 1)
        fetch_pages(client, lake, export, pages, slots_of(downloads), counter)
    return counter.progress


@task(**RETRIED)
def check_export(export: ExportRef, lake: DataLake) -> str | None:
    """Return None if the pages in the lake are complete and add up, else what is wrong.

    Pages in doubt are removed from the ledger, so that the next attempt fetches them again.
    """
    ledger = Ledger(lake.files, export.staging)
    doubtful, problem = doubtful_pages(lake, export, ledger)
    if problem:
        get_run_logger().warning("%s", problem)
        ledger.forget(doubtful)
    return problem


@materialize("lake://messages", **RETRIED)
def commit_run(export: ExportRef, lake: DataLake) -> RunInLake:
    """Make the fetched run visible: create its manifest, then update the pointer to the campaign's
    latest run. Raises RunTaken if another flow run has created the manifest.
    """
    folder = run_folder(export.campaign_id, export.run_number)
    path = f"{folder}/{manifest_name(export.generation)}"
    ledger = Ledger(lake.files, export.staging)
    if not (export.done or lake.files.exists(path)):
        content = _manifest(lake, export, ledger).model_dump_json(indent=1).encode()
        with suppress(AlreadyThere):
            lake.files.create(path, content)
    _refuse_taken(lake, export)
    manifest = read_manifest(lake.files, path)
    if lake.format == "delta":
        from blocks.storage import delta

        delta.commit(lake.files, lake.options, manifest)
    update_pointer(lake.files, manifest.campaign_id)
    get_run_logger().info("%s messages in %s", f"{manifest.rows:,}", lake.files.url(folder))
    in_lake = RunInLake(
        run_number=manifest.run_number,
        folder=folder,
        manifest=path,
        files=len(manifest.parts),
        rows=manifest.rows,
        bytes=manifest.bytes,
    )
    assets.describe(assets.messages(lake, manifest.campaign_id), in_lake.model_dump())
    return in_lake


def _refuse_taken(lake: DataLake, export: ExportRef) -> None:
    existing = lake.manifest(export.campaign_id, export.run_number)
    if existing is None or export.done or existing.writer == export.writer:
        return
    if existing.generation >= export.generation:
        raise RunTaken(f"Another flow run has written {export.name} to the lake meanwhile.")


def _manifest(lake: DataLake, export: ExportRef, ledger: Ledger) -> Manifest:
    batches = ledger.batches()
    pages = [page for batch in batches for page in batch.pages]
    parts = [part for batch in batches for part in batch.parts]
    return Manifest(
        generation=export.generation,
        campaign_id=export.campaign_id,
        run_number=export.run_number,
        customer_group_id=export.customer_group_id,
        job_uid=export.job_uid,
        writer=export.writer,
        format=lake.format,
        parts=parts,
        pages=sorted(pages, key=lambda page: page.page),
        rows=sum(page.rows for page in pages),
        bytes=sum(part.bytes for part in parts),
        written_at=datetime.now(UTC),
        versions=VERSIONS,
    )


def update_pointer(files: Files, campaign_id: str) -> None:
    """Write the campaign's newest run to `_latest.json`.

    Another flow run may commit a newer one meanwhile, so this looks again after each write.
    """
    path = f"{campaign_folder(campaign_id)}/{LATEST}"
    written, newest = None, find_newest(files, campaign_id)
    while newest and newest != written:
        files.write(path, newest.model_dump_json().encode())
        written, newest = newest, find_newest(files, campaign_id)


def announce_run(event: str, campaign_id: str, lake: DataLake, run: RunInLake, **more: Any) -> None:
    """Emit an event about a campaign, with the paths of its run in the lake."""
    payload = {"campaign": campaign_id, "lake": lake.block_name, **run.model_dump(), **more}
    announce(event, "campaign", campaign_id, f"{lake.block_name}/{run.manifest}", payload)
