"""CSV after RFC 4180, read and written exactly: values as the text they are, in bounded memory."""

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
"""Bytes. A file that has no end of a row within them is refused."""
HEAD_BYTES = 64 * 1024
PIECE_BYTES = 4 * 1024 * 1024
_EMPTY = "The CSV is empty, not even a header row is there."
_CUT_OFF = "The CSV ends inside a quoted value: it was cut off."
_CLOSED = (b'\n"\n', b'\n"\r\n', b'\n"\r', b'\n"')
_BOM = b"\xef\xbb\xbf"


class Readable(Protocol):
    """A binary file open for reading."""

    def read(self, size: int, /) -> bytes:
        """Read up to `size` bytes; empty at the end of the file."""
        ...


class MalformedCsv(NudgeflowError):
    """A file is not valid CSV, or goes beyond our limits."""

    advice = "Write the file as UTF-8 CSV with a header row and RFC 4180 quoting."
    row: int | None = None
    """The row's number from 1, not counting the header; None if not known. For a stray quote it is
    near.
    """


class InvalidUtf8(MalformedCsv):
    """The bytes are not UTF-8: the file has another encoding, or is damaged."""


class RepeatedColumns(MalformedCsv):
    """Columns with the name of another; `columns` are their numbers, from 1."""

    columns: Sequence[int] = ()

    def __init__(self, problem: str, columns: Sequence[int] = ()) -> None:
        super().__init__(problem)
        self.columns = columns


@dataclass(frozen=True)
class Block:
    """Whole rows without the header: the bytes of the file, and text columns."""

    raw: bytes | memoryview
    table: pa.Table


def read(data: bytes) -> pl.DataFrame:
    """Read a whole CSV as text columns; an empty value is ""."""
    return pl.concat(list(frames(io.BytesIO(data))))


def frames(
    file: Readable,
    block_bytes: int = BLOCK_BYTES,
    delimiter: str = ",",
    header: list[str] | None = None,
) -> Iterator[pl.DataFrame]:
    """Yield the rows of a CSV as `blocks` does, as frames."""
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
    """Yield the rows of a CSV, about `block_bytes` at a time.

    There is at least one block, so that a list without rows has its columns. `header` names the
    columns of a file without a header row.
    Raises MalformedCsv: no header, repeated column names, rows with too many or too few values or
    longer than `LONGEST_ROW`, an open quote at the end, invalid UTF-8.
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
    """Yield the rows of a CSV as `blocks` does, from a memory map of the file.

    Faster, and as much of the file may become resident as fits: for files that fit into memory.
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
    """Write a text frame as CSV; null and "" are both read back as ""."""
    return frame.write_csv(include_header=header, line_terminator="\r\n").encode()


def _aligned(file: Readable, block_bytes: int) -> Iterator[bytes]:
    # Cut only at newlines outside quotes: where blocks are cut elsewhere, Arrow can lose the LF of
    # a quoted CR LF (apache/arrow#51368).
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
    """Return the end of the last row that ends between `begin` and `stop`, 0 if none does, and
    whether `stop` is within quotes. `quoted` is whether `start` is; quotes are counted from there.
    """
    # From quote to quote, not from line to line: one that is never closed can hold millions.
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
    """Return the column names, and the bytes that follow the header row."""
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
            [number for number, name in enumerate(columns, 1) if counts[name] > 1],
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
        # Arrow's message repeats the row, so only the kind of fault is told.
        if "UTF8" in str(error):
            raise InvalidUtf8("The CSV holds invalid UTF-8.") from None
        raise MalformedCsv("The CSV holds a row with too many or too few values.") from None
    # A stray quote shifts what counts as quoted, so that a cut can lie within a value. Arrow does
    # not mind that the last value is open; it then ends with the newline that was to end its row.
    if str(table.column(-1)[-1]).endswith("\n") and not bytes(block[-4:]).endswith(_CLOSED):
        raise MalformedCsv("The CSV holds a quote in a value that is not quoted.")
    return table


def _rows_before_fault(block: bytes, columns: list[str], delimiter: str) -> int | None:
    """Count the rows before the one that cannot be read, None if rows end with CR alone.

    By bisection, which takes about as long as reading the block twice.
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
