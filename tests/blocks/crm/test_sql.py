import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

from blocks import SqlCrm
from blocks.crm.source import SourceError
from blocks.crm.sql import ROWS_AT_ONCE, _write_rows

Query = Callable[[str], SqlCrm]


@pytest.fixture
def sql(tmp_path: Path) -> Query:
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
    return lambda query: SqlCrm.model_validate({"url": f"sqlite:///{database}", "query": query})


def test_text_stays_text_and_numbers_become_it(sql: Query, tmp_path: Path) -> None:
    target = tmp_path / "list.parquet"
    assert sql("SELECT id, name, n FROM customers ORDER BY id").extract(target) == 3
    assert pl.read_parquet(target).rows() == [
        ("000123", 'A "b", c\r\nd', "1"),
        ("000124", None, "2.5"),
        ("000125", "", "NA"),
    ]


def test_a_query_is_asked_as_it_is_written(sql: Query, tmp_path: Path) -> None:
    target = tmp_path / "list.parquet"
    assert sql("SELECT 'a:b %s 50%' AS note FROM customers WHERE id LIKE '%3'").extract(target) == 1
    assert pl.read_parquet(target)["note"].to_list() == ["a:b %s 50%"]


def test_a_column_of_dates_stays_one(tmp_path: Path) -> None:
    rows = [
        (date(2001, 2, 3), datetime(2001, 2, 3, 4), True, Decimal("1E+2")),
        (None, date(2001, 2, 3), None, None),
    ]
    target = tmp_path / "list.parquet"
    assert _write_rows(["born", "mixed", "flag", "sum"], iter([rows[:1], rows[1:]]), target) == 2
    assert pl.read_parquet(target).rows() == [
        (date(2001, 2, 3), "2001-02-03 04:00:00", "true", "100"),
        (None, "2001-02-03", None, None),
    ]


def test_a_long_result_is_read_in_parts(sql: Query, tmp_path: Path) -> None:
    rows = ROWS_AT_ONCE + 1
    query = (
        "WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n WHERE id < "
        f"{rows}) SELECT printf('%08d', id) AS id FROM n"
    )
    target = tmp_path / "list.parquet"
    assert sql(query).extract(target) == rows
    assert pl.read_parquet(target)["id"].n_unique() == rows


def test_an_empty_result_still_has_its_columns(sql: Query, tmp_path: Path) -> None:
    target = tmp_path / "list.parquet"
    assert sql("SELECT id, name FROM customers WHERE 0").extract(target) == 0
    assert pl.read_parquet(target).columns == ["id", "name"]


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("SELECT secret_column FROM nowhere", "OperationalError"),
        ("SELECT id, id FROM customers", "two columns of one name"),
        ("SELECT id, photo FROM customers", "binary values"),
    ],
)
def test_a_query_that_gives_no_list_is_an_error(
    sql: Query, tmp_path: Path, query: str, problem: str
) -> None:
    with pytest.raises(SourceError, match=problem) as caught:
        sql(query).extract(tmp_path / "list.parquet")
    assert "secret" not in str(caught.value)


def test_an_unreachable_database_does_not_show_its_url(tmp_path: Path) -> None:
    crm = SqlCrm.model_validate({"url": f"sqlite:///{tmp_path}/no/such.db", "query": "SELECT 1"})
    with pytest.raises(SourceError) as caught:
        crm.extract(tmp_path / "list.parquet")
    assert "such.db" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_driver_that_is_not_installed_is_named(tmp_path: Path) -> None:
    crm = SqlCrm.model_validate({"url": "mysql+mysqldb://u:secret@h/db", "query": "SELECT 1"})
    with pytest.raises(SourceError, match="driver MySQLdb is not installed"):
        crm.extract(tmp_path / "list.parquet")
