"""Names of columns as they are told: without a header row they are a customer's values."""

import re
from collections.abc import Collection, Sequence

from nudgescribe.errors import first_ten

_PLAIN = re.compile(r"[a-z][A-Za-z_]*[0-9]{0,2}")


def told(names: Collection[str], columns: Sequence[str]) -> str:
    """Return some names of a file's columns, by number where one may be a value."""
    return first_ten(name_or_place(name, columns.index(name) + 1) for name in names)


def name_or_place(name: str, number: int) -> str:
    """Return the name of a column, its number if the name may be a value."""
    return name if _PLAIN.fullmatch(name) else f"column {number}"
