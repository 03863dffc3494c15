"""Databases with a table of texts, asked in every way there is to read from them."""

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl
import psycopg
import pytest
from sqlalchemy.dialects import registry

from blocks import SqlCrm
from tests.blocks.crm.extracting import read_back, refused, unavailable
from tests.support import databases

# A real database without a way of its own, such as all but two kinds are.
registry.register("sqlite.other", "sqlalchemy.dialects.sqlite.pysqlite", "dialect")


@dataclass(frozen=True)
class Database:
    """A database, and what its queries are asked with."""

    url: str
    target: Path
    end: str = ""
    parameters: Mapping[str, object] = field(default_factory=dict[str, object])

    @property
    def is_sqlite(self) -> bool:
        return self.url.startswith("sqlite")

    @property
    def file(self) -> Path:
        """That of a SQLite database."""
        return Path(self.url.partition("://")[2].removeprefix("/"))

    def crm(self, query: str, **fields: object) -> SqlCrm:
        asked = {"url": self.url, "query": query + self.end, "parameters": self.parameters}
        return SqlCrm.model_validate({**asked, **fields})

    def extract(self, query: str, **fields: object) -> pl.DataFrame:
        """The list that a query gives."""
        return read_back(self.crm(query, **fields), self.target)

    def refused(self, query: str, **fields: object) -> str:
        return refused(self.crm(query, **fields), self.target)

    def unavailable(self, query: str, **fields: object) -> str:
        return unavailable(self.crm(query, **fields), self.target)

    @contextmanager
    def connected(self) -> Iterator[Any]:
        """A connection of the driver itself, which commits what it does."""
        if self.is_sqlite:
            with closing(sqlite3.connect(self.file)) as connection, connection:
                yield connection
        else:
            url = f"postgresql:{self.url.partition(':')[2]}"
            with closing(psycopg.connect(url, autocommit=True)) as connection:
                yield connection


@pytest.fixture
def sqlite(tmp_path: Path, target: Path) -> Database:
    database = Database(f"sqlite:///{tmp_path}/a #1%20.db", target)
    with database.connected() as connection:
        connection.execute("CREATE TABLE texts (number INTEGER PRIMARY KEY, a, b)")
    return database


@pytest.fixture(scope="session")
def postgresql_url(postgresql_server: str) -> str:
    url = databases.new_database(postgresql_server)
    with Database(url, Path()).connected() as connection:
        connection.execute("CREATE TABLE texts (number serial, a text, b text)")
    return url


@pytest.fixture
def postgresql(postgresql_url: str, target: Path) -> Database:
    return Database(postgresql_url, target)


@pytest.fixture(scope="session")
def mariadb_url() -> Iterator[str]:
    with databases.mariadb() as url:
        yield url


@pytest.fixture
def mariadb(mariadb_url: str, target: Path) -> Database:
    return Database(mariadb_url, target)


WAYS: dict[str, dict[str, Any]] = {
    "sqlite": {},
    "sqlite+other": {},
    "postgresql": {},
    # By a cursor instead of COPY: with parameters, or a comment behind the query's end.
    "postgresql bound": {"parameters": {"any": 1}},
    "postgresql cursor": {"end": "; -- the end"},
}


def by_ways(*ways: str) -> Any:
    """Return a fixture of databases, each asked in one of the ways."""

    @pytest.fixture(params=ways)
    def database(request: pytest.FixtureRequest) -> Database:
        kind, _, other = request.param.partition(" ")[0].partition("+")
        plain: Database = request.getfixturevalue(kind)
        url = f"{kind}+other:{plain.url.partition(':')[2]}" if other else plain.url
        return replace(plain, url=url, **WAYS[request.param])

    return database


each_kind = by_ways("sqlite", "sqlite+other", "postgresql")
each_way = by_ways(*WAYS)
each_postgresql_way = by_ways("postgresql", "postgresql bound", "postgresql cursor")
