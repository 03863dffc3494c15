"""The runs that are whole in a lake, read back value by value."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import polars as pl
import pyarrow as pa
from polars.io.plugins import register_io_source
from pyarrow import parquet
from pydantic import ValidationError

from blocks.storage.files import Files, LakeError
from blocks.storage.manifest import (
    LATEST,
    MESSAGES,
    Format,
    Latest,
    Manifest,
    Part,
    campaign_folder,
    generation_of,
    manifest_name,
    run_folder,
)
from nudgescribe import rfc4180
from nudgescribe.contract import MESSAGE_COLUMNS

ROWS_AT_ONCE = 50_000


def find_manifest(files: Files, campaign_id: str, run_number: int) -> Manifest | None:
    """What a run in the lake is made of; None while it is not there as a whole."""
    folder = run_folder(campaign_id, run_number)
    paths = select_newest_manifests(f"{folder}/{name}" for name in files.list_names(folder))
    return read_manifest(files, paths[0]) if paths else None


def read_manifest(files: Files, path: str) -> Manifest:
    """Raises LakeError."""
    try:
        return Manifest.model_validate_json(files.read(path))
    except ValidationError:
        raise LakeError(f"{path} is not a manifest of this version.") from None


def find_latest_run(files: Files, campaign_id: str) -> int | None:
    """The newest run of a campaign that is whole; None if there is none."""
    path = f"{campaign_folder(campaign_id)}/{LATEST}"
    if not files.exists(path):
        return None
    return Latest.model_validate_json(files.read(path)).run_number


def list_manifests(files: Files) -> list[Manifest]:
    """The newest manifest of every run, by campaign and run number."""
    paths = select_newest_manifests(file.path for file in files.list_files(MESSAGES))
    found = [read_manifest(files, path) for path in paths]
    return sorted(found, key=lambda one: (one.campaign_id, one.run_number))


def select_newest_manifests(paths: Iterable[str]) -> list[str]:
    """Of the files of some runs, each run's manifest that counts."""
    newest: dict[str, int] = {}
    for path in paths:
        folder, _, name = path.rpartition("/")
        if (generation := generation_of(name)) is not None:
            newest[folder] = max(generation, newest.get(folder, 0))
    return [f"{folder}/{manifest_name(generation)}" for folder, generation in newest.items()]


def read_tables(
    files: Files,
    folder: str,
    parts: Sequence[Part],
    file_format: Format,
    columns: Sequence[str] = MESSAGE_COLUMNS,
) -> Iterator[tuple[Part, pa.Table]]:
    """The rows of parts in their order, some ten thousand at a time."""
    for part in parts:
        with files.open(f"{folder}/{part.name}") as file:
            if file_format in ("csv", "csv.zst"):
                source: Any = file
                if file_format == "csv.zst":
                    source = pa.CompressedInputStream(pa.PythonFile(file, "r"), "zstd")
                for block in rfc4180.blocks(source):
                    yield part, block.table.select(columns)
            else:
                opened = parquet.ParquetFile(file)
                for batch in opened.iter_batches(ROWS_AT_ONCE, columns=list(columns)):
                    yield part, pa.Table.from_batches([batch])


def scan(files: Files, manifest: Manifest) -> pl.LazyFrame:
    """A run's customer_id and message, read when collected and as far as needed."""
    folder = run_folder(manifest.campaign_id, manifest.run_number)

    def batches(  # pragma: no cover - polars calls it in a thread that coverage does not see
        columns: list[str] | None,
        predicate: pl.Expr | None,
        rows: int | None,
        batch_size: int | None,
    ) -> Iterator[pl.DataFrame]:
        wanted = columns if columns is not None else list(MESSAGE_COLUMNS)
        for _, table in read_tables(files, folder, manifest.parts, manifest.format, wanted):
            frame = to_polars(table)
            if rows is not None:
                frame = frame.head(rows)
                rows -= frame.height
            yield frame if predicate is None else frame.filter(predicate)
            if rows == 0:
                return

    return register_io_source(batches, schema=dict.fromkeys(MESSAGE_COLUMNS, pl.String()))


def to_polars(table: pa.Table) -> pl.DataFrame:
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame
