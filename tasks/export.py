"""The messages: every page of a run fetched into the lake, visible as a whole or not at all."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl
import pyarrow as pa
from prefect import task
from prefect.logging import get_run_logger
from pydantic import BaseModel, ConfigDict

from blocks import DataLake, NudgescribeAccount
from blocks.loading import load
from blocks.manifest import MANIFEST, Format, Manifest, Page
from blocks.parquet import ParquetSink, text_schema
from nudgescribe import __version__, rfc4180
from nudgescribe.client import NudgescribeClient
from nudgescribe.contract import MESSAGE_COLUMNS
from nudgescribe.errors import ContractMismatch, NudgeflowError
from nudgescribe.polling import Pace, poll
from tasks.campaigns import CampaignRef, RunRef
from tasks.policies import READ
from tasks.staging import sha256_of

DOWNLOADS_AT_ONCE = 8
PACE = Pace()


class ExportIncomplete(NudgeflowError):
    advice = "Retry this flow run to fetch the pages again."


class RunInLake(BaseModel):
    """A run as it lies in the lake; `folder` is its path there, `bytes` the size of its parts."""

    model_config = ConfigDict(frozen=True)

    folder: str
    files: int
    rows: int
    bytes: int


@task(**READ)
def export_messages(
    account: str,
    campaign: CampaignRef,
    run: RunRef,
    rows: int,
    lake: str,
    file_format: Format,
    minutes: float,
) -> RunInLake:
    """Fetches the run's pages until they hold `rows` rows, one part a page, the manifest last.

    A run that is in the lake already is left as it is. Raises ExportIncomplete when the pages do
    not add up within `minutes`.
    """
    store = load(DataLake, lake)
    folder = store.run_folder(run.campaign_id, run.run_number)
    there = store.manifest(run.campaign_id, run.run_number)
    if there and (there.job_uid, there.rows, there.format) == (run.job_uid, rows, file_format):
        get_run_logger().info("Run %s is in the lake already", run.run_number)
        return RunInLake(folder=folder, files=len(there.files), rows=rows, bytes=there.bytes)
    store.remove(f"{folder}/{MANIFEST}")
    with load(NudgescribeAccount, account).get_client() as client:
        look = partial(_count_pages, client, campaign)
        fetch = partial(_fetch_page, client, store, run, file_format)
        pages = _fetch_all(look, fetch, rows, minutes)
    for name in set(store.names(folder)) - {page.name for page in pages}:
        store.remove(f"{folder}/{name}")
    manifest = Manifest(
        campaign_id=run.campaign_id,
        run_number=run.run_number,
        customer_group_id=run.customer_group_id,
        job_uid=run.job_uid,
        format=file_format,
        files=pages,
        rows=sum(page.rows for page in pages),
        bytes=sum(page.bytes for page in pages),
        written_at=datetime.now(UTC),
        versions={
            "nudgeflow": __version__,
            "polars": pl.__version__,
            "pyarrow": pa.__version__,
        },
    )
    with TemporaryDirectory() as place:
        local = Path(place) / MANIFEST
        local.write_text(manifest.model_dump_json(indent=2))
        store.put(local, f"{folder}/{MANIFEST}")
    get_run_logger().info("%s messages in %s", f"{manifest.rows:,}", store.url(folder))
    return RunInLake(folder=folder, files=len(pages), rows=manifest.rows, bytes=manifest.bytes)


def _count_pages(client: NudgescribeClient, campaign: CampaignRef) -> int:
    """The pages of the current run: none while those of the run before still lie in their place.

    Both may have the same number of pages and rows; only their move tells them apart.
    """
    moved = client.count_message_pages(campaign.campaign_id, campaign.previous_run)
    if moved < campaign.previous_pages:
        return 0
    return client.count_message_pages(campaign.campaign_id)


def _fetch_all(
    look: Callable[[], int], fetch: Callable[[int], Page], rows: int, minutes: float
) -> list[Page]:
    """There is no job status: the export is complete when the number of pages stands still and
    their rows add up.
    """
    log = get_run_logger()
    fetched: dict[int, Page] = {}
    seen = 0
    for count in poll(look, minutes * 60, PACE):
        if count != seen or not count:
            seen = count
            continue
        with ThreadPoolExecutor(DOWNLOADS_AT_ONCE) as pool:
            missing = [number for number in range(count) if number not in fetched]
            fetched.update(zip(missing, pool.map(fetch, missing), strict=True))
        total = sum(page.rows for page in fetched.values())
        log.info("Fetched %s pages, %s of %s rows", count, f"{total:,}", f"{rows:,}")
        if total == rows:
            return [fetched[number] for number in sorted(fetched)]
        if total > rows or len(fetched) > count:
            fetched.clear()  # pages of an earlier export were among them
        else:
            fetched.popitem()  # the last page may have grown, others follow
    raise ExportIncomplete(
        f"The export shows {seen} pages after {minutes:g} minutes and they do not add up to "
        f"{rows:,} rows."
    )


def _fetch_page(
    client: NudgescribeClient, lake: DataLake, run: RunRef, file_format: Format, number: int
) -> Page:
    name = f"part-{number:05d}.{file_format}"
    with TemporaryDirectory() as place:
        csv, part = Path(place) / "page.csv", Path(place) / name
        client.download_page(run.campaign_id, number, csv)
        if file_format == "csv":
            rows = sum(frame.height for frame in _frames(csv, number))
            csv.rename(part)  # byte for byte what the service wrote
        else:
            with ParquetSink(part, text_schema(list(MESSAGE_COLUMNS))) as sink:
                for frame in _frames(csv, number):
                    sink.write(frame)
            rows = sink.rows
        lake.put(part, f"{lake.run_folder(run.campaign_id, run.run_number)}/{name}")
        return Page(
            name=name, page=number, rows=rows, bytes=part.stat().st_size, sha256=sha256_of(part)
        )


def _frames(csv: Path, number: int) -> Iterator[pl.DataFrame]:
    """The rows of a page, proved to have an export's columns."""
    with csv.open("rb") as file:
        for frame in rfc4180.frames(file):
            if tuple(frame.columns) != MESSAGE_COLUMNS:
                raise ContractMismatch(f"Page {number} has columns {', '.join(frame.columns)}.")
            yield frame
