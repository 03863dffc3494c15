"""Values that nobody else has, and where they are found: in any bytes, however they are packed."""

import sqlite3
from base64 import b64encode
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from io import BytesIO
from pathlib import Path
from secrets import token_hex

import polars as pl
import pyarrow as pa

PACKED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}


def canary(kind: str) -> str:
    return f"canary{kind}{token_hex(8)}"


class Canaries:
    """Canaries by what they are; several values may be of one kind."""

    def __init__(self) -> None:
        self._forms: dict[str, set[bytes]] = defaultdict(set)

    def add(self, kind: str, *values: str) -> None:
        for value in values:
            self._forms[kind] |= {*_forms(value)}

    def kinds_in(self, data: bytes) -> set[str]:
        """What is found in some bytes, and in what they hold if they are a file of a format."""
        found: set[str] = set()
        for content in _contents(data):
            for kind, forms in self._forms.items():
                if kind not in found and any(form in content for form in forms):
                    found.add(kind)
        return found

    def in_folder(self, folder: Path) -> dict[str, set[str]]:
        """What is found in the files below a folder, and in their names."""
        found = {
            str(file.relative_to(folder)): self.kinds_in(str(file).encode() + b"\0")
            | self.kinds_in(file.read_bytes())
            for file in folder.rglob("*")
            if file.is_file()
        }
        return {name: kinds for name, kinds in found.items() if kinds}

    def in_database(self, file: Path) -> dict[str, set[str]]:
        """What is found in an SQLite file, by table and column: a long value lies there in pieces,
        which its bytes as a whole do not show.
        """
        found: dict[str, set[str]] = defaultdict(set)
        with closing(sqlite3.connect(file)) as database:
            names = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            for (table,) in names.fetchall():
                rows = database.execute(f'SELECT * FROM "{table}"')
                columns = [name for name, *_ in rows.description]
                for column, values in zip(columns, zip(*rows, strict=True), strict=False):
                    text = "\n".join(str(value) for value in values if value is not None)
                    if kinds := self.kinds_in(text.encode()):
                        found[f"{table}.{column}"] |= kinds
        return dict(found)


def _forms(value: str) -> Iterator[bytes]:
    plain = value.encode()
    yield plain
    yield value.encode("utf-16-le")
    yield value.encode("utf-16-be")
    yield plain.hex().encode()
    for shift in range(3):
        # Without the characters that hold bits of what stands before and behind.
        yield b64encode(bytes(shift) + plain)[(0, 2, 3)[shift] :][: len(plain) * 4 // 3 - 4]


def _contents(data: bytes) -> Iterator[bytes]:
    yield data
    if data.startswith(b"PAR1") and data.endswith(b"PAR1"):
        frame = pl.read_parquet(BytesIO(data))
        yield frame.with_columns(pl.col(pl.Binary).bin.encode("hex")).write_csv().encode()
        for column in frame.select(pl.col(pl.Binary)):
            yield b"\n".join(column.drop_nulls())
    for magic, compression in PACKED.items():
        if data.startswith(magic):
            yield pa.input_stream(BytesIO(data), compression=compression).read()
