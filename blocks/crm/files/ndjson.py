"""Customer lists from NDJSON files, with one JSON object per line."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import cast

from blocks.crm.errors import SourceError
from blocks.crm.files.encoding import Utf8Reader, open_text
from blocks.crm.files.locate import SourceFile
from blocks.crm.files.names import known_names
from blocks.crm.list_file import UNCERTAIN, check_needed
from blocks.crm.text import text_type
from blocks.storage.parquet import read_batches, text_schema, write_parquet
from blocks.storage.scratch import temporary_folder
from nudgescribe.contract import MOST_FIELDS
from nudgescribe.errors import first_ten
from nudgescribe.lazy import pa, pl

BLOCK_BYTES = 2 * 1024 * 1024
CELLS_AT_ONCE = 2_000_000
LONGEST_LINE = 64 * 1024 * 1024
_WITH_TEXT = {str, bool, type(None)}
_FORM = "NDJSON has one object a line"
_SURROGATE = "half of a surrogate pair, which is no character"


class _InvalidLine(ValueError):
    """A line breaks a rule; the text says which and repeats nothing of the line."""


@dataclass(frozen=True)
class _JsonLines:
    """Some objects of a file, and their line numbers."""

    name: str
    rows: list[dict[str, object]]
    lines: list[int]


class _Repeating(dict[str, object]):
    """An object that names keys twice: `repeated`."""

    repeated: frozenset[str] = frozenset()


@dataclass(frozen=True)
class _Constant:
    """NaN or Infinity, which are not JSON."""


def read_ndjson(
    files: Sequence[SourceFile], encoding: str | None, needed: frozenset[str] | None
) -> Iterator[pa.RecordBatch]:
    """Yield the objects of files as text, with a column for each key of any object, of the needed
    ones, and null where an object lacks the key. Raises SourceError, SourceUnavailable.
    """
    with temporary_folder() as folder:
        columns = _Columns(needed)
        frames = _read_frames(files, encoding, columns)
        drafts: list[Path] = []
        for names, group in groupby(frames, key=lambda frame: frame.columns):
            drafts.append(folder / str(len(drafts)))
            write_parquet(drafts[-1], text_schema(names), group)
        if not drafts:
            raise SourceError(f"{files[0].name} is empty: its columns are not known.")
        check_needed([*(columns.first | columns.seen)], needed)
        for draft in drafts:
            for batch in read_batches(draft):
                yield _complete(batch, list(columns.seen))


class _Columns:
    """The columns of a list: the needed ones, or those of all keys `seen`, in their order; `first`
    are those of the first object.
    """

    def __init__(self, needed: frozenset[str] | None) -> None:
        self.needed = needed
        self.seen: dict[str, object] = {}
        self.first: dict[str, object] = {}

    @property
    def names(self) -> list[str]:
        """Return the columns known so far, of which no later object has another if some are
        needed.
        """
        return list(self.seen) if self.needed is None else sorted(self.needed)

    def take(self, batch: _JsonLines) -> _JsonLines:
        """Note the keys of objects; return the objects with the needed ones. Raises SourceError."""
        rows = batch.rows
        self.first = self.first or rows[0]
        if (needed := self.needed) is not None:
            rows = [{key: row[key] for key in needed & row.keys()} for row in rows]
        known = len(self.seen)
        for row in rows:
            self.seen |= row
        if len(self.seen) > MOST_FIELDS:
            raise SourceError(f"{batch.name} has more than {MOST_FIELDS:,} columns.")
        if any("\0" in name or not _is_text(name) for name in list(self.seen)[known:]):
            raise SourceError(f"{batch.name} has a key with NUL or {_SURROGATE}.")
        return _JsonLines(batch.name, rows, batch.lines)

    def check(self, name: str, row: dict[str, object], line: int) -> None:
        """Check the values of an object. Raises SourceError, which tells the field of the first
        without a text.
        """
        for number, (key, value) in enumerate(row.items(), 1):
            if problem := _describe_problem(value):
                field = key if key in known_names(row, self.needed) else f"column {number}"
                raise SourceError(f"{name}, line {line:,}: {first_ten([field])} {problem}.")


def _complete(batch: pa.RecordBatch, columns: list[str]) -> pa.RecordBatch:
    known = batch.schema.names
    nulls = pa.nulls(batch.num_rows, text_type())
    arrays = [batch.column(name) if name in known else nulls for name in columns]
    schema = pa.schema([(name, text_type()) for name in columns], metadata=UNCERTAIN)
    return pa.record_batch(arrays, schema)


def _read_frames(
    files: Sequence[SourceFile], encoding: str | None, columns: _Columns
) -> Iterator[pl.DataFrame]:
    """Yield the objects as text, with the columns known so far."""
    rows = 0
    for file in files:
        before = rows
        with open_text(file, encoding) as text:
            for each in _read_batches(file.name, text, columns.needed):
                batch = columns.take(each)
                at_once = max(1, CELLS_AT_ONCE // len(columns.names))
                for start in range(0, len(batch.rows), at_once):
                    yield _to_frame(batch, slice(start, start + at_once), columns)
                rows += len(batch.rows)
        file.log_rows(f"NDJSON, {text.encoding}", before, rows)


def _read_batches(
    name: str, text: Utf8Reader, needed: frozenset[str] | None
) -> Iterator[_JsonLines]:
    first = 1
    for lines in _read_lines(name, text):
        try:
            batch = _parse(name, lines.decode(), first, needed)
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


def _parse(name: str, lines: str, first: int, needed: frozenset[str] | None) -> _JsonLines:
    batch = _JsonLines(name, [], [])
    for number, line in enumerate(lines.split("\n"), first):
        try:
            row = _DECODER.decode(line)
            if not isinstance(row, dict) or not row:
                raise _InvalidLine(f"is not an object with keys: {_FORM}")
            if isinstance(row, _Repeating) and (needed is None or needed & row.repeated):
                raise _InvalidLine("names a key twice")
        except (ValueError, RecursionError) as error:
            if not line.strip(" \t\r"):
                continue
            problem = error if isinstance(error, _InvalidLine) else f"is not valid JSON: {_FORM}"
            raise SourceError(f"{name}, line {number:,} {problem}.") from None
        batch.rows.append(cast("dict[str, object]", row))
        batch.lines.append(number)
    return batch


def _to_frame(batch: _JsonLines, part: slice, columns: _Columns) -> pl.DataFrame:
    rows = batch.rows[part]
    types = {type(value) for row in rows for value in row.values()}
    if types <= _WITH_TEXT:
        try:
            return pl.DataFrame(rows, schema=text_schema(columns.names))
        except UnicodeEncodeError:
            pass
    for row, line in zip(rows, batch.lines[part], strict=True):
        columns.check(batch.name, row, line)
    raise SourceError(f"{batch.name} cannot be read.")  # pragma: no cover - checked above


def _describe_problem(value: object) -> str | None:
    if isinstance(value, str):
        return None if _is_text(value) else f"holds {_SURROGATE}"
    if isinstance(value, _Constant):
        return "holds NaN or Infinity, which are not JSON"
    return "holds a nested value" if isinstance(value, dict | list) else None


def _is_text(value: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in value)


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    row = dict(pairs)
    if len(row) == len(pairs):
        return row
    repeating = _Repeating(row)
    counts = Counter(key for key, _ in pairs)
    repeating.repeated = frozenset(key for key, count in counts.items() if count > 1)
    return repeating


def _constant(_: str) -> _Constant:
    return _Constant()


# Numbers stay as they are written.
_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=str, parse_int=str, parse_constant=_constant
)
