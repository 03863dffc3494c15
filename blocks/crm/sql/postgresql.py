"""Customer lists from PostgreSQL, as text that the server writes itself.

A query without parameters is read by COPY, which takes none; any other by a cursor.
"""

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from math import ceil
from uuid import uuid4

import polars as pl
import psycopg
import pyarrow as pa
from psycopg import errors
from psycopg.pq import ExecStatus
from psycopg.types.string import TextLoader
from sqlalchemy import URL

from blocks.crm import list_file
from blocks.crm.errors import SourceError, SourceUnavailable
from blocks.crm.sql.rows import Query, binary_error, bind, check_time, column_names, to_batches
from blocks.storage.reader import to_polars
from nudgescribe import rfc4180

BLOCK_BYTES = 4 * 1024 * 1024
ROWS_AT_ONCE = 2_000  # a round trip each
BOOL, BYTEA, DATE = 16, 17, 1082
_SETTINGS = (
    "SET TRANSACTION READ ONLY; SET LOCAL client_encoding = 'UTF8'; SET LOCAL DateStyle = ISO; "
    "SET LOCAL extra_float_digits = 3; SET LOCAL statement_timeout = {milliseconds}"
)
# A refused connection has no SQLSTATE. Texts in other languages than English are not recognized.
_TEMPORARY_REFUSALS = ("too many", "starting up", "shutting down", "recovery", "reserved for")
_TRANSIENT_STATES = ("08", "40", "53", "57P")


@dataclass(frozen=True)
class Columns:
    """The columns of a result, with the OIDs of their types."""

    types: dict[str, int]

    def to_batch(self, frame: pl.DataFrame) -> pa.RecordBatch:
        """Return PostgreSQL's text with booleans and dates as what they are.

        Raises SourceError for dates that Arrow cannot hold.
        """
        dates = [name for name, type_ in self.types.items() if type_ == DATE]
        bools = [name for name, type_ in self.types.items() if type_ == BOOL]
        typed = frame.with_columns(
            pl.col(dates).str.to_date("%Y-%m-%d", strict=False),
            pl.col(bools).replace_strict({"t": True, "f": False}, return_dtype=pl.Boolean),
        )
        for name in dates:
            if typed[name].null_count() > frame[name].null_count():
                raise SourceError(
                    f"The column {name} holds a date that is infinity or not within the years 1 "
                    "to 9999: leave it out in the query or convert it to text."
                )
        table: pa.Table = typed.to_arrow()
        (batch,) = list_file.to_batches(table.combine_chunks())
        return batch.rename_columns([*self.types])


def batches(url: URL, query: Query) -> Iterator[pa.RecordBatch]:
    """Yield the query's rows. Raises SourceError, SourceUnavailable."""
    try:
        with _connect(url) as connection:
            _begin(connection, query)
            yield from _read(connection, url, query)
    except psycopg.Error as error:
        raise _translate_error(error, query) from None


def _read(connection: psycopg.Connection, url: URL, query: Query) -> Iterator[pa.RecordBatch]:
    if not query.parameters:
        columns = _describe(connection, query)
        with closing(_copy(connection, query, columns)) as copied:
            try:
                first = next(copied)
            except errors.SyntaxError:
                # A comment after the semicolon is an error within COPY only.
                connection.rollback()
                _begin(connection, query)
            else:
                yield from map(columns.to_batch, chain([first], copied))
                return
    yield from _fetch(connection, url, query)


def _connect(url: URL) -> psycopg.Connection:
    _, options = url.get_dialect()().create_connect_args(url)
    try:
        return psycopg.connect(**options)
    except psycopg.OperationalError as error:
        message, pgconn = str(error), error.pgconn
        if any(text in message for text in _TEMPORARY_REFUSALS):
            raise SourceUnavailable("The database takes no connections for now.") from None
        wants_password = pgconn and (pgconn.used_password or pgconn.needs_password)
        if wants_password or "FATAL" in message:
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


def _describe(connection: psycopg.Connection, query: Query) -> Columns:
    """Return the columns of a query without running it; it must be a single statement."""
    prepared = connection.pgconn.prepare(b"", query.text.encode())
    if prepared.status != ExecStatus.COMMAND_OK:
        error = errors.error_from_result(prepared)
        raise _translate_error(error, query, error.diag.statement_position)
    result = connection.pgconn.describe_prepared(b"")
    names = [(result.fname(number) or b"").decode() for number in range(result.nfields)]
    return _columns(names, map(result.ftype, range(result.nfields)))


def _columns(names: Iterable[str], types: Iterable[int]) -> Columns:
    columns = dict(zip(column_names(names), types, strict=True))
    for name, type_ in columns.items():
        if type_ == BYTEA:
            raise binary_error(name)
    return Columns(columns)


def _copy(
    connection: psycopg.Connection, query: Query, columns: Columns
) -> Generator[pl.DataFrame]:
    null = uuid4().hex[:16]  # in CSV only quotes tell '' from NULL, and parsing drops them
    select = query.text.rstrip("; \t\r\n")
    statement = f"COPY (\n{select}\n) TO STDOUT (FORMAT csv, NULL '{null}')"
    with connection.cursor().copy(statement.encode()) as copy:
        for frame in rfc4180.frames(_CopyReader(copy), BLOCK_BYTES, header=list(columns.types)):
            yield frame.with_columns(pl.when(pl.all() != null).then(pl.all()))


class _CopyReader:
    """Read the rows that COPY sends as one stream of bytes."""

    def __init__(self, copy: psycopg.Copy) -> None:
        self._rows = iter(copy)

    def read(self, size: int, /) -> bytes:
        # Not a list that is joined: thousands of views would keep the garbage collector busy.
        piece = bytearray()
        for row in self._rows:
            piece += row
            if len(piece) >= size:
                break
        return bytes(piece)


def _fetch(connection: psycopg.Connection, url: URL, query: Query) -> Iterator[pa.RecordBatch]:
    for type_ in connection.adapters.types:
        for oid in (type_.oid, type_.array_oid):
            connection.adapters.register_loader(oid, TextLoader)
    with connection.cursor("customers") as cursor:
        if query.parameters:
            statement = bind(query).compile(dialect=url.get_dialect()())
            cursor.execute(str(statement).encode(), query.parameters)
        else:
            cursor.execute(query.text.encode())
        description = cursor.description or []
        columns = _columns(
            (column.name for column in description), (column.type_code for column in description)
        )
        fetched = check_time(iter(lambda: cursor.fetchmany(ROWS_AT_ONCE), []), query)
        for batch in to_batches([*columns.types], fetched):
            yield columns.to_batch(to_polars(pa.table(batch)))


def _translate_error(
    error: psycopg.Error, query: Query, position: str | None = None
) -> SourceError:
    """Return our error, without PostgreSQL's text, which may repeat a value."""
    state = error.sqlstate or ""
    if state == "57014":
        return query.timeout_error()
    if state == "25006":
        return SourceError("The query tries to write: a customer list is only read.")
    kind = type(error).__name__ + (f", SQLSTATE {state}" if state else "")
    if state.startswith(_TRANSIENT_STATES) or (
        not state and isinstance(error, psycopg.OperationalError)
    ):
        return SourceUnavailable(f"The database broke off the query ({kind}).")
    location = f" at character {position}" if position else ""
    return SourceError(
        f"The query failed{location}: {kind}. Run it in a SQL client to see the database's message."
    )
