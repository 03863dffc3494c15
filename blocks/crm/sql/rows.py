"""Rows of any database as text, and the checks all SQL sources share."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from time import monotonic
from typing import Any

import polars as pl
import pyarrow as pa
from sqlalchemy import TextClause, text

from blocks.crm.errors import SourceError
from blocks.crm.list_file import ORIGINS, Origin
from blocks.crm.text import TEXT

_ORIGINS = {date: Origin.DATE, datetime: Origin.TIMESTAMP}

Rows = Sequence[Sequence[Any]]

ROWS_AT_ONCE = 500
"""Few enough for a processor's cache, which takes half the time of 20,000."""
BATCH_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class Query:
    """A query with its parameters, and the most `seconds` it may take."""

    text: str
    parameters: Mapping[str, str | int | float | bool | None]
    seconds: float

    def timeout_error(self) -> SourceError:
        """Return the error for a query that takes too long."""
        return SourceError(
            f"The query was stopped after more than {self.seconds:,g} seconds (timeout_seconds)."
        )


def column_names(names: Iterable[str]) -> list[str]:
    """Return the names as a list. Raises SourceError if there are none, or two are equal."""
    columns = list(names)
    if not columns:
        raise SourceError("The query returns no columns: a customer list comes from a SELECT.")
    if len(set(columns)) < len(columns):
        raise SourceError("The query returns two columns of the same name: rename one with AS.")
    return columns


def check_time(batches: Iterable[Rows], query: Query) -> Iterator[Rows]:
    """Yield the batches. Raises SourceError once the query has taken too long."""
    deadline = monotonic() + query.seconds
    for rows in batches:
        if monotonic() > deadline:
            raise query.timeout_error()
        yield rows


def bind(query: Query) -> TextClause:
    """Return the query with bind parameters. Raises SourceError for one without a value."""
    clause = text(query.text)
    missing = sorted(clause.compile().params.keys() - query.parameters.keys())
    if missing:
        raise SourceError(
            f"The query names :{missing[0]}, for which the block has no parameter. In a query with "
            r"parameters, write any other colon as \:."
        )
    return clause


def to_batches(columns: list[str], fetched: Iterable[Rows]) -> Iterator[pa.RecordBatch]:
    """Yield the rows as text, in batches of about BATCH_BYTES and at least one; NULL becomes null.

    Raises SourceError for values that have no text.
    """
    pending = _Pending(columns)
    for rows in fetched:
        pending.add(rows)
        if pending.bytes >= BATCH_BYTES:
            yield pending.take()
    yield pending.take()


class _Pending:
    """Rows that wait until there are enough for a batch."""

    def __init__(self, columns: list[str]) -> None:
        self.bytes = 0
        self._texts: dict[str, list[pa.Array]] = {column: [] for column in columns}
        self._origins: dict[str, set[Origin]] = {column: set() for column in columns}

    def add(self, rows: Rows) -> None:
        for (column, texts), values in zip(
            self._texts.items(), zip(*rows, strict=True), strict=True
        ):
            text = self._to_text(column, values)
            texts.append(text)
            self.bytes += text.nbytes

    def take(self) -> pa.RecordBatch:
        """Return what waits, which does so no longer."""
        schema = pa.schema(
            pa.field(column, TEXT, metadata={ORIGINS: " ".join(sorted(origins))})
            for column, origins in self._origins.items()
        )
        texts = [pa.concat_arrays(each or [pa.nulls(0, TEXT)]) for each in self._texts.values()]
        for each in self._texts.values():
            each.clear()
        self.bytes = 0
        return pa.record_batch(texts, schema)

    def _to_text(self, column: str, values: Sequence[Any]) -> pa.Array:
        try:
            return pl.Series(values, dtype=pl.String).to_arrow()
        except TypeError:  # some values are not text
            self._origins[column] |= {
                origin for kind, origin in _ORIGINS.items() if kind in set(map(type, values))
            }
            return pa.array([_to_text(column, each) for each in values], TEXT)


def binary_error(column: str) -> SourceError:
    """Return the error for a column that holds binary values."""
    return SourceError(
        f"The column {column} holds binary values: convert them to text in the query."
    )


def _to_text(column: str, value: object) -> str | None:
    match value:
        case None | str():
            return value
        case bool():
            return "true" if value else "false"
        case Decimal():
            return f"{value:f}"
        case datetime():
            return value.isoformat(sep=" ")
        case bytes() | bytearray() | memoryview():
            raise binary_error(column)
        case _:
            return str(value)
