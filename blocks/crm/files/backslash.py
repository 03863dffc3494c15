"""CSV whose quotes are escaped by backslashes, as Spark and MySQL write it."""

import re

from blocks.crm.files.encoding import Utf8Reader

NULL = r"\N"
"""How MySQL writes that there is no value."""
_TOKEN = re.compile(rb'"|\\.|\\\Z', re.DOTALL)
_WRITTEN = {rb"\"": b'""', rb"\\": b"\\", b"\\\n": b"\n", b"\\\r": b"\r", rb"\0": b"\0"}


class BackslashReader:
    r"""Reads such a text as RFC 4180 has it: within quotes \" becomes "", and \\ becomes \.

    A backslash elsewhere, or before another character, is one of the text.
    """

    def __init__(self, text: Utf8Reader) -> None:
        self._text = text
        self._inside = False
        self._rest = b""

    def read(self, size: int, /) -> bytes:
        """Read about `size` bytes; empty at end of file. Raises SourceError."""
        while piece := self._text.read(size):
            if written := self._rewrite(self._rest + piece):
                return written
        rest, self._rest = self._rest, b""
        return rest

    def _rewrite(self, piece: bytes) -> bytes:
        self._rest = b""
        return _TOKEN.sub(self._write, piece)

    def _write(self, token: re.Match[bytes]) -> bytes:
        found = token[0]
        if found == b"\\":  # what it escapes is in the next piece
            self._rest = found
            return b""
        self._inside ^= found == b'"'
        return _WRITTEN.get(found, found) if self._inside else found
