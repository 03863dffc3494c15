"""The customer list, extracted from the CRM into the lake's staging."""

from prefect import task
from prefect.logging import get_run_logger

from blocks import CrmSource, DataLake
from blocks.storage.parquet import observe_rows
from blocks.storage.scratch import scratch_folder
from tasks.customers.staging import RowsLost, Staged, describe
from tasks.journal.entries import Journal, Step
from tasks.journal.refresh import Refresh
from tasks.policies import RETRIED
from tasks.ui.console import StatusLine


@task(**RETRIED)
def extract_customers(
    crm: CrmSource, lake: DataLake, refresh: Refresh, needed: frozenset[str] | None
) -> Staged:
    """Stage the `needed` columns of the CRM's customer list, or return the list staged before, so
    that a retry works on the same customers. Raises SourceError; RowsLost.
    """

    def extract() -> Staged:
        path = f"{refresh.staging}/extracted.parquet"
        with scratch_folder("the customer list") as folder:
            local = folder / "extracted.parquet"
            with (
                StatusLine(f"Extracting from {crm.block_slug}") as line,
                observe_rows(lambda rows: line.update(f"Extracted {rows:,} rows so far")),
            ):
                rows = crm.extract(local, needed)
            found = describe(local, path)
            if found.rows != rows:
                raise RowsLost(f"{crm.block_slug} gave {rows:,} rows, {found.rows:,} are staged.")
            lake.files.put(local, path, private=True)
            return found

    staged = Journal(lake.files, refresh.journal).step(Step.EXTRACTED, Staged, extract)
    get_run_logger().info("Extracted %s rows from %s", f"{staged.rows:,}", crm.block_slug)
    return staged
