"""Customer lists from PostgreSQL, as the text it writes itself: by COPY, which takes no parameters,
or else by a cursor.
"""

from collections.abc import Generator, Iterable
from contextlib import closing
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from uuid import uuid4

import polars as pl
import psycopg
from psycopg import errors
from psycopg.pq import ExecStatus
from psycopg.types.string import TextLoader
from sqlalchemy import URL

from blocks.crm.source import SourceError, SourceUnavailable
from blocks.crm.sql.rows import Query, binary, bound, column_names, frames, in_time
from blocks.storage.parquet import write_parquet
from nudgescribe import rfc4180

BLOCK_BYTES = 4 * 1024 * 1024
ROWS_AT_ONCE = 2_000  # a round trip each
BOOL, BYTEA, DATE = 16, 17, 1082
_SETTINGS = (
    "SET TRANSACTION READ ONLY; SET LOCAL client_encoding = 'UTF8'; SET LOCAL DateStyle = ISO; "
    "SET LOCAL extra_float_digits = 3; SET LOCAL statement_timeout = {milliseconds}"
)
# A refused connection has no SQLSTATE, only a text; one that is not in English is just refused.
_REFUSED_FOR_NOW = ("too many", "starting up", "shutting down", "recovery", "reserved for")
_TRANSIENT = ("08", "40", "53", "57P")


@dataclass(frozen=True)
class Columns:
    """The columns of a result, with their types' OIDs."""

    types: dict[str, int]

    @property
    def schema(self) -> pl.Schema:
        return pl.Schema(
            {
                name: pl.Date() if type_ == DATE else pl.String()
                for name, type_ in self.types.items()
            }
        )

    def typed(self, frame: pl.DataFrame) -> pl.DataFrame:
        """A frame of PostgreSQL's text as in `schema`. Raises SourceError for a date that is none
        of Parquet's.
        """
        dates = [name for name, type_ in self.types.items() if type_ == DATE]
        bools = [name for name, type_ in self.types.items() if type_ == BOOL]
        typed = frame.with_columns(
            pl.col(dates).str.to_date("%Y-%m-%d", strict=False),
            pl.col(bools).replace({"t": "true", "f": "false"}),
        )
        for name in dates:
            if typed[name].null_count() > frame[name].null_count():
                raise SourceError(
                    f"The column {name} holds a date that is infinity or not within the years 1 "
                    "to 9999: leave it out in the query or convert it to text."
                )
        return typed


def extract(url: URL, query: Query, target: Path) -> int:
    """Like CrmSource.extract."""
    try:
        with _connected(url) as connection:
            _begin(connection, query)
            if not query.parameters:
                columns = _described(connection, query)
                try:
                    return _written(columns, _copied(connection, query, columns), target)
                except errors.SyntaxError:
                    # A good query all the same, but for a comment behind its semicolon.
                    connection.rollback()
                    _begin(connection, query)
            return _fetched(connection, url, query, target)
    except psycopg.Error as error:
        raise _problem(error, query) from None


def _connected(url: URL) -> psycopg.Connection:
    _, options = url.get_dialect()().create_connect_args(url)
    try:
        return psycopg.connect(**options)
    except psycopg.OperationalError as error:
        said, reached = str(error), error.pgconn
        if any(text in said for text in _REFUSED_FOR_NOW):
            raise SourceUnavailable("The database takes no connections for now.") from None
        asked = reached and (reached.used_password or reached.needs_password)
        if asked or "FATAL" in said:
            raise SourceError(
                "The database refused the connection: check the URL's user, password and database."
            ) from None
        raise SourceUnavailable(
            "The database could not be reached: check the URL's host, port and sslmode, and that "
            "this machine may connect to it."
        ) from None
    except psycopg.Error:
        raise SourceError("The URL has an option that PostgreSQL's driver does not know.") from None


def _begin(connection: psycopg.Connection, query: Query) -> None:
    settings = _SETTINGS.format(milliseconds=ceil(query.seconds * 1000))
    connection.execute(settings.encode())


def _described(connection: psycopg.Connection, query: Query) -> Columns:
    """The columns of a query, which is only parsed; that there is but one statement is seen to."""
    prepared = connection.pgconn.prepare(b"", query.text.encode())
    if prepared.status != ExecStatus.COMMAND_OK:
        error = errors.error_from_result(prepared)
        raise _problem(error, query, error.diag.statement_position)
    result = connection.pgconn.describe_prepared(b"")
    names = [(result.fname(number) or b"").decode() for number in range(result.nfields)]
    return _columns(names, map(result.ftype, range(result.nfields)))


def _columns(names: Iterable[str], types: Iterable[int]) -> Columns:
    columns = dict(zip(column_names(names), types, strict=True))
    for name, type_ in columns.items():
        if type_ == BYTEA:
            raise binary(name)
    return Columns(columns)


def _copied(
    connection: psycopg.Connection, query: Query, columns: Columns
) -> Generator[pl.DataFrame]:
    null = uuid4().hex[:16]  # CSV tells NULL from '' by quotes alone, which are gone when parsed
    asked = query.text.rstrip("; \t\r\n")
    statement = f"COPY (\n{asked}\n) TO STDOUT (FORMAT csv, NULL '{null}')"
    with connection.cursor().copy(statement.encode()) as copy:
        for frame in rfc4180.frames(_Pieces(copy), BLOCK_BYTES, header=list(columns.types)):
            yield frame.with_columns(pl.when(pl.all() != null).then(pl.all()))


class _Pieces:
    """What COPY sends row by row, in pieces of some size."""

    def __init__(self, copy: psycopg.Copy) -> None:
        self._rows = iter(copy)

    def read(self, size: int, /) -> bytes:
        # Not a list to be joined: thousands of views cost the garbage collector seconds.
        piece = bytearray()
        for row in self._rows:
            piece += row
            if len(piece) >= size:
                break
        return bytes(piece)


def _fetched(connection: psycopg.Connection, url: URL, query: Query, target: Path) -> int:
    for type_ in connection.adapters.types:
        for oid in (type_.oid, type_.array_oid):
            connection.adapters.register_loader(oid, TextLoader)
    with connection.cursor("customers") as cursor:
        if query.parameters:
            statement = bound(query).compile(dialect=url.get_dialect()())
            cursor.execute(str(statement).encode(), query.parameters)
        else:
            cursor.execute(query.text.encode())
        description = cursor.description or []
        columns = _columns(
            (column.name for column in description), (column.type_code for column in description)
        )
        batches = in_time(iter(lambda: cursor.fetchmany(ROWS_AT_ONCE), []), query)
        return _written(columns, frames(list(columns.types), batches), target)


def _written(columns: Columns, frames: Generator[pl.DataFrame], target: Path) -> int:
    with closing(frames):
        return write_parquet(target, columns.schema, map(columns.typed, frames))


def _problem(error: psycopg.Error, query: Query, position: str | None = None) -> SourceError:
    """PostgreSQL's own text may repeat a value."""
    state = error.sqlstate or ""
    if state == "57014":
        return query.overdue()
    if state == "25006":
        return SourceError("The query tries to write: a customer list is only read.")
    kind = type(error).__name__ + (f", SQLSTATE {state}" if state else "")
    if state.startswith(_TRANSIENT) or (not state and isinstance(error, psycopg.OperationalError)):
        return SourceUnavailable(f"The database broke off ({kind}).")
    place = f" at character {position}" if position else ""
    return SourceError(
        f"The query failed{place}: {kind}. Run it in a SQL client to see the database's message."
    )
