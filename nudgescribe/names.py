"""The names of fields on the wire: the one place to correct them for a real account."""

from collections.abc import Container

from pydantic.alias_generators import to_camel

WIRE_NAMES: dict[str, str] = {}
"""A field of `nudgescribe.contract` -> its name on the wire, where they differ.

`"campaign_id"` is the field of this name in all models, `"Campaign.name"` that of one model, which
counts for more. A model is what it is called there, whatever it inherits from. `ErrorBody.message`
is the text of errors; `MessageRow.customer_id` and `MessageRow.message` head the columns of an
export's CSV, too.
"""


def wire_name(model: str, field: str) -> str:
    """Return what a model's field is called in requests, and in the sandbox's answers."""
    return WIRE_NAMES.get(f"{model}.{field}") or WIRE_NAMES.get(field, field)


def spellings(name: str) -> tuple[str, ...]:
    """Return how answers may spell a name of the wire: as it is, or in camel case."""
    return name, to_camel(name)


def spelled_in(record: Container[str], name: str) -> str:
    """Return how a record spells a name of the wire; the name itself if it lacks it."""
    return next((each for each in spellings(name) if each in record), name)
