"""The text of a value by its Arrow type: exact, or none."""

from collections.abc import Sequence
from datetime import date, datetime, time
from decimal import Decimal
from uuid import UUID

import numpy as np
import pyarrow as pa
import pytest

from blocks.crm.text import NoText, check_type, to_text

DAY_US = 24 * 60 * 60 * 10**6
MOMENT = 1767312000 * 10**6  # 2026-01-02 00:00:00 UTC


def stamps(unit: str, *numbers: int | None, zone: str | None = None) -> pa.Array:
    return pa.array(numbers, pa.timestamp(unit, zone))


def broken_text() -> pa.Array:
    offsets = pa.py_buffer(np.array([0, 1, 2], np.int32))
    return pa.Array.from_buffers(pa.string(), 2, [None, offsets, pa.py_buffer(b"a\xff")])


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        (pa.array(["00012", "", None, " x\0"]), ["00012", "", None, " x\0"]),
        (pa.array(["ü"], pa.string_view()), ["ü"]),
        (pa.array(["a", "b", None, "a"]).dictionary_encode(), ["a", "b", None, "a"]),
        (pa.nulls(2), [None, None]),
        (pa.array([1, None, -(2**63)]), ["1", None, str(-(2**63))]),
        (pa.array([2**64 - 1], pa.uint64()), [str(2**64 - 1)]),
        (pa.array([Decimal("1.50"), None]), ["1.50", None]),
        (pa.array([Decimal("1E-10")], pa.decimal256(60, 10)), ["0.0000000001"]),
        (pa.array([Decimal(100)], pa.decimal128(5, -2)), ["100"]),
        (pa.array([123.0, 0.1, -0.5, None]), ["123", "0.1", "-0.5", None]),
        (pa.array([1e16, 1e-7, 1e22]), ["1" + "0" * 16, "0.0000001", "1" + "0" * 22]),
        (pa.array([float("nan"), float("inf"), -float("inf")]), ["NaN", "Infinity", "-Infinity"]),
        (pa.array([0.1, 1e10, None], pa.float32()), ["0.1", "10000000000", None]),
        (pa.array(np.array([0.1, 2048, np.nan], np.float16)), ["0.1", "2048", "NaN"]),
        (pa.array([-0.0, 0.0]), ["0", "0"]),
        (pa.array(np.array([-0.0], np.float16)), ["0"]),
        (pa.array(np.array([0x7C01], np.uint16).view(np.float16)), ["NaN"]),
        (pa.array([True, False, None]), ["true", "false", None]),
        (pa.array([date(2026, 1, 2), date.min, None]), ["2026-01-02", "0001-01-01", None]),
        (pa.array([DAY_US // 1000], pa.date64()), ["1970-01-02"]),
        (pa.array([time(5, 30), time(0, 0, 0, 1)]), ["05:30:00", "00:00:00.000001"]),
        (pa.array([34298827], pa.time32("ms")), ["09:31:38.827"]),
        (stamps("s", 0, None), ["1970-01-01 00:00:00", None]),
        (stamps("ms", 1500, 2000), ["1970-01-01 00:00:01.5", "1970-01-01 00:00:02"]),
        (stamps("us", -1), ["1969-12-31 23:59:59.999999"]),
        (stamps("ns", 1), ["1970-01-01 00:00:00.000000001"]),
        (
            pa.array([datetime.max, datetime.min]),
            [
                "9999-12-31 23:59:59.999999",
                "0001-01-01 00:00:00",
            ],
        ),
        (stamps("us", MOMENT, None, zone="UTC"), ["2026-01-02 00:00:00+00:00", None]),
        (stamps("us", MOMENT + 1, zone="+05:30"), ["2026-01-02 05:30:00.000001+05:30"]),
        (
            stamps("s", 0, 15552000, zone="Europe/Berlin"),
            [
                "1970-01-01 01:00:00+01:00",
                "1970-06-30 01:00:00+01:00",
            ],
        ),
        (stamps("s", -2500000000, zone="Asia/Kolkata"), ["1890-10-12 00:54:30+05:21:10"]),
        (stamps("s", zone="America/New_York"), []),
        (pa.array([UUID(int=5).bytes, None], pa.uuid()), [str(UUID(int=5)), None]),
        (pa.ExtensionArray.from_storage(pa.json_(), pa.array(["{}", None])), ["{}", None]),
        (
            pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, 0], pa.int8())),
            ["true", "false"],
        ),
    ],
)
def test_text_has_all_of_a_value_and_nothing_else(
    values: pa.Array, texts: Sequence[str | None]
) -> None:
    assert to_text(values).to_pylist() == texts
    assert to_text(values.slice(1)).to_pylist() == texts[1:]


@pytest.mark.parametrize(
    ("values", "index", "problem"),
    [
        (broken_text(), 1, "not UTF-8"),
        (pa.array([0, 10**7], pa.date32()), 1, "a date beyond the years 1 to 9999"),
        (pa.array([None, -(10**7)], pa.date32()), 1, "a date beyond"),
        (pa.array([90061000], pa.time32("ms")), 0, "a time of no day"),
        (pa.array([0, -1], pa.time64("us")), 1, "a time of no day"),
        (stamps("us", 0, 2**63 - 1), 1, "a time beyond the years"),
        (stamps("us", -(2**63)), 0, "a time beyond the years"),
        (stamps("s", 253402300799, zone="+05:30"), 0, "a time beyond the years"),
        (stamps("ns", None, 2**63 - 1, zone="Asia/Kolkata"), 1, "beyond the years 1677 to 2262"),
        (stamps("ns", 0, -(2**63), zone="America/New_York"), 1, "beyond the years 1677 to 2262"),
    ],
)
def test_value_that_has_no_text_is_told_by_its_place(
    values: pa.Array, index: int, problem: str
) -> None:
    with pytest.raises(NoText, match=problem) as caught:
        to_text(values)
    assert caught.value.index == index


@pytest.mark.parametrize(
    ("type_", "problem"),
    [
        (pa.binary(), "binary"),
        (pa.binary(4), "binary"),
        (pa.list_(pa.string()), "list"),
        (pa.struct({"a": pa.string()}), "struct"),
        (pa.duration("s"), "duration"),
        (pa.month_day_nano_interval(), "interval"),
        (pa.dictionary(pa.int8(), pa.binary()), "binary"),
        (pa.timestamp("us", "US/Pacific-New"), "unknown zone 'US/Pacific-New'"),
    ],
)
def test_type_that_has_no_text_is_told(type_: pa.DataType, problem: str) -> None:
    with pytest.raises(NoText, match=problem):
        check_type(type_)
