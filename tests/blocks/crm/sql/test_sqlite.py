"""SQLite's own ways: its types, its file and its locks."""

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.blocks.crm.extracting import CANARY
from tests.blocks.crm.sql.conftest import Database

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


def test_sqlite_value_is_written_by_its_own_type(sqlite: Database) -> None:
    with sqlite.connected() as connection:
        connection.execute("CREATE TABLE t (i INTEGER, r REAL, t TEXT, n, d DATE)")
        connection.executemany(
            "INSERT INTO t VALUES (?, ?, ?, ?, ?)",
            [
                (2**63 - 1, 0.1, "000123", None, "2001-02-03"),
                ("text", 1e20, "NA", "\ufeffid", "no date"),
                (-1, 3, "", 0.1 + 0.2, None),
                (None, float("inf"), "a\0b", "😀 \r\n\"'", 20010203),
            ],
        )
    assert sqlite.extract("SELECT * FROM t").rows() == [
        ("9223372036854775807", "0.1", "000123", None, "2001-02-03"),
        ("text", "1" + 20 * "0", "NA", "\ufeffid", "no date"),
        ("-1", "3", "", "0.30000000000000004", None),
        (None, "Infinity", "a\0b", "😀 \r\n\"'", "20010203"),
    ]


@pytest.mark.parametrize(
    ("query", "fields", "problem"),
    [
        ("DELETE FROM texts", {}, "tries to write"),
        ("ATTACH 'other.db' AS other", {}, "OperationalError"),
        ("VACUUM INTO 'other.db'", {}, "OperationalError|tries to write"),
        ("SELECT 1; DELETE FROM texts", {}, "more than one statement"),
        ("SELECT x'00' AS photo", {}, "column photo, row 1, holds binary"),
        ("SELECT CAST(x'ff41' AS TEXT) AS name", {}, "column name holds text that is not UTF-8"),
        (f"SELECT abs(-9223372036854775808) AS '{CANARY}'", {}, "failed"),
        ("SELECT :plan AS plan", {}, "names :plan, for which the block has no parameter"),
        ("SELECT :plan AS plan", {"parameters": {"plam": CANARY}}, "names :plan, for which"),
        ("SELECT ? AS plan", {"parameters": {"plan": CANARY}}, "write :name instead of"),
        ("SELECT 1 AS a\0", {}, "holds a NUL"),
        ("SELECT :n AS n", {"parameters": {"n": 2**70}}, "failed: OverflowError"),
        (ENDLESS, {"timeout_seconds": 0.01}, "more than 0.01 seconds"),
    ],
)
def test_sqlite_query_that_gives_no_list_is_refused(
    sqlite: Database, query: str, fields: dict[str, object], problem: str
) -> None:
    assert re.search(problem, sqlite.refused(query, **fields))
    assert not Path("other.db").exists()


def test_option_with_a_wrong_value_is_refused(sqlite: Database) -> None:
    for url in (sqlite.url, sqlite.url.replace("sqlite:", "sqlite+other:")):
        assert "an option that" in sqlite.refused("SELECT 1", url=f"{url}?timeout=abc")


def test_sqlite_colons_within_text_are_no_parameters(sqlite: Database) -> None:
    assert sqlite.extract("SELECT :b AS b, ':x' AS x", parameters={"b": True}).rows() == [
        ("1", ":x")
    ]


def test_file_that_is_no_sqlite_database_is_refused_and_none_is_created(sqlite: Database) -> None:
    sqlite.file.write_bytes(b"no database, but long enough to be looked at" * 100)
    assert "no SQLite database" in sqlite.refused("SELECT * FROM sqlite_master")
    sqlite.file.unlink()
    said = sqlite.refused("SELECT 1")
    assert "cannot be opened" in said
    assert sqlite.file.name not in said
    assert not sqlite.file.exists()


def test_locked_sqlite_database_is_unavailable(sqlite: Database) -> None:
    with closing(sqlite3.connect(sqlite.file)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        url = f"{sqlite.url}?timeout=0"
        assert "locked" in sqlite.unavailable("SELECT * FROM texts", url=url)


def test_sqlite_url_with_write_mode_reads_only(sqlite: Database) -> None:
    link = sqlite.file.with_name("crm.db")
    link.hardlink_to(sqlite.file)
    said = sqlite.refused(
        "INSERT INTO texts (a) VALUES (1) RETURNING a",
        url=f"sqlite:///file:{link}?mode=rwc&uri=true",
    )
    assert "tries to write" in said


def test_sqlite_write_ahead_log_is_read(sqlite: Database) -> None:
    with sqlite.connected() as writer:
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("INSERT INTO texts (a) VALUES ('new')")
        writer.commit()
        assert sqlite.extract("SELECT a FROM texts").rows() == [("new",)]
