"""MariaDB by PyMySQL: a database without a way of its own here, with values that only MySQL has."""

import gc
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
from sqlalchemy import make_url

from tests.blocks.crm.extracting import CANARY
from tests.blocks.crm.sql.conftest import Database

pytestmark = [
    pytest.mark.stack,
    pytest.mark.timeout(60),
    # PyMySQL's objects want to read the rest of a result when they are deleted.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

ENDLESS = "SELECT seq FROM seq_1_to_1000000000000"
VALUES = [
    ("TINYINT(1)", "1", "1"),
    ("BIGINT UNSIGNED", "18446744073709551615", "18446744073709551615"),
    ("INT ZEROFILL", "7", "7"),
    ("DECIMAL(65, 30)", f"{35 * '9'}.{30 * '1'}", f"{35 * '9'}.{30 * '1'}"),
    ("DECIMAL(10, 2)", "1.5", "1.50"),
    ("DOUBLE", "1e16", "1" + 16 * "0"),
    ("DOUBLE", "123", "123"),
    ("DATE", "'2026-01-02'", "2026-01-02"),
    ("DATE", "'0000-00-00'", "0000-00-00"),
    ("DATE", "'2026-00-00'", "2026-00-00"),
    ("DATETIME", "'2026-01-02 05:30'", "2026-01-02 05:30:00"),
    ("DATETIME", "'0000-00-00'", "0000-00-00 00:00:00"),
    ("DATETIME(6)", "'2026-01-02 05:30'", "2026-01-02 05:30:00"),
    ("DATETIME(6)", "'2026-01-02 05:30:00.25'", "2026-01-02 05:30:00.25"),
    ("TIMESTAMP", "'2026-01-02 05:30'", "2026-01-02 05:30:00"),
    ("TIME", "'09:05'", "09:05:00"),
    ("TIME", "'-838:59:59'", "-838:59:59"),
    ("TIME(1)", "'25:00:00.5'", "25:00:00.5"),
    ("TIME(6)", "'-01:00:00'", "-01:00:00"),
    ("YEAR", "2026", "2026"),
    ("ENUM('a', 'b')", "'b'", "b"),
    ("SET('a', 'b')", "'a,b'", "a,b"),
    ("CHAR(5)", "'x'", "x"),
    ("VARCHAR(5)", "' 😀\t'", " 😀\t"),
    ("LONGTEXT", "'a\\r\\nb'", "a\r\nb"),
    ("JSON", "'{\"a\":  null}'", '{"a":  null}'),
    ("UUID", "'123E4567-E89B-12D3-A456-426655440000'", "123e4567-e89b-12d3-a456-426655440000"),
    ("INET6", "'::1'", "::1"),
    ("INT", "NULL", None),
]
"""Types, what is inserted, and its text."""


@contextmanager
def cursor(database: Database) -> Iterator[Any]:
    import pymysql

    socket = make_url(database.url).query["unix_socket"]
    with closing(
        pymysql.connect(user="root", unix_socket=socket, database="crm", autocommit=True)
    ) as connection:
        yield connection.cursor()


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """No object of PyMySQL outlives its test, where its complaints are known."""
    yield
    gc.collect()


@pytest.fixture
def table(mariadb: Database) -> Database:
    """With a table `t` that has a column and a value for each type."""
    columns = ", ".join(f"v{place} {type_}" for place, (type_, *_) in enumerate(VALUES))
    with cursor(mariadb) as connected:
        connected.execute("SET sql_mode = ''")
        connected.execute(f"CREATE OR REPLACE TABLE t ({columns}, flag BIT(1), photo BLOB)")
        values = ", ".join(value for _, value, _ in VALUES)
        connected.execute(f"INSERT INTO t VALUES ({values}, 1, 'x')")
    return mariadb


def test_value_of_each_type_is_in_our_form_or_as_the_client_writes_it(table: Database) -> None:
    columns = ", ".join(f"v{place}" for place in range(len(VALUES)))
    found = table.extract(f"SELECT {columns} FROM t").row(0)
    assert found == tuple(text for *_, text in VALUES)


@pytest.mark.parametrize("column", ["flag", "photo"])
def test_bytes_are_refused_if_they_are_needed(table: Database, column: str) -> None:
    said = table.refused("SELECT * FROM t")
    assert "column flag, row 1, holds binary values: convert them" in said
    assert f"column {column}, row 1" in table.refused(f"SELECT {column} FROM t")
    assert table.crm("SELECT * FROM t").extract(table.target, frozenset(["v0"])) == 1
    assert table.extract("SELECT flag + 0 AS flag FROM t").rows() == [("1",)]


def test_float_of_six_digits_is_refused_if_it_is_needed(mariadb: Database) -> None:
    with cursor(mariadb) as connected:
        connected.execute("CREATE OR REPLACE TABLE f (id FLOAT, name TEXT)")
        connected.execute("INSERT INTO f VALUES (1234567, 'a')")
    said = mariadb.refused("SELECT * FROM f")
    assert "column id is FLOAT, of which the server gives six digits: CAST(… AS DOUBLE)" in said
    assert mariadb.crm("SELECT * FROM f").extract(mariadb.target, frozenset(["name"])) == 1
    assert mariadb.extract("SELECT CAST(id AS DOUBLE) AS id FROM f").rows() == [("1234567",)]
    with cursor(mariadb) as connected:
        connected.execute("DROP TABLE f")


@pytest.mark.parametrize("charset", ["utf8", "latin1"])
def test_characters_are_kept_whatever_the_url_says(mariadb: Database, charset: str) -> None:
    url = f"{mariadb.url}&charset={charset}"
    assert mariadb.extract("SELECT :x AS x", url=url, parameters={"x": "😀ł"}).rows() == [("😀ł",)]


def test_fraction_of_a_row_does_not_hang_on_other_rows(table: Database) -> None:
    one, other = "'2026-01-02 05:30', '1:00'", "'2026-01-02 05:30:00.5', '1:00:00.5'"
    found = table.extract(
        f"WITH q(x, y) AS (VALUES ({one}), ({other})) "
        "SELECT CAST(x AS DATETIME(6)) AS x, CAST(y AS TIME(6)) AS y FROM q"
    )
    assert found.rows() == [
        ("2026-01-02 05:30:00", "01:00:00"),
        ("2026-01-02 05:30:00.5", "01:00:00.5"),
    ]


def test_parameters_are_bound_and_the_query_is_sent_unchanged(table: Database) -> None:
    values = {"s": "é'; DROP TABLE t; --", "i": 7}
    found = table.extract("SELECT :s AS s, :i + 1 AS i, '50%' AS x", parameters=values)
    assert found.rows() == [("é'; DROP TABLE t; --", "8", "50%")]
    assert table.extract("SELECT 'a:b %s 50% --' AS x -- note").rows() == [("a:b %s 50% --",)]


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("SELECT plann FROM t", r"failed: Unknown column 'plann' in .* \(\w+ 1054\)"),
        ("SELECT t.plann FROM t", "Unknown column 't.plann'"),
        ("SELECT v0 FROM t a, t b", "Column 'v0' in .* is ambiguous"),
        ("SELECT 1 FROM nowhere", r"Table 'crm.nowhere' doesn't exist \(\w+ 1146\)"),
        (f"SELECT lowerr('{CANARY}')", "FUNCTION crm.lowerr does not exist"),
        (f"SELECT 1\nFORM '{CANARY}'", r"failed: syntax error at line 2 \(\w+ 1064\)"),
        (f"SELECT 1 FROM t WHERE `{CANARY}` = 1", "failed: OperationalError 1054. Run it"),
        (f"SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = '{CANARY}'", "OperationalError 1644. Run it"),
        ("INSERT INTO t (v0) VALUES (1) RETURNING v0", "tries to write"),
        ("CREATE TABLE x (i INT)", "tries to write"),
        ("SELECT 1; DROP TABLE t", "syntax error"),
        ("SELECT 1 AS a, 2 AS a", "two columns of one name: 1, 2"),
    ],
)
def test_query_that_gives_no_list_is_refused(table: Database, query: str, problem: str) -> None:
    assert re.search(problem, table.refused(query))
    with cursor(table) as connected:
        assert connected.execute("SHOW TABLES") == connected.execute("SELECT 1 FROM t") == 1


@pytest.mark.parametrize("query", [ENDLESS, "SELECT SLEEP(60)"])
def test_query_is_stopped_after_timeout(table: Database, query: str) -> None:
    assert "more than 0.1 seconds" in table.refused(query, timeout_seconds=0.1)


def test_rest_of_a_refused_list_is_not_read(table: Database) -> None:
    assert "column x, row 1" in table.refused("SELECT x'00' AS x FROM seq_1_to_1000000000000")


def test_connection_that_is_refused_or_lost_says_so(table: Database) -> None:
    for url in (
        table.url.replace("root@", "nobody:wrong@"),
        table.url.replace("/crm", "/nobody"),
    ):
        said = table.refused("SELECT 1", url=url)
        assert "refused the connection" in said
        assert "nobody" not in said
    said = table.refused("SELECT 1", url=f"{table.url}&nobody=1")
    assert "an option that" in said
    assert "could not be opened" in table.unavailable("SELECT 1", url=f"{table.url}.gone")
    assert "broke off" in table.unavailable("KILL CONNECTION_ID()")
