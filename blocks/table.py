"""The block for a table of messages in a SQL database, for teams whose tools read one."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pydantic import Field, SecretStr, field_validator

from blocks.crm.sql.block import DATABASE_URL, check_database_url, parse_database_url
from blocks.documentation import documentation_url
from blocks.extras import require
from blocks.saved import SavedBlock
from blocks.secrets import read_secret
from blocks.storage.files import Files
from blocks.storage.handover import CHANGE, ID, MESSAGE, Changes
from blocks.storage.locations import check_database, database_path
from blocks.storage.manifest import Manifest
from nudgescribe.errors import NudgeflowError, Retryable, first_ten
from nudgescribe.lazy import pl, sqlalchemy, sqlalchemy_errors

if TYPE_CHECKING:
    from sqlalchemy import URL, BindParameter, Connection, Engine, Table

CAMPAIGN, RUN, WRITTEN = "campaign_id", "run_number", "written_at"
COLUMNS = (CAMPAIGN, ID, MESSAGE, RUN, WRITTEN)
ROWS_AT_ONCE = 5_000
_TWICE = ("23505", "SQLITE_CONSTRAINT_PRIMARYKEY")
"""States of a key that is there already: of two who write the same rows at once, one comes second.
"""
_NAME = re.compile(r"(?:[A-Za-z_]\w*\.)?[A-Za-z_]\w*", re.ASCII)


class TableUnusable(NudgeflowError):
    """The table that messages are copied to, or its database, cannot be used."""

    advice = "Correct the block, or the table and what its user may do, then retry."


class TableUnavailable(Retryable):
    """The database that messages are copied to cannot be reached, or is busy."""

    advice = (
        "The table is as it was. Check that the database runs, and the block's URL; retry later."
    )


class SqlTable(SavedBlock):
    """
    A table of a SQL database that holds the messages of campaigns' newest runs.

    Example:
        ```python
        from blocks import SqlTable

        table = SqlTable.load("BLOCK_NAME")
        ```
    """

    _block_type_name = "SQL table"
    _documentation_url = documentation_url("the-lake")

    url: SecretStr = Field(description=DATABASE_URL)
    table: str = Field(
        default="nudgescribe_messages",
        description="Name of the table, which is created if it is missing; before a dot its "
        "schema.",
    )

    @field_validator("url")
    @classmethod
    def _means_the_same_everywhere(cls, url: SecretStr) -> SecretStr:
        return check_database_url(url, _check_place)

    @field_validator("table")
    @classmethod
    def _is_a_name(cls, table: str) -> str:
        if not _NAME.fullmatch(table):
            raise ValueError("must be the name of a table, or schema.table")
        return table

    def check(self) -> None:
        """Check that the database answers, and that the table, if there is one, has the columns and
        the key that are needed. Raises TableUnusable, TableUnavailable, ExtraMissing.
        """
        with self._begin() as connection:
            self._check(connection)

    def replace(self, files: Files, run: Manifest) -> dict[str, int]:
        """Make the campaign's rows those of a run in the lake; return how many customers were
        added, changed and removed.

        Only rows that differ are written, all in one transaction: whatever happens, others see the
        rows as they were or as they are to be, and another call changes nothing.

        Raises TableUnusable, TableUnavailable, ExtraMissing.
        """
        with self._begin() as connection:
            self._check(connection)
            table = self._table
            table.create(connection, checkfirst=True)
            if connection.dialect.name == "sqlite":
                # It locks with the first statement that may write; two copies must not both read.
                connection.execute(table.delete().where(sqlalchemy.false()))
            changes = Changes(files, run, _read(connection, table, run.campaign_id))
            _remove(connection, table, run.campaign_id, changes.removed())
            for frame in changes.written():
                _write(connection, table, run, frame)
        return {change: changes.counts[change] for change in ("added", "changed", "removed")}

    @property
    def _table(self) -> Table:
        from sqlalchemy import Column, DateTime, Integer, MetaData, String, Table, Text

        schema, _, name = self.table.rpartition(".")
        # These do not take text without a length for a key.
        key = Text().with_variant(String(255), "mysql", "mariadb", "mssql", "oracle")
        return Table(
            name,
            MetaData(schema=schema or None),
            Column(CAMPAIGN, key, primary_key=True),
            Column(ID, key, primary_key=True),
            Column(MESSAGE, Text, nullable=False),
            Column(RUN, Integer, nullable=False),
            Column(WRITTEN, DateTime(timezone=True), nullable=False),
        )

    def _check(self, connection: Connection) -> None:
        table = self._table
        if not sqlalchemy.inspect(connection).has_table(table.name, table.schema):
            return
        nothing = sqlalchemy.select(sqlalchemy.text("*")).select_from(table).limit(0)
        there = {*connection.execute(nothing).keys()}
        if missing := [each for each in COLUMNS if each not in there]:
            raise TableUnusable(f"The table {self.table} has no column {first_ten(missing)}.")
        if _primary_key(connection, table) != {CAMPAIGN, ID}:
            raise TableUnusable(
                f"The primary key of the table {self.table} is not {CAMPAIGN}, {ID}."
            )

    @contextmanager
    def _begin(self) -> Generator[Connection]:
        """Yield a connection in a transaction; errors tell classes and codes, and no values."""
        try:
            with self._engine().begin() as connection:
                yield connection
        except sqlalchemy_errors.SQLAlchemyError as error:
            kind = TableUnavailable if _may_pass(error) else TableUnusable
            said = f"{type(error).__name__} {_state(error)}".rstrip()
            raise kind(f"{self.block_slug}: the database answered {said}.") from None

    def _engine(self) -> Engine:
        secret = read_secret(self.url, f"{self.block_slug}, url")
        try:
            url = parse_database_url(secret)
            _check_place(url)
        except (sqlalchemy_errors.ArgumentError, ValueError):
            raise TableUnusable(
                f"{self.block_slug}: the URL is not of SQLAlchemy's form "
                "dialect+driver://user:password@host/database, with an absolute path if the "
                "database is a file, which one in memory is not."
            ) from None
        if url.get_backend_name() == "postgresql":
            require("postgresql", "A table in PostgreSQL")
            url = url.set(drivername="postgresql+psycopg")
        if url.get_backend_name() == "duckdb":
            require("duckdb", "A table in DuckDB")
        try:
            engine = sqlalchemy.create_engine(
                url, poolclass=sqlalchemy.NullPool, hide_parameters=True
            )
        except ImportError as error:
            driver = error.name or "library"
            raise TableUnusable(f"The database's driver {driver} is not installed.") from None
        except (sqlalchemy_errors.ArgumentError, TypeError, ValueError):
            raise TableUnusable(
                f"{self.block_slug}: the URL names a database or an option that SQLAlchemy does "
                "not know."
            ) from None
        if engine.dialect.name in ("sqlite", "duckdb"):
            return engine
        # Of two copies at once, the second one fails with what passes.
        return engine.execution_options(isolation_level="SERIALIZABLE")


def _check_place(url: URL) -> None:
    """Check that what is written there stays. Raises ValueError."""
    dialect, database = url.get_backend_name(), url.database
    check_database(dialect, database)
    if (database_path(dialect, database) or "").startswith(":"):
        raise ValueError(f"must name a file, such as {dialect}:////data/messages.db")


def _primary_key(connection: Connection, table: Table) -> set[str]:
    if connection.dialect.name != "duckdb":
        key = sqlalchemy.inspect(connection).get_pk_constraint(table.name, table.schema)
        return {*key["constrained_columns"]}
    # Its dialect asks for what only PostgreSQL has.
    columns = sqlalchemy.text(
        "SELECT unnest(constraint_column_names) FROM duckdb_constraints() "
        "WHERE constraint_type = 'PRIMARY KEY' AND table_name = :name "
        "AND database_name = current_database() "
        "AND schema_name = coalesce(:schema, current_schema())"
    )
    where = {"name": table.name, "schema": table.schema}
    return {*connection.execute(columns, where).scalars()}


def _read(connection: Connection, table: Table, campaign_id: str) -> Iterator[pl.DataFrame]:
    columns = table.c[ID], table.c[MESSAGE]
    rows = connection.execute(
        sqlalchemy.select(*columns).where(table.c[CAMPAIGN] == campaign_id),
        execution_options={"yield_per": ROWS_AT_ONCE},
    )
    schema = dict.fromkeys([ID, MESSAGE], pl.String())
    for part in rows.partitions():
        yield pl.DataFrame([tuple(row) for row in part], schema=schema, orient="row")


def _remove(connection: Connection, table: Table, campaign_id: str, ids: pl.Series) -> None:
    delete = table.delete().where(*_key(table, campaign_id))
    for part in ids.to_frame(_BOUND[ID]).iter_slices(ROWS_AT_ONCE):
        connection.execute(delete, part.to_dicts())


def _write(connection: Connection, table: Table, run: Manifest, frame: pl.DataFrame) -> None:
    id_, message = _bound(ID), _bound(MESSAGE)
    values = {RUN: run.run_number, WRITTEN: datetime.now(UTC), MESSAGE: message}
    statements: dict[str, Any] = {
        "added": table.insert().values({**values, CAMPAIGN: run.campaign_id, ID: id_}),
        "changed": table.update().where(*_key(table, run.campaign_id)).values(values),
    }
    for change, statement in statements.items():
        rows = frame.filter(pl.col(CHANGE) == change).select(ID, MESSAGE).rename(_BOUND)
        for part in rows.iter_slices(ROWS_AT_ONCE):
            connection.execute(statement, part.to_dicts())


_BOUND = {ID: "b_customer_id", MESSAGE: "b_message"}
"""Names of parameters: those of columns have a meaning of their own."""


def _key(table: Table, campaign_id: str) -> Iterable[Any]:
    return (
        table.c[CAMPAIGN] == campaign_id,
        table.c[ID] == _bound(ID),
    )


def _bound(column: str) -> BindParameter[str]:
    return sqlalchemy.bindparam(_BOUND[column], type_=sqlalchemy.Text())


def _may_pass(error: sqlalchemy_errors.SQLAlchemyError) -> bool:
    """Return whether another try may succeed."""
    passing = sqlalchemy_errors.OperationalError, sqlalchemy_errors.InterfaceError
    lost = isinstance(error, sqlalchemy_errors.DBAPIError) and error.connection_invalidated
    return lost or isinstance(error, passing) or _state(error) in _TWICE


def _state(error: sqlalchemy_errors.SQLAlchemyError) -> str:
    original = getattr(error, "orig", None)
    return getattr(original, "sqlstate", None) or getattr(original, "sqlite_errorname", None) or ""
