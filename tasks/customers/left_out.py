"""Customers of the list who keep the rules and are left out all the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeAlias

from blocks.storage.parquet import ParquetSink, read_frames, text_schema
from nudgescribe.bases import Closing
from nudgescribe.contract import MESSAGE_COLUMNS
from nudgescribe.fields import column
from nudgescribe.identifiers import find_common, identities, no_ids
from nudgescribe.lazy import pl
from tasks.customers.holdout import KEY_ID, Chooser

ID = "id"
"""Column of the file of suppressed identifiers."""
IsErased: TypeAlias = "Callable[[pl.Series], pl.Series]"
"""Says of each identifier whether its customer was erased."""
CUSTOMER_ID = MESSAGE_COLUMNS[0]
"""Column of the files of those who are left out."""


def suppressed_ids(file: Path) -> Iterator[pl.DataFrame]:
    """Yield the identifiers of a file of suppressed ones."""
    return (identities(frame[ID]) for frame in read_frames(file))


def find_suppressed(ids: Iterable[pl.Series], suppressed: Path | None, folder: Path) -> pl.Series:
    """Return which of these identifiers a file of suppressed ones holds; see `find_common`."""
    if suppressed is None:
        return no_ids()
    return find_common(map(identities, ids), suppressed_ids(suppressed), folder)


class LeftOut(Closing):
    """Takes customers out of accepted rows: those who were `erased`, of the others those who are
    `suppressed`, and of the rest those whom the `chooser` holds out. The identifiers of the last
    two are in files of the folder; the erased ones are only counted.

    A context manager.
    """

    def __init__(
        self,
        key: str,
        suppressed: pl.Series,
        is_erased: IsErased | None,
        chooser: Chooser | None,
        folder: Path,
    ) -> None:
        self.suppressed = folder / "suppressed-of-list.parquet"
        self.held_out = folder / "held-out.parquet"
        self.erased = 0
        self._key, self._ids, self._is_erased, self._chooser = key, suppressed, is_erased, chooser
        self._sinks = [
            ParquetSink(file, text_schema([CUSTOMER_ID]))
            for file in (self.suppressed, self.held_out)
        ]
        if chooser:
            self._sinks[1].annotate(KEY_ID, chooser.key_id.encode())

    def close(self) -> None:
        """Complete the files."""
        for sink in self._sinks:
            sink.close()

    def take(self, accepted: pl.DataFrame) -> pl.DataFrame:
        """Return the rows of customers who are not left out."""
        suppressed, held_out = self._sinks
        # First: whoever was erased is named nowhere, not even among the suppressed.
        if self._is_erased:
            erased = self._is_erased(accepted[self._key])
            accepted = accepted.filter(~erased)
            self.erased += int(erased.sum())
        if len(self._ids):
            found = column(self._key).is_in(self._ids.implode())
            suppressed.write(accepted.filter(found).select(self._customers))
            accepted = accepted.filter(~found)
        if self._chooser:
            chosen = self._chooser.choose(accepted[self._key])
            held_out.write(accepted.filter(chosen).select(self._customers))
            accepted = accepted.filter(~chosen)
        return accepted

    @property
    def _customers(self) -> pl.Expr:
        return column(self._key).alias(CUSTOMER_ID)
