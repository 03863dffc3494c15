"""Numbers, names, tables and images as markdown for people."""

import re
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import quote

from nudgescribe.errors import cut

MOST_RULES_SHOWN = 20
"""Of the rules that rejected rows, those that rejected most."""
MOST_SEGMENTS_SHOWN = 50
MOST_OF_CELL = 60
"""Characters; Prefect's UI does not wrap the cells of a table."""
MOST_CAMPAIGNS_SHOWN = 200
"""In the table of the inventory, which Prefect shows on one page."""
MOST_CANDIDATES_SHOWN = 500
"""In the table of what retention removes, which Prefect shows on one page."""
_OF_URLS = "%/:?#[]@!$&*+,;=~"
"""All that has a meaning in URLs, but for parentheses and quotes, which have one in links."""
_ALIGNED = {"l": "---", "r": "---:"}
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Characters without a width, among them those that turn the direction of a text."""
QUOTING = "## Segments and messages"
"""Heading of a page's section that quotes a campaign: pages may, logs must not."""
_SPECIAL = re.compile(
    r"""
    [\\`*\[\]<>~#|&@]            # emphasis, code, links, HTML, table cells
    | (?<![^\W_])_ | _(?![^\W_])   # emphasis, but not within a word
    | :(?=//) | (?<=www)\.        # bare addresses, which Prefect's UI makes links of
    | ^[-+=] | (?<=\d)[.)](?=\s|$)  # lists and rules
    """,
    re.VERBOSE | re.IGNORECASE,
)


def plain(text: str) -> str:
    """Return a text of a person or a service as just that: on one line, nothing in it is markup."""
    line = " ".join(_CONTROL.sub(" ", text).split())
    return _SPECIAL.sub(r"\\\g<0>", line)


def shorten(name: str, most: int = MOST_OF_CELL) -> str:
    """Return a name as `plain` does, cut where a cell would push the others off the page."""
    return plain(cut(name, most))


def code_block(text: str) -> str:
    """Return a text of several lines, or a long path, as a code block: it does not break a page."""
    fence = _fence(text, 3)
    return f"{fence}\n{text.rstrip()}\n{fence}"


def quote_text(text: str) -> str:
    """Return a text of several lines as a quotation, whose lines are as wide as the page."""
    return "\n".join(f"> {plain(line)}".rstrip() for line in text.rstrip().splitlines())


def link(text: str, url: str) -> str:
    """Return a link that is shown as the text."""
    return f"[{plain(text)}]({quote(url, safe=_OF_URLS)})"


def _fence(text: str, least: int) -> str:
    longest = max(map(len, re.findall("`+", text)), default=0)
    return "`" * max(least, longest + 1)


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
