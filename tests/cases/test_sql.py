"""What drivers give for a value: the text that the database itself writes, or a refusal."""

import datetime as dt
import sqlite3
import uuid
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.dialects import registry

from blocks import SqlCrm
from tests.cases.judging import field, judged, refused_or

UUID = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"
LONG = "123456789012345678901234567890.123456789012345"
HOUR = dt.timedelta(hours=1)
VALUES: dict[str, tuple[object, tuple[str, ...]]] = {
    "uuid": (uuid.UUID(UUID), (UUID,)),
    "nan": (Decimal("NaN"), ("NaN",)),
    "long": (Decimal(LONG), (LONG,)),
    "json": ({"a": None, "b": True}, ('{"a": null, "b": true}',)),
    "array": (["a", None], ("{a,NULL}", '["a", null]')),
    "interval": (9 * HOUR + HOUR / 12, ("09:05:00",)),
    "day": (25 * HOUR, ("25:00:00",)),
    "negative": (-HOUR, ("-01:00:00",)),
}


def as_date(raw: bytes) -> object:
    """As MySQL's drivers do: a date, or text where there is none."""
    try:
        return dt.date.fromisoformat(raw.decode())
    except ValueError:
        return raw.decode()


@pytest.fixture(autouse=True)
def driver() -> None:
    """SQLite as a driver that gives values as others do."""
    registry.register("sqlite.other", "sqlalchemy.dialects.sqlite.pysqlite", "dialect")
    sqlite3.register_converter("BORN", as_date)
    sqlite3.register_converter("GIVEN", lambda raw: VALUES[raw.decode()][0])


def table(file: Path, kind: str, values: list[str], select: str = "*") -> SqlCrm:
    """A table `t` of `customer_id` and a column `v` of this kind."""
    with closing(sqlite3.connect(file)) as base, base:
        base.execute(f"CREATE TABLE t (customer_id TEXT, v {kind})")
        rows = [(str(number), value) for number, value in enumerate(values, 1)]
        base.executemany("INSERT INTO t VALUES (?, ?)", rows)
    url = f"sqlite+other:///{file}?detect_types={sqlite3.PARSE_DECLTYPES}"
    return SqlCrm(url=url, query=f"SELECT {select} FROM t")


@pytest.mark.parametrize(
    ("born", "errors"),
    [
        (["2001-02-03", "1999-12-31"], []),
        (["2001-02-03", "1999-12-31", "0000-00-00"], [(3, "v", "date")]),
    ],
)
def test_row_is_read_the_same_whatever_other_rows_hold(
    born: list[str], errors: list[Any], tmp_path: Path
) -> None:
    crm = table(tmp_path / "crm.db", "BORN", born)
    listed = judged(crm, [field("customer_id"), field("v", "Date", "dd/MM/yyyy")])
    assert listed.values("v") == ["03/02/2001", "31/12/1999"]
    assert listed.errors == errors


@pytest.mark.parametrize("name", VALUES)
def test_value_is_as_the_database_writes_it_or_refused(name: str, tmp_path: Path) -> None:
    found = refused_or(table(tmp_path / "crm.db", "GIVEN", [name]), r"column '?v\b")
    assert found is None or found.values("v")[0] in VALUES[name][1]
