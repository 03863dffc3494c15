"""The block for customer lists from SQL databases, and the way that suits any driver."""

from collections.abc import Iterator
from contextlib import ExitStack
from math import ceil
from typing import Any

import pyarrow as pa
from pydantic import Field, SecretStr, field_validator
from sqlalchemy import URL, Connection, CursorResult, NullPool, create_engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from blocks.crm.errors import SourceError, SourceUnavailable
from blocks.crm.source import CrmSource
from blocks.crm.sql import sqlite
from blocks.crm.sql.rows import ROWS_AT_ONCE, Query, bind, check_time, column_names, to_batches
from blocks.saved import documentation_url
from blocks.storage.locations import check_database

POSTGRESQL = ("postgresql", "postgresql+psycopg")
MOST_SECONDS = 7 * 24 * 60 * 60

# By dialect: how to make a transaction read-only, and how to set a time limit.
_READ_ONLY = {
    "sqlite": "PRAGMA query_only = ON",
    "postgresql": "SET TRANSACTION READ ONLY",
    "mysql": "SET TRANSACTION READ ONLY",
    "mariadb": "SET TRANSACTION READ ONLY",
    "oracle": "SET TRANSACTION READ ONLY",
}
_TIME_LIMIT = {
    "postgresql": "SET LOCAL statement_timeout = {milliseconds}",
    "mysql": "SET SESSION max_execution_time = {milliseconds}",
    "mariadb": "SET SESSION max_statement_time = {seconds}",
}


class SqlCrm(CrmSource):
    """
    A customer list that is the result of a SQL query.

    Example:
        ```python
        from blocks import SqlCrm

        crm = SqlCrm.load("BLOCK_NAME")
        ```
    """

    _block_type_name = "SQL CRM"
    _documentation_url = documentation_url("customer-lists")

    url: SecretStr = Field(
        description="SQLAlchemy URL of the database. One that is a file has an absolute path, such "
        "as sqlite:////data/crm.db."
    )
    query: str = Field(
        description="Query with a row for each customer and a column for each field. Prefect does "
        "not encrypt it."
    )
    parameters: dict[str, str | int | float | bool | None] = Field(
        default={},
        description="Values of the :names in the query. If empty, colons are left as they are.",
    )
    timeout_seconds: float = Field(
        default=3600, gt=0, le=MOST_SECONDS, description="Time limit of the query, in seconds."
    )

    @field_validator("url")
    @classmethod
    def _means_the_same_everywhere(cls, url: SecretStr) -> SecretStr:
        try:
            parts = make_url(url.get_secret_value())
        except (ArgumentError, ValueError):
            return url  # `extract` tells it: this text may hold the password
        check_database(parts.get_backend_name(), parts.database)
        return url

    def batches(self, needed: frozenset[str] | None) -> Iterator[pa.RecordBatch]:
        """Yield the query's rows, as `CrmSource.batches` does.

        Raises SourceError also if the query takes longer than `timeout_seconds`.
        """
        query = Query(self.query, self.parameters, self.timeout_seconds)
        try:
            url = make_url(self.url.get_secret_value())
        except (ArgumentError, ValueError):
            raise SourceError(
                "The URL is not of SQLAlchemy's form dialect+driver://user:password@host/database."
            ) from None
        try:
            if url.drivername in sqlite.DRIVERS:
                yield from sqlite.batches(url, query)
            elif url.drivername in POSTGRESQL:
                from blocks.crm.sql import postgresql

                yield from postgresql.batches(url, query)
            else:
                yield from _batches(url, query)
        except ImportError as error:
            driver = error.name or "library"
            raise SourceError(f"The database's driver {driver} is not installed.") from None


def _batches(url: URL, query: Query) -> Iterator[pa.RecordBatch]:
    """Yield the rows by any driver of SQLAlchemy, with values as Python objects."""
    try:
        engine = create_engine(url, poolclass=NullPool)
    except ArgumentError:
        raise SourceError("The URL names a database that SQLAlchemy does not know.") from None
    with ExitStack() as stack:
        try:
            connection = stack.enter_context(engine.connect())
        except DBAPIError as error:
            raise SourceUnavailable(
                f"The database could not be opened: {_describe_error(error)}. Check that it runs, "
                "and the URL's host, user and password."
            ) from None
        try:
            _begin(connection, query)
            result = _execute(connection, query)
            columns = column_names(result.keys() if result.returns_rows else ())
            yield from to_batches(columns, check_time(result.partitions(), query))
        except SQLAlchemyError as error:
            # The database's own text may repeat a value, the URL holds a password.
            raise SourceError(
                f"The query failed: {_describe_error(error)}. Run it in a SQL client to see the "
                "database's message."
            ) from None


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


def _describe_error(error: SQLAlchemyError) -> str:
    """Return the class of an error and its numbers; other text may repeat a value."""
    details = error.orig.args if isinstance(error, DBAPIError) and error.orig else ()
    return " ".join(
        [type(error).__name__, *(str(each) for each in details if isinstance(each, int))]
    )
