"""Reading and writing CSV exactly: every value as text, as it was written, in bounded memory."""

import csv
import io
from collections import Counter
from collections.abc import Iterator
from typing import Protocol

import polars as pl
import pyarrow as pa
from pyarrow import csv as arrow_csv

from nudgescribe.contract import MOST_FIELDS
from nudgescribe.errors import NudgeflowError

BLOCK_BYTES = 8 * 1024 * 1024
LONGEST_ROW = 64 * 1024 * 1024
"""Bytes; what holds no end of a row for that long is no list."""
_BOM = b"\xef\xbb\xbf"


class Readable(Protocol):
    """A source of bytes, in pieces of about `size`; an empty piece is the end."""

    def read(self, size: int, /) -> bytes: ...


class MalformedCsv(NudgeflowError):
    advice = "Write the file as UTF-8 CSV with a header row and RFC 4180 quoting."


def read(data: bytes) -> pl.DataFrame:
    """A whole CSV as text columns; an empty value is ""."""
    return pl.concat(list(frames(io.BytesIO(data))))


def frames(file: Readable, block_bytes: int = BLOCK_BYTES) -> Iterator[pl.DataFrame]:
    """The rows of a CSV, about `block_bytes` at a time; at least one frame, so that an empty list
    still has its columns.

    Raises MalformedCsv for no header, repeated column names, rows of the wrong length or longer
    than `LONGEST_ROW`, an open quote at the end and invalid UTF-8.
    """
    columns: list[str] | None = None
    for block in _aligned_blocks(file, block_bytes):
        if columns is None:
            columns, body = _header(block)
            yield _parse(body, columns)
        else:
            yield _parse(block, columns)
    if columns is None:
        raise MalformedCsv("The CSV is empty, not even a header row is there.")


def write(frame: pl.DataFrame, *, header: bool = True) -> bytes:
    """A text frame as CSV; null and "" both read back as ""."""
    return frame.write_csv(include_header=header, line_terminator="\r\n").encode()


def _aligned_blocks(file: Readable, block_bytes: int) -> Iterator[bytes]:
    # Cut only at a newline outside quotes (an even number of quotes before it): a reader that cuts
    # elsewhere can lose the LF of a quoted CR LF, see apache/arrow#51368.
    rest = b""
    quoted = False
    while chunk := file.read(block_bytes):
        cut, quoted = _last_row_end(chunk, quoted)
        if cut:
            yield rest + chunk[:cut]
            rest = chunk[cut:]
        else:
            rest += chunk
        if len(rest) > LONGEST_ROW:
            raise MalformedCsv(f"The CSV holds a row of more than {LONGEST_ROW:,} bytes.")
    if quoted:
        raise MalformedCsv("The CSV ends inside a quoted value: it was cut off.")
    if rest:
        yield rest


def _last_row_end(chunk: bytes, quoted: bool) -> tuple[int, bool]:
    """Where the last row that ends in a chunk ends, 0 for none, and whether the chunk's end is
    within quotes; `quoted` says so of its start. Walks from quote to quote, not line to line: a
    quote that is never closed can hold millions of lines.
    """
    at_end = inside = quoted ^ bool(chunk.count(b'"') % 2)
    end = len(chunk)
    while end > 0:
        quote = chunk.rfind(b'"', 0, end)
        if not inside and (newline := chunk.rfind(b"\n", quote + 1, end)) >= 0:
            return newline + 1, at_end
        inside, end = not inside, quote
    return 0, at_end


def _first_row_end(block: bytes) -> int:
    start = 0
    while True:
        quote = block.find(b'"', start)
        newline = block.find(b"\n", start, quote if quote >= 0 else len(block))
        if newline >= 0:
            return newline + 1
        start = block.find(b'"', quote + 1) + 1 if quote >= 0 else 0
        if not start:
            return len(block)


def _header(block: bytes) -> tuple[list[str], bytes]:
    """The column names and what follows them."""
    block = block.removeprefix(_BOM)
    end = _first_row_end(block)
    try:
        lines = io.StringIO(block[:end].decode(), newline="")
    except UnicodeDecodeError:
        raise MalformedCsv("The CSV is not valid UTF-8.") from None
    try:
        columns = next(csv.reader(lines), [""])
    except csv.Error:
        raise MalformedCsv("The CSV's header row cannot be read.") from None
    if not any(columns):
        raise MalformedCsv("The CSV has no header row.")
    if len(columns) > MOST_FIELDS:
        raise MalformedCsv(f"The CSV has more than {MOST_FIELDS:,} columns.")
    if any("\0" in name for name in columns):
        raise MalformedCsv("The CSV's header row holds a NUL: it may be UTF-16.")
    repeated = sorted(name for name, count in Counter(columns).items() if count > 1)
    if repeated:
        raise MalformedCsv(f"The CSV names these columns more than once: {', '.join(repeated)}.")
    # Nothing is left of the lines unless rows end with CR alone.
    return columns, lines.read().encode() + block[end:]


def _parse(block: bytes, columns: list[str]) -> pl.DataFrame:
    if not block:
        return pl.DataFrame(schema=dict.fromkeys(columns, pl.String()))
    try:
        table = arrow_csv.read_csv(
            io.BytesIO(block),
            read_options=arrow_csv.ReadOptions(
                column_names=columns, block_size=len(block) + 1, use_threads=False
            ),
            parse_options=arrow_csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
            convert_options=arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(columns, pa.string()), strings_can_be_null=False
            ),
        )
    except pa.ArrowInvalid as error:
        # Arrow's message repeats the row; only which kind of fault it was may leave here.
        kind = "invalid UTF-8" if "UTF8" in str(error) else "a row with too many or too few values"
        raise MalformedCsv(f"The CSV holds {kind}.") from None
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame
