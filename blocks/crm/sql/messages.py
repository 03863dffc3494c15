"""What databases say of a query, as far as it holds no value.

A message is shown if it is about a name that the query itself has, outside of its literals: a
misspelt column can be read, a customer's value cannot. Of all other messages only codes are told.
"""

import re
from collections.abc import Iterable

from blocks.crm.errors import SourceError
from nudgescribe.errors import LONGEST_TEXT, cut

_LITERAL = re.compile(r"'(?:[^']|'')*(?:'|$)|(\$\w*\$).*?(?:\1|$)", re.DOTALL)
_WORD = r"[^\W\d][\w$#]*"
_NAME = re.compile(rf"{_WORD}(?:\.{_WORD})*")
_ABOUT_NAMES = [
    re.compile(pattern)
    for pattern in (
        # SQLite
        r"no such (?:column|table|function): (?P<name>\S+)",
        r"ambiguous column name: (?P<name>\S+)",
        r'near "(?P<name>[^"]+)": syntax error',
        # MySQL and MariaDB
        r"Unknown column '(?P<name>[^']+)' in '[\w ]+'",
        r"Column '(?P<name>[^']+)' in [\w ]+ is ambiguous",
        r"Table '(?P<name>[^']+)' doesn't exist",
        r"Unknown table '(?P<name>[^']+)'",
        r"FUNCTION (?P<name>\S+) does not exist",
        # relatives of PostgreSQL
        r'(?:column|relation|table) "(?P<name>[^"]+)" does not exist',
        # Oracle, SQL Server, DuckDB
        r'ORA-\d{5}: "?(?P<name>[^":]+)"?: invalid identifier',
        r"Invalid (?:column|object) name '(?P<name>[^']+)'",
        r"Ambiguous column name '(?P<name>[^']+)'",
        r'Referenced column "(?P<name>[^"]+)" not found',
        r"Table with name (?P<name>\S+) does not exist",
    )
]
_SYNTAX_LINE = re.compile(r"error in your SQL syntax.* at (line \d+)", re.DOTALL)


def failure(query: str, code: str, message: str) -> SourceError:
    """Return the error for a query that a database of any kind has refused."""
    return _failure(_about_name(query, message), code)


def parse_failure(query: str, code: str, message: str) -> SourceError:
    """Return the error for a query that PostgreSQL has refused to parse, in its own words if all
    that these quote are names of the query.
    """
    quoted = re.findall(r'"([^"]*)"', message)
    return _failure(message if _are_names(quoted, query) else "", code)


def _failure(message: str, code: str) -> SourceError:
    if message:
        return SourceError(f"The query failed: {cut(message, LONGEST_TEXT)} ({code}).")
    return SourceError(
        f"The query failed: {code}. Run it in a SQL client to see the database's message."
    )


def _about_name(query: str, message: str) -> str:
    for pattern in _ABOUT_NAMES:
        if (found := pattern.search(message)) and _are_names([found["name"]], query):
            return found[0]
    syntax = _SYNTAX_LINE.search(message)
    return f"syntax error at {syntax[1]}" if syntax else ""


def _are_names(names: Iterable[str], query: str) -> bool:
    """Return whether all are names, and the last part of each stands in the query."""
    words = {word.lower() for word in re.findall(_WORD, _LITERAL.sub(" ", query))}
    return all(_NAME.fullmatch(name) and name.rpartition(".")[2].lower() in words for name in names)
