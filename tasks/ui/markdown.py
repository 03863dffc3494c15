"""Numbers, names, tables and images as markdown for people."""

import re
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence

_ALIGNED = {"l": "---", "r": "---:"}


def plain(text: str) -> str:
    """Return the text on one line, with markdown's special characters escaped."""
    return re.sub(r"([\\`*_\[\]<>~#|&])", r"\\\1", " ".join(text.split()))


def percent(part: int, whole: int) -> str:
    """Format a share; only 0 and 100 % print as such, 0.01 % prints as less than 0.1 %."""
    share = 100 * part / whole if whole else 0.0
    if 0 < share < 0.1:
        return "less than 0.1 %"
    if 99.9 < share < 100:
        return "more than 99.9 %"
    return f"{share:,.1f}".removesuffix(".0") + " %"


def with_share(part: int, whole: int) -> str:
    """Format a number with its share of the whole."""
    return f"{part:,} ({percent(part, whole)})"


def change(before: int, after: int) -> str:
    """Format the difference between two numbers, with its share of the first."""
    by = after - before
    if not by:
        return "0"
    share = f" ({percent(abs(by), before)})" if before else ""
    return f"{'+' if by > 0 else '−'}{abs(by):,}{share}"


def table(alignment: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a markdown table; `alignment` has a letter per column, l for left or r for right."""
    rule = f"|{'|'.join(_ALIGNED[letter] for letter in alignment)}|"
    return "\n".join([_row(head), rule, *map(_row, rows)])


def two_columns(head: str, rows: Mapping[str, str]) -> str:
    """Return a table of names and, right-aligned under `head`, their numbers."""
    return table("lr", ["", head], rows.items())


def image(description: str, png: bytes) -> str:
    """Return an image that lies within the markdown itself."""
    return f"![{description}](data:image/png;base64,{b64encode(png).decode()})"


def _row(cells: Sequence[str]) -> str:
    return f"|{'|'.join(f' {cell} ' if cell else ' ' for cell in cells)}|"
