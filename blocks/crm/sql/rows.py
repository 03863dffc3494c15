"""Rows of any database as frames of text, and the checks all SQL sources share."""

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from time import monotonic
from typing import Any

import polars as pl
from sqlalchemy import TextClause, text

from blocks.crm.source import SourceError

Rows = Sequence[Sequence[Any]]

ROWS_AT_ONCE = 500
"""Few enough for a processor's cache, which takes half the time of 20,000."""
FRAME_BYTES = 4 * 1024 * 1024


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


def to_frames(columns: list[str], batches: Iterable[Rows]) -> Generator[pl.DataFrame]:
    """Yield the rows as text, in frames of about FRAME_BYTES; NULL becomes null.

    Raises SourceError for binary values.
    """
    pending: list[pl.DataFrame] = []
    size = 0
    for rows in batches:
        values = zip(columns, zip(*rows, strict=True), strict=True)
        pending.append(pl.DataFrame([_to_series(column, each) for column, each in values]))
        size += pending[-1].estimated_size()
        if size >= FRAME_BYTES:
            yield pl.concat(pending)
            pending, size = [], 0
    if pending:
        yield pl.concat(pending)


def binary_error(column: str) -> SourceError:
    """Return the error for a column that holds binary values."""
    return SourceError(
        f"The column {column} holds binary values: convert them to text in the query."
    )


def _to_series(column: str, values: Sequence[Any]) -> pl.Series:
    try:
        return pl.Series(column, values, dtype=pl.String)
    except TypeError:  # some values are not text
        return pl.Series(column, [_to_text(column, each) for each in values], dtype=pl.String)


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
