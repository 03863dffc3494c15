"""Customers of the list who keep the rules and are left out all the same."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from blocks.storage.parquet import read_frames
from nudgescribe.fields import column
from nudgescribe.identifiers import find_common, identities, no_ids
from nudgescribe.lazy import pl

ID = "id"
"""Column of the file of suppressed identifiers."""


def suppressed_ids(file: Path) -> Iterator[pl.DataFrame]:
    """Yield the identifiers of a file of suppressed ones."""
    return (identities(frame[ID]) for frame in read_frames(file))


def find_suppressed(ids: Iterable[pl.Series], suppressed: Path | None, folder: Path) -> pl.Series:
    """Return which of these identifiers a file of suppressed ones holds; see `find_common`."""
    if suppressed is None:
        return no_ids()
    return find_common(map(identities, ids), suppressed_ids(suppressed), folder)


class LeftOut:
    """Takes customers out of accepted rows, and counts them: those who are `suppressed`."""

    def __init__(self, key: str, suppressed: pl.Series) -> None:
        self.suppressed = 0
        self._key, self._ids = key, suppressed

    def take(self, accepted: pl.DataFrame) -> pl.DataFrame:
        """Return the rows of customers who are not left out."""
        if self._ids.is_empty():
            return accepted
        kept = accepted.filter(~column(self._key).is_in(self._ids.implode()))
        self.suppressed += accepted.height - kept.height
        return kept
