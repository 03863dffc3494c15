"""Customer lists from NDJSON files, with one JSON object per line."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import NoReturn, cast

import polars as pl
import pyarrow as pa

from blocks.crm.errors import SourceError
from blocks.crm.files.encoding import Utf8Reader, open_text
from blocks.crm.files.locate import SourceFile
from blocks.crm.text import TEXT
from blocks.saved import Logger
from blocks.storage.parquet import read_batches, text_schema, write_parquet
from blocks.storage.scratch import temporary_folder
from nudgescribe.contract import MOST_FIELDS

BLOCK_BYTES = 2 * 1024 * 1024
CELLS_AT_ONCE = 2_000_000
LONGEST_LINE = 64 * 1024 * 1024
_SURROGATE = "half of a surrogate pair, which is no character"


class _InvalidLine(ValueError):
    """A line breaks a rule; the text says which and repeats nothing of the line."""


@dataclass(frozen=True)
class _JsonLines:
    """Some objects of a file, and their line numbers."""

    name: str
    rows: list[dict[str, object]]
    lines: list[int]


def read_ndjson(
    files: Sequence[SourceFile], encoding: str | None, logger: Logger
) -> Iterator[pa.RecordBatch]:
    """Yield the objects of files as text, with a column for each key of any object, and null where
    an object lacks the key. Raises SourceError, SourceUnavailable.
    """
    with temporary_folder() as folder:
        frames = _read_frames(files, encoding, logger)
        drafts: list[Path] = []
        columns: list[str] = []
        for columns, group in groupby(frames, key=lambda frame: frame.columns):
            drafts.append(folder / str(len(drafts)))
            write_parquet(drafts[-1], text_schema(columns), group)
        if not drafts:
            raise SourceError(f"{files[0].name} is empty: its columns are not known.")
        for draft in drafts:
            for batch in read_batches(draft):
                yield _complete(batch, columns)


def _complete(batch: pa.RecordBatch, columns: list[str]) -> pa.RecordBatch:
    known = batch.schema.names
    nulls = pa.nulls(batch.num_rows, TEXT)
    arrays = [batch.column(name) if name in known else nulls for name in columns]
    return pa.record_batch(arrays, columns)


def _read_frames(
    files: Sequence[SourceFile], encoding: str | None, logger: Logger
) -> Iterator[pl.DataFrame]:
    """Yield the objects as text, with a column for each key seen so far."""
    columns: dict[str, object] = {}
    rows = 0
    for file in files:
        before = rows
        with open_text(file, encoding) as text:
            for batch in _read_batches(file.name, text):
                _add_columns(columns, batch)
                at_once = max(1, CELLS_AT_ONCE // len(columns))
                for start in range(0, len(batch.rows), at_once):
                    yield _to_frame(batch, slice(start, start + at_once), list(columns))
                rows += len(batch.rows)
        file.log_rows(logger, f"NDJSON, {text.encoding}", before, rows)


def _add_columns(columns: dict[str, object], batch: _JsonLines) -> None:
    known = len(columns)
    for row in batch.rows:
        columns |= row
    if len(columns) > MOST_FIELDS:
        raise SourceError(f"{batch.name} has more than {MOST_FIELDS:,} columns.")
    if any("\0" in name or not _is_text(name) for name in list(columns)[known:]):
        raise SourceError(f"{batch.name} has a key with NUL or {_SURROGATE}.")


def _read_batches(name: str, text: Utf8Reader) -> Iterator[_JsonLines]:
    first = 1
    for lines in _read_lines(name, text):
        try:
            batch = _parse(name, lines.decode(), first)
        except UnicodeDecodeError as error:
            line = first + lines.count(b"\n", 0, error.start)
            raise SourceError(
                f"{name}, line {line:,} is not valid UTF-8: state its encoding."
            ) from None
        first += lines.count(b"\n")
        if batch.rows:
            yield batch


def _read_lines(name: str, text: Utf8Reader) -> Iterator[bytes]:
    rest = b""
    while piece := text.read(BLOCK_BYTES):
        cut = piece.rfind(b"\n") + 1
        if cut:
            yield rest + piece[:cut]
            rest = piece[cut:]
        else:
            rest += piece
        if len(rest) > LONGEST_LINE:
            raise SourceError(f"{name} holds a line of more than {LONGEST_LINE:,} bytes.")
    if rest:
        yield rest


def _parse(name: str, lines: str, first: int) -> _JsonLines:
    batch = _JsonLines(name, [], [])
    for number, line in enumerate(lines.split("\n"), first):
        try:
            row = _DECODER.decode(line)
            if type(row) is not dict or not row:
                raise _InvalidLine("is not an object with keys")
        except (ValueError, RecursionError) as error:
            if not line.strip(" \t\r"):
                continue
            problem = error if isinstance(error, _InvalidLine) else "is not valid JSON"
            raise SourceError(f"{name}, line {number:,} {problem}.") from None
        batch.rows.append(cast("dict[str, object]", row))
        batch.lines.append(number)
    return batch


def _to_frame(batch: _JsonLines, part: slice, columns: list[str]) -> pl.DataFrame:
    rows = batch.rows[part]
    try:
        return pl.DataFrame(rows, schema=text_schema(columns))
    except (pl.exceptions.ComputeError, UnicodeEncodeError):
        numbered = zip(rows, batch.lines[part], strict=True)
        checked = (
            (line, _describe_problem(value)) for row, line in numbered for value in row.values()
        )
        line, problem = next(each for each in checked if each[1])
        raise SourceError(f"{batch.name}, line {line:,} {problem}.") from None


def _describe_problem(value: object) -> str | None:
    if isinstance(value, str):
        return None if _is_text(value) else f"holds {_SURROGATE}"
    return "holds a nested value" if isinstance(value, dict | list) else None


def _is_text(value: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in value)


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    row = dict(pairs)
    if len(row) < len(pairs):
        raise _InvalidLine("names a key twice")
    return row


def _refuse_constant(_: str) -> NoReturn:
    raise _InvalidLine("holds NaN or Infinity, which are not JSON")


# Numbers stay as they are written.
_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique_keys, parse_float=str, parse_int=str, parse_constant=_refuse_constant
)
