"""Reading the runs in the lake: manifests, tables, lazy frames."""

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
    manifest_name,
    parse_generation,
    run_folder,
)
from nudgescribe import rfc4180
from nudgescribe.contract import MESSAGE_COLUMNS

ROWS_AT_ONCE = 50_000


def find_manifest(files: Files, campaign_id: str, run_number: int) -> Manifest | None:
    """Return a run's manifest of the highest generation; None if the run is not in the lake."""
    folder = run_folder(campaign_id, run_number)
    paths = select_newest_manifests(f"{folder}/{name}" for name in files.list_names(folder))
    return read_manifest(files, paths[0]) if paths else None


def read_manifest(files: Files, path: str) -> Manifest:
    """Read a manifest. Raises LakeError if it is none of this version."""
    try:
        return Manifest.model_validate_json(files.read(path))
    except ValidationError:
        raise LakeError(f"{path} is not a manifest of this version.") from None


def find_latest_run(files: Files, campaign_id: str) -> int | None:
    """Return the number of a campaign's newest run in the lake; None if there is none."""
    path = f"{campaign_folder(campaign_id)}/{LATEST}"
    if not files.exists(path):
        return None
    return Latest.model_validate_json(files.read(path)).run_number


def list_manifests(files: Files) -> list[Manifest]:
    """Return the newest manifest of every run, sorted by campaign and run number."""
    paths = select_newest_manifests(file.path for file in files.list_files(MESSAGES))
    listed = [read_manifest(files, path) for path in paths]
    return sorted(listed, key=lambda manifest: (manifest.campaign_id, manifest.run_number))


def select_newest_manifests(paths: Iterable[str]) -> list[str]:
    """Return, of the paths of any files, each run's manifest of the highest generation."""
    newest: dict[str, int] = {}
    for path in paths:
        folder, _, name = path.rpartition("/")
        if (generation := parse_generation(name)) is not None:
            newest[folder] = max(generation, newest.get(folder, 0))
    return [f"{folder}/{manifest_name(generation)}" for folder, generation in newest.items()]


def read_tables(
    files: Files,
    folder: str,
    parts: Sequence[Part],
    file_format: Format,
    columns: Sequence[str] = MESSAGE_COLUMNS,
) -> Iterator[tuple[Part, pa.Table]]:
    """Yield the rows of parts in their order, some ten thousand in a table."""
    for part in parts:
        with files.open(f"{folder}/{part.name}") as file:
            for table in _read_part(file, file_format, columns):
                yield part, table


def _read_part(file: Any, file_format: Format, columns: Sequence[str]) -> Iterator[pa.Table]:
    if file_format in ("parquet", "delta"):
        batches = parquet.ParquetFile(file).iter_batches(ROWS_AT_ONCE, columns=list(columns))
        yield from (pa.Table.from_batches([batch]) for batch in batches)
        return
    if file_format == "csv.zst":
        file = pa.CompressedInputStream(pa.PythonFile(file, "r"), "zstd")
    yield from (block.table.select(columns) for block in rfc4180.blocks(file))


def read_frames(files: Files, manifest: Manifest) -> Iterator[pl.DataFrame]:
    """Yield a run's customer_id and message, some ten thousand rows in a frame."""
    folder = run_folder(manifest.campaign_id, manifest.run_number)
    tables = read_tables(files, folder, manifest.parts, manifest.format)
    return (to_polars(table) for _, table in tables)


def scan(files: Files, manifest: Manifest) -> pl.LazyFrame:
    """Return a lazy frame of a run's customer_id and message, which are read when collected."""
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
    """Return an Arrow table as a frame."""
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame
