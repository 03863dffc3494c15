"""Names of columns that can be told: in a file without header row they are a customer's values."""

import re
from collections.abc import Iterable

_ID = re.compile(r"(.*[ _-])?(id|ID|Id)|.*[a-z]I[dD]")
_PLAIN = re.compile(r"[A-Za-z][a-z]*(_?[A-Za-z][a-z]*)*_?[0-9]{0,2}")


def known_names(columns: Iterable[str], needed: frozenset[str] | None) -> frozenset[str]:
    """Return the columns whose names are told: those that are needed; and, where one of them is
    named as an identifier, such as customer_id, all others that are plain words.
    """
    names = {*columns}
    told = names & (needed or frozenset[str]())
    if any(map(_ID.fullmatch, names)):
        told |= {name for name in names if _PLAIN.fullmatch(name)}
    return frozenset(told)
