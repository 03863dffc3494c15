"""The proof at the end: group, list and lake hold the same customers."""

import polars as pl
from prefect import task
from prefect.logging import get_run_logger

from blocks import DataLake, NudgescribeAccount
from nudgescribe.contract import MESSAGE_COLUMNS
from nudgescribe.errors import NudgeflowError
from tasks.customers.staging import local_copy
from tasks.customers.upload import GroupRef
from tasks.customers.validate import Validated
from tasks.export.download import ExportRef
from tasks.export.ledger import Ledger
from tasks.export.verify import customer_ids
from tasks.policies import READ

ID = MESSAGE_COLUMNS[0]


class NotReconciled(NudgeflowError):
    advice = "The run was not made visible. Retry this flow run to fetch it again."


@task(**READ)
def reconcile(
    account: NudgescribeAccount,
    group: GroupRef,
    export: ExportRef,
    validated: Validated,
    lake: DataLake,
) -> None:
    """Proves that group, list and lake hold the same customers, each exactly once, before the run
    is made visible. Raises NotReconciled, saying by how much they differ.
    """
    if export.done:
        return
    with account.get_client() as client:
        total = client.count_customers(group.workspace_id, group.customer_group_id).total
    ledger = Ledger(lake.files, export.staging)
    found = pl.concat(ids for _, ids in customer_ids(lake, export, ledger.batches())).to_frame(ID)
    with local_copy(lake, validated.accepted) as accepted:
        wanted = pl.read_parquet(accepted, columns=[validated.key]).rename({validated.key: ID})
    missing = wanted.join(found, on=ID, how="anti").height
    unexpected = found.join(wanted, on=ID, how="anti").height
    repeated = found.height - found[ID].n_unique()
    if missing or unexpected or repeated or total != found.height:
        ledger.clear()
        raise NotReconciled(
            f"The group has {total:,} customers, the lake holds {found.height:,} rows: "
            f"{missing:,} customers are missing, {unexpected:,} do not belong there, "
            f"{repeated:,} are repeated."
        )
    get_run_logger().info("Group, list and lake agree on %s customers", f"{total:,}")
