"""The customer list, extracted from the CRM into the lake's staging."""

from prefect import task
from prefect.logging import get_run_logger

from blocks import CrmSource, DataLake
from blocks.storage.parquet import observe_rows
from blocks.storage.scratch import scratch_folder
from tasks.customers.staging import Staged, describe
from tasks.journal.entries import Journal, Step
from tasks.journal.refresh import Refresh
from tasks.policies import RETRIED
from tasks.ui.console import StatusLine


@task(**RETRIED)
def extract_customers(crm: CrmSource, lake: DataLake, refresh: Refresh) -> Staged:
    """Stage the CRM's customer list, or return the one staged before, so that a retry works on the
    same customers. Raises SourceError.
    """

    def extract() -> Staged:
        path = f"{refresh.staging}/extracted.parquet"
        with scratch_folder("the customer list") as folder:
            local = folder / "extracted.parquet"
            with (
                StatusLine(f"Extracting from {crm.block_slug}") as line,
                observe_rows(lambda rows: line.update(f"Extracted {rows:,} rows so far")),
            ):
                crm.extract(local)
            lake.files.put(local, path, private=True)
            return describe(local, path)

    staged = Journal(lake.files, refresh.journal).step(Step.EXTRACTED, Staged, extract)
    get_run_logger().info("Extracted %s rows from %s", f"{staged.rows:,}", crm.block_slug)
    return staged
