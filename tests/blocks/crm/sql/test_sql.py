"""What holds for lists from any database."""

import re
import sys
from pathlib import Path
from unittest.mock import Mock

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow.parquet import ParquetFile

from blocks import SqlCrm
from blocks.crm.errors import SourceError
from blocks.crm.sql import postgresql
from blocks.extras import ExtraMissing
from tests.blocks.crm.extracting import CANARY, refused, unavailable
from tests.blocks.crm.sql.conftest import Database

MEBIBYTE = 1024 * 1024
FOREVER = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"
TEXTS = st.none() | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
TRICKY = [("\ufeffid", "a\r\n\"b\",'c' 😀"), ("", None), (None, "\\."), ("\\N", "t"), ("NA", "01")]


def test_values_become_text(each_way: Database) -> None:
    found = each_way.extract("SELECT '000123' AS a, 1 AS b, 2.5 AS c, NULL AS d, '' AS e")
    assert found.rows() == [("000123", "1", "2.5", None, "")]
    assert set(found.dtypes) == {pl.String()}


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(TEXTS, TEXTS)))
def test_text_is_read_back_exactly(each_way: Database, rows: list[tuple[str | None, ...]]) -> None:
    rows = [*rows, *TRICKY]
    mark = "?" if each_way.is_sqlite else "%s"
    with each_way.connected() as connection:
        connection.execute("DELETE FROM texts")
        insert = f"INSERT INTO texts (a, b) VALUES ({mark}, {mark})"
        connection.cursor().executemany(insert, rows)
    assert each_way.extract("SELECT a, b FROM texts ORDER BY number").rows() == rows


@pytest.mark.parametrize(
    "query",
    [
        "SELECT 'a:b %s 50% --' AS x;",
        "SELECT 'a:b %s 50% --' AS x -- note",
        "SELECT 'a:b %s 50% --' AS x ;\n/* note; */ -- and; more",
        "VALUES ('a:b %s 50% --')",
        "WITH q(x) AS (VALUES ('a:b %s 50% --')) SELECT x FROM q ; -- note; and more",
    ],
)
def test_query_is_sent_unchanged(each_kind: Database, query: str) -> None:
    assert each_kind.extract(query).rows() == [("a:b %s 50% --",)]


def test_parameters_are_bound(each_kind: Database) -> None:
    values = {"s": "'; DROP TABLE texts; --", "i": 7, "f": 0.1, "b": True, "n": None}
    found = each_kind.extract(
        "SELECT CAST(:s AS text) AS s, CAST(:i AS int) + 1 AS i, CAST(:f AS float8) AS f, "
        "CAST(:b AS bool) AS b, CAST(:n AS int) AS n, '50% a:b' AS note",
        parameters=values,
    )
    true = "1" if each_kind.is_sqlite else "true"
    assert found.rows() == [("'; DROP TABLE texts; --", "8", "0.1", true, None, "50% a:b")]


def test_long_result_is_read_in_parts(each_way: Database) -> None:
    """Each way has parts of 4 MiB at most."""
    count, wide = 2 * postgresql.ROWS_AT_ONCE + 1, "x" * 2200
    found = each_way.extract(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n "
        f"WHERE i < {count}) SELECT '{wide}' || i AS x FROM n"
    )
    assert found["x"].to_list() == [f"{wide}{number}" for number in range(1, count + 1)]
    assert not each_way.is_sqlite or ParquetFile(each_way.target).num_row_groups == 3


def test_value_of_ten_mebibytes_is_read(each_way: Database) -> None:
    size = 10 * MEBIBYTE
    big = f"printf('%.*c', {size}, '\"')" if each_way.is_sqlite else f"repeat('\"', {size})"
    found = each_way.extract(f"SELECT {big} AS big UNION ALL SELECT 'y'")
    assert found["big"].str.len_bytes().to_list() == [size, 1]


def test_empty_result_has_its_columns(each_way: Database) -> None:
    found = each_way.extract("SELECT 'x' AS id, 'y' AS name WHERE 1 = 0")
    assert found.schema == {"id": pl.String(), "name": pl.String()}


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        (f'SELECT "{CANARY}" FROM nowhere', "no such table: nowhere|UndefinedTable"),
        ("SELECT b.number FROM texts", 'no such column: b.number|entry for table "b"'),
        ("SELECT 1 AS a, 2 AS a", "two columns of one name: 1, 2"),
        ("DELETE FROM texts RETURNING a", "tries to write|failed: OperationalError"),
        ("CREATE TABLE other (id int)", "tries to write|failed: OperationalError|no columns"),
        ("", "no columns"),
    ],
)
def test_query_that_gives_no_list_is_refused(each_kind: Database, query: str, problem: str) -> None:
    assert re.search(problem, each_kind.refused(query))


def test_query_is_stopped_after_timeout(each_kind: Database) -> None:
    assert "more than 0.1 seconds" in each_kind.refused(FOREVER, timeout_seconds=0.1)


def test_query_of_a_single_late_row_is_stopped_after_timeout(each_kind: Database) -> None:
    limited = FOREVER.replace("FROM n)", "FROM n WHERE i < 100000)")
    query = limited.replace("SELECT i FROM", "SELECT sum(i) AS i FROM")
    assert "more than 0.001 seconds" in each_kind.refused(query, timeout_seconds=0.001)


def test_columns_of_one_name_are_refused_only_if_they_are_needed(each_kind: Database) -> None:
    crm, target = each_kind.crm("SELECT 1 AS a, 2 AS b, 3 AS b"), each_kind.target
    assert crm.extract(target, frozenset(["a"])) == 1
    with pytest.raises(SourceError, match="two columns of one name: b. Rename"):
        crm.extract(target, frozenset(["b"]))


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        (CANARY, "not of SQLAlchemy's form"),
        (f"postgresql://u:p@h:{CANARY}/db", "not of SQLAlchemy's form"),
        ("canary://u:p@h/db", "SQLAlchemy does not know"),
        (f"mysql+mysqldb://u:{CANARY}@h/db", "driver MySQLdb is not installed"),
    ],
)
def test_url_without_a_driver_is_refused(target: Path, url: str, problem: str) -> None:
    said = refused(SqlCrm.model_validate({"url": url, "query": "SELECT 1"}), target)
    assert problem in said
    assert "canary" not in said


def test_driver_that_cannot_be_imported_is_reported(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crm(url: str) -> SqlCrm:
        return SqlCrm.model_validate({"url": url, "query": "SELECT 1"})

    failure = Mock(side_effect=ImportError("no pq wrapper available"))
    monkeypatch.setattr("blocks.crm.sql.other.batches", failure)
    assert "driver library is not installed" in refused(crm("other://"), target)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ExtraMissing, match=r'pip install "nudgeflow\[postgresql\]"'):
        crm("postgresql+pg8000://h/db").extract(target)


def test_missing_parameter_is_named(target: Path) -> None:
    fields = {"query": "SELECT :plan, :other", "parameters": {"other": CANARY}}
    crm = SqlCrm.model_validate({"url": "sqlite+other://", **fields})
    assert "names :plan, for which the block has no" in refused(crm, target)


def test_unreachable_database_is_unavailable(tmp_path: Path, target: Path) -> None:
    url = f"sqlite+other:///{tmp_path}/no/such.db"
    said = unavailable(SqlCrm.model_validate({"url": url, "query": "SELECT 1"}), target)
    assert "could not be opened" in said
    assert "such.db" not in said
