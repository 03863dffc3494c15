"""Queries of any database, and their rows in batches of text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from time import monotonic
from types import NoneType
from typing import Any

from sqlalchemy import TextClause, text

from blocks.crm.errors import SourceError
from blocks.crm.list_file import ORIGINS, Origin, repeated
from blocks.crm.sql.values import origins, to_text
from blocks.crm.text import NoText, text_type
from nudgescribe.errors import first_ten
from nudgescribe.lazy import pa, pl

Rows = Sequence[Sequence[Any]]

ROWS_AT_ONCE = 500
"""Few enough for a processor's cache, which takes half the time of 20,000."""
BATCH_BYTES = 4 * 1024 * 1024
_TEXTS = {str, NoneType}


@dataclass(frozen=True)
class Query:
    """A query with its parameters, the most `seconds` it may take, and the columns of its result
    that are `needed`; None needs all.
    """

    text: str
    parameters: Mapping[str, str | int | float | bool | None]
    seconds: float
    needed: frozenset[str] | None = None

    def timeout_error(self) -> SourceError:
        """Return the error for a query that takes too long."""
        return SourceError(
            f"The query was stopped after more than {self.seconds:,g} seconds (timeout_seconds)."
        )

    def places(self, names: Iterable[str]) -> dict[str, int]:
        """Return where in the result the needed columns are.

        Raises SourceError if it has no columns, or two needed ones of the same name.
        """
        columns = list(names)
        if not columns:
            raise SourceError("The query returns no columns: a customer list comes from a SELECT.")
        needed = self.needed
        if same := repeated(columns, needed):
            raise SourceError(
                f"The query returns two columns of one name: {same}. Rename one with AS."
            )
        return {
            name: place for place, name in enumerate(columns) if needed is None or name in needed
        }


def check_time(batches: Iterable[Rows], query: Query, deadline: float) -> Iterator[Rows]:
    """Yield the batches. Raises SourceError once the query has taken too long."""
    for rows in chain([()], batches):
        if monotonic() > deadline:
            raise query.timeout_error()
        if rows:
            yield rows


def bind(query: Query) -> TextClause:
    """Return the query with bind parameters. Raises SourceError for one without a value."""
    clause = text(query.text)
    missing = sorted(clause.compile().params.keys() - query.parameters.keys())
    if missing:
        error = parameter_error(missing[0])
        raise SourceError(
            rf"{error.problem} In a query with parameters, write any other colon as \:."
        )
    return clause


def parameter_error(name: str) -> SourceError:
    """Return the error for a query that names a parameter without a value."""
    return SourceError(f"The query names :{name}, for which the block has no parameter.")


def option_error() -> SourceError:
    """Return the error for an option of the URL that is none."""
    return SourceError(
        "The URL has an option that the database's driver does not know, or not with this value."
    )


def column_error(column: str, problem: str, row: int | None = None) -> SourceError:
    """Return the error for a column, or a value in it, that has no text."""
    where = "" if row is None else f", row {row:,},"
    return SourceError(f"The column {first_ten([column])}{where} {problem}.")


def to_batches(places: Mapping[str, int], fetched: Iterable[Rows]) -> Iterator[pa.RecordBatch]:
    """Yield the columns at these places as text; NULL becomes null.

    The batches are of about BATCH_BYTES, at least one. Raises SourceError for a value without text.
    """
    pending = _Pending(places)
    for rows in fetched:
        pending.add(rows)
        if pending.bytes >= BATCH_BYTES:
            yield pending.take()
    yield pending.take()


class _Pending:
    """Rows that wait until there are enough for a batch."""

    def __init__(self, places: Mapping[str, int]) -> None:
        self.bytes = 0
        self._rows_before = 0
        self._places = places
        self._texts: dict[str, list[pa.Array]] = {column: [] for column in places}
        self._origins: dict[str, set[Origin]] = {column: set() for column in places}

    def add(self, rows: Rows) -> None:
        values = list(zip(*rows, strict=True))
        for column, place in self._places.items():
            texts = self._to_text(column, values[place])
            self._texts[column].append(texts)
            self.bytes += texts.nbytes
        self._rows_before += len(rows)

    def take(self) -> pa.RecordBatch:
        """Return what waits, which does so no longer."""
        texts = [
            pa.concat_arrays(each or [pa.nulls(0, text_type())]) for each in self._texts.values()
        ]
        for each in self._texts.values():
            each.clear()
        self.bytes = 0
        return text_batch(texts, self._origins)

    def _to_text(self, column: str, values: Sequence[Any]) -> pa.Array:
        kinds = set(map(type, values))
        if kinds <= _TEXTS:
            with suppress(UnicodeEncodeError):  # one by one, it is found
                return pl.Series(values, dtype=pl.String).to_arrow()
        self._origins[column] |= origins(kinds)
        return pa.array([*self._texts_of(column, values)], text_type())

    def _texts_of(self, column: str, values: Sequence[Any]) -> Iterator[str | None]:
        for row, value in enumerate(values, self._rows_before + 1):
            try:
                yield to_text(value)
            except NoText as error:
                raise column_error(column, error.problem, row) from None


def text_batch(texts: Sequence[pa.Array], noted: Mapping[str, set[Origin]]) -> pa.RecordBatch:
    """Return the columns' texts as a batch, each with what its values were."""
    fields = (
        pa.field(column, text_type(), metadata={ORIGINS: " ".join(sorted(each))})
        for column, each in noted.items()
    )
    return pa.record_batch([*texts], pa.schema(fields))
