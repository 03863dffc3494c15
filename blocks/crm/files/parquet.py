"""Customer lists from Parquet files."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa
from pyarrow import parquet

from blocks.crm.errors import SourceError
from blocks.crm.files.locate import SourceFile
from blocks.crm.list_file import FILE, check_needed, no_rows
from blocks.crm.text import NoText, check_type
from nudgescribe.errors import first_ten

ROWS_AT_ONCE = 20_000


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
                source = parquet.ParquetFile(
                    opened,
                    pre_buffer=False,
                    page_checksum_verification=True,
                    # A day of INT96 in nanoseconds would have to lie between 1677 and 2262.
                    coerce_int96_timestamp_unit="us",
                )
                names = _names(file.name, source)
            chosen = [name for name in names if needed is None or name in needed]
            if expected is None:
                check_needed(names, needed)
                expected = chosen
            file.check_columns(chosen, expected)
            for batch in _read(file.name, source, expected):
                rows += batch.num_rows
                yield batch
            if rows - before != source.metadata.num_rows:
                raise SourceError(
                    f"{file.name} is damaged: it holds {rows - before:,} rows and says "
                    f"{source.metadata.num_rows:,}."
                )
        file.log_rows("Parquet", before, rows)


def _names(file: str, source: parquet.ParquetFile) -> list[str]:
    names: list[str] = source.schema_arrow.names
    if len(set(names)) < len(names):
        raise SourceError(f"{file} has two columns of one name.")
    return names


def _read(file: str, source: parquet.ParquetFile, names: list[str]) -> Iterator[pa.RecordBatch]:
    fields = [source.schema_arrow.field(name) for name in names]
    for field in fields:
        try:
            check_type(field.type)
        except NoText as error:
            column = first_ten([field.name])
            raise SourceError(f"{file}, column {column} {error.problem}.") from None
    schema = pa.schema(fields, metadata={FILE: file})
    yield no_rows(schema)
    with _refused(file, lambda: _encrypted(source, names)):
        for batch in source.iter_batches(ROWS_AT_ONCE, columns=names):
            yield pa.record_batch([batch.column(name) for name in names], schema)


@contextmanager
def _refused(file: str, encrypted: Callable[[], str] = lambda: "") -> Generator[None]:
    """Raise SourceError for what pyarrow cannot read; its text may quote the file."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
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
