import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import date
from pathlib import Path
from time import monotonic

import polars as pl
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import URL, make_url

from blocks import SqlCrm
from blocks.crm.source import SourceError, SourceUnavailable
from blocks.crm.sql.postgresql import BLOCK_BYTES, ROWS_AT_ONCE
from tests.blocks.crm.extracting import read_back
from tests.support import databases

MEBIBYTE = 1024 * 1024
# By COPY, and by a cursor, which a query with parameters or a comment behind its end takes.
WAYS = {"copy": ("", {}), "bound": ("", {"any": 1}), "cursor": ("; -- the end", {})}

Extract = Callable[..., pl.DataFrame]


@pytest.fixture(scope="module")
def database(postgresql_server: str) -> str:
    """The SQLAlchemy URL of a database with a table of texts."""
    url = databases.new_database(postgresql_server)
    with connected(url) as connection:
        connection.execute("CREATE TABLE texts (number serial, a text, b text)")
    return url


@contextmanager
def connected(url: str) -> Iterator[psycopg.Connection]:
    plain = url.replace("+psycopg", "")
    with closing(psycopg.connect(plain, autocommit=True)) as connection:
        yield connection


@pytest.fixture
def extract(database: str, target: Path) -> Extract:
    """The list a query on the database gives, read back."""

    def extracted(query: str, **fields: object) -> pl.DataFrame:
        crm = SqlCrm.model_validate({"url": database, "query": query, **fields})
        return read_back(crm, target)

    return extracted


@pytest.fixture(params=WAYS)
def each_way(extract: Extract, request: pytest.FixtureRequest) -> Extract:
    end, parameters = WAYS[request.param]
    return lambda query, **fields: extract(query + end, parameters=parameters, **fields)


def test_postgresql_values_are_as_the_server_writes_them(each_way: Extract) -> None:
    found = each_way(
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
        "born": date(2001, 2, 3),
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


TEXTS = st.none() | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(TEXTS, TEXTS)))
def test_postgresql_text_is_read_back_exactly(
    database: str, extract: Extract, rows: list[tuple[str | None, ...]]
) -> None:
    rows = [*rows, ("\ufeffid", "a\r\n\"b\",'c' 😀"), ("", None), (None, "\\."), ("\\N", "t")]
    with connected(database) as connection, connection.cursor() as cursor:
        cursor.execute("TRUNCATE texts")
        cursor.executemany("INSERT INTO texts (a, b) VALUES (%s, %s)", rows)
    for end, parameters in WAYS.values():
        found = extract(f"SELECT a, b FROM texts ORDER BY number{end}", parameters=parameters)
        assert found.rows() == rows
    alone = extract('SELECT a AS "\ufeffa, ""b""" FROM texts ORDER BY number')
    assert alone['\ufeffa, "b"'].to_list() == [a for a, _ in rows]


@pytest.mark.parametrize(
    "query",
    [
        "SELECT 'a:b %s 50% --' AS x;",
        "SELECT 'a:b %s 50% --' AS x -- note",
        "SELECT 'a:b %s 50% --' AS x ;\n/* note; */ -- and; more",
        "VALUES ('a:b %s 50% --')",
        "WITH q(x) AS (VALUES ('a:b %s 50% --')) TABLE q",
    ],
)
def test_postgresql_query_is_sent_unchanged(extract: Extract, query: str) -> None:
    assert extract(query).row(0) == ("a:b %s 50% --",)


def test_postgresql_parameters_are_bound(extract: Extract) -> None:
    found = extract(
        "SELECT :s AS s, CAST(:i AS int) + 1 AS i, CAST(:f AS float8) AS f, CAST(:b AS bool) AS b, "
        "CAST(:n AS int) AS n, CAST(:d AS date) AS d, '50% \\:s' AS note, 1::int AS one",
        parameters={"s": "'; DROP", "i": 7, "f": 0.1, "b": True, "n": None, "d": "2001-02-03"},
    )
    assert found.row(0) == ("'; DROP", "8", "0.1", "true", None, date(2001, 2, 3), "50% :s", "1")


def test_postgresql_long_result_is_read_in_parts(each_way: Extract) -> None:
    rows, width = 2 * ROWS_AT_ONCE + 1, 2 * BLOCK_BYTES // ROWS_AT_ONCE
    found = each_way(
        f"SELECT lpad(i::text, {width}, '0') AS i FROM generate_series(1, {rows}) AS i"
    )
    assert found["i"].to_list() == [f"{number:0{width}}" for number in range(1, rows + 1)]


def test_postgresql_value_of_ten_mebibytes_is_read(each_way: Extract) -> None:
    found = each_way(f"SELECT repeat('\"', {10 * MEBIBYTE}) AS big UNION ALL SELECT 'y'")
    assert found["big"].str.len_bytes().to_list() == [10 * MEBIBYTE, 1]


def test_postgresql_empty_result_has_its_columns(each_way: Extract) -> None:
    found = each_way("SELECT 'x' AS id, current_date AS born WHERE false")
    assert found.schema == {"id": pl.String(), "born": pl.Date()}


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("SELECT 1 AS a, 2 AS a", "two columns of one name"),
        ("SELECT FROM texts", "no columns"),
        ("SELECT ''::bytea AS photo", "column photo holds binary values"),
        ("SELECT date 'infinity' AS born", "column born holds a date"),
        ("SELECT NULL::date AS a, date '0044-03-15 BC' AS born", "column born holds a date"),
        ("SELECT date '10000-01-01' AS born FROM generate_series(1, 100000)", "column born holds"),
        ("SELECT 'secret'::int AS n", "InvalidTextRepresentation, SQLSTATE 22P02"),
        ("SELECT 1 / (5000 - i) AS secret FROM generate_series(1, 9999) AS i", "SQLSTATE 22012"),
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
    each_way: Extract, query: str, problem: str
) -> None:
    with pytest.raises(SourceError, match=problem) as caught:
        each_way(query)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert not isinstance(caught.value, SourceUnavailable)


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("DELETE FROM texts", "no columns"),
        ("DELETE FROM texts RETURNING a", "tries to write"),
        ("SELECT 'secret'\nFROM nowhere", "character 22: UndefinedTable, SQLSTATE 42P01"),
        ("SHOW ALL", "SyntaxError"),
        ("", "no columns"),
    ],
)
def test_postgresql_statement_is_refused_before_it_runs(
    extract: Extract, query: str, problem: str
) -> None:
    with pytest.raises(SourceError, match=problem) as caught:
        extract(query)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [
        ({"b": "secret"}, "names :a, for which the block has no parameter"),
        ({"a": "sec\0ret"}, "query failed: DataError"),
    ],
)
def test_postgresql_parameter_mismatch_is_refused(
    extract: Extract, parameters: dict[str, object], problem: str
) -> None:
    with pytest.raises(SourceError, match=problem) as caught:
        extract("SELECT :a AS a", parameters=parameters)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "query", ["SELECT pg_sleep(60) AS x", "SELECT generate_series(1, 1000000000) AS x"]
)
def test_postgresql_query_is_stopped_after_timeout(each_way: Extract, query: str) -> None:
    with pytest.raises(SourceError, match="may take 0.1 seconds"):
        each_way(query, timeout_seconds=0.1)


def test_postgresql_lost_connection_is_unavailable(each_way: Extract) -> None:
    with pytest.raises(SourceUnavailable, match="broke off"):
        each_way("SELECT pg_terminate_backend(pg_backend_pid()) AS x")


def test_postgresql_sql_ascii_database_is_read_as_utf8(
    database: str, postgresql_server: str, target: Path
) -> None:
    with connected(database) as connection:
        connection.execute("DROP DATABASE IF EXISTS bytes")
        connection.execute(
            "CREATE DATABASE bytes ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0"
        )
    url = postgresql_server.replace("/postgres?", "/bytes?")
    crm = SqlCrm.model_validate({"url": url, "query": "SELECT E'Z\\xc3\\xbcrich' AS city"})
    assert crm.extract(target) == 1
    assert pl.read_parquet(target).row(0) == ("Zürich",)
    for parameters in ({}, {"any": 1}):
        query = "SELECT convert_from('\\xfc', 'SQL_ASCII') AS city"
        crm = SqlCrm.model_validate({"url": url, "query": query, "parameters": parameters})
        with pytest.raises(SourceError, match="CharacterNotInRepertoire, SQLSTATE 22021"):
            crm.extract(target)


@pytest.fixture
def reader(database: str) -> Iterator[URL]:
    """The URL for a role that needs the password `right`, and may not have a connection more."""
    url = make_url(database).set(username="reader")
    with connected(database) as connection:
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


def test_postgresql_refused_connection_says_why(database: str, reader: URL, target: Path) -> None:
    def error(url: str | URL) -> SourceError:
        text = url if isinstance(url, str) else url.render_as_string(hide_password=False)
        crm = SqlCrm.model_validate({"url": text, "query": "SELECT 1"})
        with pytest.raises(SourceError) as caught:
            crm.extract(target)
        assert caught.value.__cause__ is None
        assert not any(secret in str(caught.value) for secret in ("reader", "wrong", "nobody"))
        return caught.value

    wrong = [
        reader,
        reader.set(password="wrong"),
        database.replace("postgres:@", "nobody:@"),
        database.replace("/sandbox_", "/nobody_"),
    ]
    for url in wrong:
        assert "refused the connection" in str(error(url))
        assert not isinstance(error(url), SourceUnavailable)
    full = error(reader.set(password="right"))
    assert "no connections for now" in str(full)
    assert isinstance(full, SourceUnavailable)
    unknown = error(f"{database}&nobody=1")
    assert "an option that" in str(unknown)
    with closing(socket.create_server(("127.0.0.1", 0))) as unused:
        port = unused.getsockname()[1]
    for host in (f"127.0.0.1:{port}", "no.such.host.invalid"):
        unreachable = error(f"postgresql://nobody:wrong@{host}/nobody")
        assert "could not be reached" in str(unreachable)
        assert isinstance(unreachable, SourceUnavailable)
