"""Reading the runs in the lake: manifests, tables, lazy frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pydantic import ValidationError

from blocks.storage.errors import Damaged, LakeUnreachable, NotInLake, TooNew
from blocks.storage.files import Files, LakeError
from blocks.storage.manifest import (
    LATEST,
    MESSAGES,
    SCHEMA_VERSION,
    Format,
    Latest,
    Manifest,
    Part,
    campaign_folder,
    is_of_a_run,
    manifest_name,
    parse_generation,
    run_folder,
    run_numbers,
)
from nudgescribe import __version__, rfc4180
from nudgescribe.bases import Frozen
from nudgescribe.contract import MESSAGE_COLUMNS
from nudgescribe.lazy import io_plugins, pa, parquet, pl

ROWS_AT_ONCE = 50_000


class ManifestDamaged(Damaged):
    """A run's manifest cannot be read."""

    advice = "Restore it from a backup, or remove it and export the run again."


class PartUnreadable(Damaged):
    """A part of a run is damaged or cut off."""

    advice = "Restore it from a backup, or export the run again with rewrite."


class PartChanged(Damaged):
    """A part of a run is missing, or is another file than the one that was written."""

    advice = PartUnreadable.advice


class _Version(Frozen):
    schema_version: int


def find_manifest(files: Files, campaign_id: str, run_number: int) -> Manifest | None:
    """Return a run's manifest of the highest generation; None if the run is not in the lake."""
    folder = run_folder(campaign_id, run_number)
    paths = select_newest_manifests(f"{folder}/{name}" for name in files.list_names(folder))
    return read_manifest(files, paths[0]) if paths else None


def read_manifest(files: Files, path: str) -> Manifest:
    """Read a manifest. Raises ManifestDamaged, TooNew."""
    content = files.read(path)
    try:
        version = _Version.model_validate_json(content).schema_version
        if version > SCHEMA_VERSION:
            raise TooNew(
                f"{path} was written in version {version} of the lake; Nudgeflow {__version__} "
                f"knows versions up to {SCHEMA_VERSION}."
            )
        manifest = Manifest.model_validate_json(content)
    except ValidationError:
        raise ManifestDamaged.at(path) from None
    folder = run_folder(manifest.campaign_id, manifest.run_number)
    if path != f"{folder}/{manifest_name(manifest.generation)}":
        raise ManifestDamaged(f"{path} is the manifest of another run: it belongs in {folder}.")
    return manifest


def find_newest(files: Files, campaign_id: str) -> Latest | None:
    """Return a campaign's newest run by its manifests; None if it has no run in the lake."""
    folder = campaign_folder(campaign_id)
    for number in run_numbers(files.list_names(folder)):
        run = run_folder(campaign_id, number)
        paths = select_newest_manifests(f"{run}/{name}" for name in files.list_names(run))
        if paths:
            return Latest(run_number=number, manifest=paths[0].removeprefix(f"{folder}/"))
    return None


def read_pointer(files: Files, campaign_id: str) -> Latest | None:
    """Return what `_latest.json` says, for engines outside; None if it cannot be read."""
    try:
        return Latest.model_validate_json(files.read(f"{campaign_folder(campaign_id)}/{LATEST}"))
    except LakeUnreachable:
        raise
    except (LakeError, ValidationError):
        return None


def list_manifests(files: Files) -> tuple[list[Manifest], list[LakeError]]:
    """Return the newest manifest of every run, sorted by campaign and run number, and the errors
    of those that cannot be read.
    """
    paths = select_newest_manifests(file.path for file in files.list_files(MESSAGES))
    manifests = read_manifests(files, paths).values()
    listed = (manifest for manifest in manifests if isinstance(manifest, Manifest))
    return (
        sorted(listed, key=lambda manifest: (manifest.campaign_id, manifest.run_number)),
        [error for error in manifests if isinstance(error, LakeError)],
    )


def read_manifests(files: Files, paths: Iterable[str]) -> dict[str, Manifest | LakeError]:
    """Return manifests by their paths, and the errors of those that cannot be read."""
    manifests: dict[str, Manifest | LakeError] = {}
    for path in paths:
        try:
            manifests[path] = read_manifest(files, path)
        except LakeUnreachable:
            raise
        except LakeError as error:
            manifests[path] = error
    return manifests


def select_newest_manifests(paths: Iterable[str]) -> list[str]:
    """Return, of the paths of any files, each run's manifest of the highest generation."""
    newest: dict[str, int] = {}
    for path in paths:
        folder, _, name = path.rpartition("/")
        generation = parse_generation(name) if is_of_a_run(path) else None
        if generation is not None:
            newest[folder] = max(generation, newest.get(folder, 0))
    return [f"{folder}/{manifest_name(generation)}" for folder, generation in newest.items()]


def read_tables(
    files: Files,
    folder: str,
    parts: Sequence[Part],
    file_format: Format,
    columns: Sequence[str] = MESSAGE_COLUMNS,
) -> Iterator[tuple[Part, pa.Table]]:
    """Yield the rows of parts in their order, some ten thousand in a table.

    Raises PartUnreadable.
    """
    for part in parts:
        path = f"{folder}/{part.name}"
        with files.open(path) as file:
            tables = _read_part(file, file_format, columns)
            while (table := _next_table(tables, path)) is not None:
                yield part, table


def _read_part(file: Any, file_format: Format, columns: Sequence[str]) -> Iterator[pa.Table]:
    if file_format in ("parquet", "delta"):
        batches = parquet.ParquetFile(file).iter_batches(ROWS_AT_ONCE, columns=list(columns))
        yield from (pa.Table.from_batches([batch]) for batch in batches)
        return
    if file_format == "csv.zst":
        file = pa.CompressedInputStream(pa.PythonFile(file, "r"), "zstd")
    yield from (block.table.select(columns) for block in rfc4180.blocks(file))


def _next_table(tables: Iterator[pa.Table], path: str) -> pa.Table | None:
    try:
        return next(tables, None)
    except (rfc4180.MalformedCsv, pa.ArrowException):
        raise PartUnreadable.at(path) from None
    except OSError as error:
        if error.errno:  # the disk's; that of a decompressor has no number
            raise
        raise PartUnreadable.at(path) from None


def check_part(files: Files, folder: str, part: Part) -> None:
    """Check a part's content against what its manifest says. Raises PartChanged."""
    path = f"{folder}/{part.name}"
    try:
        same = files.sha256(path) == part.sha256
    except NotInLake:
        raise PartChanged(f"{path} is missing.") from None
    if not same:
        raise PartChanged(f"{path} is not what its manifest says: it was changed or damaged.")


def check_parts(files: Files, manifest: Manifest) -> None:
    """Check a run's parts against its manifest. Raises PartChanged."""
    folder = run_folder(manifest.campaign_id, manifest.run_number)
    for part in manifest.parts:
        check_part(files, folder, part)


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

    return io_plugins.register_io_source(
        batches, schema=dict.fromkeys(MESSAGE_COLUMNS, pl.String())
    )


def to_polars(table: pa.Table) -> pl.DataFrame:
    """Return an Arrow table as a frame."""
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame
