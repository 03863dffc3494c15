"""Parquet files, written and read batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from blocks.storage.errors import LakeError
from blocks.storage.reader import to_polars
from nudgescribe.bases import Closing
from nudgescribe.lazy import pa, parquet, pl

ROWS_AT_ONCE = 20_000
BYTES_AT_ONCE = 8 * 1024 * 1024
GROUP_BYTES = 2 * BYTES_AT_ONCE
"""Of a row group; whoever reads a row of many columns has the whole of its group in memory."""

_RowsCallback = Callable[[int], object]
_CALLBACK: ContextVar[_RowsCallback | None] = ContextVar("_CALLBACK", default=None)


@contextmanager
def observe_rows(callback: _RowsCallback) -> Generator[None]:
    """Call `callback` with the rows written so far, after each batch of a sink in the block."""
    token = _CALLBACK.set(callback)
    try:
        yield
    finally:
        _CALLBACK.reset(token)


class ParquetSink(Closing):
    """A Parquet file that frames, or tables, of one schema are appended to.

    A context manager; the file has its schema even if nothing is written. The compression, zstd
    level 1 without dictionaries, suits text that seldom repeats. Pages have checksums, and no
    statistics: nobody looks for single rows, and they cost a third of the writing.
    """

    def __init__(self, file: Path, schema: pl.Schema | pa.Schema) -> None:
        self._schema = schema
        self._writer = parquet.ParquetWriter(
            file,
            _to_arrow(pl.DataFrame(schema=schema)).schema
            if isinstance(schema, pl.Schema)
            else schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=False,
            write_statistics=False,
            write_page_checksum=True,
            store_schema=False,  # what reads text gets text, not the views that frames consist of
        )
        self.rows = 0

    def write(self, rows: pl.DataFrame | pa.Table) -> None:
        """Append a frame, cast to the schema, or a table of it."""
        table = self._cast(rows) if isinstance(rows, pl.DataFrame) else rows
        self._writer.write_table(table, rows_of(table.nbytes, table.num_rows, GROUP_BYTES))
        self.rows += table.num_rows
        if callback := _CALLBACK.get():
            callback(self.rows)

    def annotate(self, key: bytes, value: bytes) -> None:
        """Add to the file's metadata."""
        self._writer.add_key_value_metadata({key: value})

    def close(self) -> None:
        """Complete the file."""
        self._writer.close()

    def _cast(self, frame: pl.DataFrame) -> pa.Table:
        assert isinstance(self._schema, pl.Schema)
        # Column by column: `DataFrame.cast` reads some names as patterns and refuses an empty one.
        cast = pl.DataFrame([frame[name].cast(dtype) for name, dtype in self._schema.items()])
        cast.columns = self._schema.names()
        return _to_arrow(cast)


def _to_arrow(frame: pl.DataFrame) -> pa.Table:
    # Without the copy that text in another form is.
    return frame.to_arrow(compat_level=pl.CompatLevel.newest())


def write_parquet(file: Path, schema: pl.Schema, frames: Iterable[pl.DataFrame]) -> int:
    """Write frames to a file and return their number of rows."""
    with ParquetSink(file, schema) as sink:
        for frame in frames:
            sink.write(frame)
    return sink.rows


def text_schema(columns: list[str]) -> pl.Schema:
    """Return a schema with these columns, all of them text."""
    return pl.Schema(dict.fromkeys(columns, pl.String()))


def read_frames(
    file: Path, rows: int = ROWS_AT_ONCE, columns: Sequence[str] | None = None
) -> Iterator[pl.DataFrame]:
    """Yield the rows of a Parquet file as `read_batches` does, as frames."""
    for batch in read_batches(file, rows, columns):
        frame = to_polars(pa.Table.from_batches([batch]))
        frame.columns = batch.schema.names  # polars renames a column whose name is empty
        yield frame


def read_batches(
    file: Path, rows: int = ROWS_AT_ONCE, columns: Sequence[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a Parquet file of ours in their order: `rows` in each batch but the last,
    or fewer if they are wide. Raises LakeError if some are missing.
    """
    with file.open("rb") as opened:
        # Without pre_buffer, which keeps what has been read until the whole file has.
        source = parquet.ParquetFile(
            opened,
            pre_buffer=False,
            page_checksum_verification=True,
            binary_type=pa.large_binary(),
        )
        names = source.schema_arrow.names if columns is None else [*columns]
        left = source.metadata.num_rows
        for batch in source.iter_batches(few_rows_of(source, rows), columns=names):
            left -= batch.num_rows
            yield batch.select(names)
        if left:
            raise LakeError(f"{file.name} lacks {left:,} of its {source.metadata.num_rows:,} rows.")


def few_rows(file: Path, most: int) -> int:
    """Return how many rows of a Parquet file to hold in memory: `most`, or as many as have
    BYTES_AT_ONCE on average.
    """
    with file.open("rb") as opened:
        return few_rows_of(parquet.ParquetFile(opened), most)


def few_rows_of(source: parquet.ParquetFile, most: int) -> int:
    metadata = source.metadata
    groups = map(metadata.row_group, range(metadata.num_row_groups))
    size = sum(group.total_byte_size for group in groups)
    return min(most, rows_of(size, metadata.num_rows, BYTES_AT_ONCE))


def rows_of(size: int, rows: int, wanted: int) -> int:
    """Return the number of rows that have the wanted size on average, if all have `size`."""
    return max(1, wanted * rows // max(1, size))
