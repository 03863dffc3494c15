"""Customer lists from a database."""

import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from datetime import date
from math import ceil
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import Field, SecretStr
from sqlalchemy import URL, Connection, CursorResult, NullPool, create_engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from blocks.crm.source import CrmSource, SourceError, SourceUnavailable
from blocks.crm.sql import sqlite
from blocks.crm.sql.rows import ROWS_AT_ONCE, Query, Rows, bound, column_names, frames, in_time
from blocks.saved import documentation_url
from blocks.storage.parquet import read_frames, text_schema, write_parquet
from blocks.storage.scratch import temporary_folder

POSTGRESQL = ("postgresql", "postgresql+psycopg")
LONGEST_SECONDS = 7 * 24 * 60 * 60

# What makes a transaction of the dialect one that only reads, and how it is told a time limit.
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
    The customer list is the result of a query.

    Example:
        ```python
        from blocks import SqlCrm

        crm = SqlCrm.load("BLOCK_NAME")
        ```
    """

    _block_type_name = "SQL CRM"
    _documentation_url = documentation_url("customer-lists")

    url: SecretStr = Field(description="SQLAlchemy URL of the database.")
    query: str = Field(
        description="The query whose rows are the customers and whose columns are the fields. "
        "Prefect keeps it in clear."
    )
    parameters: dict[str, str | int | float | bool | None] = Field(
        default={},
        description="Values for the :names in the query; without any, a colon is just a colon.",
    )
    timeout_seconds: float = Field(
        default=3600, gt=0, le=LONGEST_SECONDS, description="How long the query may take."
    )

    def extract(self, target: Path) -> int:
        query = Query(self.query, self.parameters, self.timeout_seconds)
        try:
            url = make_url(self.url.get_secret_value())
        except (ArgumentError, ValueError):
            raise SourceError(
                "The URL is not of SQLAlchemy's form dialect+driver://user:password@host/database."
            ) from None
        try:
            if url.drivername in sqlite.DRIVERS:
                return sqlite.extract(url, query, target)
            if url.drivername in POSTGRESQL:
                from blocks.crm.sql import postgresql

                return postgresql.extract(url, query, target)
            return _extract(url, query, target)
        except ImportError as error:
            driver = error.name or "library"
            raise SourceError(f"The database's driver {driver} is not installed.") from None


def _extract(url: URL, query: Query, target: Path) -> int:
    """By any driver, with the values as Python has them."""
    try:
        engine = create_engine(url, poolclass=NullPool)
    except ArgumentError:
        raise SourceError("The URL names a database that SQLAlchemy does not know.") from None
    with ExitStack() as stack:
        try:
            connection = stack.enter_context(engine.connect())
        except DBAPIError as error:
            raise SourceUnavailable(
                f"The database could not be opened: {_kind(error)}. Check that it runs, "
                "and the URL's host, user and password."
            ) from None
        try:
            _begin(connection, query)
            result = _executed(connection, query)
            columns = column_names(result.keys() if result.returns_rows else ())
            return _write_rows(columns, in_time(result.partitions(), query), target)
        except SQLAlchemyError as error:
            # The database's own text may repeat a value, the URL holds a password.
            raise SourceError(
                f"The query failed: {_kind(error)}. Run it in a SQL client to see the "
                "database's message."
            ) from None


def _begin(connection: Connection, query: Query) -> None:
    dialect = connection.dialect
    name = "mariadb" if getattr(dialect, "is_mariadb", False) else dialect.name
    limits = {"milliseconds": ceil(query.seconds * 1000), "seconds": query.seconds}
    for statements in (_READ_ONLY, _TIME_LIMIT):
        if statement := statements.get(name):
            connection.exec_driver_sql(statement.format_map(limits))


def _executed(connection: Connection, query: Query) -> CursorResult[Any]:
    options = {"yield_per": ROWS_AT_ONCE, "no_parameters": True}
    if query.parameters:
        return connection.execute(bound(query), query.parameters, execution_options=options)
    # As the driver takes it: a colon or a percent sign in the query is no parameter.
    return connection.exec_driver_sql(query.text, execution_options=options)


def _kind(error: SQLAlchemyError) -> str:
    """With the number some drivers give; all other text may repeat a value."""
    said = error.orig.args if isinstance(error, DBAPIError) and error.orig else ()
    return " ".join([type(error).__name__, *(str(each) for each in said if isinstance(each, int))])


def _write_rows(columns: list[str], batches: Iterable[Rows], target: Path) -> int:
    """Values become text as they come; a column of nothing but dates becomes a date column."""
    kinds: dict[str, set[type]] = {column: set() for column in columns}
    with temporary_folder() as folder:
        draft = folder / "rows.parquet"
        found = frames(columns, _noted(batches, kinds))
        rows = write_parquet(draft, text_schema(columns), found)
        dates = [column for column in columns if kinds[column] - {type(None)} == {date}]
        if not dates:
            shutil.move(draft, target)
            return rows
        schema = pl.Schema(text_schema(columns) | dict.fromkeys(dates, pl.Date()))
        as_dates = pl.col(dates).str.to_date("%Y-%m-%d")
        dated = (frame.with_columns(as_dates) for frame in read_frames(draft))
        return write_parquet(target, schema, dated)


def _noted(batches: Iterable[Rows], kinds: dict[str, set[type]]) -> Iterator[Rows]:
    for rows in batches:
        for seen, values in zip(kinds.values(), zip(*rows, strict=True), strict=True):
            seen.update(map(type, values))
        yield rows
