"""The inventory of an account, as a snapshot in the lake."""

from prefect import flow

from blocks import DataLake, NudgescribeAccount
from flows.run.flow_run import check_reachable, this_run
from flows.run.parameters import tells_of_blocks
from tasks.inventory import Inventory, report_inventory, take_inventory
from tasks.journal.flow_runs import journaled
from tasks.ui import assets
from tasks.ui.signals import announce


@tells_of_blocks
@flow(
    name="campaign-inventory", flow_run_name="inventory-{account.block_name}", persist_result=False
)
def campaign_inventory(
    account: NudgescribeAccount,
    lake: DataLake,
    workspaces: list[str] = [],  # noqa: B006 - never changed
) -> Inventory:
    """Write a snapshot of all campaigns and their run history into the lake.

    A retry writes the same snapshot, unless it is complete already.

    Args:
        account: The Nudgescribe account.
        lake: The data lake.
        workspaces: IDs of the workspaces; all of the account's by default.
    """
    take = take_inventory.with_options(assets=[assets.inventory(lake, account)])
    check_reachable(lake)
    with journaled(lake, this_run(), resumable=True) as run:
        check_reachable(account)
        inventory = take(account, lake, workspaces, run)
        report_inventory(account, lake, inventory, run)
    for change in inventory.changes:
        announce(
            "campaign.status_changed",
            "campaign",
            change.campaign_id,
            change.occurrence,
            change.model_dump(),
        )
    facts = inventory.model_dump(exclude={"changes"})
    announce("inventory.taken", "account", account.block_name, run.id, facts)
    return inventory
