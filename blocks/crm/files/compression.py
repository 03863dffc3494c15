"""What a file is by its first bytes, whatever its name says; decompressing."""

from __future__ import annotations

import io
import re
from typing import Any, BinaryIO, Literal

from blocks.crm.errors import SourceError
from nudgescribe.lazy import pa

ListCompression = Literal["gzip", "zstd"]
MAGIC_BYTES = 512
_READ: dict[ListCompression, re.Pattern[bytes]] = {
    "gzip": re.compile(rb"\x1f\x8b"),
    "zstd": re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"),
}
_UNPACK = "unpack it, or compress it with gzip or zstd"
_FOREIGN = {
    rb"BZh[1-9](1AY&SY|\x17rE8P\x90)": f"is compressed with bzip2: {_UNPACK}",
    rb"\xfd7zXZ\0": f"is compressed with xz: {_UNPACK}",
    rb"\x04\x22\x4d\x18": f"is compressed with lz4: {_UNPACK}",
    rb"\xff\x06\0\0sNaPpY": f"is compressed with snappy: {_UNPACK}",
    rb"\x1f[\x9d\xa0]": f"is compressed with compress: {_UNPACK}",
    rb"7z\xbc\xaf\x27\x1c|Rar!\x1a\x07": f"is an archive, 7z or rar: {_UNPACK}",
    rb"PK(\x03\x04|\x05\x06|\x07\x08)": "is a zip or an Excel workbook: export it as CSV",
    rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "is an old Excel workbook: export it as CSV",
    rb"%PDF-": "is a PDF: export it as CSV",
    rb"SQLite format 3\0": "is an SQLite database: take it by an SQL block",
    rb"Obj\x01|ARROW1\0\0": "is of the format Avro or Arrow: export it as Parquet or CSV",
}
_NO_TEXT = {
    rb"PAR1": "is a Parquet file: state the format parquet",
    rb"(?i)(\xef\xbb\xbf)?\s*<(!doctype html|html[\s>])": "is a web page, maybe one to sign in: "
    "look where the path leads",
}
_NO_CSV = {
    rb'\s*(\[\s*)?[\[{]\s*"': "is JSON: if it has one object a line, state the format ndjson, else "
    "export it as CSV",
    rb"\s*<(\?xml\s|[A-Za-z][^<>]*>[\r\n]\s*<)": "is XML: export it as CSV",
}


def compression_of(head: bytes) -> ListCompression | None:
    """Return how a file is compressed that begins with `head`, None if it is not."""
    return next((kind for kind, magic in _READ.items() if magic.match(head)), None)


def says_its_end(head: bytes) -> bool:
    """Return whether a file that begins with `head` shows if it is cut off."""
    return compression_of(head) is not None or head.startswith(b"PAR1")


def decompressed(name: str, raw: BinaryIO) -> io.BufferedReader[Any]:
    """Return what a file holds, compressed once, several times or not. Raises SourceError."""
    stream: io.BufferedReader[Any] = io.BufferedReader(raw)  # pyright: ignore[reportArgumentType]
    while kind := compression_of(check_kind(name, _peek(name, stream))):
        packed = pa.CompressedInputStream(pa.PythonFile(stream, "r"), kind)
        stream = io.BufferedReader(packed)
    return stream


def read(name: str, stream: io.BufferedReader[Any], size: int) -> bytes:
    """Read decompressed bytes. Raises SourceError if the file is damaged or cut off."""
    try:
        return stream.read(size)
    except OSError as error:
        raise _damaged(name, error) from None


def check_kind(name: str, head: bytes) -> bytes:
    """Return the begin of a file. Raises SourceError if it is of a kind that is not read."""
    _refuse(name, head, _FOREIGN)
    return head


def check_text(name: str, head: bytes) -> None:
    """Raise SourceError if a file that begins with `head` is no text."""
    _refuse(name, head, _NO_TEXT)


def check_csv(name: str, head: bytes) -> None:
    """Raise SourceError if text that begins with `head` is of another format than quoted CSV."""
    _refuse(name, head, _NO_CSV)


def _refuse(name: str, head: bytes, kinds: dict[bytes, str]) -> None:
    for magic, what in kinds.items():
        if re.match(magic, head):
            raise SourceError(f"{name} {what}.")


def _peek(name: str, stream: io.BufferedReader[Any]) -> bytes:
    try:
        return stream.peek(MAGIC_BYTES)[:MAGIC_BYTES]
    except OSError as error:
        raise _damaged(name, error) from None


def _damaged(name: str, error: OSError) -> SourceError:
    if "too much memory" in str(error):
        return SourceError(
            f"{name}: its zstd window is greater than the 128 MiB that are read: compress it "
            "without --long."
        )
    if "ictionary" in str(error):
        return SourceError(f"{name} is compressed with a zstd dictionary: compress it without.")
    return SourceError(f"{name} could not be read: it is damaged or cut off.")
