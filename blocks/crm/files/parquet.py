"""Customer lists from Parquet files."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO, cast

from blocks.crm.errors import SourceError
from blocks.crm.files.locate import SourceFile
from blocks.crm.list_file import FILE, check_needed, no_rows, repeated
from blocks.crm.text import NoText, check_type, int96
from blocks.storage.parquet import BYTES_AT_ONCE, few_rows_of, rows_of
from nudgescribe.errors import first_ten
from nudgescribe.lazy import pa, parquet, types

ROWS_AT_ONCE = 20_000
FIRST_ROWS = 1_000
"""How wide rows are is seen by these: a file says only how wide they are compressed."""


def read_parquet(
    files: Sequence[SourceFile], needed: frozenset[str] | None
) -> Iterator[pa.RecordBatch]:
    """Yield the needed columns of files with the same columns, whatever their types.

    All of them are decoded, and their checksums verified where there are any. Raises SourceError
    for a file that is damaged, encrypted, or holds other rows than it says; SourceUnavailable.
    """
    rows = 0
    expected: list[str] | None = None
    for file in files:
        before = rows
        with file.decompress() as part, part.open("rb") as opened:
            with _refused(file.name):
                source = _open(opened, "us")
                schema = source.schema_arrow
            names: list[str] = schema.names
            if same := repeated(names, needed):
                raise SourceError(f"{file.name} has two columns of one name: {same}.")
            chosen = [name for name in names if needed is None or name in needed]
            if expected is None:
                check_needed(names, needed, file.name)
                expected = chosen
            file.check_columns(chosen, expected)
            fields = [schema.field(name) for name in expected]
            _check_types(file.name, fields)
            metadata = {FILE: file.name}
            yield no_rows(pa.schema(fields, metadata=metadata))
            for batch in _read(file.name, source, opened, expected):
                batch = batch.replace_schema_metadata(metadata)
                rows += batch.num_rows
                yield batch
            if rows - before != source.metadata.num_rows:
                raise SourceError(
                    f"{file.name} is damaged: it holds {rows - before:,} rows and says "
                    f"{source.metadata.num_rows:,}."
                )
        file.log_rows("Parquet", before, rows)


def _open(opened: BinaryIO, unit: str) -> parquet.ParquetFile:
    """Open a file, with times of INT96 in a unit."""
    return parquet.ParquetFile(
        opened,
        pre_buffer=False,
        page_checksum_verification=True,
        coerce_int96_timestamp_unit=unit,
    )


def _check_types(file: str, fields: Sequence[pa.Field]) -> None:
    for field in fields:
        try:
            check_type(field.type)
        except NoText as error:
            column = first_ten([field.name])
            raise SourceError(f"{file}, column {column} {error.problem}.") from None


def _read(
    file: str, source: parquet.ParquetFile, opened: BinaryIO, names: list[str]
) -> Iterator[pa.RecordBatch]:
    with _refused(file, lambda: _encrypted(source, names)):
        add_digits = _added_digits(source, opened, names)
        for batch in _batches(source, names):
            columns = {name: batch.column(name) for name in names} | add_digits(batch)
            yield pa.record_batch([*columns.values()], [*columns])


def _added_digits(
    source: parquet.ParquetFile, opened: BinaryIO, names: list[str]
) -> Callable[[pa.RecordBatch], dict[str, pa.Array]]:
    """Return what gives the columns of INT96 in a batch in all their digits, batch by batch."""
    columns = map(source.schema.column, range(len(source.schema)))
    old = {each.path for each in columns if each.physical_type == "INT96"} & {*names}
    if not old:
        return lambda _: {}
    seconds, nanoseconds = (_Rows(_open(opened, unit), old) for unit in ("s", "ns"))

    def add(batch: pa.RecordBatch) -> dict[str, pa.Array]:
        s, ns = seconds.take(batch.num_rows), nanoseconds.take(batch.num_rows)
        return {name: int96(s.column(name), batch.column(name), ns.column(name)) for name in old}

    return add


def _batches(source: parquet.ParquetFile, names: list[str]) -> Iterator[pa.RecordBatch]:
    """Yield rows, as many at a time as have about BYTES_AT_ONCE."""
    rows = few_rows_of(source, FIRST_ROWS)
    for batch in source.iter_batches(rows, columns=names):
        yield batch
        if batch.num_rows:
            fitting = rows_of(_size(batch), batch.num_rows, BYTES_AT_ONCE)
            rows = min(4 * rows, fitting, ROWS_AT_ONCE)
            # The reader asks for it before each batch.
            source.reader.set_batch_size(rows)


def _size(batch: pa.RecordBatch) -> int:
    """Return the bytes of a batch without dictionaries."""
    size = batch.nbytes
    for column in batch.columns:
        if types.is_dictionary(column.type):
            texts = cast("pa.DictionaryArray", column).dictionary
            size += texts.nbytes * len(column) // max(1, len(texts))
    return size


class _Rows:
    """The rows of some columns, to be taken a number at a time."""

    def __init__(self, source: parquet.ParquetFile, names: Collection[str]) -> None:
        self._batches = source.iter_batches(ROWS_AT_ONCE, columns=[*names])
        self._left: pa.RecordBatch | None = None

    def take(self, rows: int) -> pa.RecordBatch:
        """Return the next rows, of which there are so many."""
        while self._left is None or self._left.num_rows < rows:
            if (more := next(self._batches, None)) is None:
                raise pa.ArrowInvalid("It has fewer rows than its other columns.")
            self._left = pa.concat_batches([self._left, more]) if self._left is not None else more
        taken, self._left = self._left.slice(0, rows), self._left.slice(rows)
        return taken


@contextmanager
def _refused(file: str, encrypted: Callable[[], str] = lambda: "") -> Generator[None]:
    """Raise SourceError for what pyarrow cannot read; its text may quote the file."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, pa.ArrowNotImplementedError):
            problem = "has a column of a type or an encoding that is not read here: write it as"
            raise SourceError(f"{file} {problem} text.") from None
        if not _is_encrypted(error):
            raise SourceError(f"{file} is damaged, or no Parquet file.") from None
        what = encrypted()
        raise SourceError(f"{file}{what} is encrypted: write it without encryption.") from None


def _is_encrypted(error: Exception) -> bool:
    return any(word in str(error) for word in ("encrypt", "decrypt"))


def _encrypted(source: parquet.ParquetFile, names: list[str]) -> str:
    """Return which column is encrypted: it is one that cannot be read, its metadata neither."""
    for name in names:
        try:
            next(source.iter_batches(1, columns=[name]), None)
        except (pa.ArrowException, OSError) as error:
            if _is_encrypted(error):
                return f", column {first_ten([name])},"
    return ""
