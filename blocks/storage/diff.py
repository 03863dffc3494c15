"""What changed between two runs of a campaign, whatever their size: compared part by part."""

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from weakref import finalize

import polars as pl

from blocks.storage.scratch import scratch
from nudgescribe.contract import MESSAGE_COLUMNS

ID, MESSAGE = MESSAGE_COLUMNS
ROWS_AT_ONCE = 250_000
"""Customers compared at a time, about."""


class Diff:
    """Counts of customers, and `customers`: customer_id and change (added, gone, changed).

    The frame is lazy; what it reads is removed with this object. Raises DiskFull.
    """

    def __init__(
        self, before: pl.LazyFrame, rows_before: int, after: pl.LazyFrame, rows_after: int
    ) -> None:
        with ExitStack() as stack:
            folder = stack.enter_context(scratch("the comparison of two runs"))
            buckets = max(rows_before, rows_after) // ROWS_AT_ONCE + 1
            _split(before, folder / "before", buckets)
            _split(after, folder / "after", buckets)
            self.unchanged = 0
            counts = dict.fromkeys(("added", "gone", "changed"), 0)
            (folder / "changes").mkdir()
            for bucket in range(buckets):
                compared = _compared(folder, bucket)
                self.unchanged += compared["change"].null_count()
                changes = compared.drop_nulls("change")
                changes.write_parquet(folder / "changes" / f"{bucket}.parquet")
                for change, count in changes["change"].value_counts().rows():
                    counts[change] += count
            self.added, self.gone, self.changed = counts.values()
            self.customers = pl.scan_parquet(folder / "changes")
            finalize(self, stack.pop_all().close)

    def __repr__(self) -> str:
        return (
            f"Diff(added={self.added}, gone={self.gone}, changed={self.changed}, "
            f"unchanged={self.unchanged})"
        )


def _split(run: pl.LazyFrame, folder: Path, buckets: int) -> None:
    """The customers with a hash of their message, in files by a hash of the customer."""
    folder.mkdir()
    rows = run.select(pl.col(ID), pl.col(MESSAGE).hash(seed=1).alias("message"))
    for number, frame in enumerate(rows.collect_batches(chunk_size=ROWS_AT_ONCE)):
        keyed = frame.with_columns(bucket=pl.col(ID).hash(seed=2) % buckets)
        for (bucket,), part in keyed.partition_by(
            "bucket", as_dict=True, include_key=False
        ).items():
            part.write_ipc(folder / f"{bucket}-{number}.arrow")


def _compared(folder: Path, bucket: int) -> pl.DataFrame:
    before, after = (_bucket(folder / when, bucket) for when in ("before", "after"))
    both = before.join(after, on=ID, how="full", coalesce=True, suffix="_after")
    return both.select(
        ID,
        pl.when(pl.col("message").is_null())
        .then(pl.lit("added"))
        .when(pl.col("message_after").is_null())
        .then(pl.lit("gone"))
        .when(pl.col("message") != pl.col("message_after"))
        .then(pl.lit("changed"))
        .alias("change"),
    )


def _bucket(folder: Path, bucket: int) -> pl.DataFrame:
    files: Iterable[Path] = folder.glob(f"{bucket}-*.arrow")
    empty = pl.DataFrame(schema={ID: pl.String, "message": pl.UInt64})
    return pl.concat([empty, *map(pl.read_ipc, files)])
