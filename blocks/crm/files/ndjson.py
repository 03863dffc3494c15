"""Customer lists from files with one JSON object per line."""

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import NoReturn, cast

import polars as pl

from blocks.crm.files.combine import log_rows
from blocks.crm.files.encoding import Utf8, opened
from blocks.crm.files.locate import Found
from blocks.crm.source import Logger, SourceError
from blocks.storage.parquet import ParquetSink, read_frames, text_schema, write_parquet
from blocks.storage.scratch import temporary_folder
from nudgescribe.contract import MOST_FIELDS

BLOCK_BYTES = 2 * 1024 * 1024
CELLS_AT_ONCE = 2_000_000
LONGEST_LINE = 64 * 1024 * 1024
_HALF = "half of a surrogate pair, which is no character"


class _Wrong(ValueError):
    """What is wrong with a line, in words that repeat nothing of it."""


@dataclass(frozen=True)
class _Block:
    """Some objects of a file, and the numbers of the lines they stand in."""

    name: str
    rows: list[dict[str, object]]
    lines: list[int]


def copy_ndjson(files: Sequence[Found], target: Path, encoding: str | None, logger: Logger) -> int:
    """Writes the objects of files to a Parquet file as text, null for what an object lacks. Raises
    SourceError.
    """
    with temporary_folder() as folder:
        frames = _frames(files, encoding, logger)
        drafts: list[Path] = []
        columns: list[str] = []
        rows = 0
        for columns, some in groupby(frames, key=lambda frame: frame.columns):
            drafts.append(folder / str(len(drafts)))
            rows += write_parquet(drafts[-1], text_schema(columns), some)
        if not drafts:
            raise SourceError(f"{files[0].name} is empty, so its columns are not known.")
        if len(drafts) == 1:
            shutil.move(drafts[0], target)
            return rows
        with ParquetSink(target, text_schema(columns)) as sink:
            for draft in drafts:
                for frame in read_frames(draft):
                    lacking = [name for name in columns if name not in frame.columns]
                    nulls = (pl.lit(None, pl.String()).alias(name) for name in lacking)
                    sink.write(frame.with_columns(nulls))
    return rows


def _frames(files: Sequence[Found], encoding: str | None, logger: Logger) -> Iterator[pl.DataFrame]:
    """The objects as text, with a column for each key that was seen so far."""
    columns: dict[str, object] = {}
    rows = 0
    for file in files:
        before = rows
        with opened(file, encoding) as text:
            for block in _blocks(file.name, text):
                _add_columns(columns, block)
                at_once = max(1, CELLS_AT_ONCE // len(columns))
                for start in range(0, len(block.rows), at_once):
                    yield _texts(block, slice(start, start + at_once), list(columns))
                rows += len(block.rows)
        log_rows(logger, file.name, f"NDJSON, {text.encoding}", before, rows)


def _add_columns(columns: dict[str, object], block: _Block) -> None:
    known = len(columns)
    for row in block.rows:
        columns |= row
    if len(columns) > MOST_FIELDS:
        raise SourceError(f"{block.name} has more than {MOST_FIELDS:,} columns.")
    if any("\0" in name or not _is_text(name) for name in list(columns)[known:]):
        raise SourceError(f"{block.name} has a key with NUL or {_HALF}.")


def _blocks(name: str, text: Utf8) -> Iterator[_Block]:
    first = 1
    for lines in _whole_lines(name, text):
        try:
            block = _parsed(name, lines.decode(), first)
        except UnicodeDecodeError as error:
            line = first + lines.count(b"\n", 0, error.start)
            raise SourceError(
                f"{name}, line {line:,} is not valid UTF-8: state its encoding."
            ) from None
        first += lines.count(b"\n")
        if block.rows:
            yield block


def _whole_lines(name: str, text: Utf8) -> Iterator[bytes]:
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


def _parsed(name: str, lines: str, first: int) -> _Block:
    block = _Block(name, [], [])
    for number, line in enumerate(lines.split("\n"), first):
        try:
            row = _DECODER.decode(line)
            if type(row) is not dict or not row:
                raise _Wrong("is not an object with keys")
        except (ValueError, RecursionError) as error:
            if not line.strip(" \t\r"):
                continue
            what = error if isinstance(error, _Wrong) else "is not valid JSON"
            raise SourceError(f"{name}, line {number:,} {what}.") from None
        block.rows.append(cast("dict[str, object]", row))
        block.lines.append(number)
    return block


def _texts(block: _Block, some: slice, columns: list[str]) -> pl.DataFrame:
    rows = block.rows[some]
    try:
        return pl.DataFrame(rows, schema=text_schema(columns))
    except (pl.exceptions.ComputeError, UnicodeEncodeError):
        numbered = zip(rows, block.lines[some], strict=True)
        checked = ((line, _problem(value)) for row, line in numbered for value in row.values())
        line, problem = next(each for each in checked if each[1])
        raise SourceError(f"{block.name}, line {line:,} {problem}.") from None


def _problem(value: object) -> str | None:
    if isinstance(value, str):
        return None if _is_text(value) else f"holds {_HALF}"
    return "holds a nested value" if isinstance(value, dict | list) else None


def _is_text(value: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in value)


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    row = dict(pairs)
    if len(row) < len(pairs):
        raise _Wrong("names a key twice")
    return row


def _no_number(_: str) -> NoReturn:
    raise _Wrong("holds NaN or Infinity, which JSON has not")


# Numbers stay as they are written.
_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=str, parse_int=str, parse_constant=_no_number
)
