"""The values that drivers give, as text: each by its own type, whatever the rest of its column is.

Numbers, booleans, dates and times are written as `blocks.crm.text` writes them, a duration as the
databases that have times beyond a day write it: 25:00:00.5, -01:00:00.
"""

from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from blocks.crm.list_file import Origin
from blocks.crm.text import SPECIAL_FLOATS, NoText, plain

BINARY = "holds binary values: convert them to text in the query"
"""What is said of a column without text."""
_ORIGINS = {date: Origin.DATE, datetime: Origin.TIMESTAMP, float: Origin.FLOAT64}
_SECOND = timedelta(seconds=1)


def to_text(value: object) -> str | None:
    """Return a value as text, None for none. Raises NoText."""
    if value is None:
        return None
    known = _known(type(value), _WRITERS)
    if known is None:
        kind = type(value).__name__
        raise NoText(f"holds a value of type {kind}: cast the column to text in the query")
    return _WRITERS[known](value)


def origins(kinds: Iterable[type]) -> set[Origin]:
    """Return what values of these types are, where that still matters once they are text."""
    known = {_known(kind, _ORIGINS) for kind in kinds}
    return {_ORIGINS[kind] for kind in known if kind}


def _known(kind: type, among: Iterable[type]) -> type | None:
    """Return the nearest class of `among` that a type is or derives from."""
    return next((each for each in kind.__mro__ if each in among), None)


def _text(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise NoText("holds text that is not UTF-8") from None
    return str.__str__(value)  # of an Enum, str() gives the name


def _boolean(value: bool) -> str:
    return "true" if value else "false"


def _integer(value: int) -> str:
    # Python itself writes no integer of more than some thousand digits.
    return format(Decimal(value), "f")


def _float(value: float) -> str:
    written = float.__repr__(value + 0.0)  # minus zero is zero
    return SPECIAL_FLOATS.get(written) or plain(written)


def _decimal(value: Decimal) -> str:
    return format(value, "f")


def _timestamp(value: datetime) -> str:
    _refuse_nanoseconds(value, "nanosecond")
    return _short_fraction(value.isoformat(" "), len("2026-01-02 05:30:00"))


def _date(value: date) -> str:
    return value.isoformat()


def _time(value: time) -> str:
    return _short_fraction(value.isoformat(), len("05:30:00"))


def _short_fraction(text: str, whole: int) -> str:
    """Return a text without the zeros at the end of the six digits behind its whole seconds."""
    if text[whole : whole + 1] != ".":
        return text
    end = whole + len(".250000")
    return text[:end].rstrip("0") + text[end:]


def _duration(value: timedelta) -> str:
    _refuse_nanoseconds(value, "nanoseconds")
    seconds, fraction = divmod(abs(value), _SECOND)
    minutes, second = divmod(seconds, 60)
    hour, minute = divmod(minutes, 60)
    sign = "-" if value < timedelta(0) else ""
    written = f"{sign}{hour:02}:{minute:02}:{second:02}"
    return f"{written}.{fraction.microseconds:06}".rstrip("0") if fraction else written


def _refuse_nanoseconds(value: object, name: str) -> None:
    """Raise NoText for a time of pandas that has them, or is none."""
    if getattr(value, name, 0):
        kind = type(value).__name__
        raise NoText(f"holds a {kind} with nanoseconds: cast the column to text in the query")


def _binary(value: object) -> str:
    raise NoText(BINARY)


_WRITERS: dict[type, Callable[[Any], str]] = {
    str: _text,
    bool: _boolean,
    int: _integer,
    float: _float,
    Decimal: _decimal,
    datetime: _timestamp,
    date: _date,
    time: _time,
    timedelta: _duration,
    UUID: str,
    bytes: _binary,
    bytearray: _binary,
    memoryview: _binary,
}
