"""Pages written as parts: shared parts, long pages, and what errors leave behind."""

import resource
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from pyarrow import parquet

from blocks import DataLake
from blocks.storage.errors import DiskFull, LakeError
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


def create_writer(lake: DataLake, file_format: Format = "csv", part_bytes: int = 1) -> PartWriter:
    return PartWriter(lake.files, FOLDER, "w", file_format, part_bytes=part_bytes)


def make_page(number: int, rows: int = 3, size: int = 20) -> bytes:
    """A page of about `rows` times `size` bytes that compress by a quarter at most."""
    random = np.random.default_rng(number)
    messages = [b64encode(random.bytes(size)).decode()[:size] for _ in range(rows)]
    ids = [f"{number:03}{row:05}" for row in range(rows)]
    return rfc4180.write(pl.DataFrame([ids, messages], schema=list(MESSAGE_COLUMNS)))


def without_header(content: bytes) -> bytes:
    """A page without its header."""
    return content.partition(b"\r\n")[2]


def write_batch(writer: PartWriter, *pages: bytes, block_bytes: int = 10**6) -> Batch:
    with writer:
        for number, content in enumerate(pages):
            write_page(writer, number, content, block_bytes)
        batch = writer.finish()
    assert batch is not None
    return batch


def test_small_pages_share_a_part(lake: DataLake, folder: Path) -> None:
    pages = [make_page(number) for number in range(10)]
    batch = write_batch(create_writer(lake, part_bytes=200), *pages)
    assert [part.pages for part in batch.parts] == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    assert [(each.page, each.rows, each.bytes) for each in batch.pages] == [
        (number, 3, len(content)) for number, content in enumerate(pages)
    ]
    assert [part.name for part in batch.parts] == sorted(file.name for file in folder.iterdir())
    for part in batch.parts:
        held = b"".join(without_header(pages[number]) for number in part.pages)
        assert (folder / part.name).read_bytes() == b"customer_id,message\r\n" + held


@pytest.mark.parametrize("file_format", FORMATS)
def test_long_page_spans_parts(
    lake: DataLake, folder: Path, monkeypatch: pytest.MonkeyPatch, file_format: Format
) -> None:
    monkeypatch.setattr("blocks.storage.part_writer.ROW_GROUP_BYTES", 100_000)
    pages = [make_page(0), make_page(1, 2000, 1000), make_page(2)]
    writer = create_writer(lake, file_format, 300_000)
    batch = write_batch(writer, *pages, block_bytes=100_000)
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


@pytest.mark.parametrize("file_format", FORMATS)
def test_part_that_goes_to_disk_while_it_is_written_is_whole(
    lake: DataLake, folder: Path, monkeypatch: pytest.MonkeyPatch, file_format: Format
) -> None:
    monkeypatch.setattr("blocks.storage.part_writer.CACHED_BYTES", 1)
    pages = [make_page(number, 2000, 1000) for number in range(3)]
    (part,) = write_batch(create_writer(lake, file_format, 10**9), *pages).parts
    content = (folder / part.name).read_bytes()
    assert (part.bytes, part.sha256) == (len(content), sha256(content).hexdigest())
    if file_format == "csv":
        assert content == pages[0] + b"".join(map(without_header, pages[1:]))


def test_batch_holds_the_pages_since_the_last(lake: DataLake) -> None:
    with create_writer(lake, part_bytes=200) as writer:
        assert writer.finish() is None
        assert not writer.is_full
        write_page(writer, 0, make_page(0))
        assert not writer.is_full
        write_page(writer, 1, make_page(1, 9))
        assert writer.is_full
        first = writer.finish()
        assert not writer.is_full
        write_page(writer, 5, make_page(5, 0))
        second = writer.finish()
        assert writer.finish() is None
    assert first is not None
    assert second is not None
    assert [each.page for each in first.pages] == [0, 1]
    assert [(each.page, each.rows) for each in second.pages] == [(5, 0)]
    assert [(part.pages, part.rows) for part in second.parts] == [([5], 0)]


def test_parquet_part_names_its_versions(lake: DataLake, folder: Path) -> None:
    (part,) = write_batch(create_writer(lake, "parquet"), make_page(0)).parts
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
def test_parquet_has_the_lakes_compression(lake: DataLake, folder: Path, compression: Any) -> None:
    lake = lake.model_copy(update={"compression": compression})
    (part,) = write_batch(lake.part_writer("C", 2, "w"), make_page(0, 1000, 100)).parts
    group = parquet.ParquetFile(folder / part.name).metadata.row_group(0)
    used = {group.column(number).compression for number in range(2)}
    assert used == {{"none": "UNCOMPRESSED"}.get(compression, compression.upper())}


def test_csv_zst_part_is_compressed(lake: DataLake, folder: Path) -> None:
    pages = [make_page(0), make_page(1)]
    (part,) = write_batch(create_writer(lake, "csv.zst", 10**6), *pages).parts
    with pa.input_stream(str(folder / part.name), compression="zstd") as file:
        assert file.read() == pages[0] + without_header(pages[1])


# ---- what goes wrong --------------------------------------------------------------------------


class Broken(Exception):
    pass


def failing_blocks() -> Iterator[rfc4180.CsvBlock]:
    yield next(rfc4180.blocks(BytesIO(make_page(1))))
    raise Broken


@pytest.mark.parametrize("file_format", FORMATS)
def test_writer_that_ends_early_leaves_finished_parts_only(
    lake: DataLake, folder: Path, file_format: Format
) -> None:
    def fail() -> None:
        with create_writer(lake, file_format) as writer:
            write_page(writer, 0, make_page(0))
            writer.finish()
            writer.write(1, 9, failing_blocks())

    with pytest.raises(Broken):
        fail()
    finished = [file.name for file in folder.iterdir()]
    assert [name.partition(".")[0] for name in finished] == ["part-00000-00000-w"]
    with create_writer(lake, file_format, 10**6) as writer:
        write_page(writer, 0, make_page(0))
        assert len(list(folder.iterdir())) == 2
        assert lake.files.list_names(FOLDER) == finished
    assert [file.name for file in folder.iterdir()] == finished


@contextmanager
def full_disk() -> Iterator[None]:
    """No file can become longer, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("whole", [True, False], ids=["at its end", "within a page"])
@pytest.mark.parametrize("file_format", FORMATS)
def test_full_disk_leaves_nothing(
    lake: DataLake,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    file_format: Format,
    whole: bool,
) -> None:
    monkeypatch.setattr("blocks.storage.part_writer.ROW_GROUP_BYTES", 10**9 if whole else 1)
    content = make_page(0, 300, 1000)
    blocks = list(rfc4180.blocks(BytesIO(content), len(content) if whole else 1000))

    def fill() -> None:
        with create_writer(lake, file_format, 10**9) as writer:
            writer.write(0, len(content), blocks)
            writer.finish()

    with full_disk(), pytest.raises(DiskFull, match=f"no room left in .*lake for {FOLDER}/part-"):
        fill()
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("call", ["files.os.fsync", "files.os.replace"])
@pytest.mark.parametrize("file_format", FORMATS)
def test_part_that_cannot_be_published_leaves_nothing(
    lake: DataLake, folder: Path, monkeypatch: pytest.MonkeyPatch, file_format: Format, call: str
) -> None:
    failure = Mock(side_effect=OSError("Input/output error"))
    monkeypatch.setattr(f"blocks.storage.{call}", failure)
    with pytest.raises(LakeError, match="refuses .*: OSError"):
        write_batch(create_writer(lake, file_format), make_page(0))
    assert list(folder.iterdir()) == []


def test_part_that_cannot_be_compressed_leaves_nothing(lake: DataLake, folder: Path) -> None:
    lake = lake.model_copy(update={"compression": "gzip", "compression_level": 99})
    with pytest.raises(LakeError, match="refuses .*: OSError"):
        write_batch(lake.part_writer("C", 2, "w"), make_page(0))
    assert list(folder.iterdir()) == []
