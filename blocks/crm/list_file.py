"""The file of an extracted list: text columns, and what the source's types said of them.

A date that a source gives as a date can be told from a text that looks like one, and an identifier
that was a float from one that was not, only while the types are there; so the file notes them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from enum import StrEnum
from pathlib import Path

from blocks.crm.errors import ColumnMissing, SourceError
from blocks.crm.text import NoText, check_type, text_type, to_text
from blocks.storage.parquet import ParquetSink, read_batches
from blocks.storage.reader import to_polars
from nudgescribe import fields
from nudgescribe.bases import Closing
from nudgescribe.errors import first_ten
from nudgescribe.lazy import pa, parquet, pl, types

ORIGINS = b"nudgeflow.origins"
"""Key in the metadata of the file, and of a field that is text since a source has written it so."""

FILE = b"nudgeflow.file"
"""Key in the metadata of a batch's schema: the name of the file that it is from."""

NAMES = b"nudgeflow.names"
"""Key in the metadata of the file, and of a batch's schema: how the columns' names are known."""

UNCERTAIN = {NAMES: b"uncertain"}
"""Metadata of a batch whose names are a file's first row, which may be a customer, or keys."""


class Origin(StrEnum):
    """What values of a column were, where it still matters once they are text."""

    DATE = "date"
    TIMESTAMP = "timestamp"
    FLOAT16 = "float16"
    FLOAT32 = "float32"
    FLOAT64 = "float64"
    MIXED = "mixed"
    """Numbers of types that write the same number differently, such as 5 and 5.00."""


class ListWriter(Closing):
    """Writes a list as text, batch by batch; `rows` counts them.

    A context manager. The first batch says which columns there are; of these the `needed` ones are
    written, or all.
    """

    def __init__(self, target: Path, needed: frozenset[str] | None) -> None:
        self.rows = 0
        self._target = target
        self._needed = needed
        self._sink: ParquetSink | None = None
        self._columns: list[str] = []
        self._origins: dict[str, set[Origin]] = {}
        self._scales: dict[str, set[int]] = {}
        self._file, self._rows_of_others = "", 0
        self._uncertain = False

    def write(self, batch: pa.RecordBatch) -> None:
        """Append a batch. Raises SourceError for a value, or a type, that has no text."""
        metadata = batch.schema.metadata or {}
        self._uncertain |= metadata.get(NAMES) == UNCERTAIN[NAMES]
        file = metadata.get(FILE, b"").decode()
        if file != self._file:
            self._file, self._rows_of_others = file, self.rows
        if self._sink is None:
            self._columns = self._select(batch.schema)
            schema = pa.schema([(name, text_type()) for name in self._columns])
            self._sink = ParquetSink(self._target, schema)
        texts = [self._to_text(batch, name) for name in self._columns]
        self._sink.write(pa.table(texts, names=self._columns))
        self.rows += batch.num_rows

    def close(self) -> None:
        """Note the origins and how names are known, and close the file."""
        if self._sink:
            noted = {name: sorted(each) for name, each in self._origins.items()}
            self._sink.annotate(ORIGINS, json.dumps(noted).encode())
            self._sink.annotate(NAMES, b"uncertain" if self._uncertain else b"certain")
            self._sink.close()

    def _select(self, schema: pa.Schema) -> list[str]:
        check_needed(schema.names, self._needed, self._file)
        names = [name for name in schema.names if self._needed is None or name in self._needed]
        if same := repeated(schema.names, self._needed):
            raise SourceError(f"The list has two columns of one name: {same}.")
        for name in names:
            try:
                check_type(schema.field(name).type)
            except NoText as error:
                raise self._refusal(name, error) from None
        return names

    def _to_text(self, batch: pa.RecordBatch, name: str) -> pa.Array:
        field, scales = batch.schema.field(name), self._scales.setdefault(name, set())
        origins = self._origins.setdefault(name, set())
        origins |= _origins_of(field)
        if any(
            fits(field.type) for fits in (types.is_decimal, types.is_integer, types.is_floating)
        ):
            scales.add(max(0, getattr(field.type, "scale", 0)))
        if len(scales) > 1:
            origins.add(Origin.MIXED)
        try:
            return to_text(batch.column(name))
        except NoText as error:
            raise self._refusal(name, error) from None

    def _refusal(self, name: str, error: NoText) -> SourceError:
        column = f"{self._file}, column" if self._file else "Column"
        before = self.rows - self._rows_of_others
        row = "" if error.index is None else f", row {before + error.index + 1:,},"
        return SourceError(f"{column} {first_ten([name])}{row} {error.problem}.")


class ListFile:
    """An extracted list: the `columns` of its `file`, and its number of `rows`; `certain` if no
    column's name can be a customer's value.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        with parquet.ParquetFile(file) as source:
            schema, metadata = source.schema_arrow, source.metadata
        self.columns: list[str] = schema.names
        self.rows: int = metadata.num_rows
        notes = metadata.metadata or {}
        noted = json.loads(notes.get(ORIGINS, b"{}"))
        self.certain = notes.get(NAMES) == b"certain"
        # A list that version 0.1 has extracted has the types themselves.
        self._origins = {
            field.name: _origins_of(field) | {Origin(each) for each in noted.get(field.name, [])}
            for field in schema
        }

    def origins(self, column: str) -> set[Origin]:
        """Return what values of a column were before they became text."""
        return self._origins[column]

    def frames(self, rows: int, columns: Sequence[str] | None = None) -> Iterator[pl.DataFrame]:
        """Yield columns as text, in their order and so many rows at a time, or fewer if they are
        wide.
        """
        names = self.columns if columns is None else [*columns]
        for batch in read_batches(self.file, rows, names):
            # What is text was checked when it was written, and is here by its checksum.
            texts = [each if each.type == text_type() else to_text(each) for each in batch.columns]
            frame = to_polars(pa.table(texts, names))
            frame.columns = names  # polars renames a column whose name is empty
            yield frame


def repeated(names: Sequence[str], needed: Collection[str] | None) -> str:
    """Return which columns have one name, if they are needed: by that name, or if all are needed,
    by their numbers, for then it may be a value. "" if none have.
    """
    counts = Counter(names)
    if needed is not None:
        return first_ten(sorted(name for name in needed if counts[name] > 1))
    return first_ten(number for number, name in enumerate(names, 1) if counts[name] > 1)


def check_needed(columns: Sequence[str], needed: frozenset[str] | None, file: str = "") -> None:
    """Raise ColumnMissing if a list of these columns, which begins in a `file`, lacks one that is
    needed.
    """
    if missing := sorted((needed or frozenset[str]()) - {*columns}):
        hints = [*fields.look_alikes(columns, missing).values()]
        folders = [name for name in missing if f"/{name}=" in file]
        hints += [f"{name}=… is a folder, not written in its files" for name in folders]
        hint = f": {first_ten(hints)}" if hints else ""
        raise ColumnMissing(f"The list has no column {first_ten(missing)}{hint}.")


def to_batches(table: pa.Table) -> list[pa.RecordBatch]:
    """Return a table in batches: at least one, so that a list without rows has its columns."""
    return table.to_batches() or [no_rows(table.schema)]


def no_rows(schema: pa.Schema) -> pa.RecordBatch:
    """Return a batch of no rows."""
    columns = [column.combine_chunks() for column in schema.empty_table().columns]
    return pa.record_batch(columns, schema)


def _origins_of(field: pa.Field) -> set[Origin]:
    """Return the origins that a field's type or its source states."""
    stated = (field.metadata or {}).get(ORIGINS, b"").decode().split()
    fits = {
        types.is_date: Origin.DATE,
        types.is_timestamp: Origin.TIMESTAMP,
        types.is_float16: Origin.FLOAT16,
        types.is_float32: Origin.FLOAT32,
        types.is_float64: Origin.FLOAT64,
    }
    of_type = {origin for is_of, origin in fits.items() if is_of(field.type)}
    return of_type | {*map(Origin, stated)}
