"""The values of lists as text. How a value is written follows from its Arrow type, and from nothing
else:

    text, JSON, UUID   as it is
    integer, decimal   all its digits: 42, 1.50
    float              the shortest text that reads back, without exponent: 0.1, 123, NaN
    boolean            true, false
    date               2026-01-02
    time               05:30:00, or 05:30:00.25
    timestamp          2026-01-02 05:30:00, with the fraction and the offset that it has
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import cache
from typing import Any, cast
from uuid import UUID

from nudgescribe.lazy import np, pa, pc, types
from nudgescribe.text_bytes import text_bytes, text_type

_EPOCH = date(1970, 1, 1)
_FIRST_DAY, _LAST_DAY = (date.min - _EPOCH).days, (date.max - _EPOCH).days
_DAY_SECONDS = 24 * 60 * 60
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
SPECIAL_FLOATS = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


def parse_time(text: str) -> datetime:
    """Return the time of a text in ISO 8601; one without an offset is in UTC. Raises ValueError."""
    at = datetime.fromisoformat(text.strip())
    return at if at.tzinfo else at.replace(tzinfo=UTC)


class NoText(ValueError):
    """A value has no text; `index` is its place in the array, None if no value of the type has."""

    def __init__(self, problem: str, index: int | None = None) -> None:
        super().__init__(problem)
        self.problem = problem
        self.index = index


def check_type(type_: pa.DataType) -> None:
    """Raise NoText if values of this type have no text."""
    type_ = _stored_type(type_)
    if types.is_timestamp(type_) and type_.tz:
        try:
            pc.local_timestamp(pa.array([0], type_))
        except pa.ArrowInvalid:
            raise NoText(f"has times in the unknown zone {type_.tz!r:.60}") from None
    if _writer(type_) is None:
        raise NoText(
            f"is of type {str(type_)[:60]}, which has no text: write it as text in the source, or "
            "leave it out of options.fields"
        )


def to_text(values: pa.Array) -> pa.Array:
    """Return the values as text, null for no value. Raises NoText."""
    check_type(values.type)
    if isinstance(values.type, pa.UuidType):
        texts = (
            None if each is None else str(UUID(bytes=each)) for each in values.storage.to_pylist()
        )
        return pa.array(texts, text_type())
    stored = _stored(values)
    write = _writer(stored.type)
    assert write
    return write(stored)


def int96(s: pa.Array, us: pa.Array, ns: pa.Array) -> pa.Array:
    """Return times of Parquet's INT96, read in three units, with all their digits: no unit has
    room for those of all times, and beyond its last number Arrow goes on with the first.
    """
    try:
        _check_days(s)
    except NoText:
        return s
    numbers, last = us.view(pa.int64()), 2**63 // 1000 - 1
    near = pc.and_(pc.greater_equal(numbers, -last), pc.less_equal(numbers, last))
    if pc.all(near).as_py() is not False:
        return ns
    return pc.if_else(near, to_text(pc.if_else(near, ns, None)), to_text(us))


def _stored_type(type_: pa.DataType) -> pa.DataType:
    if isinstance(type_, pa.UuidType):
        return text_type()
    if isinstance(type_, pa.JsonType):
        return type_.storage_type
    if isinstance(type_, pa.Bool8Type):
        return pa.bool_()
    if types.is_dictionary(type_) or types.is_run_end_encoded(type_):
        return _stored_type(type_.value_type)
    return type_


def _stored(values: pa.Array) -> pa.Array:
    if isinstance(values.type, pa.JsonType):
        return values.storage
    if isinstance(values.type, pa.Bool8Type):
        return values.cast(pa.bool_())
    if types.is_dictionary(values.type):
        return _stored(cast("pa.DictionaryArray", values).dictionary_decode())
    if types.is_run_end_encoded(values.type):
        return _stored(pc.run_end_decode(values))
    return values


def _writer(type_: pa.DataType) -> Callable[[Any], pa.Array] | None:
    """Return what writes values of this type; None if they have no text."""
    for fits, write in _writers():
        if fits(type_):
            return write
    return None


def _nulls(values: pa.Array) -> pa.Array:
    return pa.nulls(len(values), text_type())


def _checked_text(values: pa.Array) -> pa.Array:
    texts = values.cast(text_type())
    if text_bytes(texts)[1].isascii():  # which is UTF-8, and found out in a moment
        return texts
    try:
        values.validate(full=True)
    except pa.ArrowInvalid:
        pieces = values.cast(pa.large_binary()).to_pylist()
        index = next(at for at, each in enumerate(pieces) if not _is_utf8(each))
        raise NoText("holds text that is not UTF-8", index) from None
    return texts


def _is_utf8(piece: bytes | None) -> bool:
    try:
        (piece or b"").decode()
    except UnicodeDecodeError:
        return False
    return True


def plain(number: str) -> str:
    """Return a number without exponent, and without the .0 of a whole one."""
    return format(Decimal(number), "f").removesuffix(".0")


def _digits(values: pa.Array) -> pa.Array:
    """Write numbers; those that Arrow writes with an exponent are written anew."""
    texts = values.cast(text_type())
    exponents = pc.match_substring_regex(texts, "[eE]")
    if not pc.any(exponents).as_py():
        return texts
    written = (format(Decimal(each), "f") for each in texts.filter(exponents).to_pylist())
    return pc.replace_with_mask(texts, exponents.fill_null(False), pa.array(written, text_type()))


def _floats(values: pa.Array) -> pa.Array:
    if types.is_float16(values.type):
        # Arrow writes the digits of the next larger type.
        numbers = (None if each is None else float(each) + 0.0 for each in values.to_pylist())
        texts = (None if each is None else _positional(np.float16(each)) for each in numbers)
        return pa.array(texts, text_type())
    values = pc.add(values, pa.scalar(0, values.type))  # minus zero is zero
    finite = pc.is_finite(values)
    texts = _digits(pc.if_else(finite, values, pa.scalar(None, values.type)))
    if pc.all(finite).as_py() in (True, None):
        return texts
    special = (SPECIAL_FLOATS[str(each)] for each in values.filter(pc.invert(finite)).to_pylist())
    return pc.replace_with_mask(
        texts, pc.invert(finite).fill_null(False), pa.array(special, text_type())
    )


def _positional(value: np.floating[Any]) -> str:
    written = np.format_float_positional(value, unique=True, trim="-")
    return SPECIAL_FLOATS.get(written, written)


def _booleans(values: pa.Array) -> pa.Array:
    return values.cast(text_type())


def _dates(values: pa.Array) -> pa.Array:
    days = values.cast(pa.date32(), safe=False)
    _check_range(days.view(pa.int32()), _FIRST_DAY, _LAST_DAY, "a date")
    return days.cast(text_type())


def _times(values: pa.Array) -> pa.Array:
    unit = values.type.unit
    numbers = values.view(pa.int32() if values.type.bit_width == 32 else pa.int64())
    last = _DAY_SECONDS * _PER_SECOND[unit] - 1
    _check_range(numbers, 0, last, "a time", "of no day")
    return _short_fraction(values.cast(text_type()))


def _timestamps(values: pa.Array) -> pa.Array:
    _check_days(values)
    if not values.type.tz:
        return _short_fraction(_whole_seconds(values).cast(text_type()))
    local = pc.local_timestamp(values)
    _check_days(local)
    there, here = local.view(pa.int64()), values.view(pa.int64())
    offsets = pc.subtract(there, here)
    # Beyond its last number Arrow goes on with the first.
    place = pc.index(pc.xor(pc.less(there, here), pc.less(offsets, 0)), True).as_py()
    if place >= 0:
        raise NoText("holds a time beyond the years 1677 to 2262", place)
    seconds = pc.divide(offsets, _PER_SECOND[values.type.unit]).dictionary_encode()
    written = [_offset(each) for each in seconds.dictionary.to_pylist()]
    endings = pa.DictionaryArray.from_arrays(seconds.indices, pa.array(written, text_type()))
    texts = _short_fraction(_whole_seconds(local).cast(text_type()))
    return pc.binary_join_element_wise(texts, endings.cast(text_type()), pa.scalar("", text_type()))


def _check_days(values: pa.Array) -> None:
    per_day = _DAY_SECONDS * _PER_SECOND[values.type.unit]
    numbers = values.view(pa.int64())
    if per_day * _LAST_DAY < 2**63:  # of nanoseconds, all are within
        _check_range(numbers, _FIRST_DAY * per_day, (_LAST_DAY + 1) * per_day - 1, "a time")


def _whole_seconds(values: pa.Array) -> pa.Array:
    """Return timestamps in seconds, which have no fraction to write, if none is lost."""
    try:
        return values.cast(pa.timestamp("s"))
    except pa.ArrowInvalid:
        return values


def _short_fraction(texts: pa.Array) -> pa.Array:
    """Return texts without the zeros that end their fraction."""
    if not pc.any(pc.match_substring(texts, ".")).as_py():
        return texts
    return pc.utf8_rtrim(pc.utf8_rtrim(texts, "0"), ".")


def _offset(seconds: int | None) -> str:
    span = timedelta(seconds=abs(seconds or 0))
    hours, rest = divmod(int(span.total_seconds()), 3600)
    minutes, odd = divmod(rest, 60)
    sign = "-" if (seconds or 0) < 0 else "+"
    return f"{sign}{hours:02}:{minutes:02}" + (f":{odd:02}" if odd else "")


def _check_range(
    numbers: pa.Array, first: int, last: int, what: str, why: str = "beyond the years 1 to 9999"
) -> None:
    """Raise NoText for a number that is not within the range."""
    within = pc.and_(pc.greater_equal(numbers, first), pc.less_equal(numbers, last))
    if pc.all(within).as_py() is False:
        raise NoText(f"holds {what} {why}", pc.index(within, False).as_py())


@cache
def _writers() -> list[tuple[Callable[[pa.DataType], bool], Callable[[Any], pa.Array]]]:
    return [
        (types.is_null, _nulls),
        (types.is_string, _checked_text),
        (types.is_large_string, _checked_text),
        (types.is_string_view, _checked_text),
        (types.is_integer, _digits),
        (types.is_decimal, _digits),
        (types.is_floating, _floats),
        (types.is_boolean, _booleans),
        (types.is_date, _dates),
        (types.is_time, _times),
        (types.is_timestamp, _timestamps),
    ]
