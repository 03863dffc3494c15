import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest
from pyarrow.parquet import ParquetFile
from sqlalchemy.dialects import registry

from blocks import SqlCrm
from blocks.crm.source import SourceError, SourceUnavailable
from blocks.crm.sql.block import _write_rows
from blocks.crm.sql.rows import FRAME_BYTES, ROWS_AT_ONCE

# Real databases without a way of their own, such as all but two kinds are.
registry.register("sqlite.other", "sqlalchemy.dialects.sqlite.pysqlite", "dialect")
registry.register("postgresql.other", "sqlalchemy.dialects.postgresql.psycopg", "dialect")

FOREVER = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"

Query = Callable[..., SqlCrm]


@pytest.fixture(params=["sqlite", "sqlite+other"])
def sql(tmp_path: Path, request: pytest.FixtureRequest) -> Query:
    """A CRM with a small table of customers, asked a query."""
    database = tmp_path / "crm.db"
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("CREATE TABLE customers (id, name, born DATE, n, photo BLOB)")
        connection.executemany(
            "INSERT INTO customers VALUES (?, ?, ?, ?, ?)",
            [
                ("000123", 'A "b", c\r\nd', "2001-02-03", 1, b"x"),
                ("000124", None, None, 2.5, None),
                ("000125", "", "1999-12-31", "NA", None),
            ],
        )
    url = f"{request.param}:///{database}"
    return lambda query, **fields: SqlCrm.model_validate({"url": url, "query": query, **fields})


def test_sql_values_become_text(sql: Query, target: Path) -> None:
    assert sql("SELECT id, name, n FROM customers ORDER BY id").extract(target) == 3
    assert pl.read_parquet(target).rows() == [
        ("000123", 'A "b", c\r\nd', "1"),
        ("000124", None, "2.5"),
        ("000125", "", "NA"),
    ]


def test_sql_query_is_sent_unchanged(sql: Query, target: Path) -> None:
    assert sql("SELECT 'a:b %s 50%' AS note FROM customers WHERE id LIKE '%3'").extract(target) == 1
    assert pl.read_parquet(target)["note"].to_list() == ["a:b %s 50%"]


def test_sql_column_of_dates_stays_dates(target: Path) -> None:
    rows = [
        (date(2001, 2, 3), datetime(2001, 2, 3, 4), True, Decimal("1E+2")),
        (None, date(2001, 2, 3), None, None),
    ]
    assert _write_rows(["born", "mixed", "flag", "sum"], iter([rows[:1], rows[1:]]), target) == 2
    assert pl.read_parquet(target).rows() == [
        (date(2001, 2, 3), "2001-02-03 04:00:00", "true", "100"),
        (None, "2001-02-03", None, None),
    ]


def test_sql_long_result_is_read_in_parts(sql: Query, target: Path) -> None:
    rows, width = 2 * ROWS_AT_ONCE + 1, FRAME_BYTES // ROWS_AT_ONCE + 1
    query = (
        "WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n WHERE id < "
        f"{rows}) SELECT printf('%0*d', {width}, id) AS id FROM n"
    )
    assert sql(query).extract(target) == rows
    assert pl.read_parquet(target)["id"].to_list() == [
        f"{id:0{width}}" for id in range(1, rows + 1)
    ]
    assert ParquetFile(target).num_row_groups == 3


def test_sql_empty_result_has_its_columns(sql: Query, target: Path) -> None:
    assert sql("SELECT id, name FROM customers WHERE 0").extract(target) == 0
    assert pl.read_parquet(target).columns == ["id", "name"]


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("SELECT secret_column FROM nowhere", "OperationalError"),
        ("SELECT id, id FROM customers", "two columns of one name"),
        ("SELECT id, photo FROM customers", "column photo holds binary values"),
        ("DELETE FROM customers RETURNING id", "tries to write|OperationalError"),
        ("CREATE TABLE other (id)", "tries to write|OperationalError"),
        ("", "no columns"),
        (FOREVER, "may take 0.2 seconds"),
    ],
)
def test_sql_query_that_gives_no_list_is_refused(
    sql: Query, target: Path, query: str, problem: str
) -> None:
    with pytest.raises(SourceError, match=problem) as caught:
        sql(query, timeout_seconds=0.2).extract(target)
    assert "secret" not in str(caught.value)


def test_sql_error_does_not_show_the_url(tmp_path: Path) -> None:
    crm = SqlCrm.model_validate({"url": f"sqlite:///{tmp_path}/no/such.db", "query": "SELECT 1"})
    with pytest.raises(SourceError) as caught:
        crm.extract(tmp_path / "list.parquet")
    assert "such.db" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_missing_driver_is_named(target: Path) -> None:
    crm = SqlCrm.model_validate({"url": "mysql+mysqldb://u:secret@h/db", "query": "SELECT 1"})
    with pytest.raises(SourceError, match="driver MySQLdb is not installed"):
        crm.extract(target)


def test_missing_driver_without_name_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise ImportError("no pq wrapper available")

    monkeypatch.setattr("blocks.crm.sql.block._extract", fails)
    with pytest.raises(SourceError, match="driver library is not installed"):
        SqlCrm.model_validate({"url": "other://", "query": "SELECT 1"}).extract(tmp_path / "x")


def test_missing_psycopg_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    monkeypatch.delitem(sys.modules, "blocks.crm.sql.postgresql", raising=False)
    monkeypatch.delattr("blocks.crm.sql.postgresql", raising=False)
    with pytest.raises(SourceError, match="driver psycopg is not installed"):
        SqlCrm.model_validate({"url": "postgresql://h/db", "query": "SELECT 1"}).extract(tmp_path)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("secret", "not of SQLAlchemy's form"),
        ("postgresql://u:p@h:secret/db", "not of SQLAlchemy's form"),
        ("secret://u:p@h/db", "SQLAlchemy does not know"),
    ],
)
def test_invalid_database_url_is_refused(target: Path, url: str, problem: str) -> None:
    with pytest.raises(SourceError, match=problem) as caught:
        SqlCrm.model_validate({"url": url, "query": "SELECT 1"}).extract(target)
    assert "secret" not in str(caught.value)


def test_sql_parameters_are_bound(sql: Query, target: Path) -> None:
    values = {"id": "000124' OR 1 --", "b": True, "n": None, "f": 0.1, "i": 3}
    query = "SELECT :id AS id, :b AS b, :n AS n, :f AS f, :i AS i, '50% a:b' AS note"
    assert sql(query, parameters=values).extract(target) == 1
    assert pl.read_parquet(target).row(0) == ("000124' OR 1 --", "1", None, "0.1", "3", "50% a:b")


def test_missing_sql_parameter_is_named(target: Path) -> None:
    fields = {"query": "SELECT :plan, :other", "parameters": {"other": "secret"}}
    crm = SqlCrm.model_validate({"url": "sqlite+other://", **fields})
    with pytest.raises(SourceError, match="names :plan, for which the block has no") as caught:
        crm.extract(target)
    assert "secret" not in str(caught.value)


def test_unreachable_database_is_unavailable(tmp_path: Path) -> None:
    url = f"sqlite+other:///{tmp_path}/no/such.db"
    with pytest.raises(SourceUnavailable, match="could not be opened") as caught:
        SqlCrm.model_validate({"url": url, "query": "SELECT 1"}).extract(tmp_path / "list.parquet")
    assert "such.db" not in str(caught.value)


def test_any_postgresql_driver_reads_only(postgresql_server: str, target: Path) -> None:
    def crm(query: str, **fields: object) -> SqlCrm:
        url = postgresql_server.replace("postgresql:", "postgresql+other:")
        return SqlCrm.model_validate({"url": url, "query": query, **fields})

    query = "SELECT date '2001-02-03' AS born, 1.10 AS n, true AS b, NULL AS x, '50%' AS note"
    assert crm(query).extract(target) == 1
    assert pl.read_parquet(target).row(0) == (date(2001, 2, 3), "1.10", "true", None, "50%")
    with pytest.raises(SourceError, match="query failed: InternalError"):
        crm("SELECT lo_create(0) AS x").extract(target)
    with pytest.raises(SourceError, match="query failed: OperationalError"):
        crm("SELECT pg_sleep(60) AS x", timeout_seconds=0.05).extract(target)
