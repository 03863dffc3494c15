"""The messages of a run: planned, fetched by chunks of pages, checked, made visible at once."""

from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from itertools import pairwise
from typing import Any, Literal

from prefect import task
from prefect.assets import materialize
from prefect.logging import get_run_logger
from pydantic import BaseModel, ConfigDict

from blocks import DataLake, NudgescribeAccount
from blocks.rerun import find_current_run
from blocks.storage import delta
from blocks.storage.files import AlreadyThere
from blocks.storage.manifest import (
    LATEST,
    Latest,
    Manifest,
    campaign_folder,
    manifest_name,
    run_folder,
)
from blocks.storage.part_writer import VERSIONS
from blocks.storage.reader import find_latest_run, read_manifest
from nudgescribe.client import NudgescribeClient
from nudgescribe.contract import Status
from nudgescribe.errors import NotFound, NotPublished, NudgeflowError
from nudgescribe.polling import Pace, poll
from tasks.campaigns import Refresh, campaign_of
from tasks.customers.staging import folder_of
from tasks.export.download import ExportRef, fetch_pages, slots_of
from tasks.export.ledger import Ledger
from tasks.export.verify import doubtful_pages
from tasks.policies import READ
from tasks.ui import assets
from tasks.ui.events import announce
from tasks.ui.progress import Done, start_meter

PACE = Pace()
ROWS_A_CHUNK = 250_000
PAGES_A_CHUNK = 8
MOST_CHUNKS = 32
FEW_CHUNKS = 7
"""Not too many however large the pages are: each costs Prefect what half a page costs us."""


WhichRuns = Literal["latest", "all"] | int


class ExportIncomplete(NudgeflowError):
    advice = "Retry this flow run to fetch the pages again."


class RunTaken(NudgeflowError):
    advice = "Nothing is lost: use what the other flow run has written."


class RunToExport(BaseModel):
    """A run and what is known of its pages: how many `rows` they hold, if anything says so, and how
    many pages the run before left, which must be put away before this run's can be told from them.
    """

    model_config = ConfigDict(frozen=True)

    campaign_id: str
    run_number: int
    customer_group_id: str | None
    job_uid: str | None = None
    rows: int | None = None
    past: bool = False
    previous_run: int | None = None
    previous_pages: int = 0


class RunInLake(BaseModel):
    """A run as it lies in the lake; `folder` and `manifest` are paths there, `bytes` the size of
    its files.
    """

    model_config = ConfigDict(frozen=True)

    run_number: int
    folder: str
    manifest: str
    files: int
    rows: int
    bytes: int


@task(**READ)
def find_runs(
    account: NudgescribeAccount, campaign_id: str, which: WhichRuns, check_rows: bool
) -> list[RunToExport]:
    """A campaign's published runs that are asked for, the oldest first.

    Raises NotFound, NotPublished.
    """
    with account.get_client() as client:
        workspace_id, campaign = campaign_of(client, account, campaign_id)
        history = client.rerun_history(campaign_id)
        runs = {run.run_number: run for run in history if run.status != Status.FAILED}
        current = find_current_run(history).run_number
        # The run before keeps the campaign's own folder until the next one is published.
        published = sorted(runs)
        if campaign.status != Status.PUBLISHED:
            published.remove(current)
        wanted = {"latest": [current], "all": published or [current]}.get(str(which), [which])
        found: list[RunToExport] = []
        for number in wanted:
            if number not in runs:
                raise NotFound(f"Campaign {campaign_id} has no run {number} with messages.")
            if number not in published:
                raise NotPublished(
                    f"Campaign {campaign_id} is {campaign.status}, not Published: run {number} has "
                    "no messages yet."
                )
            group = runs[number].customer_group_id
            # A past run's group may have changed since.
            counted = group if check_rows and number == current else None
            found.append(
                RunToExport(
                    campaign_id=campaign_id,
                    run_number=number,
                    customer_group_id=group,
                    job_uid=runs[number].job_uid,
                    rows=client.count_customers(workspace_id, counted).total if counted else None,
                    past=number != published[-1],
                )
            )
        return found


@task(**READ)
def plan_export(
    account: NudgescribeAccount, run: RunToExport, lake: DataLake, refresh: Refresh, minutes: float
) -> ExportRef:
    """The run's pages, none if the run is in the lake already. While a publish may still be going
    on, their number must stand still.

    Raises ExportIncomplete when there are none within `minutes`.
    """
    there = lake.manifest(run.campaign_id, run.run_number)
    done = there is not None and (
        (there.job_uid, there.format) == (run.job_uid, lake.format)
        and run.rows in (None, there.rows)
    )
    generation = 0 if there is None else there.generation + (0 if done else 1)
    # No other export of this flow run, be it of another run or format, is to be mixed with this.
    unique = f"{refresh.id}/{run.run_number}/{generation}/{lake.format}"
    writer = sha256(unique.encode()).hexdigest()[:8]
    plan = partial(
        ExportRef,
        campaign_id=run.campaign_id,
        run_number=run.run_number,
        customer_group_id=run.customer_group_id,
        job_uid=run.job_uid,
        past=run.past,
        rows=run.rows,
        writer=writer,
        staging=f"{folder_of(refresh)}/{writer}",
        generation=generation,
        done=done,
    )
    if done:
        get_run_logger().info("Run %s is in the lake already", run.run_number)
        return plan(pages=0)
    with account.get_client() as client:
        # Pages of a current run may still become more; where nothing would tell, they are watched.
        seen, settled = 0, run.past or (run.rows is not None and run.previous_run is None)
        for count in poll(partial(_count_pages, client, run), minutes * 60, PACE):
            if count and (settled or count == seen):
                return plan(pages=count)
            seen = count
    raise ExportIncomplete(
        f"The export of run {run.run_number} shows {seen} pages after {minutes:.3g} minutes."
    )


def _count_pages(client: NudgescribeClient, run: RunToExport) -> int:
    """The pages of the run: none while those of the run before still lie in their place.

    Both may have the same number of pages and rows; only their move tells them apart.
    """
    if run.past:
        return client.count_message_pages(run.campaign_id, run.run_number)
    if run.previous_run is not None:
        moved = client.count_message_pages(run.campaign_id, run.previous_run)
        if moved < run.previous_pages:
            return 0
    return client.count_message_pages(run.campaign_id)


def chunks(export: ExportRef) -> list[tuple[int, int]]:
    """The export's pages in ranges, first and last, each the work of one task."""
    by_pages = export.pages // PAGES_A_CHUNK
    wanted = by_pages if export.rows is None else export.rows // ROWS_A_CHUNK
    most = min(export.pages, max(FEW_CHUNKS, by_pages), MOST_CHUNKS)
    count = max(1, min(wanted, most))
    cuts = [export.pages * number // count for number in range(count + 1)]
    return [(first, end - 1) for first, end in pairwise(cuts)]


@task(**READ, task_run_name="pages-{first}-{last}")
def fetch_chunk(
    account: NudgescribeAccount,
    export: ExportRef,
    first: int,
    last: int,
    lake: DataLake,
    downloads: int,
) -> Done:
    """Brings the pages from `first` to `last` into the lake, those that are not there yet.

    Raises PageBroken, or RunTaken if somebody else has written the run meanwhile.
    """
    account, lake = account.resolve(), lake.resolve()
    _look_for_others(lake, export)
    meter = start_meter(export.writer, first)
    with account.get_client() as client:
        pages = range(first, last + 1)
        fetch_pages(client, lake, export, pages, slots_of(downloads), meter)
    return meter.done


@task(**READ)
def check_export(export: ExportRef, lake: DataLake) -> str | None:
    """None if the pages in the lake are all there, each once, and add up; else what is wrong.

    Pages that may be at fault are forgotten, for the next round to fetch them again.
    """
    ledger = Ledger(lake.files, export.staging)
    doubtful, problem = doubtful_pages(lake, export, ledger.batches())
    if problem:
        get_run_logger().warning("%s", problem)
        ledger.forget(doubtful)
    return problem


@materialize("lake://messages", **READ)
def commit_run(export: ExportRef, lake: DataLake) -> RunInLake:
    """Makes the fetched run visible: its manifest, of which there can be one, then the pointer to
    the campaign's latest run. Raises RunTaken if somebody else was first.
    """
    folder = run_folder(export.campaign_id, export.run_number)
    path = f"{folder}/{manifest_name(export.generation)}"
    ledger = Ledger(lake.files, export.staging)
    if not (export.done or lake.files.exists(path)):
        content = _manifest(lake, export, ledger).model_dump_json(indent=1).encode()
        with suppress(AlreadyThere):
            lake.files.create(path, content)
    _look_for_others(lake, export)
    manifest = read_manifest(lake.files, path)
    if lake.format == "delta":
        delta.commit(lake.files, lake.options, manifest)
    _point_at(lake, manifest)
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


def _look_for_others(lake: DataLake, export: ExportRef) -> None:
    there = lake.manifest(export.campaign_id, export.run_number)
    if there is None or export.done or there.writer == export.writer:
        return
    if there.generation >= export.generation:
        raise RunTaken(f"Another flow run has written {export.name} to the lake meanwhile.")


def _manifest(lake: DataLake, export: ExportRef, ledger: Ledger) -> Manifest:
    batches = ledger.batches()
    pages = sorted((page for each in batches for page in each.pages), key=lambda one: one.page)
    parts = [part for each in batches for part in each.parts]
    return Manifest(
        generation=export.generation,
        campaign_id=export.campaign_id,
        run_number=export.run_number,
        customer_group_id=export.customer_group_id,
        job_uid=export.job_uid,
        writer=export.writer,
        format=lake.format,
        parts=parts,
        pages=pages,
        rows=sum(page.rows for page in pages),
        bytes=sum(part.bytes for part in parts),
        written_at=datetime.now(UTC),
        versions=VERSIONS,
    )


def _point_at(lake: DataLake, manifest: Manifest) -> None:
    folder = campaign_folder(manifest.campaign_id)
    newest = find_latest_run(lake.files, manifest.campaign_id)
    if newest is None or newest <= manifest.run_number:
        run = f"run_number={manifest.run_number}"
        latest = Latest(
            run_number=manifest.run_number,
            manifest=f"{run}/{manifest_name(manifest.generation)}",
        )
        lake.files.write(f"{folder}/{LATEST}", latest.model_dump_json().encode())


def announce_run(what: str, campaign_id: str, lake: DataLake, run: RunInLake, **more: Any) -> None:
    """Announces what became of a campaign, and which run of it lies where in a lake."""
    payload = {"campaign": campaign_id, "lake": lake.block_name, **run.model_dump(), **more}
    announce(what, "campaign", campaign_id, f"{lake.block_name}/{run.manifest}", payload)
