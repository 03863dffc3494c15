"""The rows of a database as frames of text."""

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
"""So few that a processor's cache holds them until they are text: half the time of 20,000."""
FRAME_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class Query:
    """What a database is asked, and how many seconds it may take."""

    text: str
    parameters: Mapping[str, str | int | float | bool | None]
    seconds: float

    def overdue(self) -> SourceError:
        return SourceError(
            f"The query was stopped: it may take {self.seconds:,g} seconds (timeout_seconds)."
        )


def column_names(names: Iterable[str]) -> list[str]:
    """The names as a list. Raises SourceError for none and for one that comes twice."""
    columns = list(names)
    if not columns:
        raise SourceError("The query returns no columns: a customer list comes from a SELECT.")
    if len(set(columns)) < len(columns):
        raise SourceError("The query returns two columns of one name: give them names with AS.")
    return columns


def in_time(batches: Iterable[Rows], query: Query) -> Iterator[Rows]:
    """The batches. Raises SourceError for one that comes too late."""
    deadline = monotonic() + query.seconds
    for rows in batches:
        if monotonic() > deadline:
            raise query.overdue()
        yield rows


def bound(query: Query) -> TextClause:
    """The query, for its parameters to be bound. Raises SourceError for one without a value."""
    clause = text(query.text)
    missing = sorted(clause.compile().params.keys() - query.parameters.keys())
    if missing:
        raise SourceError(
            f"The query names :{missing[0]}, for which the block has no parameter. A colon that is "
            r"no parameter is written \: in a query with parameters."
        )
    return clause


def frames(columns: list[str], batches: Iterable[Rows]) -> Generator[pl.DataFrame]:
    """The rows as text, in frames of about `FRAME_BYTES`; NULL stays null. Raises SourceError for
    binary values.
    """
    gathered: list[pl.DataFrame] = []
    size = 0
    for rows in batches:
        values = zip(columns, zip(*rows, strict=True), strict=True)
        gathered.append(pl.DataFrame([_series(column, each) for column, each in values]))
        size += gathered[-1].estimated_size()
        if size >= FRAME_BYTES:
            yield pl.concat(gathered)
            gathered, size = [], 0
    if gathered:
        yield pl.concat(gathered)


def binary(column: str) -> SourceError:
    return SourceError(
        f"The column {column} holds binary values: convert them to text in the query."
    )


def _series(column: str, values: Sequence[Any]) -> pl.Series:
    try:
        return pl.Series(column, values, dtype=pl.String)
    except TypeError:  # not text all through
        return pl.Series(column, [_text(column, each) for each in values], dtype=pl.String)


def _text(column: str, value: object) -> str | None:
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
            raise binary(column)
        case _:
            return str(value)
