"""Customer lists from CSV files."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from blocks.crm.errors import SourceError
from blocks.crm.files.backslash import NULL, BackslashReader
from blocks.crm.files.compression import check_csv
from blocks.crm.files.encoding import Utf8Reader, open_text
from blocks.crm.files.locate import SourceFile
from blocks.crm.files.names import known_names
from blocks.crm.list_file import UNCERTAIN, check_needed, to_batches
from nudgescribe import rfc4180
from nudgescribe.errors import first_ten
from nudgescribe.lazy import np, pa, pc

BLOCK_BYTES = 2 * 1024 * 1024
_JOINED = "it is several files, joined. List them apart, by a pattern."
DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_SEPARATOR_LINE = re.compile(rb'"?sep=([ -~\t])"?(?:\r\n?|\n|\Z)', re.IGNORECASE)
_MARK = rb"(?:\A|(?<=[\r\n]))\xef\xbb\xbf"
"""A byte order mark at the begin of a line."""
_MARKED = {True: re.compile(rb'("[^"]*")|' + _MARK), False: re.compile(rb"()" + _MARK)}
"""By whether there is quoting: the marks before rows; quoted values are passed over as a group."""
_BLANKS = " \t"


@dataclass(frozen=True)
class CsvDialect:
    """How the files are written; what is None is detected in each of them."""

    delimiter: str | None = None
    encoding: str | None = None
    header: list[str] | None = None
    quoted: bool = True
    escaped: bool = False


def read_csv(
    files: Sequence[SourceFile], dialect: CsvDialect, needed: frozenset[str] | None
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of files with the same columns. Raises SourceError, SourceUnavailable."""
    rows = 0
    columns: list[str] | None = None
    metadata = None if dialect.header else UNCERTAIN
    known: frozenset[str] | None = None
    for file in files:
        before = rows
        with open_text(file, dialect.encoding) as text:
            part = _Part(file, dialect, needed)
            for table in part.read(text):
                names: list[str] = table.schema.names
                chosen = [name for name in names if needed is None or name in needed]
                if columns is None:
                    check_needed(names, needed)
                    columns = chosen
                    known = None if dialect.header else known_names(names, needed)
                file.check_columns(chosen, columns, known)
                rows += table.num_rows
                yield from to_batches(table.select(columns).replace_schema_metadata(metadata))
        file.log_rows(f"{part.form}, {text.encoding}", before, rows)


class _Part:
    """One of the files. `form` says what it is like, once it is read."""

    def __init__(
        self, file: SourceFile, dialect: CsvDialect, needed: frozenset[str] | None
    ) -> None:
        self._name, self._logger = file.name, file.logger
        self._dialect = dialect
        self._needed = needed
        self._rows = 0
        self.form = ""

    def read(self, text: Utf8Reader) -> Iterator[pa.Table]:
        """Yield its rows. Raises SourceError."""
        if self._dialect.quoted:
            check_csv(self._name, text.head)
        delimiter = self._delimiter(text)
        self.form = f"CSV with {DELIMITERS.get(delimiter, repr(delimiter))}"
        dialect = rfc4180.Dialect(delimiter, self._dialect.quoted, blank_rows=False)
        readable: rfc4180.Readable = text
        if self._dialect.escaped:
            dialect, readable = replace(dialect, null=NULL), BackslashReader(text)
        blanks = 0
        for block in self._blocks(readable, dialect):
            block = self._unmarked(block, dialect)
            blanks += _blank_lines(block, dialect)
            names = self._trimmed(block.table.schema.names)
            yield self._without_headers(block.table).rename_columns(names)
            self._rows += block.table.num_rows
        if blanks:
            lines = "1 blank line" if blanks == 1 else f"{blanks:,} blank lines"
            self._logger.info("%s: %s left out", self._name, lines)

    def _delimiter(self, text: Utf8Reader) -> str:
        """Return the delimiter; leave out Excel's line that says it, and blank ones before a
        header.
        """
        stated = self._dialect.delimiter
        if line := _SEPARATOR_LINE.match(text.head):
            said = line[1].decode()
            if stated and stated != said:
                raise SourceError(
                    f"{self._name}: its delimiter is stated to be {stated!r}, but its first line "
                    f"says {said!r}."
                )
            self._logger.info("%s: its first line says the delimiter", self._name)
            text.skip(line.end())
            stated = said
        if not self._dialect.header:
            text.skip(len(text.head) - len(text.head.lstrip(b"\r\n")))
        return stated or _detect_delimiter(self._name, text.head, self._dialect)

    def _blocks(
        self, text: rfc4180.Readable, dialect: rfc4180.Dialect
    ) -> Iterator[rfc4180.CsvBlock]:
        try:
            yield from rfc4180.blocks(
                text, BLOCK_BYTES, dialect, self._dialect.header, self._needed
            )
        except rfc4180.MalformedCsv as error:
            place = f", row {error.row:,}" if error.row else ""
            if isinstance(error, rfc4180.StrayQuote):
                place = place or ", header row"
            problem = f"{error.problem}{self._advice(error)}"
            raise SourceError(f"{self._name}{place}: {problem}") from None

    def _advice(self, error: rfc4180.MalformedCsv) -> str:
        if isinstance(error, rfc4180.InvalidUtf8):
            return " State its encoding, such as windows-1252."
        if not isinstance(error, rfc4180.StrayQuote):
            return ""
        if error.marked:
            return f" A byte order mark is before it: {_JOINED}"
        if error.escaped and not self._dialect.escaped:
            return " A backslash is before it: if it escapes quotes, state escape: backslash."
        return (
            " If the file has no quoting, state quoting: none; else have it written anew: a value "
            "with a quote in quotes, its own quotes doubled."
        )

    def _trimmed(self, names: list[str]) -> list[str]:
        """Return the names without blanks around them, unless two become one."""
        if self._dialect.header:
            return names
        kept = self._needed or frozenset[str]()
        trimmed = [name if name in kept else name.strip(_BLANKS) for name in names]
        if trimmed == names or len(set(trimmed)) < len(set(names)):
            return names
        if not self._rows:
            self._logger.info("%s: blanks around column names left out", self._name)
        return trimmed

    def _unmarked(self, block: rfc4180.CsvBlock, dialect: rfc4180.Dialect) -> rfc4180.CsvBlock:
        """Return the rows without byte order marks before them, as joined files have them."""
        raw = bytes(block.raw)
        if b"\xef" not in raw or rfc4180.BOM not in raw:  # one byte is found the fastest
            return block
        unmarked = _MARKED[dialect.quoted].sub(rb"\1", raw)
        if unmarked == raw:
            return block
        self._logger.warning("%s: byte order marks before rows left out", self._name)
        names = block.table.schema.names
        return next(rfc4180.blocks(io.BytesIO(unmarked), len(raw), dialect, names))

    def _without_headers(self, table: pa.Table) -> pa.Table:
        """Return the rows but those that repeat the header, in capitals or not. Raises SourceError
        for one that has it in another order.
        """
        names = [name.strip(_BLANKS) for name in table.schema.names]
        first, written = table.column(0), pa.array({*names, *table.schema.names}, pa.string())
        fold = str
        if len(names) > 1:  # the value of a row of one may be a customer's, but for its capitals
            first, written, fold = pc.utf8_lower(first), pc.utf8_lower(written), str.casefold
            names = [fold(name) for name in names]
        repeated: list[int] = []
        for index in np.flatnonzero(pc.is_in(first, written).to_numpy()).tolist():
            row = [fold(str(each[index]).strip(_BLANKS)) for each in table.columns]
            if row == names:
                repeated.append(index)
            elif sorted(row) == sorted(names):
                raise SourceError(
                    f"{self._name}, row {self._rows + index + 1:,}: the header is repeated with "
                    f"its columns in another order: {_JOINED}"
                )
        if not repeated:
            return table
        rows = first_ten(f"{self._rows + index + 1:,}" for index in repeated)
        self._logger.warning("%s: row %s repeats the header, left out", self._name, rows)
        kept = np.ones(table.num_rows, bool)
        kept[repeated] = False
        return table.filter(pa.array(kept))


def _blank_lines(block: rfc4180.CsvBlock, dialect: rfc4180.Dialect) -> int:
    """Count the lines of a block that are no rows."""
    raw, rows = bytes(block.raw), block.table.num_rows
    lines = np.count_nonzero(np.frombuffer(raw, np.uint8) == ord("\n"))  # faster than bytes.count
    if len(block.table.schema.names) == 1 or lines == rows:
        return 0
    return rfc4180.row_ends(raw, dialect.quoted) + (raw[-1:] not in (b"", b"\r", b"\n")) - rows


def _detect_delimiter(name: str, head: bytes, dialect: CsvDialect) -> str:
    """Return the delimiter of a CSV file that begins with `head`: the one outside quotes in its
    first row; with a header, the one that separates as many values there as it has names.

    Raises SourceError if more than one does.
    """
    if dialect.escaped:
        head = re.sub(rb"\\.", b"", head, flags=re.DOTALL)
    unquoted = re.sub(rb'"[^"]*("|$)', b"", head) if dialect.quoted else head
    first_row = re.split(rb"[\r\n]", unquoted, maxsplit=1)[0].decode(errors="replace")
    if "\0" in first_row:
        raise SourceError(
            f"{name} holds NUL in its first row: state its encoding, which may be UTF-16."
        )
    likely = [each for each in DELIMITERS if each in first_row]
    if header := dialect.header:
        likely = [each for each in likely if first_row.count(each) + 1 == len(header)]
    if len(likely) > 1:
        choices = " and ".join(DELIMITERS[each] for each in likely)
        raise SourceError(f"{name} has {choices} in its first row: state the delimiter.")
    return likely[0] if likely else ","
