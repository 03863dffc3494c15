"""Snapshots of campaigns and their runs, as they lie in a lake.

The runs are written first, the campaigns when those are there: a snapshot is there as soon as its
campaigns are, and is never changed.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import polars as pl

from blocks.storage.files import Files, LakeError
from blocks.storage.manifest import CAMPAIGNS, RUNS

_TIME = pl.Datetime("us", "UTC")
CAMPAIGN_COLUMNS = pl.Schema(
    {
        "workspace_id": pl.String,
        "workspace_name": pl.String,
        "campaign_id": pl.String,
        "name": pl.String,
        "status": pl.String,
        "stage": pl.String,
        "start_date": pl.Date,
        "end_date": pl.Date,
        "customer_group_id": pl.String,
        "current_run": pl.Int64,
        "published_at": _TIME,
        "taken_at": _TIME,
    }
)
RUN_COLUMNS = pl.Schema(
    {
        "campaign_id": pl.String,
        "run_number": pl.Int64,
        "status": pl.String,
        "phase": pl.String,
        "customer_group_id": pl.String,
        "customer_group_name": pl.String,
        "segment_count": pl.Int64,
        "matched": pl.Int64,
        "new": pl.Int64,
        "orphaned": pl.Int64,
        "job_uid": pl.String,
        "initiated_by": pl.String,
        "started_at": _TIME,
        "completed_at": _TIME,
        "error": pl.String,
    }
)
_FILE = re.compile(rf"{CAMPAIGNS}/snapshot=([^/]+)/{CAMPAIGNS}-([^/]+)\.parquet")


class Snapshot(NamedTuple):
    """`name` is the time it was planned for."""

    name: str
    campaigns: pl.DataFrame
    runs: pl.DataFrame


def snapshot_name(planned: datetime) -> str:
    """A time as a folder's name, to the second; later ones come later in the alphabet."""
    return planned.astimezone(UTC).strftime("%Y-%m-%dT%H-%M-%SZ")


def snapshot_file(folder: str, snapshot: str, writer: str) -> str:
    """Where a writer puts its campaigns or its runs: two of the same time do not meet."""
    return f"{folder}/snapshot={snapshot}/{folder}-{writer}.parquet"


def build_frame(rows: Iterable[Mapping[str, Any]], columns: pl.Schema) -> pl.DataFrame:
    """These columns of the rows."""
    listed = list(rows)
    return pl.DataFrame({name: [row[name] for row in listed] for name in columns}, schema=columns)


def find_newest_snapshot(files: Files) -> str:
    """Raises LakeError if there is none."""
    matches = (_FILE.fullmatch(path) for path, *_ in files.list_files(CAMPAIGNS))
    names = [match[1] for match in matches if match]
    if not names:
        raise LakeError("No snapshot of the campaigns is in the lake.")
    return max(names)


def read_snapshot(files: Files, name: str, writer: str | None = None) -> Snapshot:
    """A snapshot of all writers, or of one. Raises LakeError if it is not in the lake."""
    folder = f"{CAMPAIGNS}/snapshot={name}"
    matches = (_FILE.fullmatch(f"{folder}/{each}") for each in files.list_names(folder))
    writers = [match[2] for match in matches if match and writer in (None, match[2])]
    if not writers:
        raise LakeError(f"Snapshot {name} is not in the lake.")
    campaigns, runs = (
        pl.concat(pl.read_parquet(files.read(snapshot_file(kind, name, each))) for each in writers)
        for kind in (CAMPAIGNS, RUNS)
    )
    return Snapshot(name, campaigns, runs)
