"""What drivers give for values, as text."""

from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from blocks.crm.errors import SourceError
from blocks.crm.list_file import ORIGINS
from blocks.crm.sql.rows import to_batches
from blocks.crm.text import to_text
from tests.blocks.crm.extracting import CANARY

INDIA = timezone(timedelta(hours=5, minutes=30))


class Plan(StrEnum):
    GOLD = "gold"


class Level(IntEnum):
    HIGH = 3


class Tier(str, Enum):  # noqa: UP042 - others write them so
    LOW = "low"


class Unknown:
    """Of a driver's own; whatever it says of itself may be a value."""

    def __str__(self) -> str:
        return CANARY

    __repr__ = __str__


def texts(*values: Any) -> list[str | None]:
    """The values of one column as text."""
    (batch,) = to_batches({"v": 0}, [[(value,)] for value in values])
    return batch.column("v").to_pylist()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, None),
        ("", ""),
        ("\ufeffé😀\0", "\ufeffé😀\0"),
        (Plan.GOLD, "gold"),
        (Level.HIGH, "3"),
        (Tier.LOW, "low"),
        (pd.Timestamp("2026-01-02 05:30:00.25"), "2026-01-02 05:30:00.25"),
        (True, "true"),
        (2**64 + 1, "18446744073709551617"),
        pytest.param(-(10**5000), "-1" + 5000 * "0", id="long"),
        (0.1, "0.1"),
        (123.0, "123"),
        (1e16, "1" + 16 * "0"),
        (-2.5e-7, "-0.00000025"),
        (-0.0, "0"),
        (float("nan"), "NaN"),
        (float("-inf"), "-Infinity"),
        (np.float64(0.5), "0.5"),
        (Decimal("1E+2"), "100"),
        (Decimal("1.50"), "1.50"),
        (Decimal("NaN"), "NaN"),
        (Decimal("0E-30"), "0." + 30 * "0"),
        (Decimal(f"{35 * '9'}.{30 * '1'}"), f"{35 * '9'}.{30 * '1'}"),
        (date(1, 2, 3), "0001-02-03"),
        (datetime(2026, 1, 2, 5, 30), "2026-01-02 05:30:00"),
        (datetime(2026, 1, 2, 5, 30, 0, 250000), "2026-01-02 05:30:00.25"),
        (datetime(2026, 1, 2, 5, 30, tzinfo=UTC), "2026-01-02 05:30:00+00:00"),
        (datetime(2026, 1, 2, 5, 30, 0, 1000, INDIA), "2026-01-02 05:30:00.001+05:30"),
        (time(5, 30), "05:30:00"),
        (time(5, 30, 0, 500000, INDIA), "05:30:00.5+05:30"),
        (timedelta(hours=25, microseconds=500000), "25:00:00.5"),
        (timedelta(hours=-1), "-01:00:00"),
        (timedelta(microseconds=-1), "-00:00:00.000001"),
        (timedelta(hours=838, minutes=59, seconds=59), "838:59:59"),
        (timedelta(0), "00:00:00"),
        (UUID(int=5), "00000000-0000-0000-0000-000000000005"),
        ("0000-00-00", "0000-00-00"),
    ],
)
def test_value_is_written_by_its_own_type_whatever_is_beside_it(
    value: object, text: str | None
) -> None:
    assert texts(value) == [text]
    assert texts("a", 1, value, date(2001, 2, 3)) == ["a", "1", text, "2001-02-03"]


@pytest.mark.parametrize(
    "value",
    [True, 7, 1e22, 0.1, -0.0, float("inf"), date.max, datetime.min, time(1, 2, 3, 40), "x", None],
)
def test_value_is_written_as_lists_of_other_sources_write_it(value: object) -> None:
    assert texts(value) == to_text(pa.array([value])).to_pylist()


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (b"x", "holds binary values: convert them to text in the query"),
        (bytearray(), "holds binary values"),
        (memoryview(b"x"), "holds binary values"),
        ("a\ud800", "holds text that is not UTF-8"),
        ({"a": CANARY}, "holds a value of type dict: cast the column to text in the query"),
        ([CANARY], "holds a value of type list"),
        ({CANARY}, "holds a value of type set"),
        (Unknown(), "holds a value of type Unknown"),
        (pd.Timestamp("2026-01-02 05:30:00.000000001"), "holds a Timestamp with nanoseconds"),
        (pd.Timedelta(1, "ns"), "holds a Timedelta with nanoseconds"),
        (pd.NaT, "holds a NaTType with nanoseconds"),
    ],
)
def test_value_without_text_is_told_by_column_row_and_type(value: object, problem: str) -> None:
    for column in ([None, "a", value], [1, None, value]):
        with pytest.raises(SourceError, match=f"The column v, row 3, {problem}") as caught:
            texts(*column)
        assert CANARY not in str(caught.value)


def test_columns_say_what_their_values_were() -> None:
    rows = [
        (date(2001, 2, 3), datetime(2001, 2, 3, 4), True, 0.5, "a"),
        (None, date(2001, 2, 3), None, 1, None),
    ]
    names = ["born", "mixed", "flag", "number", "text"]
    (batch,) = to_batches(dict(zip(names, range(5), strict=True)), [rows[:1], rows[1:]])
    origins = [field.metadata[ORIGINS] for field in batch.schema]
    assert origins == [b"date", b"date timestamp", b"", b"float64", b""]
