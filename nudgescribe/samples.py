"""Messages as made-up customers would get them, so that people read sentences, not placeholders."""

import json
import re
from collections.abc import Iterable, Mapping
from datetime import date

from nudgescribe.contract import Segment, WorkspaceField
from nudgescribe.fields import DATE_FORMATS

PEOPLE = 3
"""How many customers are made up."""

_PLACEHOLDER = re.compile(r'\{\{\s*(?:("(?:[^"\\]|\\.)*")|(\w+))\s*\}\}')
"""A text that is written as a string of Jinja2, or a field."""
_BY_NAME: Mapping[str, tuple[str, str, str]] = {
    "first_?name|given": ("Alex", "María", "Jun"),
    "last_?name|surname|family_?name": ("Morgan", "García", "Tanaka"),
    "e_?mail": ("alex@example.com", "maria@example.com", "jun@example.com"),
    "name": ("Alex Morgan", "María García", "Jun Tanaka"),
    "city|town": ("Bristol", "Sevilla", "Osaka"),
    "country": ("Great Britain", "Spain", "Japan"),
    "phone|mobile": ("01632 960001", "01632 960002", "01632 960003"),
}
_BY_TYPE: Mapping[str, tuple[str, str, str]] = {
    "number": ("3", "12", "47"),
    "char": ("A", "B", "C"),
    "currency": ("120", "49", "310"),
}
_DAYS = (date(1990, 5, 12), date(1978, 11, 3), date(2001, 8, 24))


def made_up(fields: Iterable[WorkspaceField], number: int) -> dict[str, str]:
    """Return a value for each field of the made-up customer `number`, from 0."""
    return {field.field_name: _value(field, number % PEOPLE) for field in fields}


def render(text: str, segment: Segment, customer: Mapping[str, str]) -> str:
    """Return a segment's text as a customer gets it; what no field fills in stays as it is."""
    values = {**customer, **segment}

    def fill(found: re.Match[str]) -> str:
        literal, field = found.groups()
        if literal is not None:
            return _unquoted(literal)
        return values.get(field, found[0])

    return _PLACEHOLDER.sub(fill, text)


def _value(field: WorkspaceField, number: int) -> str:
    if field.unique:
        return f"C-{1001 + number}"
    if field.field_type == "Date":
        return _DAYS[number].strftime(DATE_FORMATS.get(field.field_format or "", "%Y-%m-%d"))
    if by_type := _BY_TYPE.get(field.field_type):
        return by_type[number]
    for pattern, values in _BY_NAME.items():
        if re.search(pattern, field.field_name, re.IGNORECASE):
            return values[number]
    return f"made-up {field.field_name.replace('_', ' ')}"


def _unquoted(literal: str) -> str:
    try:
        return str(json.loads(literal))
    except ValueError:
        return literal[1:-1]
