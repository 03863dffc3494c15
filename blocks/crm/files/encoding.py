"""Files of text as UTF-8, decompressed and decoded on the way."""

import codecs
from collections.abc import Generator
from contextlib import contextmanager

from blocks.crm.files.compression import Read, contents
from blocks.crm.files.locate import Found
from blocks.crm.source import SourceError

HEAD_BYTES = 1024 * 1024
# The longer ones first: UTF-32's begins with UTF-16's.
MARKS = {
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}


class Utf8:
    """A text's bytes in UTF-8 without a byte order mark; `head` is how they begin. Text that is
    UTF-8 already is passed on as it is, unchecked.
    """

    def __init__(self, name: str, read: Read, encoding: str | None) -> None:
        self._name = name
        self._read = read
        first = read(HEAD_BYTES)
        self.encoding, mark = _encoding(name, first, encoding)
        self._decoder = None
        if self.encoding != "utf-8":
            self._decoder = codecs.getincrementaldecoder(self.encoding)()
        self._position = mark
        self.head = self._unread = self._utf8(first[mark:])

    def read(self, size: int, /) -> bytes:
        """About as much; nothing is the end. Raises SourceError for what is not in the encoding."""
        if self._unread:
            unread, self._unread = self._unread, b""
            return unread
        while piece := self._read(size):
            if utf8 := self._utf8(piece):
                return utf8
        return self._utf8(b"")

    def _utf8(self, piece: bytes) -> bytes:
        if self._decoder is None:
            return piece
        begin = self._position - len(self._decoder.getstate()[0])
        self._position += len(piece)
        try:
            return self._decoder.decode(piece, final=not piece).encode()
        except UnicodeError as error:
            place = begin + (error.start if isinstance(error, UnicodeDecodeError) else 0)
            raise SourceError(
                f"{self._name} is not {self.encoding} throughout: not from byte {place + 1:,} on, "
                "compression aside. State the encoding it has."
            ) from None


@contextmanager
def opened(file: Found, encoding: str | None) -> Generator[Utf8]:
    """A file's text; without an `encoding` its byte order mark says which, or it is UTF-8."""
    with contents(file) as read:
        yield Utf8(file.name, read, encoding)


def _encoding(name: str, first: bytes, stated: str | None) -> tuple[str, int]:
    """Which it is, and the length of the byte order mark."""
    marked, length = next(
        ((kind, len(mark)) for mark, kind in MARKS.items() if first.startswith(mark)), ("", 0)
    )
    if stated is None:
        return marked or "utf-8", length
    stated = codecs.lookup(stated).name.removesuffix("-sig")
    if marked and not marked.startswith(stated):
        raise SourceError(f"{name} is stated to be {stated}, but its first bytes say {marked}.")
    if not marked and stated in ("utf-16", "utf-32"):
        raise SourceError(
            f"{name} does not say which {stated} it is: state {stated}-le or {stated}-be."
        )
    return marked or stated, length
