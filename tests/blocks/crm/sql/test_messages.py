"""What is told of a database's own message, which may hold a value."""

import sqlite3
from pathlib import Path
from unittest.mock import Mock

import pytest

from blocks import SqlCrm
from blocks.crm.sql.messages import failure
from tests.blocks.crm.extracting import CANARY, refused, unavailable

QUERY = f"SELECT plann, p.plan, lowerr(a) FROM customers p WHERE name = '{CANARY} it''s ada' FORM x"


@pytest.mark.parametrize(
    "message",
    [
        "no such column: plann",
        "no such table: customers",
        "no such function: lowerr",
        "ambiguous column name: p.plan",
        'near "FORM": syntax error',
        "Unknown column 'p.plann' in 'field list'",
        "Table 'crm.customers' doesn't exist",
        'column "plann" does not exist',
        'ORA-00904: "PLANN": invalid identifier',
        "Invalid column name 'plann'",
        'Referenced column "plann" not found',
    ],
)
def test_message_about_a_name_of_the_query_is_told(message: str) -> None:
    said = failure(QUERY, "Kind 7", f"[driver] {message}")
    assert said.problem == f"The query failed: {message} (Kind 7)."


@pytest.mark.parametrize(
    "message",
    [
        "no such column: ada",
        f"no such table: {CANARY}",
        'near "12": syntax error',
        f'near "\'{CANARY}": syntax error',
        "Table 'crm.ada' doesn't exist",
        f"Duplicate entry '{CANARY}' for key 'email'",
        f'invalid input syntax for type integer: "{CANARY}"',
        f"plann: {CANARY}",
        "",
    ],
)
def test_message_that_may_hold_a_value_is_told_by_its_code(message: str) -> None:
    assert failure(f"{QUERY} LIMIT 12", "Kind 7", message).problem == (
        "The query failed: Kind 7. Run it in a SQL client to see the database's message."
    )


def test_syntax_error_of_mysql_is_told_without_the_text_near_it() -> None:
    message = f"You have an error in your SQL syntax; … near '{CANARY}\n' at line 3"
    said = failure(QUERY, "1064", message)
    assert said.problem == "The query failed: syntax error at line 3 (1064)."


@pytest.mark.parametrize(
    ("number", "problem"),
    [
        (1792, "tries to write"),
        (1969, "more than 3,600 seconds"),
        (1644, "failed: OperationalError 1644. Run it"),
    ],
)
def test_code_of_mysql_says_what_failed(target: Path, number: int, problem: str) -> None:
    sqlite3.register_converter("FAILS", failing(number))
    assert problem in refused(crm('SELECT 1 AS "x [FAILS]"'), target)


def test_broken_off_query_is_unavailable(target: Path) -> None:
    sqlite3.register_converter("FAILS", failing(1213))
    assert "broke off the query" in unavailable(crm('SELECT 1 AS "x [FAILS]"'), target)


def test_refused_connection_is_told(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sqlite3.dbapi2.connect", failing(1045))
    assert "refused the connection" in refused(crm("SELECT 1"), target)
    monkeypatch.setattr("sqlite3.dbapi2.connect", Mock(side_effect=TypeError))
    assert "an option that" in refused(crm("SELECT 1"), target)


def crm(query: str) -> SqlCrm:
    url = f"sqlite+other://?detect_types={sqlite3.PARSE_COLNAMES}"
    return SqlCrm.model_validate({"url": url, "query": query})


def failing(number: int) -> Mock:
    return Mock(side_effect=sqlite3.OperationalError(number, CANARY))
