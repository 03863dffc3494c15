"""Writing a Parquet file batch by batch."""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import TracebackType
from typing import Self

import polars as pl
import pyarrow as pa
from pyarrow import parquet

from blocks.storage.reader import to_polars

_Told = Callable[[int], object]
_WATCHING: ContextVar[_Told | None] = ContextVar("_WATCHING", default=None)


@contextmanager
def observe_rows(told: _Told) -> Generator[None]:
    """Has every sink that is written to in the block tell how many rows it has."""
    before = _WATCHING.set(told)
    try:
        yield
    finally:
        _WATCHING.reset(before)


class ParquetSink:
    """Appends frames of one schema to a file: zstd level 1, no dictionaries, which suits text.

    A context manager; the file has its schema even if nothing is written.
    """

    def __init__(self, file: Path, schema: pl.Schema) -> None:
        self._schema = schema
        self._writer = parquet.ParquetWriter(
            file,
            pl.DataFrame(schema=schema).to_arrow().schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=False,
        )
        self.rows = 0

    def write(self, frame: pl.DataFrame) -> None:
        # Column by column: for a frame's `cast` some names are patterns, and none is no name.
        cast = pl.DataFrame([frame[name].cast(dtype) for name, dtype in self._schema.items()])
        cast.columns = self._schema.names()
        table: pa.Table = cast.to_arrow()
        self._writer.write_table(table)
        self.rows += frame.height
        if told := _WATCHING.get():
            told(self.rows)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._writer.close()


def write_parquet(file: Path, schema: pl.Schema, frames: Iterable[pl.DataFrame]) -> int:
    """Writes frames to a file and returns how many rows they have."""
    with ParquetSink(file, schema) as sink:
        for frame in frames:
            sink.write(frame)
    return sink.rows


def text_schema(columns: list[str]) -> pl.Schema:
    """A schema of text columns."""
    return pl.Schema(dict.fromkeys(columns, pl.String()))


ROWS_AT_ONCE = 20_000


def read_frames(part: Path) -> Iterator[pl.DataFrame]:
    """The rows of a Parquet file, some thousand at a time."""
    with part.open("rb") as opened:
        columns = list(pl.read_parquet_schema(part))
        for batch in parquet.ParquetFile(opened).iter_batches(ROWS_AT_ONCE, columns=columns):
            frame = to_polars(pa.Table.from_batches([batch]))
            frame.columns = columns  # polars gives another name to a column without one
            yield frame
