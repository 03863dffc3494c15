"""What an account has, kept day by day."""

from prefect import flow

from blocks import DataLake, NudgescribeAccount
from flows.run.flow_run import this_refresh
from tasks.inventory import Inventory, report_inventory, take_inventory
from tasks.ui import assets
from tasks.ui.events import announce


@flow(name="campaign-inventory", flow_run_name="inventory-{account.block_name}")
def campaign_inventory(
    account: NudgescribeAccount,
    lake: DataLake,
    workspaces: list[str] = [],  # noqa: B006 - never changed
) -> Inventory:
    """Writes all campaigns and their run history into the lake, as a snapshot of this moment.

    A retry writes the same snapshot; one that is there as a whole stays as it is.

    Args:
        account: The Nudgescribe account.
        lake: The data lake.
        workspaces: Ids of the workspaces; all of the account's by default.
    """
    me = this_refresh()
    taken = take_inventory.with_options(assets=[assets.inventory(lake, account)])
    inventory = taken(account, lake, workspaces, me)
    report_inventory(account, lake, inventory, me)
    announce("inventory.taken", "account", account.block_name, me.id, inventory.model_dump())
    return inventory
