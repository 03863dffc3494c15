"""Customer lists from a database without a way of its own here, by its driver for SQLAlchemy."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from math import ceil
from time import monotonic
from typing import Any

from sqlalchemy import URL, Connection, CursorResult, Engine, NullPool, create_engine
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from blocks.crm.errors import SourceError, SourceUnavailable
from blocks.crm.sql.messages import failure
from blocks.crm.sql.rows import (
    ROWS_AT_ONCE,
    Query,
    bind,
    check_time,
    column_error,
    option_error,
    to_batches,
)
from nudgescribe.lazy import pa

# By dialect: how to make a transaction read-only, and how to set a time limit.
_READ_ONLY = {
    "sqlite": "PRAGMA query_only = ON",
    # Of the session: CREATE TABLE ends a transaction, and is done outside of it.
    "mysql": "SET SESSION TRANSACTION READ ONLY",
    "mariadb": "SET SESSION TRANSACTION READ ONLY",
    "oracle": "SET TRANSACTION READ ONLY",
}
_TIME_LIMIT = {
    "mysql": "SET SESSION max_execution_time = {milliseconds}",
    "mariadb": "SET SESSION max_statement_time = {seconds}",
}
_MYSQL = ("mysql", "mariadb")
_FLOAT = 4  # the type's code in the protocol of both
# Codes of MySQL and MariaDB.
_REFUSED = {1044, 1045, 1049, 1698}
_WRITES = {1290, 1792}
_TOO_LONG = {1317, 1969, 3024}
_TRANSIENT = {1205, 1213, 2006, 2013}


def batches(url: URL, query: Query) -> Iterator[pa.RecordBatch]:
    """Yield the query's rows as text. Raises SourceError, SourceUnavailable."""
    try:
        engine = create_engine(_in_utf8(url), poolclass=NullPool)
    except ArgumentError:
        raise SourceError("The URL names a database that SQLAlchemy does not know.") from None
    except ValueError:
        raise option_error() from None
    with _connected(engine) as connection:
        try:
            _begin(connection, query)
            deadline = monotonic() + query.seconds
            result = _execute(connection, query)
            places = query.places(result.keys() if result.returns_rows else ())
            if connection.dialect.name in _MYSQL:
                _check_floats(result, places)
            rows = check_time(result.partitions(ROWS_AT_ONCE), query, deadline)
            yield from to_batches(places, rows)
        except SQLAlchemyError as error:
            raise _translate_error(error, query) from None


def _in_utf8(url: URL) -> URL:
    """Return the URL with the character set that loses none: MySQL writes ? for what a smaller one
    lacks.
    """
    # MariaDB's own connector has no other, and no option for it.
    if url.get_backend_name() not in _MYSQL or url.get_driver_name() == "mariadbconnector":
        return url
    return url.update_query_dict({"charset": "utf8mb4"})


def _check_floats(result: CursorResult[Any], places: Mapping[str, int]) -> None:
    """Raise SourceError for a needed column whose digits MySQL or MariaDB cuts off."""
    description = result.cursor.description if result.cursor else ()
    for name, place in places.items():
        if description[place][1] == _FLOAT:
            problem = "is FLOAT, of which the server gives six digits: CAST(… AS DOUBLE)"
            raise column_error(name, problem)


@contextmanager
def _connected(engine: Engine) -> Generator[Connection]:
    try:
        connection = engine.connect()
    except (TypeError, ValueError):
        raise option_error() from None
    except DBAPIError as error:
        if _REFUSED & _numbers(error):
            raise SourceError(
                "The database refused the connection: check the URL's user, password and database."
            ) from None
        raise SourceUnavailable(
            f"The database could not be opened: {_code(error)}. Check that it runs, and the URL's "
            "host, user and password."
        ) from None
    with closing(connection):
        try:
            yield connection
        except BaseException:
            connection.invalidate()  # else a driver reads the rest of a long result first
            raise


def _begin(connection: Connection, query: Query) -> None:
    dialect = connection.dialect
    name = "mariadb" if getattr(dialect, "is_mariadb", False) else dialect.name
    limits = {"milliseconds": ceil(query.seconds * 1000), "seconds": query.seconds}
    for statements in (_READ_ONLY, _TIME_LIMIT):
        if statement := statements.get(name):
            connection.exec_driver_sql(statement.format_map(limits))


def _execute(connection: Connection, query: Query) -> CursorResult[Any]:
    options = {"yield_per": ROWS_AT_ONCE, "no_parameters": True}
    if query.parameters:
        return connection.execute(bind(query), query.parameters, execution_options=options)
    # Not as SQLAlchemy's text(): without parameters, colons and percent signs mean nothing.
    return connection.exec_driver_sql(query.text, execution_options=options)


def _translate_error(error: SQLAlchemyError, query: Query) -> SourceError:
    """Return our error, without what may be a value in the database's text."""
    numbers = _numbers(error)
    if numbers & _TOO_LONG:
        return query.timeout_error()
    if numbers & _WRITES:
        return SourceError("The query tries to write: a customer list is only read.")
    if numbers & _TRANSIENT or (isinstance(error, DBAPIError) and error.connection_invalidated):
        return SourceUnavailable(f"The database broke off the query ({_code(error)}).")
    message = str(error.orig) if isinstance(error, DBAPIError) else ""
    return failure(query.text, _code(error), message)


def _code(error: SQLAlchemyError) -> str:
    return " ".join([type(error).__name__, *map(str, sorted(_numbers(error)))])


def _numbers(error: SQLAlchemyError) -> set[int]:
    """Return the numbers that a database gives for its error."""
    details = error.orig.args if isinstance(error, DBAPIError) and error.orig else ()
    return {each for each in details if isinstance(each, int)}
