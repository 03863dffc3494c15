"""The customer list, extracted from the CRM into the lake's staging."""

from prefect import task
from prefect.logging import get_run_logger

from blocks import CrmSource, DataLake
from blocks.storage.parquet import observe_rows
from blocks.storage.scratch import scratch_folder
from tasks.campaigns import Refresh
from tasks.customers.staging import Staged, describe, folder_of
from tasks.policies import READ
from tasks.ui.console import StatusLine


@task(**READ)
def extract_customers(crm: CrmSource, lake: DataLake, refresh: Refresh) -> Staged:
    """Stage the CRM's customer list, or return the one staged before, so that a retry works on the
    same customers. Raises SourceError.
    """
    path = f"{folder_of(refresh)}/extracted.parquet"
    with scratch_folder("the customer list") as folder:
        local = folder / "extracted.parquet"
        if lake.files.exists(path):
            lake.files.get(path, local)
        else:
            with (
                StatusLine(f"Extracting from {crm.block_slug}") as line,
                observe_rows(lambda rows: line.update(f"Extracted {rows:,} rows so far")),
            ):
                crm.extract(local)
            lake.files.put(local, path, private=True)
        staged = describe(local, path)
    get_run_logger().info("Extracted %s rows from %s", f"{staged.rows:,}", crm.block_slug)
    return staged
