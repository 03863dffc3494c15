"""Customer lists from CSV files."""

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from blocks.crm.files.combine import log_rows, same_columns
from blocks.crm.files.encoding import Utf8, opened
from blocks.crm.files.locate import Found
from blocks.crm.source import Logger, SourceError
from blocks.iterators import prefetch
from blocks.storage.parquet import ParquetSink
from nudgescribe import rfc4180

BLOCK_BYTES = 2 * 1024 * 1024
DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}


@dataclass(frozen=True)
class CsvForm:
    """What is stated of the files; None is found out for each of them."""

    delimiter: str | None
    encoding: str | None
    header: list[str] | None


def copy_csv(files: Sequence[Found], target: Path, form: CsvForm, logger: Logger) -> int:
    """Writes the rows of files with the same columns to a Parquet file. Raises SourceError."""
    rows = 0
    with ExitStack() as stack:
        sink: ParquetSink | None = None
        schema = pl.Schema()
        for file in files:
            with opened(file, form.encoding) as text:
                delimiter = form.delimiter or _sniffed(file.name, text.head, form.header)
                for frame in prefetch(_frames(file.name, text, delimiter, form.header)):
                    if sink is None:
                        schema = frame.schema
                        sink = stack.enter_context(ParquetSink(target, schema))
                    same_columns(file.name, frame.schema, schema)
                    sink.write(frame)
            assert sink
            known = f"CSV with {DELIMITERS.get(delimiter, repr(delimiter))}, {text.encoding}"
            log_rows(logger, file.name, known, rows, sink.rows)
            rows = sink.rows
    return rows


def _frames(
    name: str, text: Utf8, delimiter: str, header: list[str] | None
) -> Iterator[pl.DataFrame]:
    try:
        yield from rfc4180.frames(text, BLOCK_BYTES, delimiter, header)
    except rfc4180.RepeatedColumns as error:
        # Without a header row they are a customer's values: they are told by place.
        places = ", ".join(map(str, error.columns))
        raise SourceError(f"{name} gives columns {places} names that others have.") from None
    except rfc4180.MalformedCsv as error:
        place = f"{name}, row {error.row:,}" if error.row else name
        advice = ""
        if isinstance(error, rfc4180.InvalidUtf8):
            advice = " State its encoding, such as windows-1252."
        raise SourceError(f"{place}: {error.problem}{advice}") from None


def _sniffed(name: str, head: bytes, header: list[str] | None) -> str:
    """The delimiter of a CSV that begins with `head`: the only one that stands outside quotes in
    the first row, or that parts it into as many values as the `header` has names.
    """
    unquoted = re.sub(rb'"[^"]*("|$)', b"", head)
    first_row = re.split(rb"[\r\n]", unquoted, maxsplit=1)[0].decode(errors="replace")
    if "\0" in first_row:
        raise SourceError(
            f"{name} holds NUL in its first row: state its encoding, it may be UTF-16."
        )
    likely = [each for each in DELIMITERS if each in first_row]
    if header:
        likely = [each for each in likely if first_row.count(each) + 1 == len(header)]
    if len(likely) > 1:
        found = " and ".join(DELIMITERS[each] for each in likely)
        raise SourceError(f"{name} has {found} in its first row: state the delimiter.")
    return likely[0] if likely else ","
