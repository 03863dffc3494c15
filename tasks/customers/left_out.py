"""Customers of the list who keep the rules and are left out all the same."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from blocks.storage.parquet import ParquetSink, read_frames, text_schema
from nudgescribe.bases import Closing
from nudgescribe.contract import MESSAGE_COLUMNS
from nudgescribe.fields import column
from nudgescribe.identifiers import find_common, identities, no_ids
from nudgescribe.lazy import pl
from tasks.customers.holdout import Choose

ID = "id"
"""Column of the file of suppressed identifiers."""
CUSTOMER_ID = MESSAGE_COLUMNS[0]
"""Column of the file of those who are held out."""


def suppressed_ids(file: Path) -> Iterator[pl.DataFrame]:
    """Yield the identifiers of a file of suppressed ones."""
    return (identities(frame[ID]) for frame in read_frames(file))


def find_suppressed(ids: Iterable[pl.Series], suppressed: Path | None, folder: Path) -> pl.Series:
    """Return which of these identifiers a file of suppressed ones holds; see `find_common`."""
    if suppressed is None:
        return no_ids()
    return find_common(map(identities, ids), suppressed_ids(suppressed), folder)


class LeftOut(Closing):
    """Takes customers out of accepted rows, and counts them: those who are `suppressed` or were
    `erased`, and of the others those whom `choose` holds out, whose identifiers it writes to a
    file.

    A context manager.
    """

    def __init__(
        self,
        key: str,
        suppressed: pl.Series,
        erased: Choose | None,
        choose: Choose | None,
        held_out: Path,
    ) -> None:
        self.suppressed = self.erased = 0
        self._erased = erased
        self._key, self._ids, self._choose = key, suppressed, choose
        self._sink = ParquetSink(held_out, text_schema([CUSTOMER_ID])) if choose else None

    def close(self) -> None:
        """Close the file of those who are held out."""
        if self._sink:
            self._sink.close()

    def take(self, accepted: pl.DataFrame) -> pl.DataFrame:
        """Return the rows of customers who are not left out."""
        kept = accepted
        if len(self._ids):
            kept = accepted.filter(~column(self._key).is_in(self._ids.implode()))
        self.suppressed += accepted.height - kept.height
        if self._erased:
            left = kept.filter(~self._erased(kept[self._key]))
            self.erased += kept.height - left.height
            kept = left
        if self._choose and self._sink:
            held_out = self._choose(kept[self._key])
            self._sink.write(kept.filter(held_out).select(column(self._key).alias(CUSTOMER_ID)))
            kept = kept.filter(~held_out)
        return kept
