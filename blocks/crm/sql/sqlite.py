"""Customer lists from SQLite by Python's own driver.

It returns each value with the type it was stored with, whatever type its column declares.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from time import monotonic

from sqlalchemy import URL

from blocks.crm.errors import SourceError, SourceUnavailable
from blocks.crm.sql.messages import failure
from blocks.crm.sql.rows import (
    ROWS_AT_ONCE,
    Query,
    column_error,
    option_error,
    parameter_error,
    to_batches,
)
from nudgescribe.lazy import pa

DRIVERS = ("sqlite", "sqlite+pysqlite")
STEPS_BETWEEN_CHECKS = 100_000
_UNDECODABLE = re.compile(r"Could not decode to UTF-8 column '(.*?)' with text")
_UNBOUND = re.compile(r"You did not supply a value for binding parameter :(\w+)")
# By texts of Python's driver, which hold no value.
_MISUSES = {
    "Binding ": "The query has a parameter without a name: write :name instead of ?.",
    "You can only execute one": "The query is more than one statement: leave one SELECT.",
    "the query contains a null": "The query holds a NUL character: take it out.",
}
_PROBLEMS = {
    "SQLITE_CANTOPEN": "The database's file cannot be opened: check the URL's path.",
    "SQLITE_NOTADB": "The file is no SQLite database, or an encrypted one.",
    "SQLITE_READONLY": "The query tries to write: a customer list is only read.",
}


def batches(url: URL, query: Query) -> Iterator[pa.RecordBatch]:
    """Yield the query's rows as text. Raises SourceError, SourceUnavailable."""
    try:
        with closing(_connect(url)) as connection:
            connection.execute("PRAGMA query_only = ON")
            connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)  # ATTACH would create a file
            deadline = monotonic() + query.seconds
            connection.set_progress_handler(lambda: monotonic() > deadline, STEPS_BETWEEN_CHECKS)
            cursor = connection.execute(query.text, query.parameters)
            places = query.places(name for name, *_ in cursor.description or ())
            yield from to_batches(places, iter(lambda: cursor.fetchmany(ROWS_AT_ONCE), []))
    except (sqlite3.Error, sqlite3.Warning, OverflowError) as error:
        raise _translate_error(error, query) from None


def _connect(url: URL) -> sqlite3.Connection:
    try:
        arguments, keywords = url.get_dialect()().create_connect_args(url)
    except ValueError:
        raise option_error() from None
    database, options = str(arguments[0]), dict(keywords)
    if not options.get("uri"):
        database = f"{Path(database).absolute().as_uri()}?mode=ro"
    # A thread reads it, and whoever gives up closes it.
    options.update(uri=True, check_same_thread=False)
    return sqlite3.connect(database, **options)


def _translate_error(error: Exception, query: Query) -> SourceError:
    """Return our error, without what may be a value in SQLite's text."""
    if undecodable := _UNDECODABLE.match(str(error)):
        return column_error(undecodable[1], "holds text that is not UTF-8")
    if unbound := _UNBOUND.match(str(error)):
        return parameter_error(unbound[1])
    for start, problem in _MISUSES.items():
        if str(error).startswith(start):
            return SourceError(problem)
    name = getattr(error, "sqlite_errorname", "")
    if name == "SQLITE_INTERRUPT":
        return query.timeout_error()
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return SourceUnavailable("The database is locked by a program that writes to it.")
    for start, problem in _PROBLEMS.items():
        if name.startswith(start):
            return SourceError(problem)
    code = type(error).__name__ + (f", {name}" if name else "")
    return failure(query.text, code, str(error))
