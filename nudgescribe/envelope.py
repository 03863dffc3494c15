"""The envelope of answers, what lies around their fields: the one place to correct it."""

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar, cast

from pydantic_core import from_json

from nudgescribe.contract import Answer
from nudgescribe.names import spelled_in, spellings

A = TypeVar("A", bound=Answer)

DATA = "data"
"""What answers may lie in."""


def open_envelope(kind: type[Answer], body: object) -> object:
    """Return the object that an answer's model describes, out of what came for it.

    An object that lacks a field of the model is an envelope: the answer lies in its `data`, if it
    has that. What is no object there is the first field's value, and so is a bare string or array;
    not a bare number, which may have been cut off.
    """
    if isinstance(body, int | float):
        return body
    inside = body
    if isinstance(body, dict) and not _is_whole(kind, around := cast("dict[str, Any]", body)):
        inside = around.get(DATA, around)
    if isinstance(inside, dict):
        return cast("dict[str, Any]", inside)
    return {_names(kind)[0]: inside}


def text_paths(kind: type[Answer]) -> Iterator[tuple[str, ...]]:
    """Yield the names that lead to the text of an answer that has no other field, in the order in
    which `open_envelope` takes it; without a name it is the bare text.
    """
    (name,) = _names(kind)
    spelled = list(dict.fromkeys(spellings(name)))
    yield from ((each,) for each in spelled)
    yield from ((DATA, each) for each in spelled)
    yield (DATA,)
    yield ()


def _names(kind: type[Answer]) -> list[str]:
    return [field.alias or name for name, field in kind.model_fields.items()]


def _is_whole(kind: type[Answer], record: Mapping[str, Any]) -> bool:
    """Return whether a record has all fields that the model needs."""
    fields = zip(_names(kind), kind.model_fields.values(), strict=True)
    return all(spelled_in(record, name) in record for name, field in fields if field.is_required())


def read_answer(kind: type[A], content: bytes) -> A:
    """Return an answer as its model. Raises ValidationError."""
    try:
        body: object = from_json(content)
    except ValueError:
        return kind.model_validate_json(content)  # whose error says that it is no JSON
    return kind.model_validate(open_envelope(kind, body))
