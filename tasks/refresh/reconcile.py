"""Reconciliation of customer group, list and lake: all three hold the same customers."""

from collections.abc import Iterator
from pathlib import Path

import polars as pl
from prefect import task
from prefect.logging import get_run_logger

from blocks import DataLake, NudgescribeAccount
from blocks.storage.parquet import read_frames
from blocks.storage.scratch import scratch_folder
from nudgescribe.errors import NudgeflowError
from nudgescribe.identifiers import Counts, compare
from tasks.customers.staging import local_copy
from tasks.customers.upload import GroupRef
from tasks.customers.validate import Validated
from tasks.export.download import ExportRef
from tasks.export.ledger import Ledger
from tasks.export.verify import customer_ids
from tasks.policies import RETRIED


class NotReconciled(NudgeflowError):
    advice = "The run was not made visible. Retry this flow run to fetch it again."


@task(**RETRIED)
def reconcile(
    account: NudgescribeAccount,
    group: GroupRef,
    export: ExportRef,
    validated: Validated,
    lake: DataLake,
) -> None:
    """Check that group, list and lake hold the same customers, each exactly once, before the run
    is made visible. Raises NotReconciled with the numbers.
    """
    if export.done:
        return
    with account.get_client() as client:
        total = client.count_customers(group.workspace_id, group.customer_group_id).total
    ledger = Ledger(lake.files, export.staging)
    in_lake = (_identities(ids) for _, ids in customer_ids(lake, export, ledger.batches()))
    counts = Counts()
    with (
        local_copy(lake, validated.accepted) as accepted,
        scratch_folder("a reconciliation") as folder,
    ):
        for share in compare(_listed(accepted, validated.key), in_lake, folder):
            counts.add(share)
    rows = counts.total() - counts["removed"]
    if rows != counts["unchanged"] or counts["removed"] or total != rows:
        ledger.clear()
        raise NotReconciled(
            f"The group has {total:,} customers, the lake holds {rows:,} rows: "
            f"{counts['removed']:,} customers are missing, {counts['added']:,} are not in the "
            f"list, {counts['repeated']:,} are repeated."
        )
    get_run_logger().info("Group, list and lake agree on %s customers", f"{total:,}")


def _listed(accepted: Path, key: str) -> Iterator[pl.DataFrame]:
    return (_identities(frame[key]) for frame in read_frames(accepted))


def _identities(ids: pl.Series) -> pl.DataFrame:
    """Return customers without content, so that only their identifiers are compared."""
    return ids.to_frame("id").with_columns(content=pl.lit(0, pl.UInt64))
