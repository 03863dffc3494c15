"""PostgreSQL's own ways: its types, its transactions, and how it refuses connections."""

import re
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from time import monotonic
from typing import Any

import polars as pl
import psycopg
import pytest
from sqlalchemy import URL, make_url

from tests.blocks.crm.extracting import CANARY
from tests.blocks.crm.sql.conftest import Database


def test_values_are_as_the_server_writes_them(each_postgresql_way: Database) -> None:
    found = each_postgresql_way.extract(
        """
        SELECT '000123' AS id, 1.10::numeric(10, 2) AS sum, 12345678901234567890.123456789 AS big,
               0.1::float8 + 0.2 AS float, 'NaN'::float8 AS nan, true AS yes, false AS no,
               NULL::bool AS maybe, date '2001-02-03' AS born, NULL::date AS died,
               timestamp '2001-02-03 04:05:06' AS "at", timestamp '2001-02-03 04:05:06.7' AS exact,
               9223372036854775807 AS most, '{"a": "\\u00e9"}'::json AS json, ARRAY[1, NULL] AS a,
               '550e8400-e29b-41d4-a716-446655440000'::uuid AS uuid, NULL AS nothing, '' AS empty
        """
    )
    assert found.row(0, named=True) == {
        "id": "000123",
        "sum": "1.10",
        "big": "12345678901234567890.123456789",
        "float": "0.30000000000000004",
        "nan": "NaN",
        "yes": "true",
        "no": "false",
        "maybe": None,
        "born": "2001-02-03",
        "died": None,
        "at": "2001-02-03 04:05:06",
        "exact": "2001-02-03 04:05:06.7",
        "most": "9223372036854775807",
        "json": '{"a": "\\u00e9"}',
        "a": "{1,NULL}",
        "uuid": "550e8400-e29b-41d4-a716-446655440000",
        "nothing": None,
        "empty": "",
    }


def test_column_may_have_any_name(postgresql: Database) -> None:
    found = postgresql.extract('SELECT \'x\' AS "\ufeffa, ""b""", NULL::date AS born WHERE false')
    assert found.schema == {'\ufeffa, "b"': pl.String(), "born": pl.String()}


def test_parameters_have_types_and_escaped_colons_stay(postgresql: Database) -> None:
    found = postgresql.extract(
        "SELECT CAST(:d AS date), '50% \\:s'", parameters={"d": "2001-02-03"}
    )
    assert found.row(0) == ("2001-02-03", "50% :s")


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("SELECT FROM texts", "no columns"),
        ("SELECT ''::bytea AS photo", "column photo holds binary values"),
        ("SELECT date 'infinity' AS born", "column born holds a date"),
        ("SELECT NULL::date AS a, date '0044-03-15 BC' AS born", "column born holds a date"),
        ("SELECT date '10000-01-01' AS born FROM generate_series(1, 100000)", "column born holds"),
        (f"SELECT '{CANARY}'::int AS n", "InvalidTextRepresentation, SQLSTATE 22P02"),
        ("SELECT 1 / (5000 - i) AS x FROM generate_series(1, 9999) AS i", "SQLSTATE 22012"),
        (
            "WITH new AS (DELETE FROM texts RETURNING a) SELECT a FROM new",
            "tries to write|SQLSTATE 0A000",
        ),
        ("SELECT nextval('texts_number_seq') AS n", "tries to write"),
        ("SELECT set_config('transaction_read_only', 'off', true) AS x", "SQLSTATE"),
        ("SELECT 1 AS a; COMMIT; DROP TABLE texts", "SyntaxError, SQLSTATE 42601"),
    ],
)
def test_postgresql_query_that_gives_no_list_is_refused(
    each_postgresql_way: Database, query: str, problem: str
) -> None:
    assert re.search(problem, each_postgresql_way.refused(query))


@pytest.mark.parametrize(
    "query", ["SELECT pg_sleep(60) AS x", "SELECT generate_series(1, 1000000000) AS x"]
)
def test_query_is_stopped_after_timeout(each_postgresql_way: Database, query: str) -> None:
    said = each_postgresql_way.refused(query, timeout_seconds=0.1)
    assert "more than 0.1 seconds" in said


@pytest.mark.parametrize(
    ("query", "fields", "problem"),
    [
        ("DELETE FROM texts", {}, "no columns"),
        (f"SELECT '{CANARY}'\nFROM nowhere", {}, "character 31: UndefinedTable, SQLSTATE 42P01"),
        ("SHOW ALL", {}, "SyntaxError"),
        (
            "SELECT :a AS a",
            {"parameters": {"b": CANARY}},
            "names :a, for which the block has no parameter",
        ),
        ("SELECT :a AS a", {"parameters": {"a": f"\0{CANARY}"}}, "query failed: DataError"),
    ],
)
def test_postgresql_statement_is_refused_before_it_runs(
    postgresql: Database, query: str, fields: dict[str, Any], problem: str
) -> None:
    assert problem in postgresql.refused(query, **fields)


def test_lost_connection_is_unavailable(each_postgresql_way: Database) -> None:
    query = "SELECT pg_terminate_backend(pg_backend_pid()) AS x"
    assert "broke off" in each_postgresql_way.unavailable(query)


def test_sql_ascii_database_is_read_as_utf8(postgresql: Database, postgresql_server: str) -> None:
    with postgresql.connected() as connection:
        connection.execute("DROP DATABASE IF EXISTS bytes")
        create = "CREATE DATABASE bytes ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0"
        connection.execute(create)
    url = postgresql_server.replace("/postgres?", "/bytes?")
    assert postgresql.extract("SELECT E'Z\\xc3\\xbcrich'", url=url).rows() == [("Zürich",)]
    for parameters in ({}, {"any": 1}):
        query = "SELECT convert_from('\\xfc', 'SQL_ASCII') AS city"
        said = postgresql.refused(query, url=url, parameters=parameters)
        assert "CharacterNotInRepertoire, SQLSTATE 22021" in said


@pytest.fixture
def reader(postgresql: Database) -> Iterator[URL]:
    """The URL for a role that needs the password `right`, and may not have a connection more."""
    url = make_url(postgresql.url).set(username="reader")
    with postgresql.connected() as connection:
        connection.execute("CREATE ROLE reader LOGIN PASSWORD 'right' CONNECTION LIMIT 0")
        (file,) = connection.execute("SHOW hba_file").fetchone() or ()
        rules = Path(file).read_text()
        Path(file).write_text(f"local all reader scram-sha-256\n{rules}")
        connection.execute("SELECT pg_reload_conf()")
        until = monotonic() + 60
        while "password" not in _refusal(url) and monotonic() < until:
            pass  # the server reads the rules when it gets to it
        yield url
        Path(file).write_text(rules)
        connection.execute("SELECT pg_reload_conf()")
        connection.execute("DROP ROLE reader")


def _refusal(url: URL) -> str:
    with pytest.raises(psycopg.OperationalError) as caught:
        psycopg.connect(url.set(drivername="postgresql").render_as_string())
    return str(caught.value)


def test_refused_connection_says_why(postgresql: Database, reader: URL) -> None:
    def hides_names(said: str) -> bool:
        return not any(secret in said for secret in ("reader", "wrong", "nobody"))

    for url in (
        reader.render_as_string(hide_password=False),
        reader.set(password="wrong").render_as_string(hide_password=False),
        postgresql.url.replace("postgres:@", "nobody:@"),
        postgresql.url.replace("/sandbox_", "/nobody_"),
    ):
        said = postgresql.refused("SELECT 1", url=url)
        assert "refused the connection" in said
        assert hides_names(said)
    said = postgresql.refused("SELECT 1", url=f"{postgresql.url}&nobody=1")
    assert "an option that" in said
    assert hides_names(said)
    full = reader.set(password="right").render_as_string(hide_password=False)
    assert "no connections for now" in postgresql.unavailable("SELECT 1", url=full)
    with closing(socket.create_server(("127.0.0.1", 0))) as unused:
        port = unused.getsockname()[1]
    for host in (f"127.0.0.1:{port}", "no.such.host.invalid"):
        url = f"postgresql://nobody:wrong@{host}/nobody"
        said = postgresql.unavailable("SELECT 1", url=url)
        assert "could not be reached" in said
        assert hides_names(said)
