"""Reading text files of any encoding as UTF-8."""

import codecs
from collections.abc import Generator
from contextlib import contextmanager

from blocks.crm.errors import SourceError
from blocks.crm.files.compression import check_text
from blocks.crm.files.locate import ReadBytes, SourceFile

HEAD_BYTES = 1024 * 1024
# Longer marks come first: UTF-32's begins with UTF-16's.
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}


class Utf8Reader:
    """Read a text as bytes in UTF-8 without a byte order mark; `head` is their beginning.

    Text that is UTF-8 already is passed on unchecked.
    """

    def __init__(self, name: str, read: ReadBytes, encoding: str | None) -> None:
        self._name = name
        self._read = read
        first = read(HEAD_BYTES)
        check_text(name, first)
        self.encoding, mark = _detect_encoding(name, first, encoding)
        self._decoder = None
        if self.encoding != "utf-8":
            self._decoder = codecs.getincrementaldecoder(self.encoding)()
        self._position = mark
        self.head = self._unread = self._to_utf8(first[mark:])

    def read(self, size: int, /) -> bytes:
        """Read about `size` bytes; empty at end of file. Raises SourceError."""
        if self._unread:
            unread, self._unread = self._unread, b""
            return unread
        while piece := self._read(size):
            if utf8 := self._to_utf8(piece):
                return utf8
        return self._to_utf8(b"")

    def skip(self, size: int) -> None:
        """Leave out bytes of the head, before anything is read."""
        self.head = self._unread = self.head[size:]

    def _to_utf8(self, piece: bytes) -> bytes:
        if self._decoder is None:
            return piece
        begin = self._position - len(self._decoder.getstate()[0])
        self._position += len(piece)
        try:
            return self._decoder.decode(piece, final=not piece).encode()
        except UnicodeError as error:
            position = begin + (error.start if isinstance(error, UnicodeDecodeError) else 0)
            raise SourceError(
                f"{self._name} is not {self.encoding} from byte {position + 1:,} on, counted after "
                "decompression. State its encoding."
            ) from None


@contextmanager
def open_text(file: SourceFile, encoding: str | None) -> Generator[Utf8Reader]:
    """Open a text file; without `encoding`, its byte order mark decides, else it is UTF-8.

    Raises SourceError, SourceUnavailable.
    """
    with file.open() as read:
        yield Utf8Reader(file.name, read, encoding)


def _detect_encoding(name: str, first: bytes, stated: str | None) -> tuple[str, int]:
    """Return the encoding and the length of the byte order mark. Raises SourceError."""
    marked, length = next(
        ((kind, len(mark)) for mark, kind in BYTE_ORDER_MARKS.items() if first.startswith(mark)),
        ("", 0),
    )
    if stated is None:
        return marked or "utf-8", length
    stated = codecs.lookup(stated).name.removesuffix("-sig")
    if marked and not marked.startswith(stated):
        raise SourceError(f"{name} is stated to be {stated}, but its first bytes say {marked}.")
    if not marked and stated in ("utf-16", "utf-32"):
        raise SourceError(f"{name} has no byte order mark: state {stated}-le or {stated}-be.")
    return marked or stated, length
