"""The base of all sources of customer lists."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path

from blocks.crm.errors import SourceError
from blocks.crm.list_file import ListWriter
from blocks.iterators import prefetch
from blocks.saved import SavedBlock
from blocks.storage.errors import translate_disk_full
from nudgescribe.errors import translate_foreign_errors
from nudgescribe.lazy import pa


class CrmSource(SavedBlock, ABC):
    """A source that a customer list is extracted from."""

    @abstractmethod
    def batches(self, needed: frozenset[str] | None) -> Iterator[pa.RecordBatch]:
        """Yield the list, some thousand rows at a time; at least one batch, which may be empty.

        All have the same columns. Those that are not `needed` may be left out; None needs all.

        Raises SourceUnavailable if another try may succeed, else SourceError.
        """

    def check_reachable(self) -> None:
        """Check that somebody answers where the list is, within 10 seconds, if that can be told.

        Raises SourceUnavailable, SourceError.
        """

    def updated_at(self) -> datetime | None:
        """Return when the list was brought up to date; None if the source does not tell.

        Raises SourceUnavailable if another try may succeed, else SourceError.
        """
        return None

    def extract(self, target: Path, needed: frozenset[str] | None = None) -> int:
        """Write the list to a Parquet file as text, and return its number of rows.

        How values are written stands in `blocks.crm.text`. Some thousand rows at a time are in
        memory, however long the list is.

        Raises SourceUnavailable if another try may succeed, DiskFull, SecretUnusable, else
        SourceError.
        """
        with (
            translate_foreign_errors(self.block_slug, SourceError),
            translate_disk_full("the customer list", str(target.parent)),
            ListWriter(target, needed) as writer,
            closing(prefetch(self.batches(needed))) as batches,
        ):
            for batch in batches:
                writer.write(batch)
        return writer.rows
