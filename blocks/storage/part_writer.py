"""Writing pages as the lake's files: small pages share a part, a long one spans several."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from functools import cache, partial
from hashlib import sha256
from importlib.metadata import version
from io import BytesIO, FileIO, RawIOBase
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

from blocks.storage.files import Files
from blocks.storage.manifest import SCHEMA_VERSION, Batch, Format, Page, Part
from nudgescribe import __version__, rfc4180
from nudgescribe.contract import MESSAGE_COLUMNS
from nudgescribe.lazy import pa, parquet, pl

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

PART_BYTES = 128 * 1024 * 1024
ROW_GROUP_BYTES = 16 * 1024 * 1024
BUFFER_BYTES = 4 * 1024 * 1024
CACHED_BYTES = 16 * 1024 * 1024
"""A part goes to the disk in pieces of this size while it is written."""
VERSIONS = {"nudgeflow": __version__, "pyarrow": version("pyarrow")}
SUFFIX: dict[Format, str] = {
    "parquet": "parquet",
    "delta": "parquet",
    "csv": "csv",
    "csv.zst": "csv.zst",
}


class Erasing:
    """Leaves the rows of customers whom `find` tells out of blocks, and counts them."""

    def __init__(self, find: Callable[[pl.Series], pl.Series]) -> None:
        self.rows = 0
        self._find = find

    def blocks(self, blocks: Iterable[rfc4180.CsvBlock]) -> Iterator[rfc4180.CsvBlock]:
        """Yield what is left of the blocks, without those of which nothing is."""
        for block in blocks:
            found = self._find(pl.Series(block.table.column(0)))
            if not found.any():
                yield block
                continue
            self.rows += int(found.sum())
            kept = pa.array(~found)
            if len(block.raw):
                # Of its columns only the first may have been parsed.
                names = block.table.schema.names
                whole = rfc4180.blocks(BytesIO(block.raw), header=names)
                table = pa.concat_tables(each.table for each in whole).filter(kept)
                raw = b"".join(rfc4180.write(each, header=False) for each in table.to_batches())
            else:
                table, raw = block.table.filter(kept), b""
            if table.num_rows:
                yield rfc4180.CsvBlock(raw, table)


class PartSink(Protocol):
    """A format's writer for one part."""

    def write(self, block: rfc4180.CsvBlock) -> None:
        """Write the rows of a block."""
        ...

    def end_page(self) -> None:
        """End a page; what is buffered may be written."""
        ...

    def close(self) -> None:
        """Write what is buffered, and end the part."""
        ...


class PartWriter:
    """Write pages, one after the other, into parts of about `part_bytes` in a folder of the lake.

    The names of the parts contain `writer`, which differs for each writer of the same run. A
    context manager; at its end, a part that was not finished is removed.
    """

    def __init__(
        self,
        files: Files,
        folder: str,
        writer: str,
        file_format: Format,
        compression: str = "zstd",
        compression_level: int | None = 1,
        part_bytes: int = PART_BYTES,
    ) -> None:
        self._files = files
        self._folder = folder
        self._writer = writer
        self._format: Format = file_format
        self._compression = compression
        self._level = compression_level
        self._part_bytes = part_bytes
        self._pages: list[Page] = []
        self._parts: list[Part] = []
        self._open: _OpenPart | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._open:
            self._open.discard()

    def write(
        self,
        page: int,
        size: int,
        blocks: Iterable[rfc4180.CsvBlock],
        erased: Callable[[], int] = int,
    ) -> int:
        """Write a page of `size` bytes and return its number of rows; `erased` tells how many were
        left out of the blocks, once all of them have been read.
        """
        rows = 0
        for number, block in enumerate(blocks):
            if self._open and self._open.bytes >= self._part_bytes:
                self._close_part()
            if self._open is None:
                self._open = self._open_part(page, number)
            self._open.write(page, block)
            rows += block.table.num_rows
        if self._open:
            self._open.end_page()
        self._pages.append(Page(page=page, rows=rows, bytes=size, erased=erased()))
        return rows

    @property
    def writes_raw(self) -> bool:
        """Return whether the format takes the bytes of a block instead of its table."""
        return self._format in ("csv", "csv.zst")

    @property
    def is_full(self) -> bool:
        """Return whether the open part has reached `part_bytes`."""
        return self._open is not None and self._open.bytes >= self._part_bytes

    def finish(self) -> Batch | None:
        """Publish the open part; return the pages and parts since the last call, None if none."""
        self._close_part()
        if not self._pages:
            return None
        batch = Batch(pages=self._pages, parts=self._parts)
        self._pages, self._parts = [], []
        return batch

    def _open_part(self, page: int, block: int) -> _OpenPart:
        name = f"part-{page:05d}-{block:05d}-{self._writer}.{SUFFIX[self._format]}"
        return _OpenPart(self._files, f"{self._folder}/{name}", self._create_sink, page)

    def _create_sink(self, file: RawIOBase) -> PartSink:
        if self._format == "csv":
            return _CsvPartSink(file)
        if self._format == "csv.zst":
            return _CsvPartSink(pa.CompressedOutputStream(pa.PythonFile(file, "w"), "zstd"))
        return _ParquetPartSink(file, self._compression, self._level)

    def _close_part(self) -> None:
        if self._open:
            self._parts.append(self._open.publish())
            self._open = None


class _OpenPart:
    """A part being written; `page` is the first whose rows it gets."""

    def __init__(
        self, files: Files, path: str, create_sink: Callable[[RawIOBase], PartSink], page: int
    ) -> None:
        self._name = path.rpartition("/")[2]
        self._translate_errors = partial(files.translate_errors, path)
        with self._translate_errors(), ExitStack() as undo:
            self._draft = files.draft(path)
            undo.callback(self._draft.discard)
            self._file = _HashedFile(self._draft.file, stays=files.is_local)
            undo.callback(self._file.close)
            self._sink = create_sink(self._file)
            undo.pop_all()
        self._pages = [page]
        self._rows = 0

    @property
    def bytes(self) -> int:
        return self._file.tell()

    def write(self, page: int, block: rfc4180.CsvBlock) -> None:
        with self._translate_errors():
            self._sink.write(block)
        self._rows += block.table.num_rows
        if page != self._pages[-1]:
            self._pages.append(page)

    def end_page(self) -> None:
        with self._translate_errors():
            self._sink.end_page()

    def publish(self) -> Part:
        with self._translate_errors():
            return self._publish()

    def _publish(self) -> Part:
        self._sink.close()
        self._file.close()
        part = Part(
            name=self._name,
            pages=self._pages,
            rows=self._rows,
            bytes=self._draft.file.stat().st_size,
            sha256=self._file.sha256.hexdigest(),
        )
        self._draft.publish(sha256=part.sha256)
        return part

    def discard(self) -> None:
        self._draft.discard()
        # An error here would hide the one that made the part fail.
        with suppress(OSError, pa.ArrowInvalid):
            self._sink.close()
        with suppress(OSError):
            self._file.close()


class _HashedFile(RawIOBase):
    """A new file whose SHA-256 is made while it is written: nobody has to read it for that."""

    def __init__(self, path: Path, *, stays: bool) -> None:
        """Create the file; `stays` is whether it stays on this disk and is not sent elsewhere."""
        self.sha256 = sha256()
        self._file = FileIO(path, "wb")
        self._evicts = stays and hasattr(os, "posix_fadvise")
        self._cached = 0

    def writable(self) -> bool:
        return True

    def write(self, data: ReadableBuffer) -> int:
        rest = memoryview(data)
        while rest:
            written = self._file.write(rest)
            self.sha256.update(rest[:written])
            rest = rest[written:]
            self._cached += written
        if self._evicts and self._cached >= CACHED_BYTES:
            # Else the last sync has all to write, and each page of the cache is new memory.
            os.posix_fadvise(self._file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            self._cached = 0
        return len(memoryview(data))

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.close()
        super().close()


@cache
def _schema() -> pa.Schema:
    return pa.schema([pa.field(name, pa.string(), nullable=False) for name in MESSAGE_COLUMNS])


class _ParquetPartSink:
    """Write Parquet without dictionaries, which waste time and space on texts that never repeat."""

    def __init__(self, file: RawIOBase, compression: str, level: int | None) -> None:
        metadata = {**VERSIONS, "schema_version": str(SCHEMA_VERSION)}
        self._writer = parquet.ParquetWriter(
            pa.PythonFile(file, "w"),
            _schema().with_metadata(metadata),
            compression=compression,
            compression_level=level,
            use_dictionary=False,
            write_statistics=[MESSAGE_COLUMNS[0]],
        )

        self._tables: list[pa.Table] = []
        self._bytes = 0

    def write(self, block: rfc4180.CsvBlock) -> None:
        self._tables.append(block.table.cast(_schema()))
        self._bytes += block.table.nbytes
        if self._bytes >= ROW_GROUP_BYTES:
            self._flush()

    def end_page(self) -> None:
        # Between pages many writers are open at once, and their buffers add up.
        if self._bytes >= BUFFER_BYTES:
            self._flush()

    def close(self) -> None:
        try:
            self._flush()
        finally:
            self._writer.close()

    def _flush(self) -> None:
        tables, self._tables, self._bytes = self._tables, [], 0
        if tables:
            self._writer.write_table(pa.concat_tables(tables))


class _CsvPartSink:
    """Write the service's own bytes, with one header for all pages."""

    def __init__(self, file: RawIOBase | pa.NativeFile) -> None:
        self._file = file
        file.write(",".join(MESSAGE_COLUMNS).encode() + b"\r\n")

    def write(self, block: rfc4180.CsvBlock) -> None:
        self._file.write(block.raw)
        if block.raw and bytes(block.raw[-1:]) not in b"\r\n":
            self._file.write(b"\r\n")

    def end_page(self) -> None:
        pass

    def close(self) -> None:
        self._file.close()
