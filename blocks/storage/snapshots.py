"""Snapshots of an account's campaigns and their runs in the lake.

A writer writes the runs first, then the campaigns: a snapshot is complete as soon as it has
campaigns. It is never changed.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import polars as pl

from blocks.storage.errors import Damaged, LakeError
from blocks.storage.files import Files
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
_CAMPAIGNS_FILE = re.compile(rf"{CAMPAIGNS}/snapshot=([^/]+)/{CAMPAIGNS}-([^/]+)\.parquet")


class SnapshotDamaged(Damaged):
    """A file of a snapshot cannot be read."""

    advice = "Restore it from a backup, or remove the snapshot from both folders."


class Snapshot(NamedTuple):
    """The campaigns and runs of an account at one time; `name` is the time it was planned for."""

    name: str
    campaigns: pl.DataFrame
    runs: pl.DataFrame


def snapshot_name(planned: datetime) -> str:
    """Return the name of the snapshot planned for a time; names sort by time."""
    return planned.astimezone(UTC).strftime("%Y-%m-%dT%H-%M-%SZ")


def snapshot_file(folder: str, snapshot: str, writer: str) -> str:
    """Return the path of a writer's campaigns or runs; each writer has files of its own."""
    return f"{folder}/snapshot={snapshot}/{folder}-{writer}.parquet"


def build_frame(rows: Iterable[Mapping[str, Any]], columns: pl.Schema) -> pl.DataFrame:
    """Return these columns of the rows as a frame."""
    listed = list(rows)
    return pl.DataFrame({name: [row[name] for row in listed] for name in columns}, schema=columns)


def find_newest_snapshot(files: Files) -> str:
    """Return the name of the newest snapshot. Raises LakeError if there is none."""
    names = list_snapshots(files)
    if not names:
        raise LakeError("No snapshot of the campaigns is in the lake.")
    return names[0]


def list_snapshots(files: Files) -> list[str]:
    """Return the names of all snapshots, the newest first."""
    matches = (_CAMPAIGNS_FILE.fullmatch(file.path) for file in files.list_files(CAMPAIGNS))
    return sorted({match[1] for match in matches if match}, reverse=True)


def read_snapshot(files: Files, name: str, writer: str | None = None) -> Snapshot:
    """Read a snapshot of all writers, or of one. Raises LakeError if it is not in the lake."""
    campaigns, runs = (_read_all(files, kind, name, writer) for kind in (CAMPAIGNS, RUNS))
    return Snapshot(name, campaigns, runs)


def read_campaigns(files: Files, name: str) -> pl.DataFrame:
    """Read the campaigns of a snapshot. Raises LakeError if it is not in the lake."""
    return _read_all(files, CAMPAIGNS, name)


def _read_all(files: Files, kind: str, name: str, writer: str | None = None) -> pl.DataFrame:
    folder = f"{CAMPAIGNS}/snapshot={name}"
    matches = (_CAMPAIGNS_FILE.fullmatch(f"{folder}/{each}") for each in files.list_names(folder))
    writers = [match[2] for match in matches if match and writer in (None, match[2])]
    if not writers:
        raise LakeError(f"Snapshot {name} is not in the lake.")
    return pl.concat(_read_frame(files, snapshot_file(kind, name, each)) for each in writers)


def _read_frame(files: Files, path: str) -> pl.DataFrame:
    content = files.read(path)
    try:
        return pl.read_parquet(content)
    except pl.exceptions.PolarsError:
        raise SnapshotDamaged.at(path) from None
