"""The block for customer lists from SQL databases."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING

from pydantic import Field, SecretStr, field_validator

from blocks.crm.errors import SourceError, SourceUnavailable
from blocks.crm.source import CrmSource
from blocks.crm.text import parse_time
from blocks.documentation import documentation_url
from blocks.extras import require
from blocks.secrets import HINT, read_secret
from blocks.storage.locations import check_database
from blocks.storage.reader import to_polars
from nudgescribe import reach
from nudgescribe.errors import translate_foreign_errors
from nudgescribe.lazy import pa, sqlalchemy, sqlalchemy_errors

if TYPE_CHECKING:
    from blocks.crm.sql.rows import Query

_PORTS = {"postgresql": 5432, "mysql": 3306, "mariadb": 3306, "mssql": 1433, "oracle": 1521}
_OPENINGS = {"postgresql": bytes([0, 0, 0, 8, 4, 210, 22, 47]), "mysql": b"", "mariadb": b""}
"""What a client says before it signs in: to PostgreSQL SSLRequest; the others speak first."""
MOST_SECONDS = 7 * 24 * 60 * 60
DATABASE_URL = (
    "SQLAlchemy URL of the database. One that is a file has an absolute path, such as "
    f"sqlite:////data/crm.db. {HINT}"
)


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

    url: SecretStr = Field(description=DATABASE_URL)
    query: str = Field(
        description="Query with a row for each customer and a column for each field. Prefect does "
        "not encrypt it."
    )
    parameters: dict[str, str | int | float | bool | None] = Field(
        default={},
        description="Values of the :names in the query. If empty, colons are left as they are.",
    )
    updated_query: str | None = Field(
        default=None,
        description="Query of one value: the time when the list was brought up to date, such as "
        "SELECT max(loaded_at) FROM loads. For options.max_age; a time without an offset is UTC.",
    )
    timeout_seconds: float = Field(
        default=3600, gt=0, le=MOST_SECONDS, description="Time limit of the query, in seconds."
    )

    @field_validator("url")
    @classmethod
    def _means_the_same_everywhere(cls, url: SecretStr) -> SecretStr:
        return check_database_url(url, _check_place)

    def batches(self, needed: frozenset[str] | None) -> Iterator[pa.RecordBatch]:
        """Yield the query's rows, as `CrmSource.batches` does.

        Raises SourceError also if the query takes longer than `timeout_seconds`, ExtraMissing.
        """
        yield from self._read(self.query, self.parameters, needed)

    def check_reachable(self) -> None:
        """Check that somebody answers at the URL's host, if it names one, within 10 seconds.

        A PostgreSQL, MySQL or MariaDB must say something, too: one that is stuck takes connections
        all the same.

        Raises SourceUnavailable, SourceError.
        """
        url = self._read_url()
        kind = url.get_backend_name()
        port, opening = url.port or _PORTS.get(kind), _OPENINGS.get(kind)
        if url.host and port and (obstacle := reach.find_closed(url.host, port, opening)):
            where = f"{self.block_slug}, url"
            raise SourceUnavailable(f"The database could not be reached: {where}: {obstacle}.")

    def updated_at(self) -> datetime | None:
        """Return the time that `updated_query` tells; None without it, or if it tells none.

        Raises SourceError, also if it returns anything but one value, SourceUnavailable.
        """
        if self.updated_query is None:
            return None
        used = {*re.findall(r":(\w+)", self.updated_query)}
        parameters = {name: each for name, each in self.parameters.items() if name in used}
        with translate_foreign_errors(f"{self.block_slug}, updated_query", SourceError):
            read = self._read(self.updated_query, parameters)
            values = to_polars(pa.Table.from_batches([*read]))
        if values.shape != (1, 1):
            raise SourceError(f"{self.block_slug}: updated_query returns not just one value.")
        try:
            return None if values.item() is None else parse_time(values.item())
        except ValueError:
            raise SourceError(
                f"{self.block_slug}: updated_query returns what is no time in ISO 8601."
            ) from None

    def _read(
        self,
        text: str,
        parameters: Mapping[str, str | int | float | bool | None],
        needed: frozenset[str] | None = None,
    ) -> Iterator[pa.RecordBatch]:
        from blocks.crm.sql.rows import Query

        query = Query(text, parameters, self.timeout_seconds, needed)
        url = self._read_url()
        try:
            yield from _batches(url, query)
        except ImportError as error:
            driver = error.name or "library"
            raise SourceError(f"The database's driver {driver} is not installed.") from None

    def _read_url(self) -> sqlalchemy.URL:
        secret = read_secret(self.url, f"{self.block_slug}, url")
        try:
            url = parse_database_url(secret)
        except (sqlalchemy_errors.ArgumentError, ValueError):
            raise SourceError(
                "The URL is not of SQLAlchemy's form dialect+driver://user:password@host/database."
            ) from None
        try:
            _check_place(url)
        except ValueError as error:
            raise SourceError(f"The URL {error}.") from None
        return url


def parse_database_url(text: str) -> sqlalchemy.URL:
    """Return the URL; its database is named as it stands there, with every %.

    Raises ArgumentError, ValueError.
    """
    parts = sqlalchemy.make_url(text)
    if not _decodes() or parts.database is None:
        return parts
    return parts.set(database=sqlalchemy.make_url(text.replace("%", "%25")).database)


def check_database_url(url: SecretStr, check: Callable[[sqlalchemy.URL], None]) -> SecretStr:
    """Return a block's URL, once `check` has accepted where it leads. One that cannot be read is
    told when it is used: an error here would show its text, which may hold the password.

    Raises what `check` raises.
    """
    try:
        parts = parse_database_url(url.get_secret_value())
    except (sqlalchemy_errors.ArgumentError, ValueError):
        return url
    check(parts)
    return url


def _check_place(url: sqlalchemy.URL) -> None:
    check_database(url.get_backend_name(), url.database)


@cache
def _decodes() -> bool:
    """Return whether it is SQLAlchemy 2.1 or later, for which %20 in a database's name is a blank:
    a saved URL would mean another database.
    """
    return sqlalchemy.make_url("sqlite:///%25").database == "%"


def _batches(url: sqlalchemy.URL, query: Query) -> Iterator[pa.RecordBatch]:
    from blocks.crm.sql import other, sqlite

    if url.drivername in sqlite.DRIVERS:
        return sqlite.batches(url, query)
    if url.get_backend_name() == "postgresql":
        # Whatever driver the URL names: others make objects of values, some of which lose by it.
        require("postgresql", "A list from PostgreSQL")
        from blocks.crm.sql import postgresql

        return postgresql.batches(url.set(drivername="postgresql+psycopg"), query)
    return other.batches(url, query)
