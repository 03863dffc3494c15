"""Files as they are before a compression."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from blocks.crm.files.locate import Found
from blocks.crm.source import SourceError
from blocks.storage.scratch import temporary_folder

PIECE_BYTES = 1024 * 1024
Read = Callable[[int], bytes]


@contextmanager
def contents(file: Found) -> Generator[Read]:
    """Reads so many of a file's bytes; none is the end. Raises SourceError, SourceUnavailable."""
    with file.local() as path, path.open("rb") as raw:
        stream = raw
        if file.compression:
            stream = pa.CompressedInputStream(pa.PythonFile(raw, "r"), file.compression)

        def read(size: int) -> bytes:
            try:
                return stream.read(size)
            except OSError:
                kind = f", or not {file.compression}" if file.compression else ""
                problem = f"{file.name} could not be read: it is damaged or cut off{kind}."
                raise SourceError(problem) from None

        yield read


@contextmanager
def plain(file: Found) -> Generator[Path]:
    """A file with the same content that is not compressed, on this machine."""
    if file.compression is None:
        with file.local() as path:
            yield path
        return
    with temporary_folder() as folder:
        copy = folder / "list"
        with contents(file) as read, copy.open("wb") as out:
            while piece := read(PIECE_BYTES):
                out.write(piece)
        yield copy
