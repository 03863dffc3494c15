"""The envelope of answers, what lies around their fields: the one place to correct it."""

from typing import Any, TypeVar, cast

from pydantic_core import from_json

from nudgescribe.contract import Answer

A = TypeVar("A", bound=Answer)

DATA = "data"
"""What answers may lie in; none has a field of this name."""


def open_envelope(kind: type[Answer], body: object) -> object:
    """Return the object that an answer's model describes, out of what came for it.

    It may lie in `data`. What is no object there is the first field's value, and so is a bare
    string or array; not a bare number, which may have been cut off.
    """
    if isinstance(body, int | float):
        return body
    inside = cast("dict[str, Any]", body).get(DATA, body) if isinstance(body, dict) else body
    if isinstance(inside, dict):
        return cast("dict[str, Any]", inside)
    first, field = next(iter(kind.model_fields.items()))
    return {field.alias or first: inside}


def read_answer(kind: type[A], content: bytes) -> A:
    """Return an answer as its model. Raises ValidationError."""
    try:
        body: object = from_json(content)
    except ValueError:
        return kind.model_validate_json(content)  # whose error says that it is no JSON
    return kind.model_validate(open_envelope(kind, body))
