"""Numbers and names as people read them in markdown."""

import re
from collections.abc import Mapping


def plain(text: str) -> str:
    """On one line, and nothing in it means anything in markdown."""
    return re.sub(r"([\\`*_\[\]<>~#|&])", r"\\\1", " ".join(text.split()))


def percent(part: int, whole: int) -> str:
    """What share of the whole a part is, of which none and all are said of just these."""
    share = 100 * part / whole if whole else 0.0
    if 0 < share < 0.1:
        return "less than 0.1 %"
    if 99.9 < share < 100:
        return "more than 99.9 %"
    return f"{share:,.1f}".removesuffix(".0") + " %"


def with_share(part: int, whole: int) -> str:
    """A number, and what share of the whole it is."""
    return f"{part:,} ({percent(part, whole)})"


def change(before: int, after: int) -> str:
    """By how much a number rose or fell."""
    by = after - before
    if not by:
        return "0"
    share = f" ({percent(abs(by), before)})" if before else ""
    return f"{'+' if by > 0 else '−'}{abs(by):,}{share}"


def two_columns(head: str, rows: Mapping[str, str]) -> str:
    """A table of names and, under a head, numbers at the right."""
    lines = [f"| | {head} |", "|---|---:|", *(f"| {name} | {rows[name]} |" for name in rows)]
    return "\n".join(lines)
