"""Reading and writing CSV exactly: every value as text, as it was written, in bounded memory."""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from os import SEEK_END
from typing import BinaryIO, Protocol

import numpy as np
import polars as pl
import pyarrow as pa
from pyarrow import csv as arrow_csv

from nudgescribe.contract import MOST_FIELDS
from nudgescribe.errors import NudgeflowError

BLOCK_BYTES = 8 * 1024 * 1024
LONGEST_ROW = 64 * 1024 * 1024
"""Bytes; what holds no end of a row for that long is no list."""
HEAD_BYTES = 64 * 1024
PIECE_BYTES = 4 * 1024 * 1024
_EMPTY = "The CSV is empty, not even a header row is there."
_CUT_OFF = "The CSV ends inside a quoted value: it was cut off."
_CLOSED = (b'\n"\n', b'\n"\r\n', b'\n"\r', b'\n"')
_BOM = b"\xef\xbb\xbf"


class Readable(Protocol):
    """A source of bytes, in pieces of about `size`; an empty piece is the end."""

    def read(self, size: int, /) -> bytes: ...


class MalformedCsv(NudgeflowError):
    advice = "Write the file as UTF-8 CSV with a header row and RFC 4180 quoting."
    row: int | None = None
    """Which row, from 1 without the header, where it is known; of a stray quote, one near it."""


class InvalidUtf8(MalformedCsv):
    """Another encoding, or damaged."""


class RepeatedColumns(MalformedCsv):
    """Columns with the name of another; `columns` are their numbers, from 1."""

    columns: Sequence[int] = ()

    def __init__(self, problem: str, columns: Sequence[int] = ()) -> None:
        super().__init__(problem)
        self.columns = columns


@dataclass(frozen=True)
class Block:
    """Some whole rows: as they stand in the file, without the header, and as text columns."""

    raw: bytes | memoryview
    table: pa.Table


def read(data: bytes) -> pl.DataFrame:
    """A whole CSV as text columns; an empty value is ""."""
    return pl.concat(list(frames(io.BytesIO(data))))


def frames(
    file: Readable,
    block_bytes: int = BLOCK_BYTES,
    delimiter: str = ",",
    header: list[str] | None = None,
) -> Iterator[pl.DataFrame]:
    """The rows of a CSV like `blocks`, as frames."""
    for block in blocks(file, block_bytes, delimiter, header):
        frame = pl.from_arrow(block.table)
        assert isinstance(frame, pl.DataFrame)
        frame.columns = block.table.schema.names  # polars gives one without a name another
        yield frame


def blocks(
    file: Readable,
    block_bytes: int = BLOCK_BYTES,
    delimiter: str = ",",
    header: list[str] | None = None,
) -> Iterator[Block]:
    """The rows of a CSV, about `block_bytes` at a time; at least one block, so that an empty list
    still has its columns. `header` names those of a file without a header row.

    Raises MalformedCsv for no header, repeated column names, rows of the wrong length or longer
    than `LONGEST_ROW`, an open quote at the end and invalid UTF-8.
    """
    columns, count, table = header, 0, None
    for rows in _aligned(file, block_bytes):
        body = rows
        if columns is None:
            columns, body = _header(rows, delimiter)
        try:
            table = _parse(body, columns, delimiter)
        except MalformedCsv as error:
            before = _rows_before_fault(body, columns, delimiter)
            error.row = None if before is None else count + before + 1
            raise
        count += table.num_rows
        yield Block(body, table)
    if columns is None:
        raise MalformedCsv(_EMPTY)
    if table is None:
        yield Block(b"", _parse(b"", columns))


def mapped(file: BinaryIO) -> Iterator[Block]:
    """Like `blocks`, by way of the system's own copy of the file: faster, and all of it may come
    into memory, so for files of which that is true.
    """
    if not file.seek(0, SEEK_END):
        raise MalformedCsv(_EMPTY)
    data = mmap(file.fileno(), 0, access=ACCESS_READ)
    head = data[:HEAD_BYTES]
    end = _first_row_end(head)
    columns, rest = _header(head[:end])
    if rest or end == HEAD_BYTES:
        file.seek(0)
        yield from blocks(file)
        return
    quoted, body = False, memoryview(b"")
    for start in range(end, len(data), PIECE_BYTES):
        stop = min(start + PIECE_BYTES, len(data))
        cut, quoted = _last_row_end(data, end, start, stop, quoted)
        if stop == len(data) and not quoted:
            cut = stop
        if cut > end:
            body = memoryview(data)[end:cut]
            yield Block(body, _parse(body, columns))
            end = cut
    if quoted:
        raise MalformedCsv(_CUT_OFF)
    if not body:
        yield Block(body, _parse(body, columns))


def write(frame: pl.DataFrame, *, header: bool = True) -> bytes:
    """A text frame as CSV; null and "" both read back as ""."""
    return frame.write_csv(include_header=header, line_terminator="\r\n").encode()


def _aligned(file: Readable, block_bytes: int) -> Iterator[bytes]:
    # Cut only at a newline outside quotes (an even number of quotes before it): a reader that cuts
    # elsewhere can lose the LF of a quoted CR LF, see apache/arrow#51368.
    rest = b""
    quoted = False
    while chunk := file.read(block_bytes):
        cut, quoted = _last_row_end(chunk, 0, 0, len(chunk), quoted)
        if cut:
            yield rest + chunk[:cut]
            rest = chunk[cut:]
        else:
            rest += chunk
        if len(rest) > LONGEST_ROW:
            raise MalformedCsv(f"The CSV holds a row of more than {LONGEST_ROW:,} bytes.")
    if quoted:
        raise MalformedCsv(_CUT_OFF)
    if rest:
        yield rest


def _last_row_end(
    data: bytes | mmap, begin: int, start: int, stop: int, quoted: bool
) -> tuple[int, bool]:
    """Where the last row that ends between `begin` and `stop` ends, 0 for none, and whether `stop`
    is within quotes; `quoted` says so of `start`, from where on they are counted. Walks from quote
    to quote, not line to line: a quote that is never closed can hold millions of lines.
    """
    at_end = inside = quoted ^ bool(_quotes(memoryview(data)[start:stop]) % 2)
    end = stop
    while end > begin:
        quote = data.rfind(b'"', begin, end)
        if not inside and (newline := data.rfind(b"\n", max(quote + 1, begin), end)) >= 0:
            return newline + 1, at_end
        inside, end = not inside, quote
    return 0, at_end


def _quotes(data: memoryview) -> int:
    return int(np.count_nonzero(np.frombuffer(data, np.uint8) == ord('"')))


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


def _header(block: bytes, delimiter: str = ",") -> tuple[list[str], bytes]:
    """The column names and what follows them."""
    block = block.removeprefix(_BOM)
    end = _first_row_end(block)
    try:
        lines = io.StringIO(block[:end].decode(), newline="")
    except UnicodeDecodeError:
        raise InvalidUtf8("The CSV is not valid UTF-8.") from None
    try:
        columns = next(csv.reader(lines, delimiter=delimiter), [""])
    except csv.Error:
        raise MalformedCsv("The CSV's header row cannot be read.") from None
    if not any(columns):
        raise MalformedCsv("The CSV has no header row.")
    if len(columns) > MOST_FIELDS:
        raise MalformedCsv(f"The CSV has more than {MOST_FIELDS:,} columns.")
    if any("\0" in name for name in columns):
        raise MalformedCsv("The CSV's header row holds a NUL: it may be UTF-16.")
    counts = Counter(columns)
    if repeated := sorted(name for name, count in counts.items() if count > 1):
        raise RepeatedColumns(
            f"The CSV names these columns more than once: {', '.join(repeated)}.",
            [place for place, name in enumerate(columns, 1) if counts[name] > 1],
        )
    # Nothing is left of the lines unless rows end with CR alone.
    return columns, lines.read().encode() + block[end:]


def _parse(block: bytes | memoryview, columns: list[str], delimiter: str = ",") -> pa.Table:
    types = dict.fromkeys(columns, pa.string())
    if not block:
        return pa.schema(types).empty_table()
    if bytes(block[:3]) == _BOM:
        block = _BOM + bytes(block)  # Arrow takes the first for a mark and drops it
    try:
        table = arrow_csv.read_csv(
            pa.BufferReader(pa.py_buffer(block)),
            read_options=arrow_csv.ReadOptions(
                column_names=columns, block_size=len(block) + 1, use_threads=False
            ),
            parse_options=arrow_csv.ParseOptions(
                delimiter=delimiter, newlines_in_values=True, ignore_empty_lines=False
            ),
            convert_options=arrow_csv.ConvertOptions(column_types=types, strings_can_be_null=False),
        )
    except pa.ArrowInvalid as error:
        # Arrow's message repeats the row; only which kind of fault it was may leave here.
        if "UTF8" in str(error):
            raise InvalidUtf8("The CSV holds invalid UTF-8.") from None
        raise MalformedCsv("The CSV holds a row with too many or too few values.") from None
    # A stray quote shifts what counts as quoted, so that a cut can lie within a value. Arrow does
    # not mind that the last value is open; it then ends with the newline that was to end its row.
    if str(table.column(-1)[-1]).endswith("\n") and not bytes(block[-4:]).endswith(_CLOSED):
        raise MalformedCsv("The CSV holds a quote in a value that is not quoted.")
    return table


def _rows_before_fault(block: bytes, columns: list[str], delimiter: str) -> int | None:
    """How many rows come before the one that cannot be read; found by halving, so in the time of
    about two more reads.
    """
    rows, start, end = 0, 0, len(block)
    while True:
        cut, _ = _last_row_end(block, start, start, (start + end) // 2, False)
        cut = cut or start + _first_row_end(block[start:end])
        if cut == end:
            # Where rows end with CR alone this is not a row but all of them.
            return None if re.search(rb"\r(?!\n)", block[start:end]) else rows
        try:
            rows += _parse(block[start:cut], columns, delimiter).num_rows
            start = cut
        except MalformedCsv:
            end = cut
