"""CSV after RFC 4180, read and written exactly: values as the text they are, in bounded memory."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from mmap import ACCESS_READ, MADV_DONTNEED, mmap
from os import SEEK_END
from typing import BinaryIO, NamedTuple, Protocol, TypeAlias

from nudgescribe.contract import MOST_FIELDS
from nudgescribe.errors import NudgeflowError, first_ten
from nudgescribe.lazy import arrow_csv, np, npt, pa, pc, pl
from nudgescribe.quoted import Positions, is_utf8, take_apart
from nudgescribe.text_bytes import text_bytes, text_type

BLOCK_BYTES = 8 * 1024 * 1024
LONGEST_ROW = 64 * 1024 * 1024
"""Bytes. A file that has no end of a row within them is refused."""
HEAD_BYTES = 64 * 1024
PIECE_BYTES = 8 * 1024 * 1024
Bytes: TypeAlias = "npt.NDArray[np.uint8]"
_EMPTY = "The CSV is empty, not even a header row is there."
_CUT_OFF = "The CSV ends inside a quoted value: it was cut off."
_INVALID_UTF8 = "The CSV holds invalid UTF-8."
_QUOTE = ord('"')
BOM = b"\xef\xbb\xbf"
_SPECIAL = (b'"', b",", b"\r", b"\n")


class Readable(Protocol):
    """A binary file open for reading."""

    def read(self, size: int, /) -> bytes:
        """Read up to `size` bytes; empty at the end of the file."""
        ...


class MalformedCsv(NudgeflowError):
    """A file is not valid CSV, or goes beyond our limits."""

    advice = "Write the file as UTF-8 CSV with a header row and RFC 4180 quoting."
    row: int | None = None
    """The row's number from 1, not counting the header and blank lines; None if not known."""


class InvalidUtf8(MalformedCsv):
    """The bytes are not UTF-8: the file has another encoding, or is damaged."""


class RepeatedColumns(MalformedCsv):
    """Columns have the name of another. `names` may be a customer's values, if the header row is
    none.
    """

    names: Sequence[str] = ()


class StrayQuote(MalformedCsv):
    """A quote stands where RFC 4180 has none; `escaped` if a backslash is before it, `marked` if a
    byte order mark is.
    """

    advice = "Write values that hold a quote in quotes, and theirs twice, as RFC 4180 has it."
    escaped: bool = False
    marked: bool = False


class _InRow(Exception):
    """A problem of the row that bytes end in; `rows_before` are in them, too."""

    def __init__(self, error: MalformedCsv, begin: bytes) -> None:
        super().__init__(error)
        self.error = error
        self.rows_before = row_ends(begin)


@dataclass(frozen=True)
class Dialect:
    """How a CSV is written: its delimiter, whether quotes are quotes or text, whether blank lines
    are rows, and how no value is told from an empty one, if it is.
    """

    delimiter: str = ","
    quoted: bool = True
    blank_rows: bool = True
    null: str | None = None


RFC_4180 = Dialect()


@dataclass(frozen=True)
class CsvBlock:
    """Whole rows without the header: the bytes of the file, and text columns."""

    raw: bytes | memoryview
    table: pa.Table


def read(data: bytes) -> pl.DataFrame:
    """Read a whole CSV as text columns; an empty value is ""."""
    return pl.concat(list(frames(io.BytesIO(data))))


def frames(
    file: Readable,
    block_bytes: int = BLOCK_BYTES,
    dialect: Dialect = RFC_4180,
    header: list[str] | None = None,
) -> Iterator[pl.DataFrame]:
    """Yield the rows of a CSV as `blocks` does, as frames."""
    for block in blocks(file, block_bytes, dialect, header):
        frame = pl.from_arrow(block.table)
        assert isinstance(frame, pl.DataFrame)
        frame.columns = block.table.schema.names  # polars gives one without a name another
        yield frame


def blocks(
    file: Readable,
    block_bytes: int = BLOCK_BYTES,
    dialect: Dialect = RFC_4180,
    header: list[str] | None = None,
    needed: Collection[str] | None = None,
) -> Iterator[CsvBlock]:
    """Yield the rows of a CSV, about `block_bytes` at a time.

    There is at least one block, so that a list without rows has its columns. `header` names the
    columns of a file without a header row. Only the names that are `needed` must be one column's,
    or all. In a list of one column a blank line is a row in any dialect.
    Raises MalformedCsv: no header, repeated column names, rows with too many or too few values or
    longer than `LONGEST_ROW`, a stray quote, an open one at the end, invalid UTF-8.
    """
    columns, count, table = header, 0, None
    pieces = _pieces(file, block_bytes, marked=header is None)
    try:
        for rows in _aligned(pieces, dialect):
            body = rows
            if columns is None:
                columns, body = _header(rows, dialect, needed)
            try:
                table = _parse(body, columns, dialect)
            except MalformedCsv as error:
                before = _rows_before_fault(body, columns, dialect)
                error.row = None if before is None else count + before + 1
                raise
            count += table.num_rows
            yield CsvBlock(body, table)
    except _InRow as fault:
        row = count + fault.rows_before + (columns is not None)
        fault.error.row = row or None
        raise fault.error from None
    if columns is None:
        raise MalformedCsv(_EMPTY)
    if table is None:
        yield CsvBlock(b"", _parse(b"", columns, dialect))


def mapped(file: BinaryIO, first_only: bool = False) -> Iterator[CsvBlock]:
    """Yield the rows of a CSV as `blocks` does, from a memory map of the file, which is faster.

    With `first_only` the values of the first column are those of the file, and all others may be
    empty, which is cheaper.
    """
    if not (size := file.seek(0, SEEK_END)):
        raise MalformedCsv(_EMPTY)
    data = mmap(file.fileno(), 0, access=ACCESS_READ)
    end = _first_row_end(data[:HEAD_BYTES])
    first_row = data[:end].removeprefix(BOM) or b"\n"
    # Its end may be further on, even in the midst of a character, or a CR alone.
    if end == HEAD_BYTES or re.search(rb"\r(?!\n)", first_row):
        file.seek(0)
        yield from blocks(file)
        return
    quotes = _Quotes(RFC_4180)
    if stray := quotes.follow(first_row):
        raise stray.error(first_row[: stray.at])
    if quotes.inside:
        raise MalformedCsv(_CUT_OFF)
    columns, _ = _header(first_row)
    if end == size:
        yield CsvBlock(b"", _parse(b"", columns))
    for rows, places in _mapped_rows(data, end):
        table = _parse_quoted(rows, places, columns, first_only)
        yield CsvBlock(rows, table)
        # What has been read stays in the page cache, without counting as this process's memory.
        data.madvise(MADV_DONTNEED)


def _mapped_rows(data: mmap, begin: int) -> Iterator[tuple[memoryview, Positions]]:
    """Yield whole rows from `begin` on, about PIECE_BYTES at a time, and the places of their
    quotes.
    """
    quotes, held, end = _Quotes(RFC_4180), list[Positions](), begin
    for start in range(begin, len(data), PIECE_BYTES):
        stop = min(start + PIECE_BYTES, len(data))
        if stray := quotes.follow(memoryview(data)[start:stop]):
            at = start + stray.at
            raise stray.error(data[max(begin, at - len(BOM)) : at])
        held.append(quotes.at + start)
        cut = _last_row_end(data, end, stop, quotes.inside)
        if stop == len(data) and not quotes.inside:
            cut = stop
        if cut > end:
            places = np.concatenate(held)
            count = int(np.searchsorted(places, cut))
            yield memoryview(data)[end:cut], places[:count] - end
            held, end = [places[count:]], cut
        elif stop - end > LONGEST_ROW:
            raise MalformedCsv(f"The CSV holds a row of more than {LONGEST_ROW:,} bytes.")
    if quotes.inside:
        raise MalformedCsv(_CUT_OFF)


def _parse_quoted(
    rows: memoryview, quotes: Positions, columns: list[str], first_only: bool
) -> pa.Table:
    """Parse rows by their quotes if each row has two values and only the last ones are quoted, or
    no others are asked for; else by Arrow.
    """
    if len(columns) != 2 or not len(quotes):
        return _parse(rows, columns)
    taken = take_apart(rows, quotes)
    if taken.leading:
        return _parse(rows, columns)
    table = _parse(memoryview(taken.skeleton), columns)
    if first_only or taken.count == table.num_rows:
        if not is_utf8(rows):
            raise InvalidUtf8(_INVALID_UTF8)
        if first_only:
            return table
        return pa.table([table.column(0), taken.quoted_values()], names=columns)
    return _parse(rows, columns)


def write(rows: pl.DataFrame | pa.RecordBatch, *, header: bool = True) -> bytes:
    """Write text as CSV, in quotes what needs them; null and "" are both read back as ""."""
    batch = _batch(rows) if isinstance(rows, pl.DataFrame) else rows
    body = _lines([values.cast(text_type()) for values in batch.columns])
    names = [pa.array([name], text_type()) for name in batch.schema.names]
    return _lines(names) + body if header else body


def _batch(frame: pl.DataFrame) -> pa.RecordBatch:
    return pa.record_batch([values.to_arrow() for values in frame], frame.columns)


def _lines(columns: list[pa.Array]) -> bytes:
    """Return the lines of a CSV. None is blank, for some readers leave those out."""
    alone = len(columns) == 1
    quoted = [_quoted(values.fill_null("") if alone else values) for values in columns]
    rows = pc.binary_join_element_wise(
        *quoted, _text(","), null_handling="replace", null_replacement=""
    )
    _, raw = text_bytes(pc.binary_join_element_wise(rows, _text(""), _text("\r\n")))
    return raw


def _text(value: str) -> pa.Scalar:
    return pa.scalar(value, text_type())


def _quoted(values: pa.Array) -> pa.Array:
    """Return the values as they stand in a CSV, null as it is; "" is quoted to be told from it."""
    offsets, raw = text_bytes(values)
    needed = offsets[1:] == offsets[:-1]
    if not any(each in raw for each in _SPECIAL) and not needed.any():
        return values
    data = np.frombuffer(raw, np.uint8)
    special = (data == _QUOTE) | (data == ord(",")) | (data == ord("\r")) | (data == ord("\n"))
    needed[np.searchsorted(offsets, np.flatnonzero(special), side="right") - 1] = True
    doubled = pc.replace_substring(values, '"', '""') if b'"' in raw else values
    quote = _text('"')
    quoted = pc.binary_join_element_wise(quote, doubled, quote, _text(""))
    return pc.if_else(pa.array(needed), quoted, values)


class _Stray(NamedTuple):
    """A stray quote: where it is in a piece, and whether it closes a value and text follows."""

    at: int
    closing: bool

    def error(self, before: bytes) -> StrayQuote:
        """Return the error about it; `before` are bytes that end where it is."""
        place = "text behind a closing quote" if self.closing else "a quote in an unquoted value"
        error = StrayQuote(f"There is {place}.")
        error.escaped = before.endswith(b"\\")
        error.marked = before.endswith(BOM)
        return error


class _Quotes:
    """Follows the quotes of a CSV, piece by piece; `inside`: whether the last piece ended in some,
    `at`: the places of its quotes.

    A quote opens a value at its begin and closes it at its end; two that touch within it are one of
    its text. So, counted from the first, each odd quote has an edge before it and each even one has
    an edge behind it: a delimiter, a line end, or another quote.
    """

    def __init__(self, dialect: Dialect) -> None:
        self.inside = False
        self.at: Positions = np.empty(0, np.intp)
        self._last: int | None = None
        self._edges = np.zeros(256, bool)
        self._edges[[_QUOTE, *b"\r\n", ord(dialect.delimiter)]] = True

    def follow(self, piece: bytes | memoryview) -> _Stray | None:
        """Take the next piece. Return its first stray quote, if it has one; its place is -1 if it
        ended the piece before.
        """
        data = np.frombuffer(piece, np.uint8)
        self.at = at = np.flatnonzero(data == _QUOTE)
        strays = [*self._at_seam(data), *self._within(data, at)]
        self.inside ^= bool(len(at) % 2)
        self._last = int(data[-1])
        return min(strays, default=None)

    def _at_seam(self, data: Bytes) -> Iterator[_Stray]:
        """Yield the quotes beside the seam of two pieces that are stray by what is beyond it."""
        if self.inside or self._last is None:
            return
        if self._last == _QUOTE and not self._edges[data[0]]:
            yield _Stray(-1, True)
        if data[0] == _QUOTE and not self._edges[self._last]:
            yield _Stray(0, False)

    def _within(self, data: Bytes, at: Positions) -> Iterator[_Stray]:
        """Yield the first quote without an edge before it, and the first without one behind it."""
        opening, closing = at[self.inside :: 2], at[not self.inside :: 2]
        opening = opening[np.searchsorted(opening, 1) :]
        closing = closing[: np.searchsorted(closing, len(data) - 1)]
        for quotes, beside in ((opening, -1), (closing, 1)):
            # "clip" only leaves out a check that all places exist, at a third of the time.
            placed = self._edges.take(data.take(quotes + beside, mode="clip"))
            if not placed.all():
                yield _Stray(int(quotes[placed.argmin()]), beside == 1)


def _pieces(file: Readable, block_bytes: int, marked: bool) -> Iterator[bytes]:
    """Yield a file in pieces that are not empty; if `marked`, without its byte order mark."""
    first = file.read(block_bytes)
    while marked and first and len(first) < len(BOM) and (more := file.read(block_bytes)):
        first += more
    if first := first.removeprefix(BOM) if marked else first:
        yield first
    while piece := file.read(block_bytes):
        yield piece


def _aligned(pieces: Iterator[bytes], dialect: Dialect) -> Iterator[bytes]:
    # Cut only at newlines outside quotes: where blocks are cut elsewhere, Arrow can lose the LF of
    # a quoted CR LF (apache/arrow#51368).
    rest = b""
    quotes = _Quotes(dialect)
    for chunk in pieces:
        cut, stray = _cut(chunk, quotes) if dialect.quoted else (chunk.rfind(b"\n") + 1, None)
        begin = cut or -len(rest)
        if cut:
            yield rest + chunk[:cut]
            rest = chunk[cut:]
        else:
            rest += chunk
        if stray:
            before = rest[: stray.at - begin]
            raise _InRow(stray.error(before), before)
        if len(rest) > LONGEST_ROW:
            problem = f"The CSV holds a row of more than {LONGEST_ROW:,} bytes."
            raise _InRow(MalformedCsv(problem), b"")
    if quotes.inside:
        raise _InRow(MalformedCsv(_CUT_OFF), rest)
    if rest:
        yield rest


def _cut(chunk: bytes, quotes: _Quotes) -> tuple[int, _Stray | None]:
    """Return where the last row ends that is in place, 0 if none is, and the first stray quote."""
    inside = quotes.inside
    stray = quotes.follow(chunk)
    stop = max(stray.at, 0) if stray else len(chunk)
    if stray:
        inside ^= bool(chunk.count(b'"', 0, stop) % 2)
    return _last_row_end(chunk, 0, stop, inside if stray else quotes.inside), stray


def row_ends(rows: bytes, quoted: bool = True) -> int:
    """Count the line ends, of a file that is `quoted` those outside quotes."""
    unquoted = re.sub(rb'"[^"]*(?:"|\Z)', b"", rows) if quoted else rows
    return len(re.findall(rb"\r\n?|\n", unquoted))


def _last_row_end(data: bytes | mmap, begin: int, stop: int, inside: bool) -> int:
    """Return the end of the last row that ends between `begin` and `stop`, 0 if none does;
    `inside` is whether `stop` is within quotes.
    """
    # From quote to quote, not from line to line: one that is never closed can hold millions.
    end = stop
    while end > begin:
        quote = data.rfind(b'"', begin, end)
        if not inside and (newline := data.rfind(b"\n", max(quote + 1, begin), end)) >= 0:
            return newline + 1
        inside, end = not inside, quote
    return 0


def _first_row_end(block: bytes, quoted: bool = True) -> int:
    if not quoted:
        return block.find(b"\n") + 1 or len(block)
    start = 0
    while True:
        quote = block.find(b'"', start)
        newline = block.find(b"\n", start, quote if quote >= 0 else len(block))
        if newline >= 0:
            return newline + 1
        start = block.find(b'"', quote + 1) + 1 if quote >= 0 else 0
        if not start:
            return len(block)


def _header(
    block: bytes, dialect: Dialect = RFC_4180, needed: Collection[str] | None = None
) -> tuple[list[str], bytes]:
    """Return the column names, and the bytes that follow the header row."""
    end = _first_row_end(block, dialect.quoted)
    try:
        lines = io.StringIO(block[:end].decode(), newline="")
    except UnicodeDecodeError:
        raise InvalidUtf8("The CSV is not valid UTF-8.") from None
    try:
        quoting = csv.QUOTE_MINIMAL if dialect.quoted else csv.QUOTE_NONE
        columns = next(csv.reader(lines, delimiter=dialect.delimiter, quoting=quoting), [""])
    except csv.Error:
        raise MalformedCsv("The CSV's header row cannot be read.") from None
    if not any(columns):
        raise MalformedCsv("The CSV has no header row.")
    if len(columns) > MOST_FIELDS:
        raise MalformedCsv(f"The CSV has more than {MOST_FIELDS:,} columns.")
    if any("\0" in name for name in columns):
        raise MalformedCsv("The CSV's header row holds a NUL: it may be UTF-16.")
    if error := _repeated(columns, needed):
        raise error
    # Nothing is left of the lines unless rows end with CR alone.
    return columns, lines.read().encode() + block[end:]


def _repeated(columns: Sequence[str], needed: Collection[str] | None) -> RepeatedColumns | None:
    """Return the error about needed columns with the name of another, or about several without."""
    counts = Counter(columns if needed is None else (name for name in columns if name in needed))
    names = sorted(name for name, count in counts.items() if count > 1)
    if not names:
        return None
    named = names != [""]
    told = [n for n, name in enumerate(columns, 1) if name in names and (name or not named)]
    problem = "It repeats a name in the columns {}." if named else "The columns {} have no name."
    error = RepeatedColumns(problem.format(first_ten(told)))
    error.names = names
    return error


def _parse(block: bytes | memoryview, columns: list[str], dialect: Dialect = RFC_4180) -> pa.Table:
    if not block:
        return pa.schema([(name, pa.string()) for name in columns]).empty_table()
    if bytes(block[:3]) == BOM:
        block = BOM + bytes(block)  # Arrow takes the first for a mark and drops it
    plain = isinstance(block, bytes) and block.isascii()
    try:
        return arrow_csv.read_csv(
            pa.BufferReader(pa.py_buffer(block)),
            read_options=arrow_csv.ReadOptions(
                column_names=columns, block_size=len(block) + 1, use_threads=False
            ),
            parse_options=arrow_csv.ParseOptions(
                delimiter=dialect.delimiter,
                quote_char='"' if dialect.quoted else False,
                newlines_in_values=True,
                ignore_empty_lines=not dialect.blank_rows and len(columns) > 1,
            ),
            convert_options=arrow_csv.ConvertOptions(
                check_utf8=not plain,  # which takes a quarter of the time
                column_types=dict.fromkeys(columns, pa.string()),
                null_values=[] if dialect.null is None else [dialect.null],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        )
    except pa.ArrowInvalid as error:
        # Arrow's message repeats the row, so only the kind of fault is told.
        if "UTF8" in str(error):
            raise InvalidUtf8(_INVALID_UTF8) from None
        raise MalformedCsv("The CSV holds a row with too many or too few values.") from None


def _rows_before_fault(block: bytes, columns: list[str], dialect: Dialect) -> int | None:
    """Count the rows before the one that cannot be read, None if rows end with CR alone.

    By bisection, which takes about as long as reading the block twice.
    """
    rows, start, end = 0, 0, len(block)
    while True:
        middle = (start + end) // 2
        if dialect.quoted:
            inside = bool(block.count(b'"', start, middle) % 2)
            cut = _last_row_end(block, start, middle, inside)
        else:
            cut = block.rfind(b"\n", start, middle) + 1
        cut = cut or start + _first_row_end(block[start:end], dialect.quoted)
        if cut == end:
            # Where rows end with CR alone this is not a row but all of them.
            return None if re.search(rb"\r(?!\n)", block[start:end]) else rows
        try:
            rows += _parse(block[start:cut], columns, dialect).num_rows
            start = cut
        except MalformedCsv:
            end = cut
