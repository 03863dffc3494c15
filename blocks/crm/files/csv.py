"""Customer lists from CSV files."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from blocks.crm.errors import SourceError
from blocks.crm.files.encoding import Utf8Reader, open_text
from blocks.crm.files.locate import SourceFile
from blocks.crm.list_file import to_batches
from blocks.saved import Logger
from nudgescribe import rfc4180

BLOCK_BYTES = 2 * 1024 * 1024
DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}


@dataclass(frozen=True)
class CsvDialect:
    """How the files are written; what is None is detected in each of them."""

    delimiter: str | None
    encoding: str | None
    header: list[str] | None


def read_csv(
    files: Sequence[SourceFile], dialect: CsvDialect, logger: Logger
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of files with the same columns. Raises SourceError, SourceUnavailable."""
    rows = 0
    columns: list[str] | None = None
    for file in files:
        before = rows
        with open_text(file, dialect.encoding) as text:
            delimiter = dialect.delimiter or _detect_delimiter(file.name, text.head, dialect.header)
            for block in _read_blocks(file.name, text, delimiter, dialect.header):
                columns = columns or block.schema.names
                file.check_columns(block.schema.names, columns)
                rows += block.num_rows
                yield from to_batches(block.select(columns))
        form = f"CSV with {DELIMITERS.get(delimiter, repr(delimiter))}, {text.encoding}"
        file.log_rows(logger, form, before, rows)


def _read_blocks(
    name: str, text: Utf8Reader, delimiter: str, header: list[str] | None
) -> Iterator[pa.Table]:
    try:
        for block in rfc4180.blocks(text, BLOCK_BYTES, delimiter, header):
            yield block.table
    except rfc4180.RepeatedColumns as error:
        # Numbers, not names: without a header row the names are a customer's values.
        columns = ", ".join(map(str, error.columns))
        raise SourceError(f"{name} repeats a name in the columns {columns}.") from None
    except rfc4180.MalformedCsv as error:
        location = f"{name}, row {error.row:,}" if error.row else name
        advice = ""
        if isinstance(error, rfc4180.InvalidUtf8):
            advice = " State its encoding, such as windows-1252."
        raise SourceError(f"{location}: {error.problem}{advice}") from None


def _detect_delimiter(name: str, head: bytes, header: list[str] | None) -> str:
    """Return the delimiter of a CSV file that begins with `head`: the one outside quotes in its
    first row; with a `header`, the one that separates as many values there as it has names.

    Raises SourceError if more than one does.
    """
    unquoted = re.sub(rb'"[^"]*("|$)', b"", head)
    first_row = re.split(rb"[\r\n]", unquoted, maxsplit=1)[0].decode(errors="replace")
    if "\0" in first_row:
        raise SourceError(
            f"{name} holds NUL in its first row: state its encoding, which may be UTF-16."
        )
    likely = [each for each in DELIMITERS if each in first_row]
    if header:
        likely = [each for each in likely if first_row.count(each) + 1 == len(header)]
    if len(likely) > 1:
        choices = " and ".join(DELIMITERS[each] for each in likely)
        raise SourceError(f"{name} has {choices} in its first row: state the delimiter.")
    return likely[0] if likely else ","
