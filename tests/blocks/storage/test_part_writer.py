"""Pages written as parts: which share one, which are split, what is left when it goes wrong."""

import resource
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from pyarrow import parquet

from blocks import DataLake
from blocks.storage.errors import DiskFull
from blocks.storage.manifest import Batch, Format
from blocks.storage.part_writer import PartWriter
from nudgescribe import __version__, rfc4180
from nudgescribe.contract import MESSAGE_COLUMNS
from tests.support.lakes import write_page

FOLDER = "messages/campaign_id=C/run_number=2"
FORMATS = ("parquet", "csv", "csv.zst", "delta")


@pytest.fixture
def lake(tmp_path: Path) -> DataLake:
    return DataLake(root=str(tmp_path / "lake"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "lake" / FOLDER


def writer_of(lake: DataLake, file_format: Format = "csv", part_bytes: int = 1) -> PartWriter:
    return PartWriter(lake.files, FOLDER, "w", file_format, part_bytes=part_bytes)


def page(number: int, rows: int = 3, size: int = 20) -> bytes:
    """A page of about `rows` times `size` bytes that compress by a quarter at most."""
    random = np.random.default_rng(number)
    messages = [b64encode(random.bytes(size)).decode()[:size] for _ in range(rows)]
    ids = [f"{number:03}{row:05}" for row in range(rows)]
    return rfc4180.write(pl.DataFrame([ids, messages], schema=list(MESSAGE_COLUMNS)))


def rows_of(content: bytes) -> bytes:
    """A page without its header."""
    return content.partition(b"\r\n")[2]


def written(writer: PartWriter, *pages: bytes, block_bytes: int = 10**6) -> Batch:
    with writer:
        for number, content in enumerate(pages):
            write_page(writer, number, content, block_bytes)
        batch = writer.finish()
    assert batch is not None
    return batch


def test_small_pages_share_a_part_until_it_is_long_enough(lake: DataLake, folder: Path) -> None:
    pages = [page(number) for number in range(10)]
    batch = written(writer_of(lake, part_bytes=200), *pages)
    assert [part.pages for part in batch.parts] == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    assert [(each.page, each.rows, each.bytes) for each in batch.pages] == [
        (number, 3, len(content)) for number, content in enumerate(pages)
    ]
    assert [part.name for part in batch.parts] == sorted(file.name for file in folder.iterdir())
    for part in batch.parts:
        held = b"".join(rows_of(pages[number]) for number in part.pages)
        assert (folder / part.name).read_bytes() == b"customer_id,message\r\n" + held


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_long_page_goes_on_in_the_next_part(
    lake: DataLake, folder: Path, monkeypatch: pytest.MonkeyPatch, file_format: Format
) -> None:
    monkeypatch.setattr("blocks.storage.part_writer.ROW_GROUP_BYTES", 100_000)
    pages = [page(0), page(1, 2000, 1000), page(2)]
    writer = writer_of(lake, file_format, 300_000)
    batch = written(writer, *pages, block_bytes=100_000)
    assert [(each.page, each.rows) for each in batch.pages] == [(0, 3), (1, 2000), (2, 3)]
    named = [number for part in batch.parts for number in part.pages]
    assert named == sorted(named)
    assert set(named) == {0, 1, 2}
    assert named.count(1) > 3
    assert sum(part.rows for part in batch.parts) == 2006
    assert {file.name for file in folder.iterdir()} == {part.name for part in batch.parts}
    assert len({part.name for part in batch.parts}) == len(batch.parts)
    for part in batch.parts:
        content = (folder / part.name).read_bytes()
        assert (part.bytes, part.sha256) == (len(content), sha256(content).hexdigest())
        assert part.rows > 0
        assert part.bytes < 600_000


def test_a_batch_holds_the_pages_since_the_last_one(lake: DataLake) -> None:
    with writer_of(lake, part_bytes=200) as writer:
        assert writer.finish() is None
        assert not writer.is_full
        write_page(writer, 0, page(0))
        assert not writer.is_full
        write_page(writer, 1, page(1, 9))
        assert writer.is_full
        first = writer.finish()
        assert not writer.is_full
        write_page(writer, 5, page(5, 0))
        second = writer.finish()
        assert writer.finish() is None
    assert first is not None
    assert second is not None
    assert [each.page for each in first.pages] == [0, 1]
    assert [(each.page, each.rows) for each in second.pages] == [(5, 0)]
    assert [(part.pages, part.rows) for part in second.parts] == [([5], 0)]


def test_a_part_says_what_wrote_it(lake: DataLake, folder: Path) -> None:
    (part,) = written(writer_of(lake, "parquet"), page(0)).parts
    file = parquet.ParquetFile(folder / part.name)
    assert file.schema_arrow.metadata == {
        b"schema_version": b"2",
        b"nudgeflow": __version__.encode(),
        b"pyarrow": pa.__version__.encode(),
    }
    assert [(each.name, str(each.type), each.nullable) for each in file.schema_arrow] == [
        ("customer_id", "string", False),
        ("message", "string", False),
    ]


@pytest.mark.parametrize("compression", ["zstd", "snappy", "lz4", "gzip", "none"])
def test_parquet_is_compressed_as_the_lake_says(
    lake: DataLake, folder: Path, compression: Any
) -> None:
    lake = lake.model_copy(update={"compression": compression})
    (part,) = written(lake.part_writer("C", 2, "w"), page(0, 1000, 100)).parts
    group = parquet.ParquetFile(folder / part.name).metadata.row_group(0)
    used = {group.column(number).compression for number in range(2)}
    assert used == {{"none": "UNCOMPRESSED"}.get(compression, compression.upper())}


def test_csv_is_compressed_with_zstd(lake: DataLake, folder: Path) -> None:
    pages = [page(0), page(1)]
    (part,) = written(writer_of(lake, "csv.zst", 10**6), *pages).parts
    with pa.input_stream(str(folder / part.name), compression="zstd") as file:
        assert file.read() == pages[0] + rows_of(pages[1])


# ---- what goes wrong --------------------------------------------------------------------------


class Broken(Exception):
    pass


def breaking_off() -> Iterator[rfc4180.Block]:
    yield next(rfc4180.blocks(BytesIO(page(1))))
    raise Broken


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_writer_that_fails_leaves_what_was_whole(
    lake: DataLake, folder: Path, file_format: Format
) -> None:
    def fail() -> None:
        with writer_of(lake, file_format) as writer:
            write_page(writer, 0, page(0))
            writer.finish()
            writer.write(1, 9, breaking_off())

    with pytest.raises(Broken):
        fail()
    (part,) = folder.iterdir()
    assert part.name.startswith("part-00000-00000-w.")


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_writer_that_is_left_early_leaves_nothing(
    lake: DataLake, folder: Path, file_format: Format
) -> None:
    with writer_of(lake, file_format, 10**6) as writer:
        write_page(writer, 0, page(0))
        assert len(list(folder.iterdir())) == 1
        assert lake.files.list_names(FOLDER) == []
    assert list(folder.iterdir()) == []


@contextmanager
def little_room() -> Iterator[None]:
    """No file can become longer, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("whole", [True, False], ids=["at its end", "within a page"])
@pytest.mark.parametrize("file_format", FORMATS)
def test_a_disk_that_is_full_leaves_nothing(
    lake: DataLake,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    file_format: Format,
    whole: bool,
) -> None:
    monkeypatch.setattr("blocks.storage.part_writer.ROW_GROUP_BYTES", 10**9 if whole else 1)
    content = page(0, 300, 1000)
    blocks = list(rfc4180.blocks(BytesIO(content), len(content) if whole else 1000))

    def fill() -> None:
        with writer_of(lake, file_format, 10**9) as writer:
            writer.write(0, len(content), blocks)
            writer.finish()

    with little_room(), pytest.raises(DiskFull, match=f"no room left in .*lake for {FOLDER}/part-"):
        fill()
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    "call", ["part_writer.compute_sha256", "files.os.fsync", "files.os.replace"]
)
@pytest.mark.parametrize("file_format", FORMATS)
def test_a_part_that_cannot_appear_leaves_nothing(
    lake: DataLake, folder: Path, monkeypatch: pytest.MonkeyPatch, file_format: Format, call: str
) -> None:
    def fail(*given: object) -> None:
        raise OSError("Input/output error")

    monkeypatch.setattr(f"blocks.storage.{call}", fail)
    with pytest.raises(OSError, match="Input/output"):
        written(writer_of(lake, file_format), page(0))
    assert list(folder.iterdir()) == []


def test_a_part_that_cannot_be_compressed_leaves_nothing(lake: DataLake, folder: Path) -> None:
    lake = lake.model_copy(update={"compression": "gzip", "compression_level": 99})
    with pytest.raises(OSError, match="deflateInit"):
        written(lake.part_writer("C", 2, "w"), page(0))
    assert list(folder.iterdir()) == []
