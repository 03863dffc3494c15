"""The customer list out of the CRM, into the lake's staging."""

from prefect import task
from prefect.logging import get_run_logger

from blocks import CrmSource, DataLake
from blocks.loading import load
from blocks.storage.parquet import watched
from blocks.storage.scratch import scratch
from tasks.campaigns import Refresh
from tasks.customers.staging import Staged, describe, folder_of
from tasks.policies import READ
from tasks.ui.console import Line


@task(**READ)
def extract_customers(crm: str, lake: str, refresh: Refresh) -> Staged:
    """The customer list as it is in the CRM, staged; a list already staged is kept as it is, so
    that a retry works on the same customers. Raises SourceError.
    """
    source = load(CrmSource, crm)
    store = load(DataLake, lake)
    path = f"{folder_of(refresh)}/extracted.parquet"
    with scratch("the customer list") as folder:
        local = folder / "extracted.parquet"
        if store.files.exists(path):
            store.files.get(path, local)
        else:
            with (
                Line(f"Extracting from {crm}") as line,
                watched(lambda rows: line.show(f"Extracting from {crm}, {rows:,} rows so far")),
            ):
                source.extract(local)
            store.files.put(local, path, private=True)
        staged = describe(local, path)
    get_run_logger().info("Extracted %s rows from %s", f"{staged.rows:,}", crm)
    return staged
