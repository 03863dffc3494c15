"""Erasure from the lake's tables that name customers: rejected rows, holdouts, members, changes."""

from __future__ import annotations

from collections.abc import Iterator

from prefect import task
from prefect.logging import get_run_logger

from blocks import DataLake
from blocks.storage.errors import Damaged, LakeError
from blocks.storage.files import Files
from blocks.storage.history import SYNC_CHANGES
from blocks.storage.parquet import ParquetSink, read_batches
from blocks.storage.reader import to_polars
from blocks.storage.scratch import scratch_folder
from blocks.storage.segments import SEGMENTS
from nudgescribe.bases import Frozen
from nudgescribe.lazy import pa, parquet, pl
from tasks.customers.holdout import HOLDOUTS
from tasks.erasure.listed import Find, ToErase, finder
from tasks.journal.entries import Journal, Step
from tasks.journal.refresh import Refresh
from tasks.policies import RETRIED
from tasks.refresh.plan import PLANS

TABLES = ("quarantine", HOLDOUTS, SEGMENTS, SYNC_CHANGES, PLANS)
COLUMNS = ("identifier", "customer_id")
PUBLIC = (HOLDOUTS, PLANS)
"""Folders whose files are not for their owner only."""


class TableDamaged(Damaged):
    """A table of the lake cannot be read, so nobody knows whom it names."""

    advice = "Restore it from a backup, or remove it; then retry this flow run."


class InTables(Frozen):
    """How many `rows` were taken out of how many `files` of tables."""

    rows: int = 0
    files: int = 0


@task(**RETRIED)
def erase_from_tables(to_erase: ToErase, lake: DataLake, run: Refresh) -> InTables:
    """Write each file of the lake's tables that names the customers again without them.

    Where a hash stands for an identifier, it is looked for, too. Raises TableDamaged.
    """

    def erase() -> InTables:
        counts = InTables()
        with to_erase.ids(lake) as ids:
            find = finder(pl.concat([ids, lake.show_identifiers(ids)]))
            for path in _files(lake.files):
                if rows := _erase_from(lake.files, path, find):
                    counts = InTables(rows=counts.rows + rows, files=counts.files + 1)
        get_run_logger().info("Took %s rows out of %s files", f"{counts.rows:,}", counts.files)
        return counts

    return Journal(lake.files, run.journal).step(Step.CHANGED, InTables, erase)


def _files(files: Files) -> Iterator[str]:
    for folder in TABLES:
        for file in files.list_files(folder):
            if file.path.endswith(".parquet"):
                yield file.path


def _erase_from(files: Files, path: str, find: Find) -> int:
    """Write a file again without the rows of customers; return how many these were."""
    with scratch_folder(path) as folder:
        local, erased = folder / "table.parquet", 0
        files.get(path, local)
        try:
            with parquet.ParquetFile(local) as opened:
                schema = opened.schema_arrow
            named = [name for name in COLUMNS if name in schema.names]
            if not named:
                return 0
            kept = folder / "kept.parquet"
            with ParquetSink(kept, schema) as sink:
                for batch in read_batches(local):
                    table = pa.Table.from_batches([batch]).cast(schema)
                    found = find(to_polars(table)[named[0]])
                    erased += int(found.sum())
                    sink.write(table.filter(pa.array(~found)))
        except OSError as error:
            if error.errno:  # the disk's; that of a decompressor has no number
                raise
            raise TableDamaged.at(path) from None
        except (pa.ArrowException, LakeError):
            raise TableDamaged.at(path) from None
        if erased:
            files.put(kept, path, private=not path.startswith(PUBLIC))
    return erased
