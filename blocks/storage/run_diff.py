"""The comparison of two runs of a campaign, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from weakref import finalize

from blocks.storage.parquet import ParquetSink, read_frames
from blocks.storage.scratch import scratch_folder
from nudgescribe.contract import MESSAGE_COLUMNS
from nudgescribe.identifiers import Counts, compare
from nudgescribe.lazy import pl

ID, MESSAGE = MESSAGE_COLUMNS


class RunDiff:
    """The numbers of customers added, removed, changed and unchanged, and who they are.

    Both runs come as frames of customer_id and message. `customers` is a lazy frame of customer_id
    and change (added, removed, changed). It reads a temporary file, which is removed with this
    object.

    Raises DiskFull.
    """

    def __init__(self, before: Iterable[pl.DataFrame], after: Iterable[pl.DataFrame]) -> None:
        with ExitStack() as stack:
            folder = stack.enter_context(scratch_folder("the comparison of two runs"))
            file, counts = folder / "changes.parquet", Counts()
            columns = pl.Schema({ID: pl.String(), "change": pl.String()})
            with ParquetSink(file, columns) as sink:
                for share in compare(_hash_messages(before), _hash_messages(after), folder):
                    counts.add(share)
                    changed = share.filter(pl.col("change") != "unchanged")
                    sink.write(changed.select(pl.col("id").alias(ID), "change"))
            self.added, self.removed = counts["added"], counts["removed"]
            self.changed, self.unchanged = counts["changed"], counts["unchanged"]
            self.customers, self._file = pl.scan_parquet(file), file
            finalize(self, stack.pop_all().close)

    def frames(self) -> Iterator[pl.DataFrame]:
        """Yield `customers` some ten thousand at a time."""
        return read_frames(self._file)

    def __repr__(self) -> str:
        return (
            f"RunDiff(added={self.added}, removed={self.removed}, changed={self.changed}, "
            f"unchanged={self.unchanged})"
        )


def _hash_messages(run: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """Yield the customers as id, each with a hash of the message as content."""
    hashed = pl.col(ID).alias("id"), pl.col(MESSAGE).hash().alias("content")
    return (frame.select(hashed) for frame in run)
