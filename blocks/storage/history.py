"""Tables of the lake on what its flow runs did: `sync_runs` and `sync_changes`.

Both consist of small Parquet files, one or two a refresh or other flow run, each replaced as a
whole: whoever writes it writes the same, so nothing is in them twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any
from urllib.parse import unquote

from blocks.storage.errors import Damaged
from blocks.storage.files import Files
from blocks.storage.manifest import NO_CAMPAIGN, campaign_partition
from blocks.storage.parquet import ParquetSink
from nudgescribe import __version__
from nudgescribe.lazy import pl

SYNC_RUNS = "sync_runs"
SYNC_CHANGES = "sync_changes"
SCHEMA_VERSION = 1
READERS = 8
_REFRESH = re.compile(r"\d{8}\.parquet")


class HistoryDamaged(Damaged):
    """A file of the lake's history cannot be read."""

    advice = "Restore it from a backup, or remove it."


def run_columns() -> pl.Schema:
    """Return the columns of `sync_runs`; new ones go to the end."""
    time, text, number = pl.Datetime("us", "UTC"), pl.String(), pl.Int64()
    counts = (
        *("extracted", "accepted", "rejected", "suppressed", "suppressed_since", "held_out"),
        *("added", "changed", "removed", "unchanged"),
        *("matched", "new", "orphaned", "rows", "bytes"),
    )
    return pl.Schema(
        {
            **dict.fromkeys(["run_id", "flow", "flow_run_id", "outcome", "error", "problem"], text),
            **dict.fromkeys(["planned_at", "started_at", "ended_at"], time),
            "seconds": pl.Float64(),
            **dict.fromkeys(["steps", "crm", "customer_group_id"], text),
            **dict.fromkeys(["previous_run", "run_number"], number),
            **dict.fromkeys(counts, number),
            "project": text,
        }
    )


def change_columns() -> pl.Schema:
    """Return the columns of `sync_changes`; new ones go to the end."""
    return pl.Schema(
        dict.fromkeys(["run_id", "customer_id", "change", "field", "code"], pl.String())
    )


def write_run(files: Files, partition: str, name: str, row: dict[str, Any]) -> None:
    """Write a row of `sync_runs`, replacing an earlier one of this name."""
    columns = run_columns()
    with (
        files.new_file(f"{SYNC_RUNS}/{partition}/{name}.parquet") as file,
        ParquetSink(file, columns) as sink,
    ):
        _annotate(sink)
        sink.write(pl.DataFrame([row], schema=columns))


def write_changes(files: Files, path: str, run_id: str, frames: Iterator[pl.DataFrame]) -> None:
    """Write a file of `sync_changes`, for its owner only, replacing an earlier one; columns that
    the frames lack are null.
    """
    columns = change_columns()
    with files.new_file(path, private=True) as file, ParquetSink(file, columns) as sink:
        _annotate(sink)
        for frame in frames:
            sink.write(_complete(frame, columns).with_columns(run_id=pl.lit(run_id)))


def read_history(files: Files, table: str, campaign_id: str | None) -> pl.DataFrame:
    """Return a table with the campaigns of its rows, null for those of no campaign.

    Raises HistoryDamaged.
    """
    schema = run_columns() if table == SYNC_RUNS else change_columns()
    folder = table if campaign_id is None else f"{table}/{campaign_partition(campaign_id)}"
    paths = sorted(
        file.path
        for file in files.list_files(folder)
        if file.path.endswith(".parquet") and file.path.count("/") == 2
    )
    with ThreadPoolExecutor(READERS) as threads:
        frames = [*threads.map(partial(_read, files, schema), paths)]
    empty = pl.DataFrame(schema={"campaign_id": pl.String, **schema})
    return pl.concat([empty, *frames])


def read_newest_run(files: Files, campaign_id: str) -> pl.DataFrame:
    """Return the row of a campaign's newest refresh, or none. Raises HistoryDamaged."""
    return read_newest_runs(files, campaign_id, 1)


def read_newest_runs(files: Files, campaign_id: str, most: int) -> pl.DataFrame:
    """Return the rows of a campaign's newest refreshes, `most` at most, the oldest first.

    Raises HistoryDamaged.
    """
    schema, folder = run_columns(), f"{SYNC_RUNS}/{campaign_partition(campaign_id)}"
    names = sorted(name for name in files.list_names(folder) if _REFRESH.fullmatch(name))
    with ThreadPoolExecutor(READERS) as threads:
        paths = [f"{folder}/{name}" for name in names[-most:]]
        frames = [*threads.map(partial(_read, files, schema), paths)]
    return pl.concat([pl.DataFrame(schema={"campaign_id": pl.String, **schema}), *frames])


def _read(files: Files, schema: pl.Schema, path: str) -> pl.DataFrame:
    content = files.read(path)
    try:
        frame = _complete(pl.read_parquet(content), schema)
    except pl.exceptions.PolarsError:
        raise HistoryDamaged.at(path) from None
    partition = path.split("/")[1]
    campaign = None if partition == NO_CAMPAIGN else unquote(partition.partition("=")[2])
    return frame.select(pl.lit(campaign, pl.String).alias("campaign_id"), *schema)


def _complete(frame: pl.DataFrame, schema: pl.Schema) -> pl.DataFrame:
    """Return these columns of a frame, null where it lacks one: another version wrote it."""
    return frame.select(
        (pl.col(name) if name in frame.columns else pl.lit(None)).cast(dtype).alias(name)
        for name, dtype in schema.items()
    )


def _annotate(sink: ParquetSink) -> None:
    sink.annotate(b"nudgeflow", __version__.encode())
    sink.annotate(b"schema_version", str(SCHEMA_VERSION).encode())
