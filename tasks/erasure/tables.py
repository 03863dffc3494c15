"""Erasure from the lake's tables that name customers: rejected rows, holdouts, members, changes,
and what is handed over.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from prefect import task
from prefect.logging import get_run_logger

from blocks import DataLake
from blocks.storage import handover
from blocks.storage.errors import Damaged, LakeError
from blocks.storage.files import Files
from blocks.storage.handover import HANDOVER
from blocks.storage.history import SYNC_CHANGES
from blocks.storage.parquet import ParquetSink, read_batches
from blocks.storage.reader import to_polars
from blocks.storage.scratch import scratch_folder
from blocks.storage.segments import SEGMENTS
from nudgescribe import rfc4180
from nudgescribe.bases import Frozen
from nudgescribe.lazy import pa, parquet, pl
from nudgescribe.rfc4180 import MalformedCsv
from tasks.customers.holdout import HOLDOUTS
from tasks.erasure.listed import Find, ToErase, finder
from tasks.journal.entries import Journal, Step
from tasks.journal.refresh import Refresh
from tasks.policies import RETRIED
from tasks.refresh.plan import PLANS

TABLES = ("quarantine", HOLDOUTS, SEGMENTS, SYNC_CHANGES, PLANS, HANDOVER)
COLUMNS = ("identifier", "customer_id")
PUBLIC = (HOLDOUTS, PLANS, HANDOVER)
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
        get_run_logger().info("Removed %s rows from %s files", f"{counts.rows:,}", counts.files)
        return counts

    return Journal(lake.files, run.journal).step(Step.CHANGED, InTables, erase)


def _files(files: Files) -> Iterator[str]:
    for folder in TABLES:
        for file in files.list_files(folder):
            if file.path.endswith((".parquet", ".csv")):
                yield file.path


def _erase_from(files: Files, path: str, find: Find) -> int:
    """Write a file again without the rows of customers; return how many these were."""
    with scratch_folder(path) as folder:
        local, kept = folder / "table", folder / "kept"
        files.get(path, local)
        keep = _keep_csv if path.endswith(".csv") else _keep_parquet
        try:
            erased = keep(local, kept, find)
        except OSError as error:
            if error.errno:  # the disk's; that of a decompressor has no number
                raise
            raise TableDamaged.at(path) from None
        except (pa.ArrowException, MalformedCsv, LakeError):
            raise TableDamaged.at(path) from None
        if erased:
            files.put(kept, path, private=not path.startswith(PUBLIC))
    return erased


def _keep_parquet(local: Path, kept: Path, find: Find) -> int:
    with parquet.ParquetFile(local) as opened:
        schema = opened.schema_arrow
    named = [name for name in COLUMNS if name in schema.names]
    if not named:
        return 0
    erased = 0
    with ParquetSink(kept, schema) as sink:
        # A holdout tells in it which key has chosen its customers.
        for key, value in (schema.metadata or {}).items():
            sink.annotate(key, value)
        for batch in read_batches(local):
            table = pa.Table.from_batches([batch]).cast(schema)
            found = find(to_polars(table)[named[0]])
            erased += int(found.sum())
            sink.write(table.filter(pa.array(~found)))
    return erased


def _keep_csv(local: Path, kept: Path, find: Find) -> int:
    erased = 0
    with local.open("rb") as csv, handover.writer(kept, "csv") as write:
        for frame in rfc4180.frames(csv):
            found = find(frame[handover.ID])
            erased += int(found.sum())
            # Of those removed there is no message, which is not an empty one.
            message = pl.when(pl.col(handover.CHANGE) != "removed").then(handover.MESSAGE)
            write(frame.filter(~found).with_columns(message.alias(handover.MESSAGE)))
    return erased
