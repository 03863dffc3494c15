import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blocks import SqlCrm
from blocks.crm.source import SourceError, SourceUnavailable
from tests.blocks.crm.extracting import read_back

FOREVER = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT {} FROM n"
MEBIBYTE = 1024 * 1024

Extract = Callable[..., pl.DataFrame]


@pytest.fixture
def database(tmp_path: Path) -> Path:
    file = tmp_path / "a #1%20.db"
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("CREATE TABLE t (i INTEGER, r REAL, t TEXT, n, d DATE)")
    return file


@pytest.fixture
def extract(database: Path, target: Path) -> Extract:
    """The list a query on the database gives, read back."""

    def extracted(query: str, options: str = "", **fields: object) -> pl.DataFrame:
        url = f"sqlite:///{database}{options}"
        crm = SqlCrm.model_validate({"url": url, "query": query, **fields})
        return read_back(crm, target)

    return extracted


@pytest.fixture
def insert(database: Path) -> Callable[..., None]:
    def inserted(*rows: tuple[object, ...]) -> None:
        with closing(sqlite3.connect(database)) as connection, connection:
            connection.execute("DELETE FROM t")
            connection.executemany("INSERT INTO t VALUES (?, ?, ?, ?, ?)", rows)

    return inserted


def test_sqlite_value_is_written_by_its_own_type(
    extract: Extract, insert: Callable[..., None]
) -> None:
    insert(
        (2**63 - 1, 0.1, "000123", None, "2001-02-03"),
        ("text", 1e20, "NA", "\ufeffid", "no date"),
        (-1, 3, "", 0.1 + 0.2, None),
        (None, float("inf"), "a\0b", "😀 \r\n\"'", 20010203),
    )
    assert extract("SELECT * FROM t").rows() == [
        ("9223372036854775807", "0.1", "000123", None, "2001-02-03"),
        ("text", "1e+20", "NA", "\ufeffid", "no date"),
        ("-1", "3.0", "", "0.30000000000000004", None),
        (None, "inf", "a\0b", "😀 \r\n\"'", "20010203"),
    ]


TEXTS = st.none() | st.text(st.characters(exclude_categories=["Cs"]))


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(TEXTS, TEXTS)))
def test_sqlite_text_is_read_back_exactly(
    database: Path, extract: Extract, rows: list[tuple[str | None, ...]]
) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("DROP TABLE IF EXISTS texts")
        connection.execute("CREATE TABLE texts (a, b)")
        connection.executemany("INSERT INTO texts VALUES (?, ?)", rows)
    assert extract("SELECT a, b FROM texts ORDER BY rowid").rows() == rows


@pytest.mark.parametrize(
    "query",
    [
        "SELECT 'a:b %s 50% --' AS x;",
        "SELECT 'a:b %s 50% --' AS x -- note",
        "WITH q(x) AS (VALUES ('a:b %s 50% --')) SELECT x FROM q ; -- note; and more",
    ],
)
def test_sqlite_query_is_sent_unchanged(extract: Extract, query: str) -> None:
    assert extract(query).rows(named=True) == [{"x": "a:b %s 50% --"}]


def test_sqlite_parameters_are_bound(extract: Extract) -> None:
    values = {"s": "'; DROP TABLE t; --", "i": 7, "f": 0.5, "b": True, "n": None}
    found = extract(
        "SELECT :s AS s, :i AS i, :f AS f, :b AS b, :n AS n, ':x' AS x", parameters=values
    )
    assert found.row(0) == ("'; DROP TABLE t; --", "7", "0.5", "1", None, ":x")


def test_sqlite_value_of_ten_mebibytes_is_read(extract: Extract) -> None:
    found = extract(
        f"SELECT printf('%.*c', {10 * MEBIBYTE}, 'x') AS big, 1 AS one UNION ALL SELECT 'y', 2"
    )
    assert found["big"].str.len_bytes().to_list() == [10 * MEBIBYTE, 1]


@pytest.mark.parametrize(
    ("query", "fields", "problem"),
    [
        ("DELETE FROM t RETURNING i", {}, "tries to write"),
        ("DELETE FROM t", {}, "tries to write"),
        ("ATTACH 'other.db' AS other", {}, "OperationalError"),
        ("VACUUM INTO 'other.db'", {}, "OperationalError|tries to write"),
        ("SELECT 1; DELETE FROM t", {}, "failed"),
        ("", {}, "no columns"),
        ("SELECT 1 AS a, 2 AS a", {}, "two columns of one name"),
        ("SELECT x'00' AS photo", {}, "column photo holds binary"),
        ("SELECT CAST(x'ff41' AS TEXT) AS name", {}, "column name holds text that is not UTF-8"),
        ("SELECT abs(-9223372036854775808) AS secret", {}, "failed"),
        ("SELECT :plan AS plan", {}, "failed: ProgrammingError"),
        ("SELECT :plan AS plan", {"parameters": {"plam": "secret"}}, "failed: ProgrammingError"),
        ("SELECT :n AS n", {"parameters": {"n": 2**70}}, "failed: OverflowError"),
        (FOREVER.format("count(*)"), {"timeout_seconds": 0.01}, "may take 0.01 seconds"),
        (FOREVER.format("i"), {"timeout_seconds": 0.01}, "may take 0.01 seconds"),
    ],
)
def test_sqlite_query_that_gives_no_list_is_refused(
    extract: Extract, query: str, fields: dict[str, object], problem: str
) -> None:
    with pytest.raises(SourceError, match=problem) as caught:
        extract(query, **fields)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert not isinstance(caught.value, SourceUnavailable)
    assert not Path("other.db").exists()


def test_file_that_is_no_sqlite_database_is_refused(database: Path, extract: Extract) -> None:
    database.write_bytes(b"no database, but long enough to be looked at" * 100)
    with pytest.raises(SourceError, match="no SQLite database"):
        extract("SELECT * FROM sqlite_master")


def test_missing_sqlite_file_is_not_created(database: Path, extract: Extract) -> None:
    database.unlink()
    with pytest.raises(SourceError, match="cannot be opened"):
        extract("SELECT 1")
    assert not database.exists()


def test_locked_sqlite_database_is_unavailable(database: Path, extract: Extract) -> None:
    with closing(sqlite3.connect(database)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        with pytest.raises(SourceUnavailable, match="locked"):
            extract("SELECT * FROM t", "?timeout=0")


def test_sqlite_url_with_write_mode_reads_only(database: Path, tmp_path: Path) -> None:
    link = tmp_path / "crm.db"
    link.hardlink_to(database)
    url = f"sqlite:///file:{link}?mode=rwc&uri=true"
    crm = SqlCrm.model_validate({"url": url, "query": "INSERT INTO t (i) VALUES (1) RETURNING i"})
    with pytest.raises(SourceError, match="tries to write"):
        crm.extract(tmp_path / "list.parquet")


def test_sqlite_write_ahead_log_is_read(database: Path, extract: Extract) -> None:
    with closing(sqlite3.connect(database)) as writer, writer:
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("INSERT INTO t (t) VALUES ('new')")
        writer.commit()
        assert extract("SELECT t FROM t").rows() == [("new",)]
