"""Everything that the files of a lake hold, as their own readers tell it."""

import contextlib
import io
import json
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from nudgescribe import rfc4180

pa: Any = import_module("pyarrow")
ipc: Any = import_module("pyarrow.ipc")
parquet: Any = import_module("pyarrow.parquet")
"""Without their types, which know what the project itself reads."""


def values(root: Path) -> Iterator[tuple[str, str]]:
    """Each file's path and what it holds, value by value; its bytes as well, if they are text."""
    for file in sorted(root.rglob("*")):
        if file.is_file():
            path = str(file.relative_to(root))
            yield path, path
            yield from ((path, value) for value in _values(file))


def _values(file: Path) -> Iterator[str]:
    content = file.read_bytes()
    yield content.decode("utf-8", "replace")
    match "".join(file.suffixes[-2:]) if file.suffixes[-1:] == [".zst"] else file.suffix:
        case ".parquet":
            yield from _parquet(content)
        case ".csv":
            yield from _csv(content)
        case ".csv.zst":
            yield from _csv(pa.CompressedInputStream(io.BytesIO(content), "zstd").read())
        case ".json":
            yield from _texts([json.loads(line) for line in _documents(content)])
        case ".arrow":
            yield from _table(ipc.open_stream(content).read_all())
        case ".png" | ".ids" | ".crc":
            pass
        case other:
            raise AssertionError(f"Nobody reads {other}: {file}")


def _parquet(content: bytes) -> Iterator[str]:
    file = parquet.ParquetFile(io.BytesIO(content), binary_type=pa.binary())
    metadata = file.metadata
    noted: dict[bytes, bytes] = metadata.metadata or {}
    for key, value in noted.items():
        yield f"{key!r} {value!r}"
    yield from metadata.schema.names
    for group in range(metadata.num_row_groups):
        for column in range(metadata.num_columns):
            statistics = metadata.row_group(group).column(column).statistics
            if statistics is not None and statistics.has_min_max:
                yield from _texts([statistics.min, statistics.max])
    yield from _table(file.read())


def _csv(content: bytes) -> Iterator[str]:
    yield content.decode()
    for block in rfc4180.blocks(io.BytesIO(content)):
        yield from _table(block.table)


def _table(table: Any) -> Iterator[str]:
    for column in table.columns:
        yield from _texts(column.to_pylist())


def _documents(content: bytes) -> list[bytes]:
    """A JSON document; or many, one a line, as Delta's log has them."""
    try:
        json.loads(content)
    except ValueError:
        return content.splitlines()
    return [content]


def _texts(value: Any) -> Iterator[str]:
    match value:
        case dict():
            for key, each in cast("dict[Any, Any]", value).items():
                yield str(key)
                yield from _texts(each)
        case list():
            for each in cast("list[Any]", value):
                yield from _texts(each)
        case str():
            yield value
            if value[:1] in ("{", "["):  # JSON in JSON: Delta's statistics, a segment
                with contextlib.suppress(ValueError):
                    yield from _texts(json.loads(value))
        case bytes():
            yield value.decode("utf-8", "replace")
        case None:
            pass
        case _:
            yield str(value)
