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

VALUES = {
    "'000123'": "000123",
    "''": "",
    "NULL": None,
    "32767::int2": "32767",
    "9223372036854775807": "9223372036854775807",
    "1.10::numeric(10, 2)": "1.10",
    "12345678901234567890.123456789": "12345678901234567890.123456789",
    "1e30::numeric": "1" + 30 * "0",
    "'NaN'::numeric": "NaN",
    "0.1::float4": "0.1",
    "1e-7::float4": "0.0000001",
    "0.1::float8 + 0.2": "0.30000000000000004",
    "1e16::float8": "1" + 16 * "0",
    "123::float8": "123",
    "'NaN'::float8": "NaN",
    "'-Infinity'::float8": "-Infinity",
    "true": "true",
    "false": "false",
    "NULL::bool": None,
    "date '2001-02-03'": "2001-02-03",
    "NULL::date": None,
    "time '05:30'": "05:30:00",
    "time '05:30:00.25'": "05:30:00.25",
    "time '24:00'": "24:00:00",
    "timetz '05:30+02'": "05:30:00+02:00",
    "timestamp '2001-02-03 04:05:06'": "2001-02-03 04:05:06",
    "timestamp '2001-02-03 04:05:06.70'": "2001-02-03 04:05:06.7",
    "timestamptz '2001-02-03 04:05:06.7Z' AT TIME ZONE 'Asia/Kolkata'": "2001-02-03 09:35:06.7",
    "interval '25:00:00.5'": "25:00:00.5",
    "interval '1 mon -3 days'": "1 mon -3 days",
    """'{"a": "\\u00e9"}'::json""": '{"a": "\\u00e9"}',
    """'{"a":  null}'::jsonb""": '{"a": null}',
    "ARRAY['a', NULL]": "{a,NULL}",
    "'550e8400-e29b-41d4-a716-446655440000'::uuid": "550e8400-e29b-41d4-a716-446655440000",
    "12.5::money": "$12.50",
    "inet '10.0.0.1/8'": "10.0.0.1/8",
    "macaddr '08:00:2b:01:02:03'": "08:00:2b:01:02:03",
    "int4range(1, 5)": "[1,5)",
    "B'101'": "101",
    "'x'::\"char\"": "x",
    "'char(5)'::char(9)": "char(5)  ",
    "point(1, 2)": "(1,2)",
    "to_tsvector('simple', 'a b')": "'a':1 'b':2",
    "'pg_class'::regclass": "pg_class",
    "ROW(1, 'a')": "(1,a)",
    "pg_lsn '16/B374D848'": "16/B374D848",
}
"""Of each kind of type, and its text."""


def test_values_are_in_our_form_or_as_the_server_writes_them(each_postgresql_way: Database) -> None:
    columns = ", ".join(f"{sql} AS v{place}" for place, sql in enumerate(VALUES))
    found = each_postgresql_way.extract(f"SELECT {columns}")
    assert found.row(0) == tuple(VALUES.values())


@pytest.mark.parametrize(("zone", "offset"), [("UTC", "+00:00"), ("Asia/Kolkata", "+05:30")])
def test_timestamp_has_the_whole_offset(
    each_postgresql_way: Database, zone: str, offset: str
) -> None:
    url = f"{each_postgresql_way.url}&options=-cTimeZone%3D{zone}"
    query = f"SELECT timestamptz '2001-02-03 04:05:06 {zone}' AS at"
    found = each_postgresql_way.extract(query, url=url)
    assert found["at"].to_list() == [f"2001-02-03 04:05:06{offset}"]


def test_column_that_is_not_needed_may_be_binary_or_infinite(
    each_postgresql_way: Database,
) -> None:
    query = "SELECT 'a' AS id, ''::bytea AS photo, 'x' AS b, 'y' AS b, date 'infinity' AS born"
    crm = each_postgresql_way.crm(query)
    assert crm.extract(each_postgresql_way.target, frozenset(["id"])) == 1
    assert pl.read_parquet(each_postgresql_way.target).to_dicts() == [{"id": "a"}]


@pytest.mark.parametrize("driver", ["psycopg2", "pg8000", "asyncpg"])
def test_psycopg_reads_whatever_driver_the_url_names(postgresql: Database, driver: str) -> None:
    url = postgresql.url.replace("+psycopg", f"+{driver}")
    assert postgresql.extract("SELECT interval '1 mon' AS i", url=url).rows() == [("1 mon",)]


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
        ("SELECT date 'infinity' AS born", "column born, row 1, holds a date"),
        (
            "SELECT NULL::date AS a, date '0044-03-15 BC' AS born",
            "column born, row 1, holds a date",
        ),
        ("SELECT timestamptz 'infinity' AS seen", "column seen, row 1, holds a date"),
        (
            "SELECT date '9999-12-31' + i / 99999 AS born FROM generate_series(1, 100000) AS i",
            "column born, row 99,999, holds a date",
        ),
        (f"SELECT '{CANARY}'::int AS n", "InvalidTextRepresentation, SQLSTATE 22P02"),
        ("SELECT 1 / (5000 - i) AS x FROM generate_series(1, 9999) AS i", "SQLSTATE 22012"),
        (
            "WITH new AS (DELETE FROM texts RETURNING a) SELECT a FROM new",
            "tries to write|SQLSTATE 0A000",
        ),
        ("SELECT nextval('texts_number_seq') AS n", "tries to write"),
        ("SELECT set_config('transaction_read_only', 'off', true) AS x", "SQLSTATE"),
        ("SELECT 1 AS a; COMMIT; DROP TABLE texts", "SQLSTATE 42601"),
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
        (
            f"SELECT '{CANARY}'\nFROM nowhere",
            {},
            'relation "nowhere" does not exist (UndefinedTable, SQLSTATE 42P01 at character 31)',
        ),
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


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELECT plann FROM (SELECT 1 AS plan) AS q", 'column "plann" does not exist'),
        ("SELECT q.plann FROM (SELECT 1 AS plan) AS q", "column q.plann does not exist"),
        ("SELECT lowerr('a')", "function lowerr(unknown) does not exist"),
        ("SELECT 1 FORM texts", 'syntax error at or near "texts"'),
        # Text of a literal, of a name that may be meant as one, and of a value.
        (f"SELECT '{CANARY}'::regclass", "failed: UndefinedTable, SQLSTATE 42P01"),
        (f"SELECT $x${CANARY}$x$::regclass", "failed: UndefinedTable, SQLSTATE 42P01"),
        (f"SELECT 1 WHERE '{CANARY}", "failed: SyntaxError, SQLSTATE 42601"),
        (f'SELECT 1 FROM texts WHERE "{CANARY}" = a', "failed: UndefinedColumn, SQLSTATE 42703"),
        (f"SELECT 1 '{CANARY}'", "failed: SyntaxError, SQLSTATE 42601"),
        (
            f"SELECT quote_ident('ada' || substr('{CANARY}', 4))::regclass",
            "failed: UndefinedTable, SQLSTATE 42P01",
        ),
    ],
)
def test_message_is_shown_where_it_holds_no_value(
    each_postgresql_way: Database, query: str, said: str
) -> None:
    assert said in each_postgresql_way.refused(query)


def test_message_that_a_function_raises_is_not_shown(each_postgresql_way: Database) -> None:
    with each_postgresql_way.connected() as connection:
        connection.execute(
            "CREATE OR REPLACE FUNCTION tell(what text) RETURNS text IMMUTABLE LANGUAGE plpgsql "
            "AS $$ BEGIN RAISE '%', what USING errcode = '42703'; END $$"
        )
    said = each_postgresql_way.refused(f"SELECT tell('{CANARY}') AS x")
    assert "failed: UndefinedColumn, SQLSTATE 42703" in said


def test_url_cannot_switch_the_transaction_off(each_postgresql_way: Database) -> None:
    url = f"{each_postgresql_way.url}&autocommit=true"
    query = "SELECT nextval('texts_number_seq') AS n"
    assert "tries to write" in each_postgresql_way.refused(query, url=url)
    said = each_postgresql_way.refused("SELECT pg_sleep(9) AS x", url=url, timeout_seconds=0.1)
    assert "more than 0.1 seconds" in said


@pytest.mark.parametrize(
    "option", ["prepare_threshold=5", "row_factory=x", "cursor_factory=x", "context=x", "port=abc"]
)
def test_option_that_is_no_text_is_refused(postgresql: Database, option: str) -> None:
    said = postgresql.refused("SELECT 1 AS a", url=f"{postgresql.url}&{option}")
    assert "an option that" in said


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
