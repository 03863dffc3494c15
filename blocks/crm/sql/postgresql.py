"""Customer lists from PostgreSQL, as text that the server writes itself.

A query without parameters is read by COPY, which takes none; any other by a cursor.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from itertools import chain
from math import ceil
from time import monotonic
from uuid import uuid4

import psycopg
from psycopg import errors
from psycopg.pq import ExecStatus
from psycopg.types.string import TextLoader
from sqlalchemy import URL
from sqlalchemy.exc import ArgumentError

from blocks.crm.errors import SourceError, SourceUnavailable
from blocks.crm.list_file import ORIGINS, Origin
from blocks.crm.sql.messages import failure, parse_failure
from blocks.crm.sql.rows import (
    Query,
    bind,
    check_time,
    column_error,
    option_error,
    to_batches,
)
from blocks.crm.sql.values import BINARY
from nudgescribe import rfc4180
from nudgescribe.lazy import pa, pc, pl

BLOCK_BYTES = 4 * 1024 * 1024
CONNECT_SECONDS = 6
"""Unless the URL says otherwise. Without a limit, the system's is minutes where nobody answers."""
ROWS_AT_ONCE = 2_000  # a round trip each
BOOL, BYTEA, FLOAT4, FLOAT8, DATE = 16, 17, 700, 701, 1082
TIMESTAMP, TIMESTAMPTZ, TIMETZ = 1114, 1184, 1266
_ORIGINS = {DATE: Origin.DATE, TIMESTAMP: Origin.TIMESTAMP, TIMESTAMPTZ: Origin.TIMESTAMP}
_DAYS = frozenset(_ORIGINS)
_DAY = r"^\d{4}-\d\d-\d\d($| \d\d:\d\d:[\d.]+([+-][\d:]+)?$)"
_SETTINGS = (
    "SET TRANSACTION READ ONLY; SET LOCAL client_encoding = 'UTF8'; SET LOCAL DateStyle = ISO; "
    "SET LOCAL IntervalStyle = postgres; SET LOCAL extra_float_digits = 3; "
    "SET LOCAL statement_timeout = {milliseconds}"
)
# A refused connection has no SQLSTATE. Texts in other languages than English are not recognized.
_TEMPORARY_REFUSALS = ("too many", "starting up", "shutting down", "recovery", "reserved for")
_TRANSIENT_STATES = ("08", "40", "53", "57P")
_OBJECTS = {"context", "cursor_factory", "prepare_threshold", "row_factory"}
"""Options of psycopg that are objects, which no URL can hold."""
_CLASS_42 = "42"
"""Of SQLSTATE: the query is wrong in itself."""


class Columns:
    """The needed columns of a result, and the OIDs of their types."""

    def __init__(self, query: Query, columns: Sequence[tuple[str, int]]) -> None:
        self.count = len(columns)
        self.places = query.places(name for name, _ in columns)
        self._types = {name: columns[place][1] for name, place in self.places.items()}
        self._rows_before = 0
        for name, type_ in self._types.items():
            if type_ == BYTEA:
                raise column_error(name, BINARY)

    def to_batch(self, texts: Sequence[pa.Array]) -> pa.RecordBatch:
        """Return the texts of PostgreSQL in our form.

        Raises SourceError for a day that is not within the years 1 to 9999.
        """
        values = list(map(self._value, self._types, texts))
        fields = (
            pa.field(name, value.type, metadata={ORIGINS: _ORIGINS.get(self._types[name], "")})
            for name, value in zip(self._types, values, strict=True)
        )
        self._rows_before += len(texts[0]) if texts else 0
        return pa.record_batch(values, pa.schema(fields))

    def _value(self, name: str, texts: pa.Array) -> pa.Array:
        type_ = self._types[name]
        if type_ in _DAYS:
            self._check_days(name, texts)
        write = _WRITERS.get(type_)
        return write(texts) if write else texts

    def _check_days(self, name: str, texts: pa.Array) -> None:
        place = pc.index(pc.match_substring_regex(texts, _DAY), False).as_py()
        if place >= 0:
            what = (
                "holds a date that is infinity or not within the years 1 to 9999: leave it out in "
                "the query or convert it to text"
            )
            raise column_error(name, what, self._rows_before + place + 1)


def _flags(texts: pa.Array) -> pa.Array:
    return pc.equal(texts, "t")


def _whole_offsets(texts: pa.Array) -> pa.Array:
    """Return times with the minutes of their offset, which PostgreSQL leaves out if they are 0."""
    return pc.replace_substring_regex(texts, r"([+-]\d\d)$", r"\1:00")


def _floats(type_: pa.DataType) -> Callable[[pa.Array], pa.Array]:
    return lambda texts: texts.cast(type_)


_WRITERS: dict[int, Callable[[pa.Array], pa.Array]] = {
    BOOL: _flags,
    FLOAT4: _floats(pa.float32()),
    FLOAT8: _floats(pa.float64()),
    TIMESTAMPTZ: _whole_offsets,
    TIMETZ: _whole_offsets,
}


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
        with closing(_copy(connection, query, _describe(connection, query))) as copied:
            try:
                first = next(copied)
            except errors.SyntaxError:
                # A comment after the semicolon is an error within COPY only.
                connection.rollback()
                _begin(connection, query)
            else:
                yield from chain([first], copied)
                return
    yield from _fetch(connection, url, query)


def _connect(url: URL) -> psycopg.Connection:
    try:
        _, options = url.get_dialect()().create_connect_args(url)
        if _OBJECTS & options.keys():
            raise option_error()
        # What is read-only, and limited in time, is a transaction.
        options["autocommit"] = False
        options.setdefault("connect_timeout", CONNECT_SECONDS)
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
    except (psycopg.Error, ArgumentError, TypeError, ValueError):
        raise option_error() from None


def _begin(connection: psycopg.Connection, query: Query) -> None:
    settings = _SETTINGS.format(milliseconds=ceil(query.seconds * 1000))
    connection.execute(settings.encode())


def _describe(connection: psycopg.Connection, query: Query) -> Columns:
    """Return the columns of a query without running it; it must be a single statement."""
    result = connection.pgconn.prepare(b"", query.text.encode())
    if result.status == ExecStatus.COMMAND_OK:
        result = connection.pgconn.describe_prepared(b"")
    if result.status != ExecStatus.COMMAND_OK:
        error = errors.error_from_result(result)
        raise _parse_error(error, query, error.diag.statement_position)
    names = ((result.fname(number) or b"").decode() for number in range(result.nfields))
    return Columns(query, list(zip(names, map(result.ftype, range(result.nfields)), strict=True)))


def _copy(
    connection: psycopg.Connection, query: Query, columns: Columns
) -> Generator[pa.RecordBatch]:
    null = uuid4().hex[:16]  # in CSV only quotes tell '' from NULL, and parsing drops them
    select = query.text.rstrip("; \t\r\n")
    statement = f"COPY (\n{select}\n) TO STDOUT (FORMAT csv, NULL '{null}')"
    header = list(map(str, range(columns.count)))
    with connection.cursor().copy(statement.encode()) as copy:
        for frame in rfc4180.frames(_CopyReader(copy), BLOCK_BYTES, header=header):
            needed = frame.select(str(place) for place in columns.places.values())
            texts = needed.with_columns(pl.when(pl.all() != null).then(pl.all()))
            yield columns.to_batch([each.to_arrow() for each in texts])


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
    deadline = monotonic() + query.seconds
    with connection.cursor("customers") as cursor:
        _open(cursor, url, query)
        described = cursor.description or ()
        columns = Columns(query, [(column.name, column.type_code) for column in described])
        fetched = check_time(iter(lambda: cursor.fetchmany(ROWS_AT_ONCE), []), query, deadline)
        for batch in to_batches(columns.places, fetched):
            yield columns.to_batch([batch.column(name) for name in columns.places])


def _open(cursor: psycopg.ServerCursor, url: URL, query: Query) -> None:
    statement = query.text
    if query.parameters:
        statement = str(bind(query).compile(dialect=url.get_dialect()()))
    try:
        cursor.execute(statement.encode(), query.parameters or None)
    except psycopg.Error as error:
        raise _parse_error(error, query) from None


def _parse_error(error: psycopg.Error, query: Query, position: str | None = None) -> SourceError:
    """Return our error for a query that PostgreSQL has not begun to run."""
    if not (error.sqlstate or "").startswith(_CLASS_42):
        return _translate_error(error, query)
    where = f" at character {position}" if position else ""
    code = f"{type(error).__name__}, SQLSTATE {error.sqlstate}{where}"
    # One with a context is from within a function, which may raise what it likes.
    message = "" if error.diag.context else error.diag.message_primary
    return parse_failure(query.text, code, message or "")


def _translate_error(error: psycopg.Error, query: Query) -> SourceError:
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
    return failure(query.text, kind, "")
