"""The customer list, extracted from the CRM into the lake's staging."""

from functools import partial
from pathlib import Path

from prefect import task
from prefect.logging import get_run_logger

from blocks import CrmSource, DataLake
from blocks.storage.parquet import observe_rows
from blocks.storage.scratch import scratch_folder
from nudgescribe.errors import counted
from nudgescribe.lazy import parquet
from tasks.customers.freshness import MaxAge
from tasks.customers.staging import RowsLost, Staged, describe
from tasks.journal.entries import Journal, Step
from tasks.journal.refresh import Refresh
from tasks.policies import RETRIED
from tasks.ui.console import StatusLine


@task(**RETRIED)
def extract_customers(
    crm: CrmSource,
    lake: DataLake,
    refresh: Refresh,
    needed: frozenset[str] | None,
    max_age: MaxAge | None = None,
) -> Staged:
    """Stage the `needed` columns of the CRM's customer list, or return the list staged before, so
    that a retry works on the same customers. Raises SourceError; RowsLost; StaleList.
    """

    def extract() -> Staged:
        path = f"{refresh.staging}/extracted.parquet"
        with scratch_folder("the customer list") as folder:
            local = folder / "extracted.parquet"
            if max_age:
                max_age.wait(partial(_extract_fresh, crm, local, needed, max_age))
            else:
                _extract(crm, local, needed)
            lake.files.put(local, path, private=True)
            return describe(local, path)

    journal = Journal(lake.files, refresh.journal)
    if max_age and (entry := journal.entries().get(Step.EXTRACTED)):
        max_age.check_staged(entry.written_at)
    staged = journal.step(Step.EXTRACTED, Staged, extract)
    get_run_logger().info("Extracted %s rows from %s", f"{staged.rows:,}", crm.block_slug)
    return staged


def _extract_fresh(
    crm: CrmSource, local: Path, needed: frozenset[str] | None, max_age: MaxAge
) -> None:
    """Extract the list unless it is too old. Raises StaleList."""
    max_age.check_source(crm)
    if needed and max_age.column:
        needed |= {max_age.column}
    _extract(crm, local, needed)
    max_age.check_list(crm, local)


def _extract(crm: CrmSource, local: Path, needed: frozenset[str] | None) -> None:
    with (
        StatusLine(f"Extracting from {crm.block_slug}") as line,
        observe_rows(lambda rows: line.update(f"Extracted {counted(rows, 'row')} so far")),
    ):
        rows = crm.extract(local, needed)
    written = parquet.read_metadata(local).num_rows
    if written != rows:
        raise RowsLost(f"{crm.block_slug} gave {counted(rows, 'row')}, {written:,} are staged.")
