"""Erasure from the runs in the lake: their parts are written again without the customers."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from hashlib import sha256

from prefect import task
from prefect.logging import get_run_logger

from blocks import DataLake
from blocks.storage.files import AlreadyThere, Files
from blocks.storage.manifest import (
    DELTA_LOG,
    MESSAGES,
    Format,
    Manifest,
    Page,
    Part,
    is_of_a_run,
    manifest_name,
    parse_generation,
    run_folder,
)
from blocks.storage.part_writer import SUFFIX, VERSIONS, Erasing, PartWriter
from blocks.storage.reader import (
    PartUnreadable,
    find_manifest,
    list_manifests,
    read_tables,
    to_polars,
)
from blocks.storage.segments import carry_segments, remove_older_segments
from nudgescribe import rfc4180
from nudgescribe.bases import Frozen
from nudgescribe.contract import MESSAGE_COLUMNS
from nudgescribe.lazy import np, npt
from tasks.erasure.listed import Find, ToErase, finder
from tasks.export.run import update_pointer
from tasks.journal.entries import Journal, Step
from tasks.journal.refresh import Refresh
from tasks.policies import RETRIED

ID = MESSAGE_COLUMNS[0]


class InRuns(Frozen):
    """How many `rows` were taken out of how many `runs` in the lake."""

    rows: int = 0
    runs: int = 0


@task(**RETRIED)
def erase_from_runs(to_erase: ToErase, lake: DataLake, run: Refresh) -> InRuns:
    """Write each run that has rows of the customers again without these, under the next manifest,
    and remove every other file that has some. All else of the lake stays as it is.

    Raises PartUnreadable, ManifestDamaged: what cannot be read may hold them.
    """

    def erase() -> InRuns:
        counts = InRuns()
        with to_erase.ids(lake) as ids:
            find = finder(ids)
            manifests, problems = list_manifests(lake.files)
            for problem in problems:
                raise problem
            for manifest in manifests:
                erased = _erase_from(lake, manifest, find, run)
                if erased:
                    counts = InRuns(rows=counts.rows + erased, runs=counts.runs + 1)
            _remove_orphans(lake.files, find)
        get_run_logger().info("Removed %s rows from %s runs", f"{counts.rows:,}", counts.runs)
        return counts

    return Journal(lake.files, run.journal).step(Step.COMMITTED, InRuns, erase)


def _erase_from(lake: DataLake, manifest: Manifest, find: Find, run: Refresh) -> int:
    """Erase customers from a run; return the number of its rows that were theirs."""
    files, erased = lake.files, 0
    while True:
        found = [_found(files, manifest, part, find) for part in manifest.parts]
        if not any(each.any() for each in found):
            break
        erased = int(sum(each.sum() for each in found))
        written = _write_again(lake, manifest, find, found, run)
        carry_segments(files, manifest, written)
        folder = run_folder(manifest.campaign_id, manifest.run_number)
        with suppress(AlreadyThere):
            content = written.model_dump_json(indent=1).encode()
            files.create(f"{folder}/{manifest_name(written.generation)}", content)
        # Somebody else may have written the run meanwhile: this looks again.
        newest = find_manifest(files, manifest.campaign_id, manifest.run_number)
        assert newest
        manifest = newest
    _finish(lake, manifest, find)
    return erased


def _found(files: Files, manifest: Manifest, part: Part, find: Find) -> npt.NDArray[np.bool_]:
    """Return of each row of a part whether it is one of the customers'. Raises PartUnreadable."""
    folder = run_folder(manifest.campaign_id, manifest.run_number)
    tables = read_tables(files, folder, [part], manifest.format, [ID])
    found = [find(to_polars(table)[ID]).to_numpy() for _, table in tables]
    joined = np.concatenate([np.zeros(0, np.bool_), *found])
    if len(joined) != part.rows:
        raise PartUnreadable.at(f"{folder}/{part.name}")
    return joined


def _write_again(
    lake: DataLake,
    manifest: Manifest,
    find: Find,
    found: list[npt.NDArray[np.bool_]],
    run: Refresh,
) -> Manifest:
    """Write the parts that have rows of the customers again; return the manifest to create."""
    generation, parts = manifest.generation + 1, list[Part]()
    folder = run_folder(manifest.campaign_id, manifest.run_number)
    for number, (part, theirs) in enumerate(zip(manifest.parts, found, strict=True)):
        if not theirs.any():
            parts.append(part)
        elif not theirs.all():
            writer = _writer(run, folder, generation, number)
            parts.append(_write_part(lake, manifest, part, find, writer))
    pages = _pages(manifest, np.concatenate(found))
    return manifest.model_copy(
        update={
            "generation": generation,
            "writer": _writer(run, folder, generation),
            "parts": parts,
            "pages": pages,
            "rows": sum(page.rows for page in pages),
            "bytes": sum(part.bytes for part in parts),
            "written_at": datetime.now(UTC),
            "versions": VERSIONS,
        }
    )


def _writer(run: Refresh, *names: object) -> str:
    """Return a name for what this flow run writes; a retry writes the same files."""
    return sha256("/".join(map(str, [run.id, *names])).encode()).hexdigest()[:8]


def _write_part(
    lake: DataLake, manifest: Manifest, part: Part, find: Find, writer_name: str
) -> Part:
    folder = run_folder(manifest.campaign_id, manifest.run_number)
    writer = PartWriter(
        lake.files,
        folder,
        writer_name,
        manifest.format,
        lake.compression,
        lake.parquet_level,
        part_bytes=sys.maxsize,
    )
    with writer:
        blocks = _blocks(lake.files, folder, part, manifest.format, raw=writer.writes_raw)
        writer.write(part.pages[0], 0, Erasing(find).blocks(blocks))
        batch = writer.finish()
    assert batch
    (written,) = batch.parts
    return written.model_copy(update={"pages": part.pages})


def _blocks(
    files: Files, folder: str, part: Part, file_format: Format, *, raw: bool
) -> Iterator[rfc4180.CsvBlock]:
    for _, table in read_tables(files, folder, [part], file_format):
        rows = (rfc4180.write(batch, header=False) for batch in table.to_batches())
        yield rfc4180.CsvBlock(b"".join(rows) if raw else b"", table)


def _pages(manifest: Manifest, found: npt.NDArray[np.bool_]) -> list[Page]:
    """Return the pages without the rows that were found; rows are in the order of pages."""
    pages, first = list[Page](), 0
    for page in manifest.pages:
        erased = int(found[first : first + page.rows].sum())
        first += page.rows
        update = {"rows": page.rows - erased, "erased": page.erased + erased}
        pages.append(page.model_copy(update=update))
    return pages


def _finish(lake: DataLake, manifest: Manifest, find: Find) -> None:
    """Remove what the run's newest manifest has replaced, if that holds customers, once Delta and
    the pointer show the new files. A retry finds it as long as there is some.
    """
    files = lake.files
    folder = run_folder(manifest.campaign_id, manifest.run_number)
    kept = {part.name for part in manifest.parts}
    names = [name for name in files.list_names(folder) if is_of_a_run(f"{folder}/{name}")]
    parts = [name for name in names if parse_generation(name) is None and name not in kept]
    holding = [name for name in parts if _holds(files, f"{folder}/{name}", find)]
    if not holding:
        return
    if manifest.format == "delta" or files.exists(DELTA_LOG):
        from blocks.storage import delta

        if manifest.format == "delta":
            delta.commit(files, lake.options, manifest)
        else:  # the table may show the run as it was before it was written in another format
            gone = manifest.model_copy(update={"parts": [*map(_unknown_part, holding)]})
            delta.remove(files, lake.options, gone)
    update_pointer(files, manifest.campaign_id)
    for name in names:
        generation = parse_generation(name)
        if generation is not None and generation < manifest.generation:
            files.remove(f"{folder}/{name}")
    remove_older_segments(files, manifest)
    for name in holding:
        files.remove(f"{folder}/{name}")


def _remove_orphans(files: Files, find: Find) -> None:
    """Remove parts of runs that have no manifest, if they hold customers."""
    stored = [file.path for file in files.list_files(MESSAGES) if is_of_a_run(file.path)]
    manifests = [path for path in stored if parse_generation(path.rpartition("/")[2]) is not None]
    whole = {path.rpartition("/")[0] for path in manifests}
    for path in {*stored}.difference(manifests):
        if path.rpartition("/")[0] not in whole and _holds(files, path, find):
            files.remove(path)


def _holds(files: Files, path: str, find: Find) -> bool:
    """Return whether a part that no manifest names holds customers, or cannot be read."""
    folder, _, name = path.rpartition("/")
    formats: list[Format] = [each for each, suffix in SUFFIX.items() if name.endswith(f".{suffix}")]
    if not formats:
        return False  # none of ours
    try:
        tables = read_tables(files, folder, [_unknown_part(name)], formats[0], [ID])
        return any(find(to_polars(table)[ID]).any() for _, table in tables)
    except PartUnreadable:
        return True


def _unknown_part(name: str) -> Part:
    """Return a part that no manifest names, of which no more is known."""
    return Part(name=name, pages=[0], rows=0, bytes=0, sha256="")
