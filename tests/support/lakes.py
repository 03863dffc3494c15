"""Runs written to a lake as an export writes them, without a service; and work on one path of it,
which must leave all others as they are.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any
from uuid import uuid4

import polars as pl
import pytest

from blocks import DataLake
from blocks.storage import delta
from blocks.storage.files import AlreadyThere, Files
from blocks.storage.manifest import (
    LATEST,
    Latest,
    Manifest,
    campaign_folder,
    manifest_name,
    run_folder,
)
from blocks.storage.part_writer import PART_BYTES, PartWriter
from nudgescribe import rfc4180


def write_run(
    lake: DataLake, campaign_id: str, run_number: int, *pages: dict[str, str]
) -> Manifest:
    """Writes pages of customers and their messages, whole and visible."""
    frames = (
        pl.DataFrame({"customer_id": list(page), "message": list(page.values())}) for page in pages
    )
    return write_pages(lake, campaign_id, run_number, map(rfc4180.write, frames))


def write_pages(
    lake: DataLake,
    campaign_id: str,
    run_number: int,
    pages: Iterable[bytes],
    part_bytes: int = PART_BYTES,
    block_bytes: int | None = PART_BYTES,
) -> Manifest:
    """Writes pages' CSVs, whole and visible."""
    folder = run_folder(campaign_id, run_number)
    generation = len(
        [name for name in lake.files.list_names(folder) if name.startswith("_manifest")]
    )
    with PartWriter(
        lake.files, folder, f"w{generation}", lake.format, part_bytes=part_bytes
    ) as writer:
        for number, page in enumerate(pages):
            write_page(writer, number, page, block_bytes)
        batch = writer.finish()
    assert batch is not None
    manifest = Manifest(
        generation=generation,
        campaign_id=campaign_id,
        run_number=run_number,
        customer_group_id=None,
        job_uid=None,
        writer=f"w{generation}",
        format=lake.format,
        parts=batch.parts,
        pages=batch.pages,
        rows=sum(page.rows for page in batch.pages),
        bytes=sum(part.bytes for part in batch.parts),
        written_at=datetime.now(UTC),
        versions={},
    )
    name = manifest_name(generation)
    lake.files.create(f"{folder}/{name}", manifest.model_dump_json().encode())
    if lake.format == "delta":
        delta.commit(lake.files, lake.options, manifest)
    latest = Latest(run_number=run_number, manifest=f"run_number={run_number}/{name}")
    lake.files.write(f"{campaign_folder(campaign_id)}/{LATEST}", latest.model_dump_json().encode())
    return manifest


def write_page(
    writer: PartWriter, number: int, csv: bytes, block_bytes: int | None = PART_BYTES
) -> None:
    """A page's CSV, in blocks of about this size; with None as an export reads a page."""
    with TemporaryFile() as file:
        file.write(csv)
        file.seek(0)
        read = rfc4180.mapped(file) if block_bytes is None else rfc4180.blocks(file, block_bytes)
        writer.write(number, len(csv), read)


def check_paths(base: str, options: dict[str, Any], root: str, folder: str, name: str) -> None:
    """Calls each operation for a file of a lake that lies in a new folder of `base`."""
    root = f"{base}/{uuid4()}/{root}"
    others = Files(base, options)
    files, path = Files(root, options), f"{folder}/{name}"
    own = root.removeprefix(f"{base}/")
    roots = [f"{own.partition('/')[0]}/{other}" for other in ("crm1", "eu1", "a")]
    near = {f"{other}/{path}" for other in (*roots, f"{own}1") if other != own}
    near |= {f"{own}/{folder}1/{name}", f"{own}/1{folder}/{name}"}
    for other in near:
        others.write(other, b"other")
    files.write(path, b"first")
    files.write(path, b"1")
    files.create(f"{folder}/{name}.new", b"2")
    with pytest.raises(AlreadyThere):
        files.create(path, b"3")
    assert files.exists(path)
    assert files.read(path) == b"1"
    with files.open(path) as opened:
        assert opened.read() == b"1"
    with TemporaryDirectory() as target:
        files.get(path, Path(target, "copy"))
        assert Path(target, "copy").read_bytes() == b"1"
    assert files.list_names(folder) == sorted([name, f"{name}.new"])
    assert {file.path for file in files.list_files(folder)} == {path, f"{path}.new"}
    assert files.list_names(path) == []
    files.remove(path)
    assert files.list_names(folder) == [f"{name}.new"]
    files.remove(folder)
    assert files.list_names(folder) == []
    assert [other for other in near if others.read(other) != b"other"] == []
